//! Elastic Common Schema 8.11: <https://www.elastic.co/guide/en/ecs/8.11/ecs-field-reference.html>. What it has no field for stands below
//! `rosentry`.

use serde_json::{Value, json};

use super::{Native, folder, known, name};

const VERSION: &str = "8.11.0";

/// With nothing but the line itself.
pub(super) fn bare(native: &Native<'_>) -> Value {
    known(json!({
        "@timestamp": native.get(&["time"]),
        "ecs": {"version": VERSION},
        "event": {"kind": "event", "module": "rosentry", "original": native.line},
        "host": {"name": native.get(&["node"])},
    }))
}

/// An event.
pub(super) fn event(native: &Native<'_>) -> Value {
    let path = native.path();
    let (category, kind_of_change) = category(native);
    let techniques = native.get(&["attack"]).as_array().cloned().unwrap_or_default();
    let technique = |id: &Value| id.as_str().map(|id| id.split('.').next().unwrap_or(id).to_owned());
    let mut ids: Vec<_> = techniques.iter().filter_map(technique).collect();
    ids.dedup();
    let parts: Vec<_> = techniques.iter().filter(|id| id.as_str().is_some_and(|id| id.contains('.'))).collect();
    let file = if native.get(&["file"]).is_null() && path.is_null() {
        Value::Null
    } else {
        json!({
            "path": path,
            "name": name(path),
            "directory": folder(path),
            "mode": native.get(&["file", "mode"]),
            "target_path": native.get(&["file", "link_target"]),
        })
    };
    known(json!({
        "@timestamp": native.get(&["time"]),
        "ecs": {"version": VERSION},
        "message": native.message(),
        "event": {
            "kind": kind(native),
            "category": [category],
            "type": [kind_of_change],
            "outcome": outcome(native),
            "action": native.get(&["kind"]),
            "severity": severity(native),
            "sequence": native.get(&["seq"]),
            "start": native.get(&["first_time"]),
            "end": native.get(&["last_time"]),
            "id": native.get(&["chain"]),
            "module": "rosentry",
            "dataset": "rosentry.events",
            "original": native.line,
        },
        "agent": {"type": "rosentry", "version": env!("CARGO_PKG_VERSION")},
        "host": {"name": native.get(&["node"]), "hostname": native.get(&["node"])},
        "rule": {"name": native.get(&["rule"])},
        "threat": if ids.is_empty() {
            Value::Null
        } else {
            json!({"framework": "MITRE ATT&CK", "technique": {"id": ids, "subtechnique": {"id": parts}}})
        },
        "file": file,
        "process": process(native),
        "user": {
            "id": id(native.get(&["process", "uid"])),
            "group": {"id": id(native.get(&["process", "gid"]))},
        },
        "container": {
            "id": native.get(&["container", "id"]),
            "name": native.get(&["container", "name"]),
            "image": {
                "name": native.get(&["container", "image"]),
                "hash": {"all": [native.get(&["container", "image_digest"])]},
            },
            "security_context": {"privileged": native.get(&["container", "privileged"])},
        },
        "orchestrator": orchestrator(native),
        "rosentry": native.own(),
    }))
}

fn kind(native: &Native<'_>) -> &'static str {
    match (native.kind(), native.text(&["severity"])) {
        ("agent", _) => "event",
        (_, "medium" | "high" | "critical") => "alert",
        ("seal_broken" | "seal_mended", _) => "state",
        _ => "event",
    }
}

/// The numbers that Elastic's own rules give severities.
fn severity(native: &Native<'_>) -> u64 {
    match native.text(&["severity"]) {
        "critical" => 99,
        "high" => 73,
        "medium" => 47,
        "low" => 21,
        _ => 0,
    }
}

/// `event.category`, and the one of its values of `event.type`.
fn category(native: &Native<'_>) -> (&'static str, &'static str) {
    match native.kind() {
        "mount_attempt" | "seal_broken" | "seal_mended" => ("configuration", "change"),
        "agent" => match native.text(&["agent", "what"]) {
            "start" => ("process", "start"),
            "stop" => ("process", "end"),
            _ => ("process", "info"),
        },
        _ => match native.text(&["operation"]) {
            "mkdir" | "link" | "symlink" | "mknod" | "bind" => ("file", "creation"),
            "open" if native.creates() => ("file", "creation"),
            "rmdir" | "unlink" => ("file", "deletion"),
            _ => ("file", "change"),
        },
    }
}

fn outcome(native: &Native<'_>) -> &'static str {
    match native.text(&["outcome"]) {
        "succeeded" => "success",
        "denied" | "failed" => "failure",
        _ => "unknown",
    }
}

fn process(native: &Native<'_>) -> Value {
    let process = native.get(&["process"]);
    if process.is_null() {
        return Value::Null;
    }
    let of = |member: &str| process.get(member).unwrap_or(&Value::Null);
    let parent = of("ancestors").get(0).filter(|parent| parent.get("pid") == process.get("ppid"));
    let of_parent = |member: &str| parent.and_then(|parent| parent.get(member)).unwrap_or(&Value::Null);
    json!({
        "pid": of("pid"),
        "name": if of("exe").is_null() { of("comm").clone() } else { name(of("exe")) },
        "executable": of("exe"),
        "args": of("args"),
        "args_count": of("args").as_array().map(Vec::len),
        "working_directory": of("cwd"),
        "start": of("start_time"),
        "thread": {"id": of("tid"), "name": of("comm")},
        "user": {"id": id(of("uid"))},
        "parent": {
            "pid": of("ppid"),
            "name": if of_parent("exe").is_null() { of_parent("comm").clone() } else { name(of_parent("exe")) },
            "executable": of_parent("exe"),
        },
    })
}

fn orchestrator(native: &Native<'_>) -> Value {
    let pod = native.get(&["pod"]);
    if pod.is_null() {
        return Value::Null;
    }
    let labels = pod.get("labels").and_then(Value::as_object);
    let labels: Vec<_> = labels
        .into_iter()
        .flatten()
        .map(|(label, value)| format!("{label}:{}", value.as_str().unwrap_or_default()))
        .collect();
    json!({
        "type": "kubernetes",
        "namespace": pod.get("namespace"),
        "resource": {"type": "pod", "name": pod.get("name"), "id": pod.get("uid"), "label": labels},
    })
}

/// Ids are text in ECS.
fn id(number: &Value) -> Value {
    number.as_u64().map_or(Value::Null, |number| number.to_string().into())
}
