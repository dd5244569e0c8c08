//! One checker for every line that the agent prints: the public contract's shape of an event, version 1. All keys are
//! there, each of its type, and what is not known is null.

use std::sync::LazyLock;

use jsonschema::Validator;
use serde_json::Value;

use super::agent::NODE;

/// The schema that users read.
static SCHEMA: LazyLock<Validator> = LazyLock::new(|| {
    let schema = serde_json::from_str(include_str!("../../../../docs/schema/rosentry-v1.schema.json"));
    jsonschema::validator_for(&schema.expect("the schema is JSON")).expect("the schema is one")
});

/// Asserts that a line is an event of the contract, and returns it.
pub fn checked(line: &str) -> Value {
    let event: Value = match serde_json::from_str(line) {
        Ok(event) => event,
        Err(error) => panic!("stdout has a line that is no JSON ({error}): {line}"),
    };
    let mut faults: Vec<String> =
        SCHEMA.iter_errors(&event).map(|fault| format!("{} at {}", fault, fault.instance_path())).collect();
    check(&event, EVENT, "", &mut faults);
    match event["kind"].as_str() {
        Some("agent") => check(&event["agent"], AGENT, "agent.", &mut faults),
        _ => check_finding(&event, &mut faults),
    }
    assert!(faults.is_empty(), "not as the contract says: {}\n{line}", faults.join(", "));
    event
}

/// Asserts that no sequence number is missing or out of order.
pub fn check_sequence(events: &[Value]) {
    for pair in events.windows(2) {
        let (before, after) = (pair[0]["seq"].as_u64(), pair[1]["seq"].as_u64());
        assert_eq!(before.map(|seq| seq + 1), after, "the sequence numbers of two lines: {}\n{}", pair[0], pair[1]);
    }
}

type Fields = &'static [(&'static str, fn(&Value) -> bool)];

const EVENT: Fields = &[
    ("schema", |it| it == "rosentry/v1"),
    ("seq", Value::is_u64),
    ("time", time),
    ("node", |it| it == NODE),
    ("kind", |it| {
        one_of(it, &["write_denied", "mount_attempt", "seal_broken", "seal_mended", "write_observed", "agent"])
    }),
];
const FINDING: Fields = &[
    ("errno", |it| it.is_null() || it.as_str().is_some_and(|name| name.starts_with('E'))),
    ("count", |it| it.as_u64().is_some_and(|count| count > 0)),
    ("first_time", time),
    ("last_time", time),
    ("severity", |it| one_of(it, &["info", "low", "medium", "high", "critical"])),
    ("category", text_or_null),
    ("hint", text_or_null),
    ("attack", texts),
    ("file", object_or_null),
    ("mount", object_or_null),
    ("process", object_or_null),
    ("container", object_or_null),
    ("pod", object_or_null),
    ("chain", text_or_null),
];
/// What somebody tried.
const ATTEMPT: Fields = &[
    ("operation", operation),
    ("outcome", |it| one_of(it, &["denied", "failed", "succeeded"])),
    ("abi", |it| one_of(it, &["x86_64", "ia32", "aarch64", "io_uring"])),
    ("hook", text),
];
/// A state, which nobody is known to have tried for.
const STATE: Fields = &[
    ("operation", Value::is_null),
    ("outcome", Value::is_null),
    ("abi", Value::is_null),
    ("hook", Value::is_null),
    ("process", Value::is_null),
    ("container", Value::is_object),
    ("mount", Value::is_object),
];
const FILE: Fields =
    &[("path", path_or_null), ("requested", text_or_null), ("flags", texts), ("new_path", path_or_null)];
const WRITE_MOUNT: Fields = &[
    ("kind", |it| it.is_null() || one_of(it, &["rootfs", "volume", "volume_failed", "other"])),
    ("point", path_or_null),
    ("fstype", text_or_null),
    ("volume", object_or_null),
    ("declared_readonly", flag_or_null),
    ("id", |it| it.is_null() || it.is_u64()),
    ("flags", |it| it.is_null() || texts(it)),
    ("super_flags", |it| it.is_null() || texts(it)),
    ("resolved", |it| it.is_null() || one_of(it, &["kernel", "root"])),
];
const MOUNT_ATTEMPT: Fields = &[
    ("target", text_or_null),
    ("source", text_or_null),
    ("fstype", text_or_null),
    ("flags", texts),
    ("effect", |it| one_of(it, &["unseal", "shadow", "detach", "none"])),
];
const SEAL: Fields = &[
    ("kind", |it| it == "rootfs"),
    ("point", path_or_null),
    ("fstype", text_or_null),
    ("declared_readonly", |it| it == true),
    ("effect", |it| one_of(it, &["unseal", "shadow"])),
    ("cause", |it| it.is_null() || one_of(it, &["remount", "mount", "runtime"])),
];
const PROCESS: Fields = &[
    ("pid", Value::is_u64),
    ("tid", Value::is_u64),
    ("ppid", Value::is_u64),
    ("container_pid", |it| it.is_null() || it.is_u64()),
    ("uid", Value::is_u64),
    ("gid", Value::is_u64),
    ("comm", text),
    ("exe", text_or_null),
    ("args", |it| it.is_null() || texts(it)),
    ("cwd", path_or_null),
    ("start_time", |it| it.is_null() || time(it)),
    ("cap_sys_admin", flag_or_null),
    ("ancestors", |it| it.as_array().is_some_and(|all| all.iter().all(ancestor))),
];
const CONTAINER: Fields = &[
    ("id", |it| it.as_str().is_some_and(|id| id.len() == 64 && id.bytes().all(|digit| digit.is_ascii_hexdigit()))),
    ("name", text_or_null),
    ("image", text_or_null),
    ("image_digest", |it| it.is_null() || it.as_str().is_some_and(|digest| digest.starts_with("sha256:"))),
    ("readonly_rootfs", flag_or_null),
    ("privileged", flag_or_null),
    ("started_at", |it| it.is_null() || time(it)),
];
const POD: Fields = &[
    ("namespace", text),
    ("name", text),
    ("uid", text),
    ("workload", text_or_null),
    ("labels", |it| it.as_object().is_some_and(|labels| labels.values().all(Value::is_string))),
];
const AGENT: Fields = &[("what", |it| one_of(it, &["start", "stop", "coverage", "lost", "gap"]))];

fn check_finding(event: &Value, faults: &mut Vec<String>) {
    check(event, FINDING, "", faults);
    let of_a_seal = one_of(&event["kind"], &["seal_broken", "seal_mended"]);
    check(event, if of_a_seal { STATE } else { ATTEMPT }, "", faults);
    let mount = match event["kind"].as_str() {
        Some("mount_attempt") => MOUNT_ATTEMPT,
        _ if of_a_seal => SEAL,
        _ => WRITE_MOUNT,
    };
    let parts = [("file", FILE), ("mount", mount), ("process", PROCESS), ("container", CONTAINER), ("pod", POD)];
    for (part, fields) in parts.into_iter().filter(|(part, _)| event[part].is_object()) {
        check(&event[part], fields, &format!("{part}."), faults);
    }
    // All times are of one length, so their order as text is their order in time.
    if event["first_time"].as_str() > event["last_time"].as_str() {
        faults.push("first_time after last_time".to_owned());
    }
    if matches!(event["outcome"].as_str(), None | Some("succeeded")) != event["errno"].is_null() {
        faults.push("errno where it succeeded, or none where it did not".to_owned());
    }
    if (event["outcome"] == "denied") != (event["errno"] == "EROFS") {
        faults.push("denied is EROFS and nothing else".to_owned());
    }
}

fn check(object: &Value, fields: Fields, of: &str, faults: &mut Vec<String>) {
    for (name, is_right) in fields {
        match object.get(name) {
            None => faults.push(format!("{of}{name} is missing")),
            Some(value) if !is_right(value) => faults.push(format!("{of}{name} is {value}")),
            Some(_) => {}
        }
    }
}

/// Writes first, then mount attempts; bind is both.
fn operation(value: &Value) -> bool {
    one_of(
        value,
        &[
            "open",
            "mkdir",
            "rmdir",
            "unlink",
            "rename",
            "link",
            "symlink",
            "mknod",
            "chmod",
            "chown",
            "utimes",
            "truncate",
            "setxattr",
            "removexattr",
            "bind",
            "setflags",
            "mount",
            "remount",
            "move",
            "umount",
            "pivot_root",
            "chroot",
            "fsopen",
            "fspick",
            "fsconfig",
            "fsmount",
            "move_mount",
            "open_tree",
            "mount_setattr",
        ],
    )
}

fn one_of(value: &Value, names: &[&str]) -> bool {
    value.as_str().is_some_and(|name| names.contains(&name))
}

/// RFC 3339 in UTC with nanoseconds: `2026-01-02T03:04:05.123456789Z`.
fn time(value: &Value) -> bool {
    const PATTERN: &[u8] = b"0000-00-00T00:00:00.000000000Z";
    value.as_str().is_some_and(|time| {
        let fits = |(byte, pattern): (u8, &u8)| {
            if *pattern == b'0' { byte.is_ascii_digit() } else { byte == *pattern }
        };
        time.len() == PATTERN.len() && time.bytes().zip(PATTERN).all(fits)
    })
}

fn ancestor(value: &Value) -> bool {
    value["pid"].is_u64() && text(&value["comm"]) && value.get("exe").is_some_and(text_or_null)
}

fn text(value: &Value) -> bool {
    value.is_string()
}

fn text_or_null(value: &Value) -> bool {
    value.is_null() || value.is_string()
}

fn path_or_null(value: &Value) -> bool {
    value.is_null() || value.as_str().is_some_and(|path| path.starts_with('/'))
}

fn flag_or_null(value: &Value) -> bool {
    value.is_null() || value.is_boolean()
}

fn object_or_null(value: &Value) -> bool {
    value.is_null() || value.is_object()
}

fn texts(value: &Value) -> bool {
    value.as_array().is_some_and(|all| all.iter().all(Value::is_string))
}

/// The contract's own example, with its ellipses filled in.
#[cfg(test)]
fn example() -> Value {
    serde_json::json!({
        "schema": "rosentry/v1", "seq": 42, "time": "2026-01-02T03:04:05.123456789Z", "node": NODE,
        "kind": "write_denied", "operation": "open", "outcome": "denied", "errno": "EROFS", "count": 1,
        "first_time": "2026-01-02T03:04:05.123456789Z", "last_time": "2026-01-02T03:04:05.123456789Z",
        "severity": "low", "category": "temp_file", "hint": "mount an emptyDir at /tmp", "attack": ["T1105"],
        "file": { "path": "/etc/x", "requested": "../etc/x", "flags": ["O_WRONLY", "O_CREAT"], "new_path": null,
            "resolved": "kernel" },
        "mount": { "kind": "rootfs", "point": "/", "fstype": "overlay", "volume": null, "declared_readonly": true,
            "id": 36, "flags": ["ro", "relatime"], "super_flags": ["rw"], "resolved": "kernel" },
        "process": { "pid": 4711, "tid": 4711, "ppid": 4700, "container_pid": 7, "uid": 0, "gid": 0, "comm": "touch",
            "exe": "/bin/busybox", "args": ["touch", "/etc/x"], "cwd": "/",
            "start_time": "2026-01-02T03:04:05.120000000Z", "cap_sys_admin": false,
            "ancestors": [{ "pid": 4700, "comm": "sh", "exe": "/bin/busybox" }],
            "user_ns_level": 0 },
        "container": { "id": "ab".repeat(32), "name": "app", "image": "nginx:1",
            "image_digest": "sha256:00", "readonly_rootfs": true, "privileged": false,
            "started_at": "2026-01-02T03:04:05.000000000Z" },
        "pod": { "namespace": "prod", "name": "web-abc12-x", "uid": "u", "workload": "web", "labels": { "app": "web" } },
        "abi": "x86_64", "hook": "fexit", "cgroup": null, "chain": "c0".repeat(32),
    })
}

#[test]
fn the_contracts_example_passes_the_checker() {
    checked(&example().to_string());
}

#[test]
#[should_panic(expected = "pod.uid is missing")]
fn an_event_without_a_key_fails_the_checker() {
    let mut event = example();
    event["pod"] = serde_json::json!({ "namespace": "n", "name": "p", "workload": null, "labels": {} });
    checked(&event.to_string());
}

#[test]
#[should_panic(expected = "file.path is \"etc/x\"")]
fn an_event_with_a_relative_path_fails_the_checker() {
    let mut event = example();
    event["file"]["path"] = "etc/x".into();
    checked(&event.to_string());
}

#[test]
#[should_panic(expected = "time is \"2026-01-02T03:04:05Z\"")]
fn a_time_without_nanoseconds_fails_the_checker() {
    let mut event = example();
    event["time"] = "2026-01-02T03:04:05Z".into();
    checked(&event.to_string());
}
