//! Rules of users: their form, what they do, and what is said of a mistake.

use super::*;

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

/// What users read.
const DOCUMENTED: &str = include_str!("../../../../../docs/rules.md");

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
