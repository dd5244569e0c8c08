//! `rosentry timeline`: its formats, where it writes, and its exit codes.

use std::{
    fs,
    io::Write as _,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

use super::told::{RECORD, told};

fn timeline(arguments: &[&str], stdin: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_rosentry"))
        .arg("timeline")
        .args(arguments)
        .env_remove("COLUMNS")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that refuses its arguments reads nothing.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    child.wait_with_output().unwrap()
}

#[test]
fn a_break_in_is_told_in_words() {
    let (code, said, complained) = told(timeline(&[], RECORD));
    assert_eq!((code, complained.as_str()), (0, ""));
    for expected in [
        "8 events from 2026-11-22 16:39:50.437 to 2026-11-22 16:39:50.616 UTC on n1: 1 incident 1 critical",
        "critical prod/web 2026-11-22 16:39:50.611 UTC, 4.6 ms, 6 attempts in 6 events",
        "3 writes refused → 1 try to unseal failed → 1 other change of mounts → 1 writable mount over the",
        "mount_attempt mount /usr/local/bin tmpfs shadow succeeded",
        "└ sh→unshare→sh[1137] /bin/busybox",
    ] {
        assert!(said.contains(expected), "{expected} is not in\n{said}");
    }
    assert!(!said.contains('\x1b'));
}

#[test]
fn the_same_is_told_in_json() {
    let (code, said, _) = told(timeline(&["--format", "json", "--pod", "prod/web"], RECORD));
    let told: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &told["schema"], &told["events"]), (0, &"rosentry-timeline/v1".into(), &6.into()));
    let incident = &told["incidents"][0];
    assert_eq!((&incident["severity"], &incident["owner"]["name"]), (&"critical".into(), &"web".into()));
    assert_eq!(incident["steps"][5]["path"], "/usr/local/bin");
    assert_eq!(incident["story"][3]["what"], "shadowed");
    assert_eq!(incident["processes"][2]["comms"], serde_json::json!(["sh", "unshare", "sh"]));
}

#[test]
fn it_is_written_where_it_is_asked_for_and_never_over_what_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("events.json"), RECORD).unwrap();
    let (code, said, _) = told(timeline(&[&path("events.json"), "-o", &path("told.txt")], ""));
    assert_eq!((code, said.as_str()), (0, ""));
    assert!(fs::read_to_string(path("told.txt")).unwrap().contains("critical prod/web"));
    let (code, _, complained) = told(timeline(&[&path("events.json"), "-o", &path("events.json")], ""));
    assert_eq!(code, 2);
    assert!(complained.contains("stays as it is"), "{complained}");
    assert_eq!(fs::read_to_string(path("events.json")).unwrap(), RECORD);
}

#[test]
fn what_is_no_event_and_what_can_not_be_read_are_told() {
    let (code, said, complained) = told(timeline(&["-"], &format!("noise\n{RECORD}")));
    assert_eq!((code, complained.as_str()), (1, "rosentry: standard input, line 1 is no event\n"));
    assert!(said.contains("1 incident"), "{said}");
    let (code, _, complained) = told(timeline(&["/no/such.json"], ""));
    assert_eq!((code, complained.lines().count()), (2, 1));
    assert_eq!(told(timeline(&["-o", "/no/such/folder/x"], RECORD)).0, 2);
    assert_eq!(told(timeline(&[], "")), (0, "no events\n".to_owned(), String::new()));
}

#[test]
fn a_long_record_takes_no_more_memory_than_a_short_one() {
    // Other times, so that incidents begin and end, and other paths, so that nothing folds.
    let line = RECORD.lines().nth(2).unwrap();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    for number in 0..40_000 {
        let (hour, minute) = (number / 3000, number / 50 % 60);
        let line = line.replace("2026-11-22T16:39", &format!("2026-11-22T{hour:02}:{minute:02}"));
        writeln!(file, "{}", line.replace("/tmp/kit", &format!("/tmp/{number}"))).unwrap();
    }
    let limited = Command::new("bash")
        .args(["-c", r#"ulimit -d 65536; exec "$0" timeline --format json "$1""#, env!("CARGO_BIN_EXE_rosentry")])
        .arg(file.path())
        .output()
        .unwrap();
    let (code, said, complained) = told(limited);
    assert_eq!(code, 0, "{complained}");
    let told: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(told["events"], 40_000);
}
