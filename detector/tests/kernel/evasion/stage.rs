//! Where a case plays: a process of its own, in a mount namespace of its own with a sealed root at `/mnt`. It lives until what was
//! seen of it has been looked at.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use super::super::sealed::{Sealed, enter_own_mount_namespace};

/// How long a case may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a case says of itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Said {
    /// It was done by the process with this id.
    Did(u32),
    /// This kernel or machine does not have what the case needs.
    Skipped(String),
}

impl Said {
    /// The case did it itself.
    pub fn myself() -> Self {
        Self::Did(std::process::id())
    }

    pub fn skipped(why: &str) -> Self {
        Self::Skipped(why.to_owned())
    }
}

/// The process of a case. Dropping it lets it go.
pub struct Player {
    pub pid: u32,
    pub said: Said,
    _hold: UnixStream,
}

impl Player {
    /// Starts the process and waits until it has played.
    pub fn play(act: &dyn Fn() -> Said) -> Self {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        // SAFETY: the only other thread of the test's process waits for this one, so that no lock is held that the child needs.
        let pid = unsafe { libc::fork() };
        assert_ne!(pid, -1, "a process can be made");
        if pid == 0 {
            drop(ours);
            let said = catch_unwind(AssertUnwindSafe(|| {
                enter_own_mount_namespace();
                Sealed::new();
                act()
            }));
            let text = match said {
                Ok(Said::Did(pid)) => format!("did {pid}"),
                Ok(Said::Skipped(why)) => format!("skipped {why}"),
                Err(_) => "panicked".to_owned(),
            };
            let _ = theirs.write_all(text.as_bytes()).and_then(|()| theirs.shutdown(std::net::Shutdown::Write));
            // Comes when the test lets go.
            let _ = theirs.read(&mut [0]);
            // SAFETY: ends the child without unwinding into what it has copied of the test.
            unsafe { libc::_exit(0) };
        }
        drop(theirs);
        let mut text = String::new();
        ours.set_read_timeout(Some(PATIENCE)).unwrap();
        ours.read_to_string(&mut text).expect("the case comes to its end");
        let said = match text.split_once(' ') {
            Some(("did", pid)) => Said::Did(pid.parse().unwrap()),
            Some(("skipped", why)) => Said::skipped(why),
            _ => panic!("the case did not come to its end; its words are above"),
        };
        Self { pid: pid.unsigned_abs(), said, _hold: ours }
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        let _ = self._hold.shutdown(std::net::Shutdown::Both);
        let pid = i32::try_from(self.pid).unwrap();
        // SAFETY: a child of this very process.
        unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
    }
}

/// Runs `act` in a process made by fork, and waits for its end; its id.
pub fn forked(act: impl FnOnce()) -> u32 {
    // SAFETY: the caller's process has no other thread.
    let pid = unsafe { libc::fork() };
    assert_ne!(pid, -1, "a process can be made");
    if pid == 0 {
        act();
        // SAFETY: ends the child.
        unsafe { libc::_exit(0) };
    }
    // SAFETY: a child of this very process.
    assert_eq!(unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) }, pid);
    pid.unsigned_abs()
}
