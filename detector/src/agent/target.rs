//! The process that stands for a container: what is mounted where it is, whether it is the container's program yet, and when
//! it ends.
//!
//! Everything is asked by the process's folder in proc, opened once: it stays that of this very process, whoever has its pid
//! later. A mount table keeps its mount namespace and the root alive as long as it is open, and with them what is mounted
//! there, so it must be closed as soon as the process has ended, and opened anew where its root may be another.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{CWD, Mode, OFlags, openat, readlinkat},
    process::{Pid, PidfdFlags, pidfd_open},
};

use crate::{agent::mountinfo, finding::seal::MountInfo, kernel::attempt::PF_FORKNOEXEC, process_stat::Stat};

/// See the module.
pub(crate) struct Target {
    /// Its folder in proc.
    folder: OwnedFd,
    /// Readable once it has ended; none where the agent has other pids than proc tells.
    exit: Option<OwnedFd>,
    /// Its mount table.
    table: File,
    /// Inode number of the mount namespace, as `mnt:[4026531841]`; none where the agent may not ask.
    mnt_ns: Option<Vec<u8>>,
    executed: bool,
}

impl Target {
    /// Opens what is needed of the process with this id that started then, in nanoseconds since boot. None where its root is
    /// not that of its mount namespace.
    ///
    /// # Errors
    /// Where there is no such process, or another one that has its id by now.
    pub(crate) fn open(host_proc: &Path, pid: u32, start_time_ns: u64) -> io::Result<Option<Self>> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = openat(CWD, host_proc.join(pid.to_string()), flags, Mode::empty())?;
        let table = open_below(folder.as_fd(), "mountinfo")?;
        let mnt_ns = link(folder.as_fd(), "ns/mnt");
        let exit = if same_pids(host_proc) { open_exit(pid)? } else { None };
        let target = Self { folder, exit, table, mnt_ns, executed: false };
        // What was opened by the pid is that process's if the process is still there now, and is the one that is meant.
        if !target.stat()?.started_at(start_time_ns) {
            return Err(rustix::io::Errno::SRCH.into());
        }
        Ok(target.is_at_root().then_some(target))
    }

    /// To be awaited for priority: its mount namespace has changed.
    pub(crate) fn table(&self) -> BorrowedFd<'_> {
        self.table.as_fd()
    }

    /// To be awaited for reading: it has ended.
    pub(crate) fn exit(&self) -> Option<BorrowedFd<'_>> {
        self.exit.as_ref().map(AsFd::as_fd)
    }

    /// Opens its mount table anew; returns whether that took the place of the former. It does not where the process has left
    /// the mount namespace or its root, by unshare or chroot: the former goes on telling of the container.
    ///
    /// # Errors
    /// Where the process has ended.
    pub(crate) fn reopen(&mut self) -> io::Result<bool> {
        let table = open_below(self.folder.as_fd(), "mountinfo")?;
        let same = link(self.folder.as_fd(), "ns/mnt") == self.mnt_ns && self.is_at_root();
        if same {
            self.table = table;
        }
        Ok(same)
    }

    /// Its mount table as it is now. Only once for each time that it was opened.
    ///
    /// # Errors
    /// Where it can't be read.
    pub(crate) fn mounts(&mut self) -> io::Result<Vec<MountInfo>> {
        io::Seek::rewind(&mut self.table)?;
        mountinfo::read_from(&self.table)
    }

    /// Its root, to look things up in. Takes CAP_SYS_PTRACE.
    ///
    /// # Errors
    /// Where it has ended, or the agent may not.
    pub(crate) fn root(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(openat(&self.folder, "root", flags, Mode::empty())?)
    }

    /// What `/proc/<pid>/status` says of it.
    ///
    /// # Errors
    /// Where it has ended.
    pub(crate) fn status(&self) -> io::Result<String> {
        let mut status = Vec::new();
        open_below(self.folder.as_fd(), "status")?.read_to_end(&mut status)?;
        Ok(String::from_utf8_lossy(&status).into_owned())
    }

    /// Whether it executes the container's program, or has: until then it is the runtime.
    ///
    /// # Errors
    /// Where it has ended.
    pub(crate) fn has_executed(&mut self) -> io::Result<bool> {
        self.executed = self.executed || self.stat()?.flags & PF_FORKNOEXEC == 0;
        Ok(self.executed)
    }

    fn stat(&self) -> io::Result<Stat> {
        let mut stat = Vec::new();
        open_below(self.folder.as_fd(), "stat")?.read_to_end(&mut stat)?;
        Stat::parse(&stat).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }

    /// Whether its root is that of its mount namespace; also where the agent may not ask.
    fn is_at_root(&self) -> bool {
        link(self.folder.as_fd(), "root").is_none_or(|root| root == b"/")
    }
}

/// Whether proc tells the pids that our own system calls take.
fn same_pids(host_proc: &Path) -> bool {
    let own = std::process::id().to_string();
    link(CWD, host_proc.join("self")).is_some_and(|pid| pid == own.as_bytes())
}

fn open_exit(pid: u32) -> io::Result<Option<OwnedFd>> {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
    Ok(Some(pidfd_open(pid, PidfdFlags::empty())?))
}

fn open_below(folder: BorrowedFd<'_>, name: &str) -> io::Result<File> {
    Ok(openat(folder, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?.into())
}

fn link(folder: BorrowedFd<'_>, name: impl rustix::path::Arg) -> Option<Vec<u8>> {
    Some(readlinkat(folder, name, Vec::new()).ok()?.into_bytes())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use rustix::{
        event::{PollFd, PollFlags, Timespec, poll},
        process::{Signal, WaitOptions, kill_process, waitpid},
    };

    use super::*;

    fn start_of(pid: u32) -> u64 {
        Stat::read(&Path::new("/proc").join(pid.to_string())).unwrap().start_time_ns()
    }

    fn open(pid: u32) -> Option<Target> {
        Target::open(Path::new("/proc"), pid, start_of(pid)).unwrap()
    }

    fn is_ready(fd: BorrowedFd<'_>, flags: PollFlags) -> bool {
        let mut fds = [PollFd::from_borrowed_fd(fd, flags)];
        poll(&mut fds, Some(&Timespec { tv_sec: 5, tv_nsec: 0 })).unwrap() > 0
    }

    #[test]
    fn a_process_that_was_executed_is_told_from_one_that_was_only_forked() {
        let mut ourselves = open(std::process::id()).unwrap();
        assert!(ourselves.has_executed().unwrap());
        assert!(ourselves.mounts().unwrap().iter().any(|mount| mount.point == b"/"));
        // SAFETY: the child does nothing but make system calls, which a fork of several threads may.
        let child = unsafe { libc::fork() };
        if child == 0 {
            loop {
                // SAFETY: it takes nothing and touches no memory.
                unsafe { libc::pause() };
            }
        }
        let forked = open(child.cast_unsigned()).unwrap().has_executed();
        let child = Pid::from_raw(child).unwrap();
        kill_process(child, Signal::KILL).unwrap();
        waitpid(Some(child), WaitOptions::empty()).unwrap();
        assert!(!forked.unwrap());
    }

    #[test]
    fn the_end_of_a_process_is_told_and_it_can_t_be_asked_then() {
        let mut child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
        let mut target = open(child.id()).unwrap();
        child.kill().unwrap();
        assert!(is_ready(target.exit().unwrap(), PollFlags::IN));
        child.wait().unwrap();
        assert!(target.reopen().is_err());
        assert!(target.has_executed().is_err());
    }

    #[test]
    fn a_process_that_is_not_there_can_t_be_opened() {
        assert!(Target::open(Path::new("/proc"), u32::MAX, 0).is_err());
    }

    #[test]
    fn a_process_that_has_the_id_of_another_by_now_is_not_taken_for_it() {
        let start = start_of(std::process::id());
        assert!(Target::open(Path::new("/proc"), std::process::id(), start - 1_000_000_000).is_err());
    }
}
