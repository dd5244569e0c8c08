//! What looks like an attack: how severe it is, with which technique, and that no name makes it less.

use super::*;

#[test]
fn what_would_start_by_itself_is_no_configuration_that_an_application_brings() {
    let rules = built_in();
    for path in
        ["/etc/cron.d/kit", "/etc/ld.so.preload", "/etc/systemd/system/kit.service", "/var/spool/cron/crontabs/root"]
    {
        for exe in ["/bin/sh", "/usr/bin/dpkg"] {
            let explained = rules.explain(&write(Some(path), Some(exe)));
            assert_eq!(explained.severity.unwrap().0, Severity::High, "{path} by {exe}");
        }
    }
}

#[test]
fn a_program_s_name_makes_no_path_less_severe() {
    let rules = built_in();
    assert_eq!(category(&rules, &write(Some("/usr/bin/curl"), Some("dpkg"))), Category::SystemBinary);
    for path in ["/usr/bin/x", "/etc/shadow", "/tmp/x", "/srv/x", "/etc/x", "/var/log/x", "/usr/local/lib/x", "/boot/x"]
    {
        let severity = |program| rules.explain(&write(Some(path), program)).severity();
        assert!(severity(Some("/usr/bin/apt")) >= severity(None), "{path}");
    }
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
    let download = event(&attempt("openat").arg(2, 0o101).path("/usr/bin/x").by("wget", &["wget", "-O", "/usr/bin/x"]));
    assert_eq!((download.severity, attack(&download)), (Severity::High, vec!["T1105"]));
    let mut by_applet = attempt("openat").arg(2, 0o101).path("/tmp/x");
    by_applet.process.comm = b"wget".to_vec();
    assert_eq!(attack(&event(&by_applet)), ["T1105"], "busybox is called by many names");
}

#[test]
fn what_would_start_by_itself_later_or_be_run_by_the_node_is_of_medium_severity_at_least() {
    let rules = built_in();
    let severity = |path, program| rules.explain(&write(Some(path), program)).severity();
    for (path, expected) in [
        ("/etc/crontab", Severity::High),
        ("/etc/cron.d/kit", Severity::High),
        ("/etc/cron.weekly/kit", Severity::High),
        ("/var/spool/cron/crontabs/root", Severity::High),
        ("/etc/systemd/system/kit.service", Severity::High),
        ("/etc/init.d/kit", Severity::High),
        ("/etc/rc.local", Severity::High),
        ("/etc/ld.so.preload", Severity::High),
        ("/etc/profile.d/kit.sh", Severity::Medium),
        ("/root/.bashrc", Severity::Medium),
        ("/tmp/home/.profile", Severity::Medium),
        ("/proc/sys/kernel/core_pattern", Severity::High),
        ("/sys/fs/cgroup/rdma/release_agent", Severity::High),
        ("/root/.ssh/authorized_keys", Severity::High),
        ("/usr/lib/systemd/system/kit.service", Severity::High),
        ("/usr/lib/app/.profile", Severity::High),
    ] {
        assert_eq!(severity(path, Some("/bin/sh")), expected, "{path}");
        assert_eq!(severity(path, Some("/usr/bin/apt")), expected, "{path}");
    }
    for path in ["/etc/cron.deny", "/etc/app.conf"] {
        assert_eq!(severity(path, Some("/bin/sh")), Severity::Low, "{path}");
    }
    let removed = Facts { operation: Some("unlink"), ..write(Some("/etc/cron.d/kit"), None) };
    assert_eq!(rules.explain(&removed).severity(), Severity::Low, "what is removed starts nothing");
}

#[test]
fn an_ordinary_write_carries_no_technique() {
    for (call, path) in [("openat", "/tmp/x"), ("mkdir", "/var/cache/nginx"), ("unlink", "/etc/passwd.bak")] {
        assert!(event(&attempt(call).path(path)).attack.is_empty(), "{call} {path}");
    }
}

#[test]
fn accounts_keys_and_preloads_are_told_by_their_paths() {
    for (call, path, technique) in [
        ("openat", "/etc/passwd", "T1136.001"),
        ("openat", "/root/.ssh/authorized_keys", "T1098.004"),
        ("openat", "/etc/ld.so.preload", "T1574.006"),
        ("openat", "/etc/profile.d/x.sh", "T1546.004"),
        ("unlink", "/var/log/wtmp", "T1070.002"),
        ("openat", "/proc/sys/kernel/core_pattern", "T1611"),
    ] {
        assert_eq!(attack(&event(&attempt(call).path(path))), [technique], "{path}");
    }
}

#[test]
fn a_set_user_id_bit_is_told_beside_the_change_of_mode() {
    assert_eq!(attack(&event(&attempt("chmod").arg(1, 0o4755).path("/srv/x"))), ["T1222.002", "T1548.001"]);
    assert_eq!(attack(&event(&attempt("chmod").arg(1, 0o755).path("/srv/x"))), ["T1222.002"]);
}

#[test]
fn a_remount_that_unseals_is_critical_when_it_works_and_high_when_not() {
    let mut remount = attempt("mount").arg(3, 0x20).path("/");
    remount.process.cap_effective = CAP_SYS_ADMIN;
    let worked = event(&remount);
    assert_eq!((worked.severity, attack(&worked)), (Severity::Critical, vec!["T1562"]));
    assert_eq!(hint(&worked), Some("drop the capability SYS_ADMIN from the container's securityContext"));
    assert_eq!(worked.category, None);
    assert_eq!(event(&remount.result(-1)).severity, Severity::High);
}

#[test]
fn a_writable_mount_over_the_seal_is_as_bad_as_a_remount_and_is_told_how_to_forbid() {
    let mut mount = attempt("mount").path("/etc");
    mount.process.user_ns_level = 1;
    let worked = event(&mount);
    assert_eq!((worked.severity, attack(&worked)), (Severity::Critical, vec!["T1562"]));
    assert!(hint(&worked).unwrap().contains("user.max_user_namespaces"));
    let failed = event(&mount.result(-1));
    assert_eq!((failed.severity, attack(&failed)), (Severity::Medium, vec!["T1562"]));
}

#[test]
fn a_mount_that_touches_no_seal_is_information() {
    assert_eq!(event(&attempt("mount").path("/data/x")).severity, Severity::Info);
    let disk = event(&attempt("mount").path("/data/x").source("/dev/sda1"));
    assert_eq!((disk.severity, attack(&disk)), (Severity::High, vec!["T1611"]));
    let mut cgroup = attempt("mount").path("/data/x").source("cgroup");
    cgroup.fstype = Some(b"cgroup".to_vec());
    assert_eq!(attack(&event(&cgroup)), ["T1611"]);
    assert!(judged(unjudged(&attempt("mount").path("/mnt").source("/dev/sda1"), None)).attack.is_empty());
}

#[test]
fn a_bind_mount_over_a_process_hides_it() {
    let bind = |path| {
        let facts = Facts {
            operation: Some(Operation::BindMount.name()),
            effect: Some(Effect::None),
            ..Facts { kind: Kind::MountAttempt, ..write(Some(path), None) }
        };
        let rules = built_in();
        let judgement = rules.explain(&facts);
        judgement.attack.iter().map(|(technique, _)| technique.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(bind("/proc/4711"), ["T1564.013"]);
    assert!(bind("/proc/sys").is_empty());
}
