//! Tests of [`super`], with lines as the agent writes them.

use super::*;
use crate::{
    export::{
        native::NativeEncoder,
        testing::{remount, start, touch},
    },
    finding::{
        Event as Finding,
        event::Effect,
        seal::{self, Breach, Cause, Change},
        testing::sealed,
    },
};

fn line(event: &Finding) -> Vec<u8> {
    let mut line = Vec::new();
    NativeEncoder::new("n1").encode(event, &mut line).unwrap();
    line.pop();
    line
}

#[test]
fn a_refused_write_is_read_as_it_was_told() {
    let line = line(&touch());
    let event = Event::parse(&line).unwrap();
    assert_eq!((event.seq, &*event.node, event.kind()), (1, "n1", Some(Kind::WriteDenied)));
    assert_eq!(event.time.to_string(), "2026-01-02T03:04:05.123456789Z");
    assert_eq!(event.first_time(), event.time);
    assert_eq!((event.operation.as_deref(), event.errno.as_deref()), (Some("open"), Some("EROFS")));
    assert_eq!((event.severity, event.category.as_deref()), (Severity::Low, Some("config")));
    assert_eq!(event.path().map(|path| &**path), Some("/etc/x"));
    assert_eq!(event.mount.as_ref().unwrap().place, Some(PlaceKind::Rootfs));
    let process = event.process.as_ref().unwrap();
    assert_eq!((process.pid, &*process.comm, &*process.ancestors[0].comm), (100, "touch", "sh"));
    assert_eq!(event.container.as_ref().unwrap().image_digest.as_deref(), Some("sha256:0123"));
    assert_eq!(event.pod.as_ref().map(|pod| (&*pod.namespace, &*pod.workload)), Some(("prod", "web")));
    assert_eq!(event.previous, Some(None));
    assert_eq!(event.chain.as_deref().map(str::len), Some(64));
}

#[test]
fn texts_without_escapes_are_not_copied() {
    let line = line(&touch());
    let event = Event::parse(&line).unwrap();
    let range = line.as_ptr_range();
    for text in [&event.node, event.path().unwrap(), &event.process.as_ref().unwrap().args[0]] {
        assert!(range.contains(&text.as_ptr()), "{text:?} is a copy");
    }
}

#[test]
fn a_mount_attempt_and_a_broken_seal_tell_what_they_are_about() {
    let attempt = line(&remount());
    let attempt = Event::parse(&attempt).unwrap();
    assert_eq!(attempt.path().map(|path| &**path), Some("/"));
    assert_eq!(attempt.mount.as_ref().unwrap().effect, Some(Effect::Unseal));
    assert_eq!((attempt.outcome.as_deref(), attempt.errno.as_deref()), (Some("failed"), Some("EPERM")));

    let breach = Breach {
        point: b"/usr".to_vec(),
        fstype: b"tmpfs".to_vec(),
        effect: Effect::Shadow,
        cause: Some(Cause::Mount),
    };
    let broken = line(&seal::event(&sealed(), Change { breach, since_unix_ns: 0, mended_unix_ns: None }));
    let broken = Event::parse(&broken).unwrap();
    assert_eq!((broken.kind(), broken.path().map(|path| &**path)), (Some(Kind::SealBroken), Some("/usr")));
    let mount = broken.mount.as_ref().unwrap();
    assert_eq!((mount.effect, mount.cause.as_deref()), (Some(Effect::Shadow), Some("mount")));
}

#[test]
fn what_the_agent_says_of_itself_is_read_with_its_details() {
    let start = line(&start());
    let event = Event::parse(&start).unwrap();
    let note = event.agent.as_ref().unwrap();
    assert_eq!((event.kind(), &*note.what, note.text("version")), (Some(Kind::Agent), "start", Some("0.1.0")));
    assert_eq!(note.lost(), 0);
    let lost = r#"{"what":"lost","events":{"ring":3,"sink":4}}"#;
    assert_eq!(serde_json::from_str::<AgentNote<'_>>(lost).unwrap().lost(), 7);
}

#[test]
fn an_event_of_a_later_version_that_only_grew_is_read() {
    let line = String::from_utf8(line(&touch())).unwrap();
    let grown = line.replacen("write_denied", "write_weighed", 1).replacen("\"count\"", "\"weight\":{},\"count\"", 1);
    let event = Event::parse(grown.as_bytes()).unwrap();
    assert_eq!((event.kind(), &*event.kind_name), (None, "write_weighed"));
}

#[test]
fn what_is_no_event_is_not_taken_for_one() {
    let line = String::from_utf8(line(&touch())).unwrap();
    for other in [
        String::new(),
        "{}".to_owned(),
        "null".to_owned(),
        line.replace("rosentry/v1", "rosentry/v2"),
        line.replace("\"low\"", "\"lowly\""),
        line.replace("2026-01-02T03:04:05.123456789Z", "2026-01-32T03:04:05Z"),
        line.replace("\"count\":1", "\"count\":0"),
        line.replace("\"pid\":100", "\"pid\":-1"),
        format!("{line}x"),
        "[".repeat(100_000),
    ] {
        assert!(Event::parse(other.as_bytes()).is_none(), "{other}");
    }
}
