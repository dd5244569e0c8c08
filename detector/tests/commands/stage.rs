//! What tests of agents that are killed and replaced share: where the agent works, and who writes meanwhile.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    thread::sleep,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::run::{rosentry, said};

const PATIENCE: Duration = Duration::from_secs(60);

/// A mount namespace of this thread's own, with a bpffs and a read-only filesystem at /mnt. They go with the thread.
pub struct Stage {
    pub folder: TempDir,
}

impl Stage {
    pub fn new() -> Self {
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

    pub fn file(&self) -> PathBuf {
        self.folder.path().join("events.json")
    }

    pub fn pins(&self) -> PathBuf {
        self.folder.path().join("bpf/rosentry")
    }

    pub fn builds(&self) -> Vec<String> {
        let entries = fs::read_dir(self.pins()).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
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
    pub fn agent(&self, arguments: &[&str]) -> Child {
        let [starts, gaps] = ["start", "gap"].map(|what| self.notes(what).len());
        let has_left = !self.builds().is_empty();
        let agent = self.command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_until("the agent has started", || self.notes("start").len() > starts);
        if has_left {
            wait_until("it has told of the gap", || self.notes("gap").len() > gaps);
        }
        agent
    }

    pub fn events(&self) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(self.file()).unwrap_or_default();
        // A line may be half written.
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// What agents have said of themselves.
    pub fn notes(&self, what: &str) -> Vec<serde_json::Value> {
        self.events().into_iter().filter(|event| event["agent"]["what"] == what).collect()
    }

    /// How many refused writes of the writer the record tells of.
    pub fn told(&self, writer: &Writer) -> u64 {
        self.told_of("write_denied", writer.id)
    }

    /// How many attempts of this kind of a cgroup.
    pub fn told_of(&self, kind: &str, cgroup: u64) -> u64 {
        let is_of = |event: &&serde_json::Value| event["kind"] == kind && event["cgroup"]["id"] == cgroup;
        self.events().iter().filter(is_of).map(|event| event["count"].as_u64().unwrap()).sum()
    }

    pub fn verify(&self) -> String {
        let verified = rosentry(&["verify", "--all", self.file().to_str().unwrap()]).output().unwrap();
        assert!(verified.status.success(), "{}", said(&verified));
        said(&verified)
    }

    pub fn uninstall(&self) -> Output {
        rosentry(&["uninstall", "--pin"]).arg(self.pins()).output().unwrap()
    }
}

pub fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what} within {PATIENCE:?}");
        sleep(Duration::from_millis(20));
    }
}

pub fn kill(mut agent: Child) {
    agent.kill().unwrap();
    agent.wait().unwrap();
}

pub fn terminate(agent: Child) {
    stop_by(agent, rustix::process::Signal::TERM);
}

pub fn stop_by(mut agent: Child, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_child(&agent);
    rustix::process::kill_process(pid, signal).unwrap();
    assert!(agent.wait().unwrap().success());
}

/// A process in a cgroup of its own whose writes are refused, and who counts them.
pub struct Writer {
    cgroup: PathBuf,
    pub id: u64,
    pid: i32,
    /// Writes, whether it is to end, mount attempts.
    counts: &'static [AtomicU64; 3],
}

impl Writer {
    pub fn start() -> Self {
        let (cgroup, id) = make_cgroup(&format!("rosentry-restart-{}", std::process::id()));
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
    pub fn stop(&self) -> u64 {
        self.counts[1].store(1, Ordering::SeqCst);
        // SAFETY: a child of this process.
        unsafe { libc::waitpid(self.pid, std::ptr::null_mut(), 0) };
        self.so_far()
    }

    pub fn mount_attempts(&self) -> u64 {
        self.counts[2].load(Ordering::SeqCst)
    }

    pub fn so_far(&self) -> u64 {
        self.counts[0].load(Ordering::SeqCst)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop();
        remove_cgroup(&self.cgroup);
    }
}

/// A cgroup of this name, and its id.
fn make_cgroup(name: &str) -> (PathBuf, u64) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let mount = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).find(|words| words[2] == "cgroup2");
    let cgroup = PathBuf::from(mount.expect("cgroup2 is mounted")[1]).join(name);
    fs::create_dir(&cgroup).unwrap();
    let id = fs::metadata(&cgroup).unwrap().ino();
    (cgroup, id)
}

fn remove_cgroup(cgroup: &Path) {
    for _ in 0..100 {
        if fs::remove_dir(cgroup).is_ok() {
            return;
        }
        sleep(Duration::from_millis(20));
    }
}

/// The cgroup of a container of which containerd has not told yet.
pub struct Unknown {
    cgroup: PathBuf,
    pub id: u64,
}

impl Unknown {
    pub fn new() -> Self {
        let (cgroup, id) = make_cgroup(&format!("{:064x}", std::process::id()));
        Self { cgroup, id }
    }

    /// Has a process in it `act`, which must call nothing but system calls.
    pub fn run(&self, act: impl Fn()) {
        let procs = fs::OpenOptions::new().write(true).open(self.cgroup.join("cgroup.procs")).unwrap();
        // SAFETY: the child calls nothing but system calls.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "{}", io::Error::last_os_error());
        if pid == 0 {
            let is_in = rustix::io::write(&procs, b"0") == Ok(1);
            if is_in {
                act();
            }
            // SAFETY: ends the process.
            unsafe { libc::_exit(i32::from(!is_in)) };
        }
        let mut status = 0;
        // SAFETY: a child of this process, and a place for its status.
        let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
        assert_eq!((waited, status), (pid, 0));
    }
}

impl Drop for Unknown {
    fn drop(&mut self) {
        remove_cgroup(&self.cgroup);
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
