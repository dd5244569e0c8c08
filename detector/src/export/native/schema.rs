//! The JSON Schema of the format, made of the types that write it; docs/schema/ has what users read.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings, json_schema};
use serde_json::{Value, json};

use super::{AgentLine, Line, Text, Time, Word};
use crate::{
    export::{
        chain::End,
        native::NativeEncoder,
        testing::{event_in, observed, remount, start, touch},
    },
    finding::{
        event::{AgentWhat, Effect, Named},
        seal::{self, Breach, Change},
        testing::{attempt, judged, sealed},
    },
};

/// What users read.
const COMMITTED: &str = include_str!("../../../../docs/schema/rosentry-v1.schema.json");

/// A line: what an event tells, and what its place in a stream adds.
#[derive(JsonSchema)]
#[schemars(rename = "Event")]
#[expect(dead_code, reason = "its fields are read by the derived schema alone")]
struct Document<'a> {
    #[schemars(extend("const" = super::SCHEMA))]
    schema: &'a str,
    #[schemars(range(min = 1))]
    seq: u64,
    #[serde(flatten)]
    line: Line<'a>,
    /// What the first line of a run or a file follows; null where the stream begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    previous: Option<End>,
    #[schemars(regex(pattern = r"^[0-9a-f]{64}$"))]
    chain: &'a str,
}

/// Text of the outside world, escaped.
impl JsonSchema for Text<'_> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Text".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string"})
    }
}

impl JsonSchema for Time {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "date-time"})
    }
}

impl<T: Named> JsonSchema for Word<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Word".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let mut words: Vec<_> = T::WORDS.iter().map(|value| value.word()).collect();
        words.sort_unstable();
        words.dedup();
        json_schema!({"type": "string", "enum": words})
    }
}

impl JsonSchema for AgentLine<'_> {
    fn schema_name() -> Cow<'static, str> {
        "Agent".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let what = Word::<AgentWhat>::json_schema(generator);
        json_schema!({"type": "object", "required": ["what"], "properties": {"what": what}, "additionalProperties": true})
    }
}

fn generated() -> Value {
    let mut schema = SchemaSettings::draft2020_12().for_serialize().into_generator().into_root_schema_for::<Document>();
    schema.insert("title".to_owned(), json!("An event of rosentry, schema rosentry/v1"));
    schema.insert(
        "$id".to_owned(),
        json!("https://github.com/rosentry/rosentry/blob/main/docs/schema/rosentry-v1.schema.json"),
    );
    schema.into()
}

/// The schema with every object closed: what it does not name is not there.
fn closed(mut schema: Value) -> Value {
    if let Some(object) = schema.as_object_mut() {
        if object.contains_key("properties") && !object.contains_key("additionalProperties") {
            object.insert("additionalProperties".to_owned(), json!(false));
        }
        object.values_mut().for_each(|value| *value = closed(value.take()));
    } else if let Some(array) = schema.as_array_mut() {
        array.iter_mut().for_each(|value| *value = closed(value.take()));
    }
    schema
}

#[test]
fn the_documented_schema_is_that_of_the_types() {
    let text = format!("{}\n", serde_json::to_string_pretty(&generated()).unwrap());
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/schema/rosentry-v1.schema.json");
    if std::env::var_os("ROSENTRY_WRITE_SCHEMA").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    assert!(
        std::fs::read_to_string(path).unwrap() == text,
        "the types have changed: run this test with ROSENTRY_WRITE_SCHEMA=1, and look whether the change only adds"
    );
}

#[test]
fn every_sort_of_event_is_as_the_schema_says_and_has_no_member_that_it_does_not_name() {
    let schema = closed(serde_json::from_str(COMMITTED).unwrap());
    let validator = jsonschema::validator_for(&schema).unwrap();
    let breach = Breach { point: b"/".to_vec(), fstype: b"overlay".to_vec(), effect: Effect::Unseal, cause: None };
    let broken = Change { breach, since_unix_ns: 0, mended_unix_ns: None };
    let mended = Change { mended_unix_ns: Some(9), ..broken.clone() };
    let mut cut = attempt("rename").path("/a").path2("/b");
    cut.path.truncated = true;
    cut.process.args_truncated = true;
    let mut expected = touch();
    expected.expected = true;
    let mut xattr = attempt("setxattr").path("/x");
    xattr.data = Some(b"user.x".to_vec());
    let mut encoder = NativeEncoder::new("n1");
    let mut lines = Vec::new();
    for event in [
        start(),
        touch(),
        observed(),
        expected,
        remount(),
        event_in(&cut, None),
        event_in(&xattr, Some(&sealed())),
        event_in(&attempt("symlink").path("/l").source("x"), Some(&sealed())),
        event_in(&attempt("openat").arg(2, 1).path("/etc/app/x"), Some(&sealed())),
        judged(seal::event(&sealed(), broken)),
        judged(seal::event(&sealed(), mended)),
    ] {
        encoder.encode(&event, &mut lines).unwrap();
    }
    for line in std::str::from_utf8(&lines).unwrap().lines() {
        let faults: Vec<_> =
            validator.iter_errors(&serde_json::from_str(line).unwrap()).map(|fault| fault.to_string()).collect();
        assert!(faults.is_empty(), "{faults:?}\n{line}");
    }
}

#[test]
fn the_schema_refuses_what_is_no_event() {
    let validator = jsonschema::validator_for(&serde_json::from_str(COMMITTED).unwrap()).unwrap();
    let mut encoder = NativeEncoder::new("n1");
    let mut line = Vec::new();
    encoder.encode(&touch(), &mut line).unwrap();
    let event: Value = serde_json::from_slice(&line).unwrap();
    assert!(validator.is_valid(&event));
    let with = |member: &str, value: Value| {
        let mut event = event.clone();
        event[member] = value;
        event
    };
    assert!(validator.is_valid(&with("new_member", json!(1))), "members may be added within a version");
    for (member, value) in [
        ("schema", json!("rosentry/v2")),
        ("seq", json!(0)),
        ("kind", json!("write")),
        ("severity", json!("bad")),
        ("time", Value::Null),
        ("chain", json!("x")),
        ("mount", json!({"kind": "rootfs"})),
        ("process", json!({})),
    ] {
        assert!(!validator.is_valid(&with(member, value.clone())), "{member}: {value}");
    }
    let mut without = event;
    without.as_object_mut().unwrap().remove("hint");
    assert!(!validator.is_valid(&without), "what is not known is null");
}
