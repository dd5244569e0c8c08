//! `rosentry run` killed, upgraded and uninstalled while somebody writes: what nobody read then is told by the next agent.

use std::{
    fs, io::Write as _, os::unix::fs::PermissionsExt as _, path::Path, process::Stdio, thread::sleep, time::Duration,
};

use super::{
    kernel_objects::KernelObjects,
    run::{complained, rosentry, said, sentence},
    stage::{Stage, Writer, kill, stop_by, terminate, wait_until},
};

#[test]
fn an_agent_that_is_killed_twenty_times_misses_no_attempt() {
    const KILLS: usize = 20;
    let stage = Stage::new();
    let mut agent = stage.agent(&[]);
    let writer = Writer::start();
    for number in 0..KILLS {
        sleep(Duration::from_millis(37 * (number as u64 % 10)));
        kill(agent);
        agent = stage.agent(&[]);
    }
    let written = writer.stop();
    terminate(agent);
    assert_eq!(stage.told(&writer), written, "{}", stage.verify());
    assert_eq!(stage.told_of("mount_attempt", writer.id), writer.mount_attempts());
    let verified = stage.verify();
    assert!(verified.contains(&format!("1 stream, {} starts", KILLS + 1)), "{verified}");
    assert_eq!(stage.notes("gap").len(), KILLS);
    assert_eq!(stage.notes("lost"), Vec::<serde_json::Value>::new());
}

#[test]
fn attempts_while_no_agent_is_there_come_with_the_next_one() {
    let stage = Stage::new();
    kill(stage.agent(&[]));
    let before = stage.events().len();
    let writer = Writer::start();
    wait_until("a thousand writes", || writer.so_far() >= 1000);
    let written = writer.stop();
    let agent = stage.agent(&[]);
    wait_until("all is told", || stage.told(&writer) == written);
    let next: Vec<_> = stage.events().split_off(before);
    let of_writer = next.iter().filter(|event| event["cgroup"]["id"] == writer.id);
    let mut writes = of_writer.clone().filter(|event| event["kind"] == "write_denied");
    assert!(writes.all(|event| event["file"]["path"].is_string()), "in full: {next:#?}");
    let gap = &stage.notes("gap")[0];
    assert_eq!(gap["agent"]["programs"], "went_on");
    let [from, to] = ["from", "to"].map(|when| gap["agent"][when].as_str().unwrap());
    for event in of_writer {
        let [first, last] = ["first_time", "last_time"].map(|when| event[when].as_str().unwrap());
        assert!(from < first && last <= to, "within the gap: {event:#?}");
    }
    terminate(agent);
    stage.verify();
}

#[test]
fn an_agent_that_fails_to_start_leaves_to_the_next_what_it_found() {
    let stage = Stage::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().to_string();
    kill(stage.agent(&[]));
    let writer = Writer::start();
    let mut gone = 0;
    // The first goes on with the programs, the second replaces them.
    for hooks in ["auto", "tracepoint"] {
        wait_until("some writes", || writer.so_far() > gone + 200);
        let failed = stage.command(&["--hooks", hooks, "--metrics-listen", &port]).output().unwrap();
        // What is told before it fails is a line of the log: there is no containerd.
        let told = complained(&failed);
        assert!(failed.status.code() == Some(2) && told.lines().last().unwrap().contains("in use"), "{told}");
        assert_eq!(stage.builds().len(), 1);
        gone = writer.so_far();
    }
    wait_until("some writes", || writer.so_far() > gone + 200);
    let written = writer.stop();
    terminate(stage.agent(&["--hooks", "tracepoint"]));
    assert_eq!(stage.told(&writer), written);
    stage.verify();
}

#[test]
fn an_agent_can_follow_at_once_on_one_that_ends() {
    let stage = Stage::new();
    for _ in 0..4 {
        let agent = stage.agent(&[]);
        let pid = rustix::process::Pid::from_child(&agent);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let starts = stage.notes("start").len();
        // While that one ends.
        let next = stage.command(&[]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        assert!({ agent }.wait().unwrap().success());
        wait_until("the next has started", || stage.notes("start").len() > starts);
        assert_eq!(stage.builds().len(), 1, "what it has pinned is there");
        terminate(next);
        assert!(!stage.pins().exists());
    }
}

/// Has an agent killed and followed by one with other arguments, again and again, while somebody writes: each attempt is told once. What
/// each has told of the programs that it found.
fn replaced_while_somebody_writes(stage: &Stage, first: &[&str], next: &[&[&str]]) -> Vec<serde_json::Value> {
    let mut agent = stage.agent(first);
    let writer = Writer::start();
    for arguments in next {
        let so_far = writer.so_far();
        wait_until("some writes", || writer.so_far() > so_far + 500);
        kill(agent);
        agent = stage.agent(arguments);
        assert_eq!(stage.builds().len(), 1, "the other is gone");
    }
    let (written, attempts) = (writer.stop(), writer.mount_attempts());
    terminate(agent);
    assert_eq!(stage.told(&writer), written, "{}", stage.verify());
    assert_eq!(stage.told_of("mount_attempt", writer.id), attempts);
    stage.notes("gap").iter().map(|note| note["agent"]["programs"].clone()).collect()
}

#[test]
fn another_build_takes_over_and_each_attempt_is_told_once() {
    let stage = Stage::new();
    let hooks = ["tracepoint", "auto", "auto"].map(|hooks| ["--hooks", hooks]);
    let programs =
        replaced_while_somebody_writes(&stage, &["--hooks", "auto"], &hooks.each_ref().map(|hooks| &hooks[..]));
    assert_eq!(programs, ["replaced", "replaced", "went_on"]);
}

#[test]
fn another_setting_of_learning_mode_takes_over_and_each_attempt_is_told_once() {
    let stage = Stage::new();
    let [on, off] = ["--observe-writes=true", "--observe-writes=false"];
    let programs = replaced_while_somebody_writes(&stage, &[], &[&[on], &[on], &[off]]);
    assert_eq!(programs, ["replaced", "went_on", "replaced"]);
    let observes: Vec<_> = stage.notes("start").iter().map(|note| note["agent"]["observe_writes"].clone()).collect();
    assert_eq!(observes, [false, true, true, false]);
}

#[test]
fn what_is_left_is_removed_by_uninstall() {
    let stage = Stage::new();
    let agent = stage.agent(&[]);
    let mut objects = KernelObjects::default();
    objects.note(agent.id());
    assert!(objects.are_attached());
    let busy = stage.uninstall();
    assert!(sentence(&busy).contains("another rosentry is at work"));
    kill(agent);
    assert!(objects.left().are_attached(), "they go on");
    let output = stage.uninstall();
    assert!(output.status.success() && said(&output).contains("programs detached"), "{output:?}");
    assert!(!stage.pins().exists());
    wait_until("nothing is left in the kernel", || objects.left().are_none());
    assert!(said(&stage.uninstall()).contains("nothing is left"));
}

#[test]
fn a_stop_leaves_nothing_unless_the_next_agent_is_expected() {
    let stage = Stage::new();
    let agent = stage.agent(&["--keep-pins"]);
    let writer = Writer::start();
    wait_until("some writes", || writer.so_far() > 200);
    terminate(agent);
    assert_eq!(stage.builds().len(), 1);
    let so_far = writer.so_far();
    wait_until("some writes", || writer.so_far() > so_far + 200);
    let agent = stage.agent(&[]);
    let mut objects = KernelObjects::default();
    objects.note(agent.id());
    let written = writer.stop();
    terminate(agent);
    assert!(!stage.pins().exists());
    wait_until("nothing is left in the kernel", || objects.left().are_none());
    assert_eq!(stage.told(&writer), written);
    stage.verify();
}

#[test]
fn stops_that_leave_the_programs_to_the_next_one_tell_each_attempt_once() {
    let stage = Stage::new();
    let mut agent = stage.agent(&["--keep-pins"]);
    let writer = Writer::start();
    for _ in 0..4 {
        let so_far = writer.so_far();
        wait_until("some writes", || writer.so_far() > so_far + 200);
        terminate(agent);
        agent = stage.agent(&["--keep-pins"]);
    }
    let (written, attempts) = (writer.stop(), writer.mount_attempts());
    // Who stops it by hand expects no next one.
    stop_by(agent, rustix::process::Signal::INT);
    assert!(!stage.pins().exists());
    assert_eq!(stage.told(&writer), written, "{}", stage.verify());
    assert_eq!(stage.told_of("mount_attempt", writer.id), attempts);
}

#[test]
fn a_second_agent_and_a_strangers_folder_are_refused_in_a_sentence() {
    let stage = Stage::new();
    let agent = stage.agent(&[]);
    let refused = |expected: &str| {
        let said = sentence(&stage.command(&[]).output().unwrap());
        assert!(said.contains(expected) && said.contains("--pin off"), "{said}");
    };
    refused("another rosentry is at work");
    terminate(agent);
    fs::create_dir(stage.pins()).unwrap();
    fs::set_permissions(stage.pins(), fs::Permissions::from_mode(0o775)).unwrap();
    refused("others may write to it");
    fs::set_permissions(stage.pins(), fs::Permissions::from_mode(0o700)).unwrap();
    std::os::unix::fs::chown(stage.pins(), Some(65534), None).unwrap();
    refused("it is of another user");
    std::os::unix::fs::chown(stage.pins(), Some(0), None).unwrap();
    fs::create_dir(stage.pins().join("somebody")).unwrap();
    refused("its name is none of ours");
    fs::remove_dir(stage.pins().join("somebody")).unwrap();
    fs::remove_dir(stage.pins()).unwrap();
    std::os::unix::fs::symlink("/tmp", stage.pins()).unwrap();
    refused("it is no folder");
}

#[test]
fn standard_output_goes_on_where_it_was() {
    let stage = Stage::new();
    let to = |name: &str| {
        let path = stage.folder.path().join(name);
        let mut command = stage.command(&["--json", "-"]);
        let agent = command.stdout(fs::File::create(&path).unwrap()).stderr(Stdio::null()).spawn().unwrap();
        (agent, path)
    };
    let lines = |path: &Path| fs::read_to_string(path).unwrap().lines().count();
    let (first, one) = to("one");
    wait_until("it has begun", || lines(&one) >= 2);
    kill(first);
    let (second, two) = to("two");
    wait_until("it goes on", || lines(&two) >= 3);
    terminate(second);
    let both = stage.folder.path().join("both");
    let mut file = fs::File::create(&both).unwrap();
    file.write_all(&[fs::read(one).unwrap(), fs::read(two).unwrap()].concat()).unwrap();
    let verified = rosentry(&["verify", "--all", both.to_str().unwrap()]).output().unwrap();
    assert!(said(&verified).contains("1 stream, 2 starts"), "{}", said(&verified));
}
