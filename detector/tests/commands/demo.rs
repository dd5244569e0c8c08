//! `rosentry demo`.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::Stdio,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{
    leftovers::Machine,
    run::{by_nobody, complained, on_a_terminal, rosentry, said, sentence, with_closed_pipe},
};

/// The lines of the table with the blanks between the words taken as one.
fn rows(text: &str) -> Vec<String> {
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

fn events() -> Vec<Value> {
    let output = rosentry(&["demo", "--format", "json"]).output().unwrap();
    assert!(output.status.success(), "{}", complained(&output));
    said(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn each_attempt_stands_beside_its_answer_and_its_event() {
    let output = rosentry(&["demo"]).env("COLUMNS", "160").output().unwrap();
    let text = said(&output);
    assert!(output.status.success(), "{}{text}", complained(&output));
    let rows = rows(&text);
    for expected in [
        "open /etc/app.conf for writing EROFS write_denied open /etc/app.conf O_WRONLY O_TRUNC by open[",
        "in /usr, create ../etc/x EROFS write_denied open /etc/x O_WRONLY O_CREAT by open-relative[",
        "create plugin.so, by a descriptor of /usr/lib EROFS write_denied open /usr/lib/plugin.so O_WRONLY O_CREAT",
        "create /lib/hook.so, through the link /lib EROFS write_denied open /usr/lib/hook.so O_WRONLY O_CREAT",
        "append to /var/log/app.log, by openat2 EROFS write_denied open /var/log/app.log O_WRONLY O_APPEND",
        "rm /etc/passwd EROFS write_denied unlink /etc/passwd by rm[",
        "mount -o remount,rw / done mount_attempt remount / unseal MS_REMOUNT by remount[",
        "the same without CAP_SYS_ADMIN EPERM mount_attempt remount / unseal MS_REMOUNT by remount-no-caps[",
        "mount a tmpfs over /usr/lib done mount_attempt mount /usr/lib shadow by mount-over[",
        "… move_mount, over /usr/bin done mount_attempt move_mount /usr/bin shadow MOVE_MOUNT_F_EMPTY_PATH by",
        "umount /data done mount_attempt umount /data detach by umount[",
        "mkdir /etc, which is there already EEXIST nothing, rightly",
        "create /data/x, on a writable volume done nothing, rightly",
    ] {
        assert!(rows.iter().any(|row| row.starts_with(expected)), "{expected}\nis missing in\n{text}");
    }
    let end = rows.last().unwrap();
    assert!(end.starts_with("seen ") && end.contains(" attempts, each once;"), "{end}");
    assert_eq!(complained(&output), "", "nothing to complain of");
}

#[test]
fn the_events_are_those_of_the_agent_in_its_native_format() {
    let events = events();
    assert!(events.len() >= 25, "{}", events.len());
    for (event, seq) in events.iter().zip(1_u64..) {
        assert_eq!(event["schema"], "rosentry/v1");
        assert_eq!(event["seq"], seq);
        assert_eq!(event["container"]["name"], "demo");
        assert_eq!(event["container"]["readonly_rootfs"], true);
        assert_eq!(event["count"], 1);
        let args: Vec<&str> =
            event["process"]["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap()).collect();
        assert_eq!(args[..3], ["rosentry", "demo", "--act"]);
        assert_eq!(event["process"]["comm"], args[3], "the process has the name of its attempt");
    }
    let by_name = |name: &str| events.iter().find(|event| event["process"]["comm"] == name).unwrap();
    let relative = by_name("open-relative");
    assert_eq!((&relative["kind"], &relative["operation"]), (&"write_denied".into(), &"open".into()));
    assert_eq!((&relative["outcome"], &relative["errno"]), (&"denied".into(), &"EROFS".into()));
    assert_eq!((&relative["file"]["path"], &relative["file"]["requested"]), (&"/etc/x".into(), &"../etc/x".into()));
    assert_eq!(relative["process"]["cwd"], "/usr");
    let remount = by_name("remount");
    assert_eq!((&remount["kind"], &remount["operation"]), (&"mount_attempt".into(), &"remount".into()));
    assert_eq!((&remount["outcome"], &remount["errno"]), (&"succeeded".into(), &Value::Null));
    assert_eq!((&remount["mount"]["target"], &remount["mount"]["effect"]), (&"/".into(), &"unseal".into()));
    assert_eq!(remount["process"]["cap_sys_admin"], true);
    let unprivileged = by_name("remount-no-caps");
    assert_eq!((&unprivileged["outcome"], &unprivileged["errno"]), (&"failed".into(), &"EPERM".into()));
    assert_eq!(unprivileged["process"]["cap_sys_admin"], false);
}

#[test]
fn a_32_bit_call_is_told_as_one_where_this_kernel_takes_them() {
    match events().iter().find(|event| event["process"]["comm"] == "open-32-bit") {
        Some(event) => assert_eq!(event["abi"], "ia32"),
        None => println!("skipped: this kernel takes no 32-bit calls"),
    }
}

#[test]
fn nothing_is_left_behind() {
    // Again where the programs were not seen, which came and went between two looks.
    let seen = (0..20).any(|_| {
        let machine = Machine::watched();
        assert!(rosentry(&["demo"]).output().unwrap().status.success());
        machine.has_nothing_more()
    });
    assert!(seen, "the demo has programs in the kernel while it runs");
}

#[test]
fn nothing_is_left_behind_when_it_is_interrupted() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        // Again where the demo was done before the signal came.
        assert!((0..20).any(|_| is_interrupted(signal)), "{signal:?}");
    }
}

/// Whether it was, rather than being done before; nothing is left either way.
fn is_interrupted(signal: Signal) -> bool {
    let machine = Machine::watched();
    let mut child = rosentry(&["demo"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The first line comes when everything is made and before the first attempt.
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    lines.read_line(&mut String::new()).unwrap();
    kill_process(Pid::from_child(&child), signal).unwrap();
    lines.read_to_end(&mut Vec::new()).unwrap();
    let output = child.wait_with_output().unwrap();
    machine.has_nothing_more();
    if output.status.success() {
        return false;
    }
    assert!(sentence(&output).contains("interrupted"), "{}", complained(&output));
    true
}

#[test]
fn a_reader_who_goes_away_changes_neither_the_answer_nor_what_is_left() {
    for arguments in [&["demo"][..], &["demo", "--format", "json"]] {
        let machine = Machine::watched();
        let (status, complained) = with_closed_pipe(rosentry(arguments));
        assert_eq!((status.code(), complained.as_str()), (Some(0), ""));
        machine.has_nothing_more();
    }
}

#[test]
fn an_output_that_takes_nothing_is_told() {
    let machine = Machine::watched();
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output = rosentry(&["demo"]).stdout(full).output().unwrap();
    assert!(sentence(&output).contains("No space left"), "{}", complained(&output));
    machine.has_nothing_more();
}

#[test]
fn on_a_narrow_terminal_no_line_is_longer_than_it() {
    for width in [60, 61, 80, 100, 133] {
        let output = rosentry(&["demo"]).env("COLUMNS", width.to_string()).output().unwrap();
        assert!(output.status.success());
        let text = said(&output);
        for line in text.lines() {
            assert!(line.chars().count() <= width, "{width}: {line}");
        }
        assert!(text.contains("write_denied") && text.contains("mount_attempt"), "{text}");
    }
}

#[test]
fn there_are_colours_on_a_terminal_alone_and_never_with_no_color() {
    assert!(on_a_terminal(rosentry(&["demo"])).contains("\x1b["));
    let mut plain = rosentry(&["demo"]);
    plain.env("NO_COLOR", "1");
    assert!(!on_a_terminal(plain).contains('\x1b'));
    assert!(!said(&rosentry(&["demo"]).output().unwrap()).contains('\x1b'));
}

#[test]
fn who_is_not_root_is_told_so_in_one_sentence() {
    let machine = Machine::watched();
    let (mut demo, _folder) = by_nobody(&["demo"]);
    let output = demo.output().unwrap();
    assert!(sentence(&output).contains("root"), "{}", complained(&output));
    assert_eq!(said(&output), "");
    machine.has_nothing_more();
}

#[test]
fn a_place_without_cgroup2_is_named_in_one_sentence() {
    let machine = Machine::watched();
    let output = rosentry(&["demo", "--host-cgroup", "/nonexistent"]).output().unwrap();
    let sentence = sentence(&output);
    assert!(sentence.contains("/nonexistent") && sentence.contains("--host-cgroup"), "{sentence}");
    machine.has_nothing_more();
}

#[test]
fn the_hidden_flag_by_itself_does_nothing() {
    let machine = Machine::watched();
    for name in ["open", "no-such-attempt"] {
        assert_eq!(rosentry(&["demo", "--act", name]).output().unwrap().status.code(), Some(2));
    }
    machine.has_nothing_more();
}
