//! `rosentry verify`: what it says, and its exit codes.

use std::{
    fs,
    io::Write as _,
    process::{Command, Output, Stdio},
};

use detector::export::chain::{START, close};

/// A record of so many lines, the last one a stop record.
fn record(lines: u64) -> Vec<String> {
    let mut previous = START.to_owned();
    let mut all = Vec::new();
    for seq in 1..=lines {
        let what = match seq {
            1 => r#","agent":{"what":"start"},"previous":null"#,
            _ if seq == lines => r#","agent":{"what":"stop"}"#,
            _ => "",
        };
        let mut line = format!(r#"{{"schema":"rosentry/v1","seq":{seq},"node":"n1"{what}"#).into_bytes();
        previous = close(&mut line, 0, &previous);
        all.push(String::from_utf8(line).unwrap());
    }
    all
}

fn verify(arguments: &[&str], stdin: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_rosentry"))
        .arg("verify")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that refuses its arguments reads nothing.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    child.wait_with_output().unwrap()
}

fn ends_with(output: &Output, code: i32, stdout: &str, stderr: &str) {
    let [said, complained] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8(bytes.clone()).unwrap());
    assert_eq!(output.status.code(), Some(code), "{said}{complained}");
    assert!(said.contains(stdout) && (said.is_empty() == stdout.is_empty()), "{said}");
    assert!(complained.contains(stderr) && (complained.is_empty() == stderr.is_empty()), "{complained}");
    assert!(complained.lines().count() <= 1, "{complained}");
}

#[test]
fn a_whole_record_is_said_to_be_so() {
    let text = record(5).concat();
    ends_with(&verify(&["-"], text.as_bytes()), 0, "5 lines in 1 file", "");
    ends_with(&verify(&["--all", "-"], text.as_bytes()), 0, "5 lines in 1 file", "");
}

#[test]
fn the_first_bad_line_is_named_with_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.json");
    let mut lines = record(5);
    lines[2] = lines[2].replace("n1", "n2");
    fs::write(&path, lines.concat()).unwrap();
    let path = path.to_str().unwrap();
    ends_with(&verify(&[path], b""), 1, &format!("{path}, line 3: "), "");
    lines.remove(2);
    ends_with(&verify(&["-"], lines.concat().as_bytes()), 1, "standard input, line 3: it has seq 4", "");
}

#[test]
fn what_can_not_be_read_is_said_in_one_sentence() {
    ends_with(&verify(&["/no/such.json"], b""), 2, "", "/no/such.json can't be read: No such file");
    ends_with(&verify(&["/"], b""), 2, "", "/ can't be read: Is a directory");
    ends_with(&verify(&["-", "-"], b""), 2, "", "give - one time");
    ends_with(&verify(&[], b""), 2, "", "<FILE>");
}

#[test]
fn lines_come_through_named_pipes_as_well() {
    let text = record(400).concat();
    let shell = Command::new("bash")
        .args(["-c", r#""$0" verify <(head -250 "$1") <(tail -150 "$1")"#, env!("CARGO_BIN_EXE_rosentry")])
        .arg(written(&text).path())
        .output()
        .unwrap();
    ends_with(&shell, 0, "400 lines in 2 files", "");
}

#[test]
fn a_long_record_takes_no_more_memory_than_a_short_one() {
    let file = written(&record(50_000).concat());
    let limited = Command::new("bash")
        .args(["-c", r#"ulimit -d 8192; exec "$0" verify "$1""#, env!("CARGO_BIN_EXE_rosentry")])
        .arg(file.path())
        .output()
        .unwrap();
    ends_with(&limited, 0, "50000 lines in 1 file", "");
    let endless = Command::new("bash")
        .args(["-c", r#"ulimit -d 8192; exec "$0" verify /dev/zero"#, env!("CARGO_BIN_EXE_rosentry")])
        .output()
        .unwrap();
    ends_with(&endless, 1, "/dev/zero, line 1: it is longer", "");
}

fn written(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}
