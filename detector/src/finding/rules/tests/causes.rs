//! The built-in rules: what kind of data it was, and what mends it.

use super::*;

#[test]
fn a_path_tells_the_cause() {
    let rules = built_in();
    for (path, expected) in [
        ("/tmp/upload", Category::TempFile),
        ("/tmp", Category::TempFile),
        ("/tmpfoo", Category::Other),
        ("/var/log/nginx/error.log", Category::Log),
        ("/app/logs/out", Category::Log),
        ("/var/cache/nginx/client_temp", Category::Cache),
        ("/app/__pycache__/x.cpython-312.pyc", Category::Cache),
        ("/usr/lib/python3/dist-packages/x/__pycache__/y.cpython-312.pyc.140", Category::Cache),
        ("/run/nginx.pid", Category::PidFile),
        ("/app/server.pid", Category::PidFile),
        ("/var/lib/dpkg/lock", Category::PackageInstall),
        ("/usr/lib/python3/dist-packages/x.py", Category::PackageInstall),
        ("/usr/share/jenkins/plugins/git.jpi", Category::PackageInstall),
        ("/root/.cache/huggingface/hub/x", Category::ModelCache),
        ("/srv/llama.gguf", Category::ModelCache),
        ("/etc/nginx/conf.d/default.conf", Category::Config),
        ("/usr/bin/curl", Category::SystemBinary),
        ("/etc/shadow", Category::Credentials),
        ("/home/app/.ssh/authorized_keys", Category::Credentials),
        ("/run/secrets/kubernetes.io/x", Category::Credentials),
        ("/srv/x", Category::Other),
    ] {
        assert_eq!(category(&rules, &write(Some(path), Some("/usr/bin/app"))), expected, "{path}");
    }
}

#[test]
fn every_category_is_told_by_a_built_in_rule() {
    let rules = built_in();
    for category in Category::ALL {
        assert!(rules.rules().iter().any(|rule| rule.set.category == Some(*category)), "{category:?}");
    }
}

#[test]
fn a_package_manager_installs_wherever_it_writes() {
    let rules = built_in();
    assert_eq!(category(&rules, &write(Some("/etc/x"), Some("/usr/bin/dpkg"))), Category::PackageInstall);
    assert_eq!(category(&rules, &write(None, Some("/sbin/apk"))), Category::PackageInstall);
    assert_eq!(category(&rules, &write(None, Some("/bin/app"))), Category::Other);
}

#[test]
fn a_hint_names_the_folder_to_mount() {
    let rules = built_in();
    let hint = |path| rules.explain(&write(Some(path), None)).hint.map(|(hint, _)| String::from_utf8(hint).unwrap());
    assert_eq!(hint("/tmp/a/b").as_deref(), Some("mount an emptyDir at /tmp"));
    assert_eq!(hint("/run/lock/x").as_deref(), Some("mount an emptyDir at /run/lock"));
    assert_eq!(hint("/var/cache/nginx/t").as_deref(), Some("mount an emptyDir at /var/cache/nginx"));
    assert_eq!(hint("/srv/x.pid").as_deref(), Some("mount an emptyDir at /srv"));
}

#[test]
fn no_hint_proposes_a_volume_over_the_whole_root() {
    let rules = built_in();
    for path in [Some("/x"), Some("/x.pid"), Some("/x.log"), None] {
        assert!(rules.explain(&write(path, None)).hint.is_none(), "{path:?}");
    }
}

#[test]
fn a_temporary_file_is_a_low_finding_that_names_the_mount() {
    let event = event(&attempt("openat").arg(2, 0o101).path("/tmp/x"));
    assert_eq!((event.category, event.severity), (Some(Category::TempFile), Severity::Low));
    assert_eq!(hint(&event), Some("mount an emptyDir at /tmp"));
    assert_eq!((event.rule.as_deref(), event.expected), (Some("temp-files"), false));
    assert!(event.attack.is_empty());
}

#[test]
fn removing_a_pid_file_that_may_not_be_there_is_no_finding_to_look_at() {
    assert_eq!(event(&attempt("unlink").path("/run/nginx.pid")).severity, Severity::Info);
    assert_eq!(event(&attempt("openat").arg(2, 1).path("/run/nginx.pid")).severity, Severity::Low);
}

#[test]
fn a_write_to_a_configmap_is_mended_by_a_copy() {
    let event = event(&attempt("openat").arg(2, 1).path("/etc/app/settings.yaml"));
    assert_eq!(hint(&event), Some("a configmap volume is never writable: copy what must change into an emptyDir"));
}

#[test]
fn a_volume_that_failed_is_told_as_a_fault_of_storage() {
    let rules = built_in();
    let failed = Facts {
        mount: Some(crate::finding::event::PlaceKind::VolumeFailed),
        volume: Some((b"csi", b"pvc-1")),
        ..write(Some("/data/x.log"), None)
    };
    let judgement = rules.explain(&failed);
    assert_eq!(judgement.severity(), Severity::High);
    assert!(judgement.hint.unwrap().0.starts_with(b"the volume pvc-1 is declared writable and refuses writes"));
    let removal = Facts { operation: Some("unlink"), ..failed };
    assert_eq!(rules.explain(&removal).severity(), Severity::High);
}

#[test]
fn a_socket_is_told_with_the_pid_files_wherever_it_stands() {
    let event = event(&attempt("bind").path("/srv/control"));
    assert_eq!((event.category, hint(&event)), (Some(Category::PidFile), Some("mount an emptyDir at /srv")));
}

#[test]
fn every_call_of_the_table_can_be_judged_with_nothing_known() {
    for row in SYSCALLS {
        let event = event(&attempt(row.name));
        assert_eq!(event.count, 1, "{}", row.name);
        let is_attempt = matches!(event.mount, Some(Mount::Attempt(_)));
        assert!(is_attempt || event.rule.is_some(), "{}", row.name);
    }
}

#[test]
fn a_hostile_path_costs_no_more_than_its_length() {
    let rules = built_in();
    let slashes = "/a".repeat(2048);
    let nested = "/cache/logs/plugins/models".repeat(157);
    let started = std::time::Instant::now();
    for path in [&slashes, &nested] {
        assert!(rules.explain(&write(Some(path), Some(path))).category.is_some());
    }
    // Minutes, were it not linear: an automaton takes some nanoseconds a byte.
    assert!(started.elapsed() < std::time::Duration::from_secs(20));
}

proptest! {
    #[test]
    fn any_path_and_program_have_a_meaning(
        path in proptest::collection::vec(1_u8..=255, 0..200),
        program in proptest::collection::vec(1_u8..=255, 0..40),
    ) {
        static RULES: std::sync::LazyLock<RuleSet> = std::sync::LazyLock::new(built_in);
        let path = [b"/".as_slice(), &path].concat();
        let facts = Facts {
            paths: [Some(&path), Some(&path)],
            executable: Some(&program),
            comm: Some(&program),
            ..Facts::nothing(Kind::WriteDenied)
        };
        let judgement = RULES.explain(&facts);
        prop_assert!(judgement.category.is_some() && judgement.severity.is_some());
    }
}
