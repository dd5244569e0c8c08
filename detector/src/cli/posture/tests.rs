//! Tests of [`super`]: what is told of containers, for a person and for a program.

use serde_json::json;

use super::*;
use crate::{
    cli::terminal::Output,
    finding::{
        event::Effect,
        seal::Breach,
        testing::{sealed, unsealed},
    },
    identity::model::{Pod, Volume},
    posture::{Memory, tests::seen},
};

fn at(second: i64) -> Time {
    Time(Timestamp::new(1_795_363_200 + second, 0).unwrap())
}

fn report(rows: Vec<Row>) -> Report {
    Report { node: "n1".to_owned(), time: at(0).0, rows, has_record: false }
}

fn of_declared(seen: Result<Seen, Unseen>) -> Row {
    Row { container: sealed(), seen, ready: Ready::Declared }
}

fn of_writable(ready: Ready) -> Row {
    Row { container: Arc::new(unsealed()), seen: Ok(Seen { root_readonly: false, ..seen() }), ready }
}

fn told(width: usize, report: &Report) -> String {
    let mut text = Vec::new();
    table::tell(report, &mut Output::to(&mut text, width, false)).unwrap();
    String::from_utf8(text).unwrap()
}

#[derive(clap::Parser)]
struct Given {
    #[command(flatten)]
    args: Args,
}

/// What is taken of these arguments and this environment.
fn taken(arguments: &[&str], environment: &[(&str, &str)]) -> Result<RunConfig, ConfigError> {
    let given = <Given as clap::Parser>::parse_from([&["posture"], arguments].concat());
    config(&given.args, |name| {
        environment.iter().find(|(variable, _)| *variable == name).map(|(_, value)| OsString::from(value))
    })
}

#[test]
fn the_node_is_the_one_of_the_agent_s_file_and_an_empty_variable_says_nothing() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    io::Write::write_all(
        &mut file,
        b"containerd-namespace = [\"k8s.io\", \"moby\"]\ncontainerd-socket = \"/run/c.sock\"\nnode-name = \"n7\"\n",
    )
    .unwrap();
    let path = file.path().to_str().unwrap();
    for config in [
        taken(&["--config", path], &[("ROSENTRY_CONTAINERD_NAMESPACE", "")]).unwrap(),
        taken(&[], &[("ROSENTRY_CONFIG", path)]).unwrap(),
    ] {
        assert_eq!(config.containerd_namespaces, ["k8s.io", "moby"]);
        assert_eq!((config.containerd_socket, config.node_name), ("/run/c.sock".into(), "n7".to_owned()));
    }
    let variable = [("ROSENTRY_CONTAINERD_NAMESPACE", "default"), ("ROSENTRY_CONFIG", path)];
    assert_eq!(taken(&[], &variable).unwrap().containerd_namespaces, ["default"]);
    assert_eq!(taken(&["--containerd-namespace", "a,b"], &variable).unwrap().containerd_namespaces, ["a", "b"]);
    assert_eq!(taken(&[], &[]).unwrap().containerd_namespaces, ["k8s.io"]);
    assert!(taken(&["--containerd-namespace", "a b"], &[]).unwrap_err().to_string().contains("no name of a namespace"));
}

#[test]
fn a_sealed_container_is_told_with_what_it_may_write_all_the_same() {
    let mut seen = seen();
    seen.cap_sys_admin = Some(false);
    seen.writable.truncate(1);
    seen.writable[0].fill(Memory { size_bytes: 1 << 20, used_bytes: Some(900 << 10) });
    let text = told(100, &report(vec![of_declared(Ok(seen))]));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], format!("{:<67}  {:<9}  {:<10}  READY", "CONTAINER", "ROOT", "POWERS"));
    assert_eq!(lines[1], format!("{:<67}  {:<9}  {:<10}  -", "prod/web-abc12-x/app", "sealed", "-"));
    assert_eq!(lines[2], "    writable: /cache (emptydir cache, 900.0 KiB of 1.0 MiB in memory, 87 %)");
    assert_eq!(lines[3..], ["", "1 of 1 containers on n1 were declared read-only."]);
}

#[test]
fn what_every_container_is_given_is_counted_and_told_only_where_it_is_nearly_full() {
    let mut seen = seen();
    let flat = |seen: &Seen| {
        let text = told(100, &report(vec![of_declared(Ok(seen.clone()))]));
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let text = flat(&seen);
    assert!(text.contains("/run/node (host_path /srv); 1 that every container is given"), "{text}");
    assert!(
        text.contains("/node-run (host_path /run/app);"),
        "how full the node's own is, is not the container's: {text}"
    );
    let dev = seen.writable.iter_mut().find(|mount| mount.point == b"/dev").unwrap();
    dev.fill(Memory { size_bytes: 4096, used_bytes: Some(4096) });
    let text = flat(&seen);
    assert!(text.contains("/dev (tmpfs, 4.0 KiB of 4.0 KiB in memory, 100 %)"), "{text}");
}

#[test]
fn what_breaks_a_seal_comes_first_and_ends_with_one() {
    let breach = Breach { point: b"/usr".to_vec(), fstype: b"tmpfs".to_vec(), effect: Effect::Shadow, cause: None };
    let row = of_declared(Ok(Seen { breaches: vec![breach], ..seen() }));
    assert!(row.is_broken());
    let text = told(100, &report(vec![row]));
    assert!(text.contains("BROKEN") && text.contains("writable by a mount on it: /usr tmpfs"), "{text}");
    assert!(text.contains("1 of these can be written all the same"), "{text}");
    assert!(!of_declared(Err(Unseen::NotRunning)).is_broken(), "what nobody saw is not called broken");
}

#[test]
fn what_can_be_sealed_is_never_guessed() {
    let text = told(100, &report(vec![of_writable(ready(&unsealed(), None))]));
    assert!(text.contains("unknown") && text.contains("name it with --events"), "{text}");
    let text = told(100, &report(vec![of_writable(Ready::Yes { since: at(0), until: at(7500) })]));
    assert!(text.contains("yes") && text.contains("wrote to no folder of its root for 2 h 5 min"), "{text}");
    let writes = Writes { count: 12, folders: [("/var/log".to_owned(), 12)].into(), elsewhere: 0 };
    let text = told(100, &report(vec![of_writable(Ready::No(writes))]));
    assert!(text.contains("wrote 12 times to its root: /var/log (12)"), "{text}");
}

#[test]
fn no_name_of_a_container_or_a_mount_steers_the_terminal_and_no_line_is_wider_than_it() {
    let mut hostile = unsealed();
    hostile.name = Some("a\u{1b}[2J\n".repeat(20));
    let pod = Pod { name: "\u{202e}pod".to_owned(), ..(**hostile.pod.as_ref().unwrap()).clone() };
    hostile.pod = Some(Arc::new(pod));
    let mut seen = seen();
    seen.writable[0].point = b"/x\x1b]0;t\x07\xff y".repeat(30);
    seen.writable[1].volume = Some(Volume { kind: "csi".to_owned(), name: "\u{9b}31m".to_owned() });
    seen.breaches =
        vec![Breach { point: b"/\n".to_vec(), fstype: b"\x1b".to_vec(), effect: Effect::Unseal, cause: None }];
    let writes = Writes { count: 1, folders: [("/\u{1b}[31m".to_owned(), 1)].into(), elsewhere: 1 };
    let row = Row { container: Arc::new(hostile), seen: Ok(seen), ready: Ready::No(writes) };
    let report = report(vec![row]);
    for width in [60, 80, 160] {
        let text = told(width, &report);
        for line in text.lines() {
            assert!(!line.contains(|letter: char| letter.is_control() || letter == '\u{202e}'), "{line:?}");
            assert!(line.chars().count() <= width, "{} of {width}: {line}", line.chars().count());
        }
    }
    let object = json::object(&report).to_string();
    assert!(!object.contains(|letter: char| letter.is_control() || letter == '\u{202e}'), "{object}");
}

#[test]
fn the_json_has_what_the_documentation_says() {
    let documentation = include_str!("../../../../docs/posture.md");
    let unknown = of_writable(Ready::Unknown("there is no record of learning mode"));
    let writes = Writes { count: 1, folders: [("/tmp".to_owned(), 1)].into(), elsewhere: 0 };
    let rows = vec![
        of_declared(Ok(seen())),
        of_declared(Err(Unseen::TooLarge)),
        unknown,
        of_writable(Ready::Yes { since: at(0), until: at(1) }),
        of_writable(Ready::No(writes)),
    ];
    let object = json::object(&report(rows));
    assert_eq!(object["schema"], json::SCHEMA);
    let first = &object["containers"][0];
    assert_eq!(first["declared_readonly"], true);
    assert_eq!(first["seen"]["sealed"], true);
    let mount = json!({"point": "/cache", "fstype": "tmpfs", "declared": true, "volume": {"type": "emptydir", "name": "cache"},
        "size_bytes": 1_048_576, "used_bytes": 4096});
    assert_eq!(first["seen"]["writable_mounts"][0], mount);
    assert_eq!(object["containers"][1]["unseen"], "too_large");
    assert_eq!(object["containers"][4]["ready"]["folders"], json!({"/tmp": 1}));
    let mut members = Vec::new();
    names(&object, &mut members);
    for member in members.iter().filter(|member| !member.starts_with('/')) {
        assert!(documentation.contains(&format!("`{member}`")), "docs/posture.md tells nothing of `{member}`");
    }
}

/// The names of all members, however deep.
fn names(value: &serde_json::Value, found: &mut Vec<String>) {
    if let Some(object) = value.as_object() {
        found.extend(object.keys().cloned());
        object.values().for_each(|value| names(value, found));
    }
    value.as_array().into_iter().flatten().for_each(|value| names(value, found));
}

#[test]
fn where_containerd_is_not_there_one_sentence_says_what_to_do() {
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }
    let line = <Line as clap::Parser>::parse_from(["posture", "--containerd-socket", "/nonexistent/containerd.sock"]);
    let sentence = examine(&line.args).unwrap_err();
    assert!(sentence.contains("--containerd-socket") && !sentence.contains('\n'), "{sentence}");
}

#[test]
fn an_answer_that_comes_too_late_is_not_taken_for_the_next_ones() {
    let patience = Duration::from_millis(200);
    let ask = move |index| {
        if index == 1 {
            thread::sleep(patience * 2);
        }
        Some(index)
    };
    assert_eq!(answers_of(4, patience, ask).unwrap(), [Some(0), None, None, None]);
    assert_eq!(answers_of(2, LOOKS_PATIENCE, Some).unwrap(), [Some(0), Some(1)]);
}
