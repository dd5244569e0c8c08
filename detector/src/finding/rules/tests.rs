//! Tests of [`super`], over whole attempts and single paths.

use detector_common::{operation::Operation, syscalls::SYSCALLS};
use proptest::prelude::*;

use super::*;
use crate::{
    clock::BootClock,
    finding::{
        Sighting, assess,
        event::{Effect, Mount},
        testing::{attempt, judged, sealed},
    },
    identity::model::Container,
    kernel::attempt::{Attempt, CAP_SYS_ADMIN},
};

fn unjudged(attempt: &Attempt, container: Option<&Arc<Container>>) -> Event {
    assess(&Sighting {
        attempt,
        container,
        cgroup_path: None,
        resolved: [None, None],
        clock: BootClock { unix_ns_at_boot: 0 },
    })
}

fn event(attempt: &Attempt) -> Event {
    judged(unjudged(attempt, Some(&sealed())))
}

fn hint(event: &Event) -> Option<&str> {
    event.hint.as_deref().map(|hint| std::str::from_utf8(hint).unwrap())
}

fn attack(event: &Event) -> Vec<&str> {
    event.attack.iter().map(AsRef::as_ref).collect()
}

/// A write to this path by this program, in a container of which nothing else is known.
fn write<'a>(path: Option<&'a str>, executable: Option<&'a str>) -> Facts<'a> {
    Facts {
        operation: Some("open"),
        paths: [path.map(str::as_bytes), None],
        executable: executable.map(str::as_bytes),
        in_container: true,
        ..Facts::nothing(Kind::WriteDenied)
    }
}

fn built_in() -> RuleSet {
    RuleSet::load(None).unwrap()
}

fn with(text: &str) -> RuleSet {
    RuleSet::of(Some((Path::new("rules.toml"), text))).unwrap()
}

fn mistake(text: &str) -> String {
    RuleSet::of(Some((Path::new("rules.toml"), text))).unwrap_err().to_string()
}

fn category(rules: &RuleSet, facts: &Facts<'_>) -> Category {
    rules.explain(facts).category.unwrap().0
}

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
fn a_mount_in_a_user_namespace_of_its_own_is_told_how_to_forbid() {
    let mut mount = attempt("mount").path("/etc");
    mount.process.user_ns_level = 1;
    let event = event(&mount);
    assert_eq!(event.severity, Severity::High);
    assert!(hint(&event).unwrap().contains("user.max_user_namespaces"));
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

#[test]
fn every_call_of_the_table_can_be_judged_with_nothing_known() {
    for row in SYSCALLS {
        let event = event(&attempt(row.name));
        assert_eq!(event.count, 1, "{}", row.name);
        let is_attempt = matches!(event.mount, Some(Mount::Attempt(_)));
        assert!(is_attempt || event.rule.is_some(), "{}", row.name);
    }
}

const EXPECTED: &str = r#"
[[rule]]
name = "batch-scratch"
match.namespace = ["batch-*"]
match.path = ["/tmp/**"]
except.executable = ["sh", "bash"]
set.expected = true

[[rule]]
name = "uploads"
match.workload = ["web"]
match.path = ["/srv/uploads/**"]
set.category = "temp_file"
set.severity = "medium"
set.hint = "mount the volume uploads at {base}"
set.attack = ["T1105"]
"#;

#[test]
fn the_user_s_rules_go_before_the_built_in_ones_and_add_to_them() {
    let rules = with(EXPECTED);
    let facts = Facts { workload: Some(b"web"), ..write(Some("/srv/uploads/a/x.log"), Some("/usr/bin/curl")) };
    let judgement = rules.explain(&facts);
    assert_eq!(
        judgement.category.map(|(category, rule)| (category, &*rule.name)),
        Some((Category::TempFile, "uploads"))
    );
    assert_eq!(judgement.severity(), Severity::Medium);
    assert_eq!(judgement.hint.unwrap().0, b"mount the volume uploads at /srv/uploads");
    assert_eq!(judgement.attack.len(), 1);
    let elsewhere = rules.explain(&write(Some("/srv/uploads/a/x.log"), None));
    assert_eq!(elsewhere.severity.map(|(_, rule)| &*rule.name), Some("logs"), "of another workload");
}

#[test]
fn what_is_expected_is_told_as_information_but_for_the_exception() {
    let rules = with(EXPECTED);
    let of = |namespace: &'static [u8], executable| Facts {
        namespace: Some(namespace),
        ..write(Some("/tmp/x"), Some(executable))
    };
    let expected = rules.explain(&of(b"batch-eu", "/usr/bin/java"));
    assert_eq!(expected.expected.map(|rule| &*rule.name), Some("batch-scratch"));
    assert_eq!(expected.severity(), Severity::Info);
    assert_eq!(expected.category.map(|(category, _)| category), Some(Category::TempFile), "it is told what it was");
    assert!(rules.explain(&of(b"batch-eu", "/bin/sh")).expected.is_none());
    assert!(rules.explain(&of(b"prod", "/usr/bin/java")).expected.is_none());
}

#[test]
fn a_rename_is_expected_only_where_both_its_names_are() {
    let rules = with(EXPECTED);
    let renamed = |to: &'static [u8]| Facts {
        namespace: Some(b"batch"),
        operation: Some("rename"),
        paths: [Some(b"/tmp/x"), Some(to)],
        ..write(None, None)
    };
    let batch = |facts: Facts<'static>| Facts { namespace: Some(b"batch-1"), ..facts };
    assert!(rules.explain(&batch(renamed(b"/tmp/y"))).expected.is_some());
    let to_system = batch(renamed(b"/usr/bin/y"));
    let judgement = rules.explain(&to_system);
    assert_eq!((judgement.expected.is_some(), judgement.severity()), (false, Severity::High));
}

#[test]
fn every_condition_has_to_fit() {
    let facts = Facts {
        operation: Some("open"),
        outcome: Some("denied"),
        errno: Some("EROFS".into()),
        mount: Some(crate::finding::event::PlaceKind::Volume),
        volume: Some((b"configmap", b"settings")),
        fstype: Some(b"ext4"),
        comm: Some(b"java"),
        ancestors: vec![b"/usr/bin/bash", b"init"],
        privileged: true,
        container: Some(b"app"),
        image: Some(b"docker.io/library/nginx:1"),
        namespace: Some(b"prod"),
        pod: Some(b"web-abc12-x"),
        workload: Some(b"web"),
        labels: vec![(b"app", b"web"), (b"tier", b"front")],
        ..write(Some("/etc/app/x"), Some("/opt/java/bin/java"))
    };
    let fits = |condition: &str| {
        let rules = with(&format!("[[rule]]\nname = \"mine\"\nmatch.{condition}\nset.severity = \"critical\"\n"));
        rules.explain(&facts).severity() == Severity::Critical
    };
    for (right, wrong) in [
        (r#"kind = ["write_denied"]"#, r#"kind = ["write_observed"]"#),
        (r#"operation = ["mkdir", "open"]"#, r#"operation = ["mkdir"]"#),
        (r#"outcome = ["denied"]"#, r#"outcome = ["failed"]"#),
        (r#"errno = ["EROFS"]"#, r#"errno = ["EPERM"]"#),
        (r#"mount = ["volume"]"#, r#"mount = ["rootfs"]"#),
        (r#"volume = ["set*"]"#, r#"volume = ["get*"]"#),
        (r#"volume-type = ["configmap"]"#, r#"volume-type = ["secret"]"#),
        (r#"fstype = ["ext*"]"#, r#"fstype = ["xfs"]"#),
        (r#"category = ["config"]"#, r#"category = ["log"]"#),
        (r#"path = ["/etc/*/x"]"#, r#"path = ["/etc/*"]"#),
        (r#"executable = ["java"]"#, r#"executable = ["/usr/bin/java"]"#),
        (r#"comm = ["java"]"#, r#"comm = ["jav"]"#),
        (r#"ancestor = ["bash"]"#, r#"ancestor = ["zsh"]"#),
        (r#"container = ["a*"]"#, r#"container = ["b*"]"#),
        (r#"image = ["docker.io/*:1"]"#, r#"image = ["quay.io/*"]"#),
        (r#"namespace = ["prod"]"#, r#"namespace = ["pro"]"#),
        (r#"pod = ["web-*"]"#, r#"pod = ["web"]"#),
        (r#"workload = ["web"]"#, r#"workload = ["db"]"#),
        (r#"labels = { app = ["web"], tier = ["*"] }"#, r#"labels = { app = ["web"], team = ["*"] }"#),
        ("in-container = true", "in-container = false"),
        ("privileged = true", "privileged = false"),
        ("user-namespace = false", "user-namespace = true"),
        ("cap-sys-admin = false", "cap-sys-admin = true"),
        ("sets-id = false", "sets-id = true"),
    ] {
        assert!(fits(right), "{right}");
        assert!(!fits(wrong), "{wrong}");
    }
}

#[test]
fn a_mistake_is_told_with_its_line_and_what_was_expected() {
    let rule = |rest: &str| format!("# mine\n[[rule]]\nname = \"mine\"\n{rest}\n");
    let path = "match.path = [\"/x\"]";
    for (text, line, expected) in [
        (rule(&format!("{path}\nset.severity = \"bad\"")), 5, "`bad` is no severity; take of info, low, medium"),
        (rule(&format!("{path}\nset.hint = \"at {{folder}}\"")), 5, "the values are {path}, {dir}"),
        (rule(&format!("{path}\nset.attack = [\"1105\"]")), 5, "such as T1105"),
        (rule(&format!("{path}\nset.colour = 1")), 5, "unknown field `colour`, expected one of `category`"),
        (rule(&format!("{path}\nmatch.paths = []\nset.expected = true")), 5, "unknown field `paths`"),
        (rule("match.path = \"/x\"\nset.expected = true"), 4, "expected a sequence"),
        (rule("match.path = [\n\"/x\",\n\"tmp\"]\nset.expected = true"), 6, "paths are absolute"),
        (rule("match.kind = [\"agent\"]\nset.expected = true"), 4, "no kind; take of write_denied, mount_attempt"),
        (rule("match = {}\nset.expected = true"), 4, "would fit everything"),
        (rule(path), 2, "missing field `set`"),
        (rule(&format!("{path}\nset.expected = false")), 5, "sets nothing"),
        (rule(&format!("{path}\nset.expected = true\nset.severity = \"low\"")), 5, "leave out `severity`"),
        (rule("match.category = [\"log\"]\nset.category = \"log\""), 5, "can't match category"),
        (rule("match.severity = [\"low\"]\nset.severity = \"high\""), 5, "can't match it"),
        (rule(&format!("{path}\nexcept.severity = [\"low\"]\nset.expected = true")), 5, "not excepted"),
        (format!("{0}{0}", rule(&format!("{path}\nset.expected = true"))), 8, "the name of another rule"),
        ("[[rule]]\nname = \"temp-files\"\nmatch.path = [\"/x\"]\nset.expected = true".to_owned(), 2, "built-in"),
        ("[[rule]]\nname = \"a b\"\nmatch.path = [\"/x\"]\nset.expected = true".to_owned(), 2, "1 to 63 letters"),
        ("[[rules]]\n".to_owned(), 1, "unknown field `rules`, expected `rule`"),
        ("rule = [".to_owned(), 1, ""),
    ] {
        let told = mistake(&text);
        assert!(told.starts_with(&format!("rules.toml, line {line}: ")), "{told}\n{text}");
        assert!(told.contains(expected) && !told.contains('\n'), "{told}");
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = RuleSet::load(Some(Path::new("/does/not/exist.toml"))).unwrap_err().to_string();
    assert!(error.contains("/does/not/exist.toml") && error.contains("--rules"), "{error}");
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

/// What users read.
const DOCUMENTED: &str = include_str!("../../../../docs/rules.md");

#[test]
fn the_documented_file_is_sound() {
    let (_, file) = DOCUMENTED.split_once("```toml\n").unwrap();
    let (file, _) = file.split_once("```").unwrap();
    let rules = with(file);
    assert_eq!(rules.rules().iter().filter(|rule| !rule.built_in).count(), file.matches("[[rule]]").count());
    let unpacked = Facts { namespace: Some(b"batch-eu"), ..write(Some("/tmp/x"), Some("/usr/bin/java")) };
    assert_eq!(rules.explain(&unpacked).expected.map(|rule| &*rule.name), Some("nightly-unpack"));
    let shell = Facts { ancestors: vec![b"/usr/sbin/nginx"], ..write(Some("/usr/bin/x"), Some("/bin/sh")) };
    let rules_of_shell: Vec<_> = rules.explain(&shell).attack.iter().map(|(id, _)| id.to_string()).collect();
    assert_eq!(rules_of_shell, ["T1505.003"]);
}

#[test]
fn every_key_is_documented() {
    for table in ["match", "set"] {
        let told = mistake(&format!("[[rule]]\nname = \"mine\"\n{table}.nonsense = 1"));
        let (_, keys) = told.split_once("expected one of ").unwrap();
        let keys: Vec<_> = keys.split(", ").map(|key| key.trim_matches('`')).collect();
        assert!(keys.len() > 4, "{told}");
        for key in keys {
            let named = [format!("`{key}`"), format!("`{table}.{key}`")];
            assert!(named.iter().any(|name| DOCUMENTED.contains(name)), "{table}.{key}");
        }
    }
}

#[test]
fn nothing_is_expected_unless_a_user_says_so() {
    let rules = built_in();
    for rule in rules.rules() {
        assert!(rule.built_in && !rule.set.expected, "{}", rule.name);
    }
}
