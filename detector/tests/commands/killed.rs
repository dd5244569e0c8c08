//! `rosentry run` with a file, killed and started again under load: the record goes on, and stays whole.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use super::{
    mortal::ends_with_its_test,
    run::{rosentry, said},
};

const PATIENCE: Duration = Duration::from_secs(60);

/// Processes whose every write is refused, as fast as they can.
struct Load(Child);

impl Load {
    fn start() -> Self {
        // Each by another name: repeats would be told together.
        let script = "mount -t tmpfs -o ro none /mnt && while i=$((i + 1)); do touch /mnt/$i; done";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script]).stdin(Stdio::null()).stderr(Stdio::null());
        ends_with_its_test(&mut command);
        Self(command.spawn().unwrap())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An agent that writes to this file.
fn agent(file: &Path) -> Child {
    let file = file.to_str().unwrap();
    rosentry(&["run", "--scope", "all", "--json", file, "--metrics-listen", "127.0.0.1:0"])
        .args(["--containerd-socket", "/nonexistent/containerd.sock", "--node-name", "n1"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Waits until the file has so many lines.
fn wait_for_lines(file: &Path, lines: usize) {
    let deadline = Instant::now() + PATIENCE;
    while count(file) < lines {
        assert!(Instant::now() < deadline, "{} lines", count(file));
        sleep(Duration::from_millis(10));
    }
}

fn count(file: &Path) -> usize {
    fs::read_to_string(file).map_or(0, |text| text.lines().count())
}

#[test]
fn an_agent_that_is_killed_again_and_again_leaves_a_whole_record() {
    const KILLS: usize = 4;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.json");
    let load = Load::start();
    for _ in 0..KILLS {
        let before = count(&file);
        let mut agent = agent(&file);
        wait_for_lines(&file, before + 50);
        agent.kill().unwrap();
        agent.wait().unwrap();
    }
    let mut last = agent(&file);
    wait_for_lines(&file, count(&file) + 50);
    drop(load);
    let pid = rustix::process::Pid::from_child(&last);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(last.wait().unwrap().success());

    let verified = rosentry(&["verify", "--all", file.to_str().unwrap()]).output().unwrap();
    let said = said(&verified);
    assert!(verified.status.success(), "{said}");
    assert!(said.contains(&format!("1 stream, {} starts", KILLS + 1)), "{said}");
    assert!(said.contains(&format!("{KILLS} runs ended without a stop record")), "{said}");
}

#[test]
fn a_file_that_was_moved_is_opened_anew_at_a_hangup() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.json");
    let mut agent = agent(&file);
    wait_for_lines(&file, 2);
    fs::rename(&file, folder.path().join("moved")).unwrap();
    let pid = rustix::process::Pid::from_child(&agent);
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while !file.exists() {
        assert!(Instant::now() < deadline, "it is not opened anew");
        sleep(Duration::from_millis(10));
    }
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(agent.wait().unwrap().success());
    let files = ["moved", "events.json"].map(|name| folder.path().join(name).to_str().unwrap().to_owned());
    let verified = rosentry(&["verify", "--all", &files[0], &files[1]]).output().unwrap();
    assert!(verified.status.success(), "{}", said(&verified));
    assert!(said(&verified).contains("2 files, 1 stream, 1 start"), "{}", said(&verified));
}
