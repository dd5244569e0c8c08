//! Tests of [`super`].

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::{
    export::testing::{event_in, observed, remount, touch},
    finding::testing::{attempt, sealed, unsealed},
    identity::model::Role,
    posture::tests::seen,
};

/// For the tests of this room: metrics that know one sealed container.
pub(crate) fn metrics() -> Metrics {
    metrics_of(Box::new(|| true))
}

fn metrics_of(containerd_up: Box<dyn Fn() -> bool + Send + Sync>) -> Metrics {
    let build = Build { version: "0.1.0".to_owned(), kernel: "6.18".to_owned(), hooks: "tracepoint".to_owned() };
    let older = Arc::new(Container { started_at_unix_ns: Some(0), ..unsealed() });
    let sandbox = Arc::new(Container { role: Role::Sandbox, name: None, ..(*sealed()).clone() });
    Metrics::new(
        &build,
        Sources {
            containers: Box::new(move || vec![sealed(), Arc::clone(&older), Arc::clone(&sandbox)]),
            containerd_up,
            seal_broken: Box::new(|id| (id == sealed().id).then_some(true)),
            seen: Box::new(|| Arc::new(HashMap::from([(sealed().id.clone(), seen())]))),
            with_untold: Box::new(|read| read(&[(&touch(), 2)])),
            with_untold_observed: Box::new(|read| read(&[(&observed(), 3)])),
            kernel_events: Box::new(|| vec![("write_denied", 3), ("mount_attempt", 1)]),
            kernel_lost: Box::new(|| vec![("write_ring", 5)]),
            incomplete_sections: Box::new(|| vec![("truncated", 6)]),
            path_resolutions: Box::new(|| vec![("resolved", 2)]),
            identity: Box::new(|| crate::identity::Counts { requests_dropped: 4, ..Default::default() }.by_name()),
        },
    )
    .unwrap()
}

fn assert_line(text: &str, line: &str) {
    assert!(text.lines().any(|present| present == line), "{line} is missing in:\n{text}");
}

#[test]
fn writes_with_their_repeats_that_are_not_told_yet_and_mount_attempts_are_counted_by_pod() {
    let metrics = metrics();
    metrics.count(&touch());
    metrics.count(&Event { count: 4, ..touch() });
    metrics.count(&remount());
    let text = metrics.render().unwrap();
    let pod = r#"namespace="prod",pod="web-abc12-x",container="app""#;
    assert_line(
        &text,
        &format!(r#"rosentry_write_denied_total{{{pod},operation="open",mount="rootfs",expected="false"}} 7"#),
    );
    assert_line(
        &text,
        &format!(
            r#"rosentry_mount_attempts_total{{{pod},operation="remount",effect="unseal",outcome="failed",expected="false"}} 1"#
        ),
    );
}

#[test]
fn writes_that_succeeded_are_counted_by_themselves() {
    let metrics = metrics();
    metrics.count(&Event { count: 4, ..observed() });
    let text = metrics.render().unwrap();
    let pod = r#"namespace="prod",pod="web-abc12-x",container="app""#;
    assert_line(&text, &format!(r#"rosentry_write_observed_total{{{pod},operation="open"}} 7"#));
    assert!(!text.contains("rosentry_write_denied_total{"), "none was refused:\n{text}");
}

#[test]
fn what_is_expected_is_counted_in_series_of_its_own() {
    let metrics = metrics();
    metrics.count(&touch());
    metrics.count(&Event { count: 4, expected: true, ..touch() });
    metrics.count(&Event { expected: true, ..remount() });
    let text = metrics.render().unwrap();
    let pod = r#"namespace="prod",pod="web-abc12-x",container="app""#;
    let write = format!(r#"rosentry_write_denied_total{{{pod},operation="open",mount="rootfs""#);
    let mount = format!(r#"rosentry_mount_attempts_total{{{pod},operation="remount",effect="unseal",outcome="failed""#);
    // Two more wait to be told.
    assert_line(&text, &format!(r#"{write},expected="false"}} 3"#));
    assert_line(&text, &format!(r#"{write},expected="true"}} 4"#));
    assert_line(&text, &format!(r#"{mount},expected="true"}} 1"#));
}

#[test]
fn what_no_event_tells_of_is_counted_with_an_unknown_mount() {
    let metrics = metrics();
    metrics.write_denied_unknown(Owner::of(Some(&sealed())), Operation::Mkdir, 3);
    let pod = r#"namespace="prod",pod="web-abc12-x",container="app""#;
    assert_line(
        &metrics.render().unwrap(),
        &format!(r#"rosentry_write_denied_total{{{pod},operation="mkdir",mount="unknown",expected="false"}} 3"#),
    );
}

#[test]
fn a_write_without_a_container_is_counted_under_empty_labels() {
    let metrics = metrics();
    metrics.count(&event_in(&attempt("mkdir").path("/x"), None));
    assert_line(
        &metrics.render().unwrap(),
        r#"rosentry_write_denied_total{namespace="",pod="",container="",operation="mkdir",mount="",expected="false"} 1"#,
    );
}

#[test]
fn the_declaration_of_each_container_is_told_and_the_latest_counts() {
    let text = metrics().render().unwrap();
    assert_line(&text, r#"rosentry_container_readonly_rootfs{namespace="prod",pod="web-abc12-x",container="app"} 1"#);
    assert_eq!(text.matches("rosentry_container_readonly_rootfs{").count(), 1, "no sandbox:\n{text}");
}

#[test]
fn the_seal_of_each_container_that_was_declared_read_only_is_told() {
    let text = metrics().render().unwrap();
    assert_line(&text, r#"rosentry_seal_broken{namespace="prod",pod="web-abc12-x",container="app"} 1"#);
    assert_eq!(text.matches("rosentry_seal_broken{").count(), 1, "no sandbox:\n{text}");
}

#[test]
fn what_a_container_is_in_truth_is_told_beside_what_it_was_declared() {
    let text = metrics().render().unwrap();
    let pod = r#"namespace="prod",pod="web-abc12-x",container="app""#;
    for (name, value) in [("privileged", 0), ("writable_rootfs", 0), ("cap_sys_admin", 1), ("writable_mounts", 4)] {
        assert_line(&text, &format!("rosentry_container_{name}{{{pod}}} {value}"));
    }
}

#[test]
fn memory_that_was_given_to_a_container_is_told_by_its_declared_place() {
    let text = metrics().render().unwrap();
    let pod = r#"namespace="prod",pod="web-abc12-x",container="app""#;
    for point in ["/cache", "/dev"] {
        assert_line(&text, &format!(r#"rosentry_tmpfs_used_bytes{{{pod},mountpoint="{point}"}} 4096"#));
        assert_line(&text, &format!(r#"rosentry_tmpfs_size_bytes{{{pod},mountpoint="{point}"}} 1048576"#));
    }
    assert_eq!(text.matches("rosentry_tmpfs_used_bytes{").count(), 2, "the node's own is not the container's:\n{text}");
}

#[test]
fn what_was_lost_in_the_kernel_and_here_is_one_family() {
    let metrics = metrics();
    metrics.lost("sink", 2);
    metrics.lost("write_ring", 1);
    let text = metrics.render().unwrap();
    assert_line(&text, r#"rosentry_events_lost_total{stage="sink"} 2"#);
    assert_line(&text, r#"rosentry_events_lost_total{stage="write_ring"} 6"#);
    assert_line(&text, r#"rosentry_kernel_events_total{kind="write_denied"} 3"#);
}

#[test]
fn the_state_of_the_agent_is_told() {
    let metrics = metrics();
    metrics.coverage("ia32", false);
    let serving = Serving { surface: "writes_ia32", operation: "mkdir", hook: "fexit", point: "do_mkdirat" };
    metrics.serving(&serving);
    metrics.unattributed("no_container");
    metrics.ignored(Kind::MountAttempt, "runtime_setup", 1);
    metrics.sink("file", "delivered", 7);
    metrics.spool_bytes("otlp", 512);
    metrics.delay(Kind::WriteDenied, Duration::from_millis(20));
    let text = metrics.render().unwrap();
    for line in [
        r#"rosentry_path_resolutions_total{result="resolved"} 2"#,
        r#"rosentry_incomplete_sections_total{reason="truncated"} 6"#,
        r#"rosentry_identity_total{what="requests_dropped"} 4"#,
        r#"rosentry_identity_total{what="cgroups_evicted"} 0"#,
        r#"rosentry_coverage{surface="ia32"} 0"#,
        r#"rosentry_hook_info{hook="fexit",operation="mkdir",point="do_mkdirat",surface="writes_ia32"} 1"#,
        r#"rosentry_events_unattributed_total{reason="no_container"} 1"#,
        r#"rosentry_events_ignored_total{kind="mount_attempt",reason="runtime_setup"} 1"#,
        r#"rosentry_sink_events_total{result="delivered",sink="file"} 7"#,
        r#"rosentry_sink_spool_bytes{sink="otlp"} 512"#,
        r#"rosentry_event_delay_seconds_bucket{kind="write_denied",le="0.01"} 0"#,
        r#"rosentry_event_delay_seconds_bucket{kind="write_denied",le="0.025"} 1"#,
    ] {
        assert_line(&text, line);
    }
    let build = text.lines().find(|line| line.starts_with("rosentry_build_info{")).unwrap();
    for label in [r#"version="0.1.0""#, r#"kernel="6.18""#, r#"hooks="tracepoint""#] {
        assert!(build.contains(label), "{build}");
    }
}

#[test]
fn whether_containerd_answers_is_asked_at_each_scrape() {
    let up = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&up);
    let metrics = metrics_of(Box::new(move || asked.load(Ordering::Relaxed)));
    assert_line(&metrics.render().unwrap(), "rosentry_containerd_up 0");
    up.store(true, Ordering::Relaxed);
    assert_line(&metrics.render().unwrap(), "rosentry_containerd_up 1");
}

#[test]
fn no_path_or_process_name_becomes_a_label() {
    let metrics = metrics();
    let mut event = touch();
    if let Some(process) = &mut event.process {
        process.comm = b"evilname".to_vec();
    }
    if let Some(file) = &mut event.file {
        file.path = Some(b"/evilpath".to_vec());
    }
    metrics.count(&event);
    assert!(!metrics.render().unwrap().contains("evil"));
}
