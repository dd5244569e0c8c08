//! Processes in cgroups of their own.

use std::{fs, io, os::unix::fs::MetadataExt, path::PathBuf, time::Duration};

/// Removed when dropped.
pub struct Cgroup {
    path: PathBuf,
    pub id: u64,
}

impl Cgroup {
    pub fn new(name: &str) -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").expect("proc is mounted");
        let mount = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).find(|words| words[2] == "cgroup2");
        let path = PathBuf::from(mount.expect("cgroup2 is mounted")[1])
            .join(format!("rosentry-test-{}-{name}", std::process::id()));
        fs::create_dir(&path).expect("a cgroup can be made");
        let id = fs::metadata(&path).expect("it was made").ino();
        Self { path, id }
    }

    /// Whoever writes `0` there moves into it.
    pub fn processes(&self) -> fs::File {
        fs::OpenOptions::new().write(true).open(self.path.join("cgroup.procs")).expect("the cgroup is there")
    }

    /// Runs `act` in a process of its own in the cgroup, without waiting. `act` must be fit for a process that was forked from one
    /// with more threads: nothing that allocates.
    pub fn start(&self, act: impl Fn()) -> Child {
        let procs = self.processes();
        // SAFETY: the child calls nothing but system calls.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "{}", io::Error::last_os_error());
        if pid == 0 {
            let moved = rustix::io::write(&procs, b"0") == Ok(1);
            if moved {
                act();
            }
            // SAFETY: ends the process.
            unsafe { libc::_exit(i32::from(!moved)) };
        }
        Child(pid)
    }

    /// Runs `act` there, and waits.
    pub fn run(&self, act: impl Fn()) {
        self.start(act).wait();
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A process that was waited for may take an instant to leave it.
        for _ in 0..100 {
            if fs::remove_dir(&self.path).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// To be waited for.
#[must_use]
pub struct Child(i32);

impl Child {
    pub fn wait(self) {
        let mut status = 0;
        // SAFETY: a child of this process, and a place for its status.
        let waited = unsafe { libc::waitpid(self.0, &raw mut status, 0) };
        assert_eq!((waited, status), (self.0, 0), "the process ends well");
    }
}

/// Tries to make the file `/mnt/etc/` and the number, with so many slashes more than it takes, without allocating.
pub fn write_numbered(number: u32, more_slashes: usize) {
    const PREFIX: &[u8] = b"/mnt/etc/";
    const DIGITS: usize = 6;
    let mut path = [b'/'; 4096];
    path[..PREFIX.len()].copy_from_slice(PREFIX);
    let start = PREFIX.len() + more_slashes;
    let mut rest = number;
    for digit in (start..start + DIGITS).rev() {
        path[digit] = b'0' + u8::try_from(rest % 10).unwrap_or_default();
        rest /= 10;
    }
    path[start + DIGITS] = 0;
    // SAFETY: a NUL-terminated path.
    unsafe { libc::open(path.as_ptr().cast(), libc::O_WRONLY | libc::O_CREAT, 0o644) };
}
