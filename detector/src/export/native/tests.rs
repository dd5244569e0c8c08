//! Tests of [`super`].

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    export::{
        chain::{Link, START},
        escape::unescape,
        testing::{event_in, remount, start, touch},
    },
    finding::{
        event::{Effect, Mount, Resolution},
        mount_flags::MountFlags,
        paths::MountFacts,
        seal::{self, Breach, Cause, Change},
        testing::{attempt, judged, sealed},
    },
};

fn encoded(events: &[Event]) -> String {
    let mut encoder = NativeEncoder::new("n1");
    let mut out = Vec::new();
    for event in events {
        encoder.encode(event, &mut out).unwrap();
    }
    String::from_utf8(out).unwrap()
}

fn value(event: &Event) -> Value {
    serde_json::from_str(&encoded(std::slice::from_ref(event))).unwrap()
}

#[test]
fn a_refused_write_is_told_in_the_words_of_the_contract() {
    let mut told = value(&touch());
    let chain = told.as_object_mut().unwrap().remove("chain").unwrap();
    assert_eq!(chain.as_str().unwrap().len(), 64);
    assert_eq!(
        told,
        json!({
            "schema": "rosentry/v1", "seq": 1, "time": "2026-01-02T03:04:05.123456789Z", "node": "n1",
            "kind": "write_denied", "operation": "open", "outcome": "denied", "errno": "EROFS", "count": 1,
            "first_time": "2026-01-02T03:04:05.123456789Z", "last_time": "2026-01-02T03:04:05.123456789Z",
            "severity": "low", "category": "config",
            "hint": "bring the configuration in with a ConfigMap, or render it into an emptyDir", "attack": [],
            "rule": "configuration",
            "file": {
                "path": "/etc/x", "requested": "../etc/x", "flags": ["O_WRONLY", "O_CREAT"], "new_path": null,
                "resolved": "lexical", "mode": "0644",
            },
            "mount": {
                "kind": "rootfs", "point": "/", "fstype": null, "volume": null, "declared_readonly": true,
                "id": null, "flags": null, "super_flags": null, "resolved": null,
            },
            "process": {
                "pid": 100, "tid": 100, "ppid": 90, "container_pid": 7, "uid": 0, "gid": 0, "comm": "touch",
                "exe": "/bin/busybox", "args": ["touch", "x"], "cwd": "/usr",
                "start_time": "2026-01-02T03:04:04.123456789Z", "cap_sys_admin": false,
                "ancestors": [{"pid": 90, "comm": "sh", "exe": null}], "user_ns_level": 0,
            },
            "container": {
                "id": "c".repeat(64), "name": "app", "image": "docker.io/library/nginx:1",
                "image_digest": "sha256:0123", "readonly_rootfs": true, "privileged": false,
                "started_at": "2026-01-02T03:04:05.123456789Z",
            },
            "pod": {
                "namespace": "prod", "name": "web-abc12-x", "uid": "u-1", "workload": "web", "labels": {"app": "web"},
            },
            "abi": "x86_64", "hook": "tracepoint", "cgroup": null, "previous": null,
        })
    );
}

#[test]
fn the_members_stand_in_the_order_of_the_contract() {
    let line = encoded(&[touch()]);
    let order = [
        "schema",
        "seq",
        "time",
        "node",
        "kind",
        "operation",
        "outcome",
        "errno",
        "count",
        "first_time",
        "last_time",
        "severity",
        "category",
        "hint",
        "attack",
        "file",
        "mount",
        "process",
        "container",
        "pod",
        "abi",
        "hook",
        "chain",
    ];
    let mut at = 0;
    for member in order {
        let found = line[at..].find(&format!("\"{member}\":"));
        assert!(found.is_some(), "{member} is missing or out of order");
        at += found.unwrap();
    }
    assert!(line.ends_with("\"}\n"));
}

#[test]
fn a_mount_attempt_is_told_in_the_words_of_the_contract() {
    let told = value(&remount());
    assert_eq!(told["kind"], "mount_attempt");
    assert_eq!((&told["outcome"], &told["errno"]), (&json!("failed"), &json!("EPERM")));
    assert_eq!(told["file"], Value::Null);
    assert_eq!(
        told["mount"],
        json!({
            "target": "/", "source": "overlay", "fstype": null, "flags": ["MS_REMOUNT"], "effect": "unseal",
            "requested": "/", "resolved": "kernel", "options": null,
        })
    );
}

#[test]
fn a_broken_seal_is_told_with_its_place_and_nobody_who_did_it() {
    let breach = Breach {
        point: b"/".to_vec(),
        fstype: b"overlay".to_vec(),
        effect: Effect::Unseal,
        cause: Some(Cause::Remount),
    };
    let told = value(&judged(seal::event(&sealed(), Change { breach, since_unix_ns: 0, mended_unix_ns: None })));
    assert_eq!((&told["kind"], &told["severity"]), (&json!("seal_broken"), &json!("critical")));
    for unknown in ["operation", "outcome", "errno", "file", "process", "abi", "hook"] {
        assert_eq!(told[unknown], Value::Null, "{unknown}");
    }
    assert_eq!(told["container"]["name"], "app");
    assert_eq!(
        told["mount"],
        json!({
            "kind": "rootfs", "point": "/", "fstype": "overlay", "volume": null, "declared_readonly": true,
            "effect": "unseal", "cause": "remount",
        })
    );
}

#[test]
fn the_mount_that_refused_a_write_is_told_with_its_id_its_flags_and_who_saw_it() {
    let mut touch = touch();
    let Some(Mount::Place(place)) = &mut touch.mount else { panic!("a write has a place") };
    let flags = MountFlags { mount: 0x61, superblock: 0 };
    place.facts = Some(MountFacts { id: 77, flags, told_by: Resolution::Kernel });
    let told = &value(&touch)["mount"];
    assert_eq!((&told["id"], &told["resolved"]), (&json!(77), &json!("kernel")));
    assert_eq!((&told["flags"], &told["super_flags"]), (&json!(["ro", "nosuid", "relatime"]), &json!(["rw"])));
}

#[test]
fn what_succeeded_has_no_errno() {
    let told = value(&event_in(&attempt("umount2").path("/data"), None));
    assert_eq!((&told["outcome"], &told["errno"]), (&json!("succeeded"), &Value::Null));
}

#[test]
fn a_process_without_a_container_is_told_with_its_cgroup() {
    let told = value(&event_in(&attempt("mkdir").path("/x"), None));
    assert_eq!((&told["container"], &told["pod"]), (&Value::Null, &Value::Null));
    assert_eq!(told["cgroup"], json!({"id": 4711, "path": "/a/b"}));
}

#[test]
fn the_agent_speaks_of_itself() {
    let told = value(&start());
    assert_eq!(told["kind"], "agent");
    assert_eq!(
        told["agent"],
        json!({
            "what": "start", "version": "0.1.0", "hooks": ["tracepoint"], "lost": {"ring": 3}, "full": true,
            "containers": 7,
        })
    );
    assert_eq!((&told["process"], &told["operation"]), (&Value::Null, &Value::Null));
    assert_eq!(told["time"], "1970-01-01T00:00:00.000000000Z");
    assert!(value(&touch()).get("agent").is_none());
}

#[test]
fn lines_are_numbered_without_holes_and_chained() {
    let text = encoded(&[start(), touch(), remount()]);
    let mut chain = START;
    for (number, line) in text.lines().enumerate() {
        let link = Link::parse(line.as_bytes()).unwrap();
        assert_eq!(link.seq, number as u64 + 1);
        assert!(link.follows(chain));
        chain = link.chain;
    }
    assert_eq!(text.lines().count(), 3);
}

#[test]
fn a_time_beyond_the_calendar_does_not_lose_the_event() {
    let mut event = start();
    event.first_time_unix_ns = i128::MIN;
    event.last_time_unix_ns = i128::MAX;
    let told = value(&event);
    assert!(told["time"].as_str().unwrap().starts_with("9999-12-"));
    assert!(told["first_time"].is_string());
}

proptest! {
    #[test]
    fn no_name_breaks_a_line_or_steers_a_terminal(name in proptest::collection::vec(1_u8..=255, 0..60)) {
        let mut mkdir = attempt("mkdir").path("/");
        mkdir.path.requested = Some(name.clone());
        mkdir.process.comm = name.clone();
        mkdir.process.args = vec![name.clone(), name.clone()];
        let line = encoded(&[event_in(&mkdir, None)]);
        prop_assert_eq!(line.matches('\n').count(), 1);
        prop_assert!(!line.trim_end_matches('\n').contains(char::is_control));
        let told: Value = serde_json::from_str(&line).unwrap();
        prop_assert_eq!(unescape(told["process"]["args"][1].as_str().unwrap()), Some(name.clone()));
        prop_assert_eq!(unescape(told["file"]["requested"].as_str().unwrap()), Some(name));
    }
}
