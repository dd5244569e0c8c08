//! `rosentry view`: what it shows, what it says of lines that are no events, and how it ends.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdout, Command, Output, Stdio},
};

use super::told::{RECORD, told};

fn command(arguments: &[&str]) -> Command {
    // One that shows nothing for a minute is ended, and the test with it.
    let mut command = Command::new("timeout");
    command.args(["60", env!("CARGO_BIN_EXE_rosentry"), "view"]).args(arguments).env_remove("COLUMNS");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn view(arguments: &[&str], stdin: &str) -> Output {
    let mut child = command(arguments).spawn().unwrap();
    // One that refuses its arguments reads nothing.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    child.wait_with_output().unwrap()
}

#[test]
fn each_event_is_one_line_without_colours_where_no_terminal_is() {
    let (code, said, complained) = told(view(&[], RECORD));
    assert_eq!((code, said.lines().count(), complained.as_str()), (0, RECORD.lines().count(), ""));
    assert!(!said.contains('\x1b'));
    let remount = "2026-11-22T16:39:50.614Z high prod/web/app mount_attempt remount / overlay unseal EPERM by mount[1150] \
                   < sh[1137] < containerd-shim[1084] < init[1] T1562";
    assert!(said.lines().any(|line| line == remount), "{said}");
}

#[test]
fn filters_leave_out_what_was_not_asked_for() {
    for (arguments, lines) in [
        (&["--pod", "prod/web"][..], 6),
        (&["--pod", "prod/other"], 0),
        (&["--kind", "mount_attempt"], 3),
        (&["--kind", "mount_attempt", "--kind", "agent", "--min-severity", "info"], 5),
        (&["--min-severity", "high"], 4),
        (&["--container", "app", "--node", "n1"], 6),
        (&["--node", "n2"], 0),
        (&["--since", "2026-11-22T16:39:50.614Z"], 3),
        (&["--until", "2026-11-22"], 0),
    ] {
        let (code, said, _) = told(view(arguments, RECORD));
        assert_eq!((code, said.lines().count()), (0, lines), "{arguments:?}: {said}");
    }
}

#[test]
fn a_time_may_have_a_sign() {
    for (option, lines) in [("--since", RECORD.lines().count()), ("--until", 0)] {
        let (code, said, complained) = told(view(&[option, "-99999d"], RECORD));
        assert_eq!((code, said.lines().count()), (0, lines), "{option}: {complained}");
    }
    let (code, _, complained) = told(view(&["--since", "--follow"], RECORD));
    assert!(code == 2 && complained.contains("it should be a time"), "{complained}");
}

#[test]
fn what_is_no_event_is_told_with_its_line_and_the_rest_is_shown() {
    let mixed = RECORD.replacen('\n', "\nnoise \x1b[2J\n", 1);
    let (code, said, complained) = told(view(&["-"], &mixed));
    assert_eq!((code, said.lines().count()), (1, RECORD.lines().count()));
    assert_eq!(complained, "rosentry: standard input, line 2 is no event\n");
}

#[test]
fn a_flood_of_what_is_no_event_is_counted() {
    let (code, _, complained) = told(view(&[], &"{}\n".repeat(1000)));
    assert_eq!((code, complained.lines().count()), (1, 11));
    assert!(complained.ends_with("990 more lines are no events\n"), "{complained}");
}

#[test]
fn a_last_event_that_lacks_only_its_line_s_end_is_shown() {
    let (code, said, complained) = told(view(&[], RECORD.trim_end()));
    assert_eq!((code, said.lines().count(), complained.as_str()), (0, RECORD.lines().count(), ""));
    assert_eq!(told(view(&[], &RECORD[..RECORD.len() - 10])).0, 1);
}

#[test]
fn a_file_that_can_not_be_read_is_an_error() {
    let (code, said, complained) = told(view(&["/no/such.json"], ""));
    assert_eq!((code, said.as_str()), (2, ""));
    assert!(complained.contains("/no/such.json can't be read: No such file"), "{complained}");
    assert_eq!(told(view(&["-", "-"], "")).0, 2);
    assert_eq!(told(view(&["--follow", "-", "/etc/hosts"], "")).0, 2);
}

#[test]
fn a_reader_who_has_seen_enough_ends_it_quietly() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.json");
    fs::write(&path, RECORD.repeat(2000)).unwrap();
    let mut child = command(&[path.to_str().unwrap()]).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    let (code, _, complained) = told(child.wait_with_output().unwrap());
    assert!(first.contains("agent start"), "{first}");
    assert_eq!((code, complained.as_str()), (0, ""));
}

#[test]
fn an_event_of_a_live_stream_is_shown_before_the_next_one_comes() {
    let mut shown = Shown::of(command(&[]));
    let mut stdin = shown.child.stdin.take().unwrap();
    for line in RECORD.lines() {
        writeln!(stdin, "{line}").unwrap();
        assert!(shown.next().ends_with('\n'));
    }
    drop(stdin);
    assert_eq!(shown.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_terminal_gets_colours_and_lines_that_fit_and_no_color_is_heeded() {
    let terminal = |settings: &str| {
        // In the foreground: a `timeout` that leaves the terminal's foreground group gets its reader stopped (SIGTTIN)
        // by any shell that does not run its last command in its own place.
        let shell =
            format!("stty cols 50; {settings} timeout --foreground 60 {} view -", env!("CARGO_BIN_EXE_rosentry"));
        let mut script = Command::new("script");
        script
            .args(["--quiet", "--return", "--command", &shell, "/dev/null"])
            .env_remove("NO_COLOR")
            .env_remove("COLUMNS");
        let mut child = script
            .env("TERM", "xterm")
            .env("SHELL", "/bin/sh")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // The end of the terminal's input is a character.
        child.stdin.take().unwrap().write_all(format!("{}\n\x04", RECORD.lines().nth(2).unwrap()).as_bytes()).unwrap();
        told(child.wait_with_output().unwrap())
    };
    let (code, coloured, _) = terminal("");
    assert_eq!(code, 0, "{coloured}");
    assert!(coloured.contains("\x1b[36mprod/web/app\x1b[0m"), "{coloured:?}");
    let (_, plain, _) = terminal("NO_COLOR=1");
    let shown = plain.split_once("2026-11-22 UTC").unwrap().1;
    assert!(!shown.contains('\x1b') && shown.contains("16:39:50.611 low prod/web/app"), "{shown:?}");
    assert!(shown.lines().all(|line| line.trim_end().chars().count() <= 50), "{shown}");
}

#[test]
fn a_file_is_followed_over_its_rotation_until_nobody_looks_any_more() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.json");
    let lines: Vec<_> = RECORD.lines().collect();
    append(&path, lines[0]);
    let mut shown = Shown::of(command(&["--follow", path.to_str().unwrap()]));
    assert!(shown.next().contains("agent start"));
    append(&path, lines[2]);
    assert!(shown.next().contains("/tmp/kit"));
    fs::rename(&path, folder.path().join("events.json.1")).unwrap();
    append(&path, lines[3]);
    assert!(shown.next().contains("/usr/bin/kit"));
    assert_eq!(shown.end(), Some(0));
}

#[test]
fn a_named_pipe_is_followed_as_it_is_written_and_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let mut shown = Shown::of(command(&["--follow", path.to_str().unwrap()]));
    let mut pipe = fs::File::options().write(true).open(&path).unwrap();
    for line in RECORD.lines() {
        writeln!(pipe, "{line}").unwrap();
        assert!(shown.next().ends_with('\n'));
    }
    drop(pipe);
    assert_eq!(shown.child.wait().unwrap().code(), Some(0));
    let refused = told(view(&["--follow", path.to_str().unwrap(), "/etc/hosts"], ""));
    assert_eq!(refused.0, 2, "{refused:?}");
}

fn append(path: &Path, line: &str) {
    let mut file = fs::File::options().create(true).append(true).open(path).unwrap();
    writeln!(file, "{line}").unwrap();
}

/// A `view` that runs, and what it shows.
struct Shown {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Shown {
    fn of(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    fn next(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line
    }

    /// Looks away; the exit code.
    fn end(mut self) -> Option<i32> {
        drop(self.lines);
        self.child.wait().unwrap().code()
    }
}
