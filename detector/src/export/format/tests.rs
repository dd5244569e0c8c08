//! Tests of [`super`]: every sort of event against the published schemas, in detector/tests/schemas.

use std::collections::HashMap;

use detector_common::syscalls::SYSCALLS;

use super::*;
use crate::{
    export::{
        NativeEncoder,
        testing::{event_in, observed, remount, start, touch},
    },
    finding::{
        Event,
        event::{AgentNote, AgentValue, AgentWhat, Effect, Severity},
        seal::{self, Breach, Cause, Change},
        testing::{attempt, judged, sealed},
    },
};

fn line(event: &Event) -> Vec<u8> {
    let mut line = Vec::new();
    NativeEncoder::new("n1").encode(event, &mut line).unwrap();
    line.pop();
    line
}

/// Native lines of every sort: of each syscall, with all and with nothing known, of seals and of the agent.
fn lines() -> Vec<Vec<u8>> {
    let breach = Breach {
        point: b"/".to_vec(),
        fstype: b"overlay".to_vec(),
        effect: Effect::Unseal,
        cause: Some(Cause::Remount),
    };
    let broken = Change { breach, since_unix_ns: 1_700_000_000_000_000_000, mended_unix_ns: None };
    let mended = Change { mended_unix_ns: Some(1_700_000_001_000_000_000), ..broken.clone() };
    let agent = |what| {
        let details = vec![("events", AgentValue::Counts(vec![("ring".to_owned(), 3)]))];
        Event::agent(AgentNote { what, details }, 0, Severity::Medium)
    };
    let mut events = vec![
        start(),
        touch(),
        observed(),
        remount(),
        Event { expected: true, count: 7, ..touch() },
        judged(seal::event(&sealed(), broken)),
        judged(seal::event(&sealed(), mended)),
    ];
    events.extend([AgentWhat::Stop, AgentWhat::Coverage, AgentWhat::Lost, AgentWhat::Gap].map(agent));
    let hostile = "/tmp/\u{7f}\n\"\\\u{202e}";
    for row in SYSCALLS {
        for container in [Some(&sealed()), None] {
            events.push(event_in(&attempt(row.name), container));
            let mut known =
                attempt(row.name).path("/usr/bin/x").path2(hostile).source("s").by("wget", &["wget", "a b"]);
            known.data = Some(b"user.x".to_vec());
            known.process.user_ns_level = 1;
            events.push(event_in(&known, container));
        }
    }
    events.iter().map(line).collect()
}

fn rendered(format: Format, line: &[u8]) -> Value {
    let rendered = format.render(line);
    assert!(!rendered.contains(&b'\n'));
    serde_json::from_slice(&rendered).unwrap()
}

/// Name of a field: its type, whether it is an array, its allowed values, each with those of `event.type`.
type Fields<'a> = HashMap<&'a str, (&'a str, bool, Vec<(&'a str, Vec<&'a str>)>)>;

const ECS: &str = include_str!("../../../tests/schemas/ecs-8.11.0.tsv");

fn fields() -> Fields<'static> {
    let field = |row: &'static str| {
        let mut cells = row.split('\t');
        let mut cell = || cells.next().unwrap();
        let (name, kind, array, allowed) = (cell(), cell(), cell(), cell());
        let value = |value: &'static str| match value.split_once(':') {
            Some((value, types)) => (value, types.split('/').collect()),
            None => (value, Vec::new()),
        };
        let allowed = allowed.split(',').filter(|value| !value.is_empty()).map(value).collect();
        (name, (kind, array == "array", allowed))
    };
    ECS.lines().map(field).collect()
}

/// What of the value is not as ECS says.
fn faults(fields: &Fields<'_>, name: &str, value: &Value, found: &mut Vec<String>) {
    if let (Value::Object(members), false) = (value, fields.contains_key(name)) {
        for (member, value) in members {
            let name = if name.is_empty() { member.clone() } else { format!("{name}.{member}") };
            if name != "rosentry" {
                faults(fields, &name, value, found);
            }
        }
        return;
    }
    let Some((kind, is_array, allowed)) = fields.get(name) else {
        return found.push(format!("{name} is no field"));
    };
    if value.is_array() != *is_array {
        found.push(format!("{name} is an array, or should be one"));
    }
    let values = value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
    for value in values {
        let fits = match *kind {
            "keyword" | "wildcard" | "match_only_text" => value.is_string(),
            "long" => value.is_i64() || value.is_u64(),
            "boolean" => value.is_boolean(),
            "date" => value.as_str().is_some_and(|time| time.parse::<jiff::Timestamp>().is_ok()),
            other => panic!("{name} is of the type {other}, which is not looked at"),
        };
        let is_allowed = allowed.is_empty() || allowed.iter().any(|(allowed, _)| value == *allowed);
        if !fits || !is_allowed {
            found.push(format!("{name} is {value}"));
        }
    }
}

#[test]
fn every_event_has_only_fields_of_ecs_and_values_that_it_allows() {
    let fields = fields();
    assert!(fields.len() > 1500);
    for line in lines() {
        let event = rendered(Format::Ecs, &line);
        let mut found = Vec::new();
        faults(&fields, "", &event, &mut found);
        assert!(found.is_empty(), "{found:?}\n{event}");
        let (_, _, categories) = &fields["event.category"];
        for category in event["event"]["category"].as_array().unwrap() {
            let (_, types) = categories.iter().find(|(name, _)| category == *name).unwrap();
            for of_event in event["event"]["type"].as_array().unwrap() {
                assert!(types.iter().any(|name| of_event == *name), "{category} has no {of_event}");
            }
        }
        for required in ["@timestamp", "message"] {
            assert!(event[required].is_string(), "{required}: {event}");
        }
        assert_eq!(event["ecs"]["version"], "8.11.0");
    }
}

#[test]
fn a_field_that_ecs_does_not_have_is_found() {
    let mut event = rendered(Format::Ecs, &line(&touch()));
    event["file"]["colour"] = json!("red");
    event["event"]["kind"] = json!("finding");
    event["event"]["category"] = json!("file");
    event["process"]["pid"] = json!("1");
    let mut found = Vec::new();
    faults(&fields(), "", &event, &mut found);
    assert_eq!(found.len(), 4, "{found:?}");
}

#[test]
fn a_refused_write_is_told_in_the_words_of_ecs() {
    let event = rendered(Format::Ecs, &line(&touch()));
    assert_eq!(event["message"], "open of /etc/x denied (EROFS) in prod/web-abc12-x");
    assert_eq!(
        (&event["event"]["kind"], &event["event"]["type"], &event["event"]["outcome"]),
        (&json!("event"), &json!(["creation"]), &json!("failure"))
    );
    assert_eq!(event["file"], json!({"path": "/etc/x", "name": "x", "directory": "/etc", "mode": "0644"}));
    assert_eq!((&event["process"]["name"], &event["process"]["parent"]["name"]), (&json!("busybox"), &json!("sh")));
    assert_eq!(event["orchestrator"]["resource"]["label"], json!(["app:web"]));
    assert_eq!((&event["rosentry"]["category"], &event["rule"]["name"]), (&json!("config"), &json!("configuration")));
    assert_eq!(rendered(Format::Ecs, &line(&remount()))["threat"]["technique"]["id"], json!(["T1562"]));
}

fn validators() -> HashMap<u64, jsonschema::Validator> {
    [
        (1001, include_str!("../../../tests/schemas/ocsf-1.3.0-file_activity.json")),
        (2004, include_str!("../../../tests/schemas/ocsf-1.3.0-detection_finding.json")),
        (6002, include_str!("../../../tests/schemas/ocsf-1.3.0-application_lifecycle.json")),
    ]
    .map(|(uid, schema)| (uid, jsonschema::validator_for(&serde_json::from_str(schema).unwrap()).unwrap()))
    .into()
}

#[test]
fn every_event_is_as_its_class_of_ocsf_says() {
    let validators = validators();
    let mut seen = HashMap::new();
    for line in lines() {
        let event = rendered(Format::Ocsf, &line);
        let class = event["class_uid"].as_u64().unwrap();
        let found: Vec<_> = validators[&class]
            .iter_errors(&event)
            .map(|fault| format!("{fault} at {}", fault.instance_path()))
            .collect();
        assert!(found.is_empty(), "{found:?}\n{event}");
        let activity = event["activity_id"].as_u64().unwrap();
        assert_eq!(event["type_uid"], class * 100 + activity);
        assert_eq!(event["category_uid"], class / 1000);
        assert!(activity != OTHER_ACTIVITY || event["activity_name"].is_string(), "{event}");
        *seen.entry((class, activity)).or_insert(0) += 1;
    }
    for activity in
        [(1001, 1), (1001, 4), (1001, 5), (1001, 7), (1001, 12), (1001, 13), (2004, 1), (2004, 3), (6002, 3), (6002, 4)]
    {
        assert!(seen.contains_key(&activity), "{activity:?} of {seen:?}");
    }
}

const OTHER_ACTIVITY: u64 = 99;

#[test]
fn what_ocsf_does_not_know_is_found() {
    let mut event = rendered(Format::Ocsf, &line(&touch()));
    assert!(validators()[&1001].is_valid(&event));
    for (member, value) in
        [("colour", json!("red")), ("severity_id", json!(7)), ("actor", json!({})), ("time", json!("now"))]
    {
        let was = event[member].clone();
        event[member] = value;
        assert!(!validators()[&1001].is_valid(&event), "{member}");
        if was.is_null() {
            event.as_object_mut().unwrap().remove(member);
        } else {
            event[member] = was;
        }
    }
    assert!(validators()[&1001].is_valid(&event));
}

#[test]
fn a_refused_write_is_told_in_the_words_of_ocsf() {
    let event = rendered(Format::Ocsf, &line(&touch()));
    assert_eq!((&event["activity_id"], &event["status_code"]), (&json!(1), &json!("EROFS")));
    assert_eq!((&event["action_id"], &event["disposition_id"], &event["status_id"]), (&json!(2), &json!(2), &json!(2)));
    assert_eq!(event["time"], 1_767_323_045_123_u64);
    assert_eq!(event["file"], json!({"name": "x", "path": "/etc/x", "parent_folder": "/etc", "type_id": 0}));
    assert_eq!(event["actor"]["process"]["container"]["pod_uuid"], Value::Null, "`u-1` is no UUID");
    let uid = "0aa11122-1111-2222-3333-444455556666";
    let with_uid = String::from_utf8(line(&touch())).unwrap().replace("\"u-1\"", &format!("\"{uid}\""));
    assert_eq!(rendered(Format::Ocsf, with_uid.as_bytes())["actor"]["process"]["container"]["pod_uuid"], uid);
    assert_eq!(event["unmapped"]["rosentry"]["category"], "config");
}

#[test]
fn every_line_carries_the_native_one_and_begins_as_ours_do() {
    for line in lines() {
        for format in [Format::Native, Format::Ecs, Format::Ocsf] {
            let rendered = format.render(&line);
            assert!(is_ours(&rendered) && (1..60).all(|length| is_ours(&rendered[..length])), "{format:?}");
            let carried = original(&rendered);
            assert_eq!(carried.as_deref().unwrap_or(&rendered), line, "{format:?}");
            assert_eq!(carried.is_none(), format == Format::Native);
        }
    }
}

#[test]
fn no_line_is_longer_than_it_is_said_to_be() {
    let mut quotes = touch();
    quotes.file.as_mut().unwrap().path = Some([b"/".as_slice(), &[b'"'; 4095]].concat());
    quotes.file.as_mut().unwrap().requested = Some(vec![b'\\'; 4096]);
    quotes.process.as_mut().unwrap().args = vec![vec![b'\\'; 300]; 20];
    let mut huge = touch();
    huge.file.as_mut().unwrap().path = Some(vec![b'"'; 500 << 10]);
    for event in [touch(), remount(), start(), quotes, huge] {
        let body = Body::of(&event, "n1").unwrap();
        for format in [Format::Native, Format::Ecs, Format::Ocsf] {
            let line = line(&event);
            let rendered = format.render(&line);
            let most = format.line_bytes_max(&body);
            assert!(rendered.len() < most, "{format:?}: {} of {most}", rendered.len());
            assert_eq!(original(&rendered).as_deref().unwrap_or(&rendered), line);
        }
    }
}

#[test]
fn what_is_no_event_goes_out_as_it_is_and_carries_nothing() {
    for format in [Format::Native, Format::Ecs, Format::Ocsf] {
        assert_eq!(&*format.render(b"no event"), b"no event");
    }
    for line in [
        r#"{"@timestamp":"x","event":{"original":"not ours"}}"#,
        r#"{"action_id":1,"raw_data":7}"#,
        r#"{"@timestamp":"x"}"#,
        "{\"@timestamp\":\"",
        "",
    ] {
        assert_eq!(original(line.as_bytes()), None, "{line}");
    }
}
