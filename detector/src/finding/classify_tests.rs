//! Tests of [`super`], over whole attempts.

use detector_common::syscalls::SYSCALLS;

use crate::{
    clock::BootClock,
    finding::{
        Event, Sighting, assess,
        event::{Category, Severity},
        testing::{attempt, sealed},
    },
    kernel::attempt::{Attempt, CAP_SYS_ADMIN},
};

fn event(attempt: &Attempt) -> Event {
    let container = sealed();
    assess(&Sighting {
        attempt,
        container: Some(&container),
        cgroup_path: None,
        resolved: [None, None],
        clock: BootClock { unix_ns_at_boot: 0 },
    })
}

#[test]
fn a_temporary_file_is_a_low_finding_that_names_the_mount() {
    let event = event(&attempt("openat").arg(2, 0o101).path("/tmp/x"));
    assert_eq!(event.category, Some(Category::TempFile));
    assert_eq!(event.severity, Severity::Low);
    assert_eq!(event.hint.as_deref(), Some("mount an emptyDir at /tmp"));
    assert!(event.attack.is_empty());
}

#[test]
fn removing_a_pid_file_that_may_not_be_there_is_no_finding_to_look_at() {
    assert_eq!(event(&attempt("unlink").path("/run/nginx.pid")).severity, Severity::Info);
    assert_eq!(event(&attempt("openat").arg(2, 1).path("/run/nginx.pid")).severity, Severity::Low);
}

#[test]
fn removing_a_system_file_stays_a_finding_even_by_force() {
    let removal = attempt("unlink").path("/usr/bin/curl").by("rm", &["rm", "-f", "/usr/bin/curl"]);
    assert_eq!(event(&removal).severity, Severity::High);
}

#[test]
fn no_name_that_a_program_gives_itself_makes_a_finding_less_severe() {
    let removal = attempt("unlink").path("/srv/x").by("rm", &["rm", "-f", "/srv/x"]);
    assert_eq!(event(&removal).severity, Severity::Low);
    for path in ["/usr/bin/x", "/etc/shadow", "/srv/x", "/tmp/x", "/etc/x"] {
        let mut open = attempt("openat").arg(2, 0o101).path(path);
        let plain = event(&open);
        open.process.comm = b"apt".to_vec();
        let renamed = event(&open);
        assert_eq!(
            (renamed.category, renamed.severity),
            (plain.category, plain.severity),
            "{path} by a thread named apt"
        );
        let by_program = event(&open.by("apt", &["apt"]));
        assert!(by_program.severity >= plain.severity, "{path} by apt");
    }
}

#[test]
fn a_download_into_the_root_is_told_with_its_technique() {
    let event = event(&attempt("openat").arg(2, 0o101).path("/usr/bin/x").by("wget", &["wget", "-O", "/usr/bin/x"]));
    assert_eq!(event.severity, Severity::High);
    assert_eq!(event.attack, ["T1105"]);
}

#[test]
fn a_write_to_a_configmap_is_mended_by_a_copy() {
    let event = event(&attempt("openat").arg(2, 1).path("/etc/app/settings.yaml"));
    assert_eq!(
        event.hint.as_deref(),
        Some("a configmap volume is never writable: copy what must change into an emptyDir")
    );
}

#[test]
fn a_socket_is_told_with_the_pid_files_wherever_it_stands() {
    assert_eq!(event(&attempt("bind").path("/srv/control")).category, Some(Category::PidFile));
}

#[test]
fn a_remount_that_unseals_is_critical_when_it_works_and_high_when_not() {
    let mut remount = attempt("mount").arg(3, 0x20).path("/");
    remount.process.cap_effective = CAP_SYS_ADMIN;
    let worked = event(&remount);
    assert_eq!(worked.severity, Severity::Critical);
    assert_eq!(worked.attack, ["T1562"]);
    assert_eq!(worked.hint.as_deref(), Some("drop the capability SYS_ADMIN from the container's securityContext"));
    assert_eq!(worked.category, None);
    assert_eq!(event(&remount.result(-1)).severity, Severity::High);
}

#[test]
fn a_mount_in_a_user_namespace_of_its_own_is_told_how_to_forbid() {
    let mut mount = attempt("mount").path("/etc");
    mount.process.user_ns_level = 1;
    let event = event(&mount);
    assert_eq!(event.severity, Severity::High);
    assert!(event.hint.unwrap().contains("user.max_user_namespaces"));
}

#[test]
fn a_mount_that_touches_no_seal_is_information() {
    assert_eq!(event(&attempt("mount").path("/data/x")).severity, Severity::Info);
    assert_eq!(event(&attempt("mount").path("/data/x").source("/dev/sda1")).severity, Severity::High);
}

#[test]
fn every_call_of_the_table_can_be_assessed_with_nothing_known() {
    for row in SYSCALLS {
        let event = event(&attempt(row.name));
        assert_eq!(event.count, 1, "{}", row.name);
    }
}
