//! Looking at a running container: its mount table, its first process, and how full its filesystems in memory are.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, Mode, OFlags, ResolveFlags, StatxFlags, fstatfs, openat2, statx},
    io::Errno,
};

use super::{Memory, Seen, Writable};
use crate::{
    agent::{mountinfo, target::Target},
    finding::seal::{MountInfo, root_mount},
    identity::{bounding_set, model::Container},
    kernel::attempt::CAP_SYS_ADMIN,
};

/// `TMPFS_MAGIC` (`include/uapi/linux/magic.h`).
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// Why a container was not seen.
#[derive(Debug, thiserror::Error)]
pub enum Unseen {
    /// It has no process, or none any more.
    #[error("it does not run")]
    NotRunning,
    /// Its program has not begun.
    #[error("it is being started")]
    Starting,
    /// Its first process stands in another root than its own: that of a virtual machine's monitor, or a chroot.
    #[error("its first process is outside of its root")]
    Outside,
    /// Its mount table is too large.
    #[error("its mount table is too large")]
    TooLarge,
    /// The look at it, or at one before it, has not come to an end.
    #[error("no answer in time")]
    NoAnswer,
    /// Anything else.
    #[error("its process can't be looked at: {0}")]
    Refused(io::Error),
}

impl Unseen {
    /// The name in JSON.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::NotRunning => "not_running",
            Self::Starting => "starting",
            Self::Outside => "outside",
            Self::TooLarge => "too_large",
            Self::NoAnswer => "no_answer",
            Self::Refused(_) => "refused",
        }
    }
}

/// Looks at containers of this node.
#[derive(Debug)]
pub struct Looker {
    host_proc: PathBuf,
    /// Whether to look for breaches of seals.
    judges: bool,
    /// What stands at the node's own root: a process that stands in it is not in its container.
    node_root: Option<(Vec<u8>, Vec<u8>)>,
}

impl Looker {
    /// By the node's proc file system.
    pub fn new(host_proc: &Path) -> Self {
        let mounts = mountinfo::read(&host_proc.join("1/mountinfo")).ok();
        let node_root = mounts.as_deref().and_then(root_mount).map(MountInfo::shown);
        Self { host_proc: host_proc.to_owned(), judges: false, node_root }
    }

    /// One that looks for breaches of seals, too.
    #[must_use]
    pub fn judging(self) -> Self {
        Self { judges: true, ..self }
    }

    /// Looks at a container. May block where it puts a filesystem that does not answer in the way just then.
    ///
    /// How full a tmpfs is takes CAP_SYS_PTRACE, and CAP_DAC_READ_SEARCH where a folder on the way is closed to others. Minimum
    /// kernel: 5.8 (`STATX_MNT_ID`); before that only the type of the filesystem is compared.
    ///
    /// # Errors
    /// Where there is nothing to see.
    pub fn look(&self, container: &Container) -> Result<Seen, Unseen> {
        let (Some(pid), Some(start_time_ns)) = (container.init_pid, container.init_start_time_ns) else {
            return Err(Unseen::NotRunning);
        };
        let target = Target::open(&self.host_proc, pid, start_time_ns).map_err(unseen)?;
        let mut target = target.ok_or(Unseen::Outside)?;
        if !target.has_executed().map_err(unseen)? {
            return Err(Unseen::Starting);
        }
        let mounts = target.mounts().map_err(unseen)?;
        if self.node_root.is_some() && root_mount(&mounts).map(MountInfo::shown) == self.node_root {
            return Err(Unseen::Outside);
        }
        let bounding = target.status().ok().and_then(|status| bounding_set(&status));
        let cap_sys_admin = bounding.map(|set| set & CAP_SYS_ADMIN != 0);
        let mut seen = Seen::of(container, &mounts, cap_sys_admin).ok_or(Unseen::Outside)?;
        if self.judges {
            seen.judge(container, &mounts);
        }
        if seen.writable.iter().any(Writable::is_tmpfs)
            && let Ok(root) = target.root()
        {
            for mount in seen.writable.iter_mut().filter(|mount| mount.is_tmpfs() && mount.near) {
                mount.memory = memory(root.as_fd(), mount);
            }
        }
        Ok(seen)
    }
}

fn unseen(error: io::Error) -> Unseen {
    let errno = Errno::from_io_error(&error);
    // A process that has ended and was not waited for yet has no mount namespace any more: EINVAL.
    let is_gone = errno.is_some_and(|errno| [Errno::NOENT, Errno::SRCH, Errno::INVAL].contains(&errno));
    match error.kind() {
        io::ErrorKind::FileTooLarge => Unseen::TooLarge,
        _ if is_gone => Unseen::NotRunning,
        _ => Unseen::Refused(error),
    }
}

/// How full a tmpfs is. The way there is the kernel's own name for the mount, which no link can have led to; what is found there
/// is that very mount or nothing.
fn memory(root: BorrowedFd<'_>, mount: &Writable) -> Option<Memory> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let there = openat2(root, mount.point.as_slice(), flags, Mode::empty(), resolve).ok()?;
    let asked = AtFlags::EMPTY_PATH | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
    let seen = statx(&there, c"", asked, StatxFlags::MNT_ID).ok()?;
    let told = StatxFlags::from_bits_retain(seen.stx_mask).contains(StatxFlags::MNT_ID);
    if told && seen.stx_mnt_id != mount.id {
        return None;
    }
    let filesystem = fstatfs(&there).ok()?;
    if filesystem.f_type != TMPFS_MAGIC {
        return None;
    }
    let block: u64 = filesystem.f_bsize.try_into().ok()?;
    let used = filesystem.f_blocks.saturating_sub(filesystem.f_bfree);
    // Of one without a limit both are 0, however much is in it.
    let used_bytes = (filesystem.f_blocks != 0).then(|| used.saturating_mul(block));
    Some(Memory { size_bytes: filesystem.f_blocks.saturating_mul(block), used_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{finding::testing::sealed, process_stat::Stat};

    #[test]
    fn a_process_that_is_in_no_container_is_not_taken_for_one() {
        let us = Path::new("/proc/self");
        let container = Container {
            init_pid: Some(std::process::id()),
            init_start_time_ns: Stat::read(us).map(|stat| stat.start_time_ns()),
            ..(*sealed()).clone()
        };
        let looker = Looker { node_root: Some(root_of(us)), ..Looker::new(Path::new("/proc")) };
        assert!(matches!(looker.look(&container), Err(Unseen::Outside)));
        let gone = Container { init_start_time_ns: Some(1), ..container.clone() };
        assert!(matches!(looker.look(&gone), Err(Unseen::NotRunning)));
        let never = Container { init_pid: None, ..container };
        assert!(matches!(looker.look(&never), Err(Unseen::NotRunning)));
    }

    fn root_of(process: &Path) -> (Vec<u8>, Vec<u8>) {
        let mounts = mountinfo::read(&process.join("mountinfo")).unwrap();
        root_mount(&mounts).unwrap().shown()
    }

    #[test]
    fn only_the_very_mount_is_asked_how_full_it_is_and_only_a_tmpfs() {
        let root = std::fs::File::open("/").unwrap();
        let mounts = mountinfo::read(Path::new("/proc/self/mountinfo")).unwrap();
        let of = |mount: &MountInfo, id: u64| Writable {
            point: mount.point.clone(),
            fstype: mount.fstype.clone(),
            declared: None,
            volume: None,
            id,
            whole: true,
            near: true,
            memory: None,
        };
        let mut told = 0;
        for mount in &mounts {
            let memory = |id| memory(root.as_fd(), &of(mount, id));
            let is_tmpfs = matches!(mount.fstype.as_slice(), b"tmpfs" | b"devtmpfs");
            assert!(is_tmpfs || memory(mount.id).is_none(), "{mount:?}");
            assert!(memory(mount.id + 1).is_none(), "{mount:?}: another mount");
            if let Some(memory) = memory(mount.id) {
                let is_limited = memory.size_bytes != 0;
                assert_eq!(memory.used_bytes.is_some(), is_limited, "{mount:?}: {memory:?}");
                assert!(memory.used_bytes.unwrap_or_default() <= memory.size_bytes, "{mount:?}: {memory:?}");
                told += 1;
            }
        }
        assert!(told > 0 || !mounts.iter().any(|mount| mount.fstype == b"tmpfs" && mount.point == b"/dev/shm"));
    }
}
