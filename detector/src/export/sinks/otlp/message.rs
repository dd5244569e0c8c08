//! Lines as log records of OpenTelemetry's data model. The body is the line itself, chain included; the attributes are those
//! members that collectors route and search by, under the names of the semantic conventions where there are such.

use jiff::Timestamp;
use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber},
    resource::v1::Resource,
};
use serde_json::{Map, Value as Json};

use crate::{clock, export::sinks::event_line::EventLine};

/// A request with these lines, all of one node.
pub fn request(lines: Vec<Vec<u8>>) -> ExportLogsServiceRequest {
    let node = lines.first().map(|line| EventLine::of(line).node.into_owned()).unwrap_or_default();
    let resource = Resource {
        attributes: vec![
            text("service.name", "rosentry"),
            text("service.version", env!("CARGO_PKG_VERSION")),
            text("k8s.node.name", &node),
            text("host.name", &node),
        ],
        ..Resource::default()
    };
    let scope = InstrumentationScope {
        name: "rosentry".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    let now = u64::try_from(clock::unix_ns()).unwrap_or_default();
    let log_records = lines.into_iter().map(|line| record(line, now)).collect();
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(resource),
            scope_logs: vec![ScopeLogs { scope: Some(scope), log_records, ..ScopeLogs::default() }],
            ..ResourceLogs::default()
        }],
    }
}

fn record(line: Vec<u8>, now_unix_ns: u64) -> LogRecord {
    let event = EventLine::of(&line);
    let time: Option<Timestamp> = event.time.parse().ok();
    let (severity, severity_text) = severity(&event.severity);
    let mut attributes = vec![
        number("rosentry.seq", event.seq),
        number("rosentry.count", event.count),
        text("rosentry.kind", &event.kind),
    ];
    let plain = [("rosentry.operation", &event.operation), ("rosentry.outcome", &event.outcome)];
    attributes.extend(plain.into_iter().filter_map(|(name, value)| Some(text(name, value.as_deref()?))));
    for (object, members) in [
        (&event.pod, POD),
        (&event.container, CONTAINER),
        (&event.process, PROCESS),
        (&event.file, FILE),
        (&event.mount, MOUNT),
    ] {
        attributes.extend(object.iter().flat_map(|object| of_members(object, members)));
    }
    LogRecord {
        time_unix_nano: time.and_then(|time| u64::try_from(time.as_nanosecond()).ok()).unwrap_or_default(),
        observed_time_unix_nano: now_unix_ns,
        severity_number: severity.into(),
        severity_text: severity_text.to_owned(),
        event_name: format!("rosentry.{}", event.kind),
        attributes,
        // Whatever a container chose is escaped in the line; it is ASCII-safe UTF-8 by then.
        body: Some(AnyValue { value: Some(Value::StringValue(String::from_utf8_lossy(&line).into_owned())) }),
        ..LogRecord::default()
    }
}

/// Members of an object, and the attributes that they become.
type Members = &'static [(&'static str, &'static str)];

const POD: Members = &[("namespace", "k8s.namespace.name"), ("name", "k8s.pod.name"), ("uid", "k8s.pod.uid")];
const CONTAINER: Members = &[("name", "k8s.container.name"), ("id", "container.id"), ("image", "container.image.name")];
const PROCESS: Members = &[("pid", "process.pid"), ("comm", "process.command"), ("exe", "process.executable.path")];
const FILE: Members = &[("path", "file.path")];
const MOUNT: Members = &[("effect", "rosentry.mount.effect"), ("target", "rosentry.mount.target")];

fn of_members(object: &Map<String, Json>, members: Members) -> impl Iterator<Item = KeyValue> {
    members.iter().filter_map(|(member, name)| match object.get(*member)? {
        Json::String(value) => Some(text(name, value)),
        value => value.as_u64().map(|value| number(name, value)),
    })
}

fn severity(name: &str) -> (SeverityNumber, &str) {
    let number = match name {
        "info" => SeverityNumber::Info,
        "low" => SeverityNumber::Info2,
        "medium" => SeverityNumber::Warn,
        "high" => SeverityNumber::Error,
        "critical" => SeverityNumber::Fatal,
        _ => SeverityNumber::Unspecified,
    };
    (number, name)
}

fn text(name: &str, value: &str) -> KeyValue {
    attribute(name, Value::StringValue(value.to_owned()))
}

fn number(name: &str, value: u64) -> KeyValue {
    attribute(name, Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX)))
}

fn attribute(name: &str, value: Value) -> KeyValue {
    KeyValue { key: name.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::{
        native::NativeEncoder,
        testing::{start, touch},
    };

    fn records() -> (Vec<String>, ResourceLogs) {
        let mut encoder = NativeEncoder::new("n1");
        let mut text = Vec::new();
        encoder.encode(&start(), &mut text).unwrap();
        encoder.encode(&touch(), &mut text).unwrap();
        let lines: Vec<_> = std::str::from_utf8(&text).unwrap().lines().map(str::to_owned).collect();
        let mut request = request(lines.iter().map(|line| line.clone().into_bytes()).collect());
        (lines, request.resource_logs.remove(0))
    }

    fn value<'a>(attributes: &'a [KeyValue], name: &str) -> &'a Value {
        let found = attributes.iter().find(|attribute| attribute.key == name);
        found.unwrap_or_else(|| panic!("{name} is missing")).value.as_ref().unwrap().value.as_ref().unwrap()
    }

    #[test]
    fn the_body_is_the_line_and_the_attributes_are_what_it_says() {
        let (lines, logs) = records();
        assert_eq!(*value(&logs.resource.unwrap().attributes, "k8s.node.name"), Value::StringValue("n1".to_owned()));
        let touch = &logs.scope_logs[0].log_records[1];
        assert_eq!(touch.body.as_ref().unwrap().value, Some(Value::StringValue(lines[1].clone())));
        assert_eq!(touch.time_unix_nano, 1_767_323_045_123_456_789);
        assert_eq!((touch.severity_number(), touch.severity_text.as_str()), (SeverityNumber::Info2, "low"));
        assert_eq!(touch.event_name, "rosentry.write_denied");
        for (name, expected) in [
            ("k8s.namespace.name", "prod"),
            ("k8s.pod.name", "web-abc12-x"),
            ("k8s.container.name", "app"),
            ("file.path", "/etc/x"),
            ("process.executable.path", "/bin/busybox"),
            ("rosentry.operation", "open"),
        ] {
            assert_eq!(*value(&touch.attributes, name), Value::StringValue(expected.to_owned()), "{name}");
        }
        assert_eq!(*value(&touch.attributes, "rosentry.seq"), Value::IntValue(2));
    }

    #[test]
    fn what_the_agent_says_of_itself_has_no_pod() {
        let (_, logs) = records();
        let start = &logs.scope_logs[0].log_records[0];
        assert!(start.attributes.iter().all(|attribute| attribute.key.starts_with("rosentry.")));
    }

    #[test]
    fn a_line_that_is_no_event_is_sent_as_it_is() {
        let record = record(b"{\"seq\":1".to_vec(), 7);
        assert_eq!(record.body.unwrap().value, Some(Value::StringValue("{\"seq\":1".to_owned())));
        assert_eq!((record.time_unix_nano, record.observed_time_unix_nano), (0, 7));
    }
}
