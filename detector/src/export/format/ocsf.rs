//! Open Cybersecurity Schema Framework 1.3: <https://schema.ocsf.io/1.3.0>. Writes and mount attempts are File System Activity (1001), seals
//! Detection Findings (2004), and what rosentry says of itself Application Lifecycle (6002). What those have no attribute for stands
//! below `unmapped.rosentry`.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Native, folder, known, name};

const VERSION: &str = "1.3.0";

/// A class: its id, its category's, the activity's and that one's name where the schema has none.
struct Class {
    uid: u64,
    category: u64,
    activity: u64,
    other: Option<String>,
}

const OTHER: u64 = 99;

/// With nothing but the line itself.
pub(super) fn bare(native: &Native<'_>) -> Value {
    known(json!({
        "action_id": 0,
        "activity_id": OTHER,
        "actor": {"app_name": "rosentry"},
        "category_uid": 1,
        "class_uid": 1001,
        "type_uid": 100_199,
        "device": device(native),
        "file": {"name": "", "type_id": 0},
        "metadata": metadata(native, &[]),
        "severity_id": severity(native),
        "time": milliseconds(native, "time"),
        "raw_data": native.line,
    }))
}

/// An event.
pub(super) fn event(native: &Native<'_>) -> Value {
    let class = class(native);
    let Class { uid, category, activity, other } = &class;
    let mut event = json!({
        "activity_id": activity,
        "activity_name": other,
        "category_uid": category,
        "class_uid": uid,
        "type_uid": uid * 100 + activity,
        "time": milliseconds(native, "time"),
        "start_time": milliseconds(native, "first_time"),
        "end_time": milliseconds(native, "last_time"),
        "count": native.get(&["count"]),
        "severity": native.get(&["severity"]),
        "severity_id": severity(native),
        "message": native.message(),
        "device": device(native),
        "metadata": metadata(native, if *uid == APPLICATION { &["host"] } else { &["container", "host", "security_control"] }),
        "raw_data": native.line,
        "unmapped": {"rosentry": native.own()},
    });
    let more = match *uid {
        APPLICATION => json!({"app": product()}),
        FINDING => of_seal(native),
        _ => of_attempt(native),
    };
    if let (Some(event), Value::Object(more)) = (event.as_object_mut(), more) {
        event.extend(more);
    }
    known(event)
}

const FILE: u64 = 1001;
const FINDING: u64 = 2004;
const APPLICATION: u64 = 6002;

fn class(native: &Native<'_>) -> Class {
    let (operation, what) = (native.text(&["operation"]), native.text(&["agent", "what"]));
    let file = |activity| Class { uid: FILE, category: 1, activity, other: None };
    let application = |activity| Class { uid: APPLICATION, category: 6, activity, other: None };
    let finding = |activity| Class { uid: FINDING, category: 2, activity, other: None };
    match (native.kind(), operation) {
        ("agent", _) => match what {
            "start" => application(3),
            "stop" => application(4),
            _ => Class { other: Some(what.to_owned()), ..application(OTHER) },
        },
        ("seal_broken", _) => finding(1),
        ("seal_mended", _) => finding(3),
        ("mount_attempt", "umount") => file(13),
        ("mount_attempt", "mount" | "bind" | "move" | "move_mount" | "remount" | "mount_setattr") => file(12),
        ("mount_attempt", _) => Class { other: Some(operation.to_owned()), ..file(OTHER) },
        (_, "open") if !native.creates() => file(14),
        (_, "open" | "mkdir" | "link" | "symlink" | "mknod" | "bind") => file(1),
        (_, "truncate") => file(3),
        (_, "rmdir" | "unlink") => file(4),
        (_, "rename") => file(5),
        (_, "utimes" | "setxattr" | "removexattr" | "setflags") => file(6),
        (_, "chmod" | "chown") => file(7),
        _ => Class { other: Some(operation.to_owned()), ..file(OTHER) },
    }
}

fn of_attempt(native: &Native<'_>) -> Value {
    let outcome = native.text(&["outcome"]);
    let (action, disposition, status) = match outcome {
        "denied" => (2, 2, 2),
        "succeeded" => (1, 1, 1),
        // It failed for a reason of its own, which is no decision about it.
        "failed" => (0, 27, 2),
        _ => (0, 0, 0),
    };
    let new_path = native.get(&["file", "new_path"]);
    json!({
        "action_id": action,
        "disposition_id": disposition,
        "status_id": status,
        "status": outcome,
        "status_code": native.get(&["errno"]),
        "status_detail": native.get(&["hint"]),
        "actor": actor(native),
        "file": file(native, native.path()),
        "file_result": if new_path.is_null() { Value::Null } else { file(native, new_path) },
        "attacks": attacks(native),
    })
}

fn of_seal(native: &Native<'_>) -> Value {
    let [point, container] = [["mount", "point"], ["container", "id"]].map(|path| native.text(&path));
    json!({
        "action_id": 0,
        "finding_info": {
            "title": "A root filesystem that was declared read-only is writable",
            "uid": format!("{container}:{point}"),
            "desc": native.get(&["hint"]),
            "types": [native.get(&["mount", "effect"])],
            "first_seen_time": milliseconds(native, "first_time"),
            "last_seen_time": milliseconds(native, "last_time"),
        },
        "resources": [{
            "type": "container",
            "uid": container,
            "name": native.get(&["container", "name"]),
            "namespace": native.get(&["pod", "namespace"]),
        }],
        "attacks": attacks(native),
    })
}

fn severity(native: &Native<'_>) -> u64 {
    match native.text(&["severity"]) {
        "critical" => 5,
        "high" => 4,
        "medium" => 3,
        "low" => 2,
        "info" => 1,
        _ => 0,
    }
}

fn milliseconds(native: &Native<'_>, member: &str) -> Value {
    native.text(&[member]).parse::<Timestamp>().map_or(Value::Null, |time| time.as_millisecond().into())
}

fn product() -> Value {
    json!({"name": "rosentry", "vendor_name": "rosentry", "version": env!("CARGO_PKG_VERSION")})
}

fn metadata(native: &Native<'_>, profiles: &[&str]) -> Value {
    json!({
        "version": VERSION,
        "product": product(),
        "profiles": profiles,
        "uid": native.get(&["chain"]),
        "sequence": native.get(&["seq"]),
        "event_code": native.get(&["kind"]),
        "log_version": native.get(&["schema"]),
        "original_time": native.get(&["time"]),
    })
}

/// The node. What kind of machine it is, nobody has said.
fn device(native: &Native<'_>) -> Value {
    json!({"type_id": 0, "hostname": native.get(&["node"]), "name": native.get(&["node"])})
}

fn file(native: &Native<'_>, path: &Value) -> Value {
    // The root's own name, and that of what is not known.
    let name = match name(path) {
        Value::Null => path.as_str().unwrap_or_default().into(),
        name => name,
    };
    let kind = match native.text(&["operation"]) {
        "mkdir" | "rmdir" if native.kind() != "mount_attempt" => 2,
        "symlink" => 7,
        _ => 0,
    };
    json!({"name": name, "path": path, "parent_folder": folder(path), "type_id": kind})
}

fn attacks(native: &Native<'_>) -> Vec<Value> {
    let attack = |id: &Value| match id.as_str()?.split_once('.') {
        Some((technique, _)) => Some(json!({"technique": {"uid": technique}, "sub_technique": {"uid": id}})),
        None => Some(json!({"technique": {"uid": id}})),
    };
    native.get(&["attack"]).as_array().into_iter().flatten().filter_map(attack).collect()
}

fn actor(native: &Native<'_>) -> Value {
    let process = native.get(&["process"]);
    if process.is_null() {
        return json!({"app_name": "unknown"});
    }
    let of = |member: &str| process.get(member).unwrap_or(&Value::Null);
    let executable = |path: &Value| match name(path) {
        Value::Null => Value::Null,
        name => json!({"name": name, "path": path, "type_id": 1}),
    };
    let ancestors = of("ancestors").as_array().map(Vec::as_slice).unwrap_or_default();
    let parent = ancestors.first().filter(|parent| parent.get("pid") == process.get("ppid"));
    let of_parent = |member: &str| parent.and_then(|parent| parent.get(member)).unwrap_or(&Value::Null);
    let lineage: Vec<_> = ancestors.iter().filter_map(|ancestor| ancestor.get("exe")).collect();
    let user = of("uid").as_u64().map(|uid| json!({"uid": uid.to_string()}));
    let start: Option<Timestamp> = of("start_time").as_str().and_then(|time| time.parse().ok());
    json!({"process": {
        "pid": of("pid"),
        "tid": of("tid"),
        "namespace_pid": of("container_pid"),
        "name": of("comm"),
        "cmd_line": command_line(of("args")),
        "file": executable(of("exe")),
        "user": user,
        "created_time": start.map(Timestamp::as_millisecond),
        "lineage": lineage,
        "parent_process": {"pid": of("ppid"), "name": of_parent("comm"), "file": executable(of_parent("exe"))},
        "container": container(native),
    }})
}

/// The arguments, between spaces: the native line has them apart.
fn command_line(args: &Value) -> Option<String> {
    let args = args.as_array()?.iter().filter_map(Value::as_str).collect::<Vec<_>>();
    (!args.is_empty()).then(|| args.join(" "))
}

fn container(native: &Native<'_>) -> Value {
    let of = |member: &str| native.get(&["container", member]);
    if of("id").is_null() {
        return Value::Null;
    }
    // An image is known by its digest, else by what it is called.
    let digest = if of("image_digest").is_null() { of("image") } else { of("image_digest") };
    json!({
        "uid": of("id"),
        "name": of("name"),
        "image": if digest.is_null() { Value::Null } else { json!({"uid": digest, "name": of("image")}) },
        "orchestrator": if native.get(&["pod"]).is_null() { Value::Null } else { json!("kubernetes") },
        // A static pod has a hash for an id.
        "pod_uuid": Some(native.get(&["pod", "uid"])).filter(|uid| is_uuid(uid)),
    })
}

/// Eight, four, four, four and twelve hexadecimal digits.
fn is_uuid(text: &Value) -> bool {
    let Some(text) = text.as_str() else { return false };
    let lengths = text.split('-').map(str::len);
    lengths.eq([8, 4, 4, 4, 12]) && text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
}
