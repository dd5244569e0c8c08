//! `rosentry run` killed, upgraded and uninstalled while somebody writes: what nobody read then is told by the next agent.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    thread::sleep,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::{
    kernel_objects::KernelObjects,
    run::{complained, rosentry, said, sentence},
};

const PATIENCE: Duration = Duration::from_secs(60);

/// A mount namespace of this thread's own, with a bpffs and a read-only filesystem at /mnt. They go with the thread.
struct Stage {
    folder: TempDir,
}

impl Stage {
    fn new() -> Self {
        use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
        // SAFETY: changes this thread's mount namespace alone.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNS) }, 0, "{}", io::Error::last_os_error());
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("bpf")).unwrap();
        mount("bpf", folder.path().join("bpf"), "bpf", MountFlags::empty(), None::<&std::ffi::CStr>).unwrap();
        mount("none", "/mnt", "tmpfs", MountFlags::RDONLY, None::<&std::ffi::CStr>).unwrap();
        Self { folder }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("events.json")
    }

    fn pins(&self) -> PathBuf {
        self.folder.path().join("bpf/rosentry")
    }

    fn builds(&self) -> Vec<String> {
        let entries = fs::read_dir(self.pins()).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = rosentry(&["run", "--scope", "all", "--node-name", "n1"]);
        if !arguments.contains(&"--metrics-listen") {
            command.args(["--metrics-listen", "127.0.0.1:0"]);
        }
        command.args(["--containerd-socket", "/nonexistent/containerd.sock", "--pin"]).arg(self.pins()).args(arguments);
        if !arguments.contains(&"--json") {
            command.arg("--json").arg(self.file());
        }
        command
    }

    /// An agent that is at work.
    fn agent(&self, arguments: &[&str]) -> Child {
        let [starts, gaps] = ["start", "gap"].map(|what| self.notes(what).len());
        let has_left = !self.builds().is_empty();
        let agent = self.command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_until("the agent has started", || self.notes("start").len() > starts);
        if has_left {
            wait_until("it has told of the gap", || self.notes("gap").len() > gaps);
        }
        agent
    }

    fn events(&self) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(self.file()).unwrap_or_default();
        // A line may be half written.
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// What agents have said of themselves.
    fn notes(&self, what: &str) -> Vec<serde_json::Value> {
        self.events().into_iter().filter(|event| event["agent"]["what"] == what).collect()
    }

    /// How many refused writes of the writer the record tells of.
    fn told(&self, writer: &Writer) -> u64 {
        self.told_of("write_denied", writer)
    }

    fn told_of(&self, kind: &str, writer: &Writer) -> u64 {
        let is_of = |event: &&serde_json::Value| event["kind"] == kind && event["cgroup"]["id"] == writer.id;
        self.events().iter().filter(is_of).map(|event| event["count"].as_u64().unwrap()).sum()
    }

    fn verify(&self) -> String {
        let verified = rosentry(&["verify", "--all", self.file().to_str().unwrap()]).output().unwrap();
        assert!(verified.status.success(), "{}", said(&verified));
        said(&verified)
    }

    fn uninstall(&self) -> Output {
        rosentry(&["uninstall", "--pin"]).arg(self.pins()).output().unwrap()
    }
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what} within {PATIENCE:?}");
        sleep(Duration::from_millis(20));
    }
}

fn kill(mut agent: Child) {
    agent.kill().unwrap();
    agent.wait().unwrap();
}

fn terminate(mut agent: Child) {
    let pid = rustix::process::Pid::from_child(&agent);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(agent.wait().unwrap().success());
}

/// A process in a cgroup of its own whose writes are refused, and who counts them.
struct Writer {
    cgroup: PathBuf,
    id: u64,
    pid: i32,
    /// Writes, whether it is to end, mount attempts.
    counts: &'static [AtomicU64; 3],
}

impl Writer {
    fn start() -> Self {
        use std::os::unix::fs::MetadataExt as _;
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let mount = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).find(|words| words[2] == "cgroup2");
        let cgroup = PathBuf::from(mount.expect("cgroup2 is mounted")[1])
            .join(format!("rosentry-restart-{}", std::process::id()));
        fs::create_dir(&cgroup).unwrap();
        let id = fs::metadata(&cgroup).unwrap().ino();
        let procs = fs::OpenOptions::new().write(true).open(cgroup.join("cgroup.procs")).unwrap();
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: new memory, shared with the child, and never given back.
        let counts = unsafe { libc::mmap(std::ptr::null_mut(), 4096, protection, flags, -1, 0) };
        assert_ne!(counts, libc::MAP_FAILED);
        // SAFETY: three numbers in zeroed memory that stays.
        let counts = unsafe { &*counts.cast::<[AtomicU64; 3]>() };
        // SAFETY: the child calls nothing but system calls.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "{}", io::Error::last_os_error());
        if pid == 0 {
            // Where the test is killed.
            let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
            if rustix::io::write(&procs, b"0") == Ok(1) {
                write_until_told(counts);
            }
            // SAFETY: ends the process.
            unsafe { libc::_exit(0) };
        }
        Self { cgroup, id, pid, counts }
    }

    /// How often it has written; it ends.
    fn stop(&self) -> u64 {
        self.counts[1].store(1, Ordering::SeqCst);
        // SAFETY: a child of this process.
        unsafe { libc::waitpid(self.pid, std::ptr::null_mut(), 0) };
        self.so_far()
    }

    fn mount_attempts(&self) -> u64 {
        self.counts[2].load(Ordering::SeqCst)
    }

    fn so_far(&self) -> u64 {
        self.counts[0].load(Ordering::SeqCst)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop();
        for _ in 0..100 {
            if fs::remove_dir(&self.cgroup).is_ok() {
                return;
            }
            sleep(Duration::from_millis(20));
        }
    }
}

/// Some paths again and again, and now and then a new one, and a mount attempt.
fn write_until_told(counts: &[AtomicU64; 3]) {
    let mut number = 0_u64;
    while counts[1].load(Ordering::SeqCst) == 0 {
        let mut rest = if number.is_multiple_of(100) { number } else { number % 7 };
        let mut path = *b"/mnt/00000000\0";
        for digit in (5..13).rev() {
            path[digit] = b'0' + u8::try_from(rest % 10).unwrap_or_default();
            rest /= 10;
        }
        // SAFETY: a NUL-terminated path, and a time that is readable.
        unsafe {
            libc::open(path.as_ptr().cast(), libc::O_WRONLY | libc::O_CREAT, 0o644);
            libc::usleep(200);
        }
        if number.is_multiple_of(50) {
            // SAFETY: a NUL-terminated path.
            unsafe { libc::umount2(c"/mnt/none".as_ptr(), 0) };
            counts[2].fetch_add(1, Ordering::SeqCst);
        }
        number += 1;
        counts[0].store(number, Ordering::SeqCst);
    }
}

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
    assert_eq!(stage.told_of("mount_attempt", &writer), writer.mount_attempts());
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
    assert_eq!(stage.told_of("mount_attempt", &writer), attempts);
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
