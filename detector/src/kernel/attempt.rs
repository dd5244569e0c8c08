//! What the kernel side saw of one call, decoded and checked, but not yet interpreted.

use detector_common::{
    abi::Abi,
    operation::Operation,
    record::{Hook, RecordKind},
    syscalls::Syscall,
};

use super::{folds::FoldId, kept::OriginId};

/// What an agent before this one did about an attempt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Standing {
    /// Nothing: it is new, or was not told yet.
    New,
    /// It told it; the repeats are to be told.
    Told,
    /// It is of programs that are gone: so many repeats or firsts of it are to be told, and no more will come.
    Left(u64),
}

/// One operation that was asked for, as the kernel side captured it.
///
/// Byte strings are as the kernel or the program wrote them: any bytes but NUL, hostile until shown otherwise.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// `WriteDenied`, `MountAttempt` or, in learning mode, `WriteObserved`.
    pub kind: RecordKind,
    /// When, in nanoseconds since boot (CLOCK_BOOTTIME).
    pub time_ns: u64,
    /// Id of the process's cgroup in the cgroup2 hierarchy.
    pub cgroup_id: u64,
    /// Who.
    pub process: Process,
    /// What the row of the syscall table says; `mount`, `unlink` and the like are refined by their flags in the finding room.
    pub operation: Operation,
    /// The door.
    pub abi: Abi,
    /// The kind of program that saw it.
    pub hook: Hook,
    /// The row of the table; says which of `args` are flags and mode.
    pub syscall: &'static Syscall,
    /// The arguments as passed.
    pub args: [u64; 6],
    /// `struct open_how` {flags, mode, resolve, -} or `struct mount_attr` {attr_set, attr_clr, propagation, userns_fd}.
    pub extra: [u64; 4],
    /// Whether that struct could not be read, and `extra` is zeros therefore.
    pub extra_unreadable: bool,
    /// What the call returned: 0 or more, or a negated errno.
    pub result: i64,
    /// The path and what it is relative to. For move_mount: the target.
    pub path: PassedPath,
    /// The second path: the new one of rename and link, `put_old` of pivot_root, the source of move_mount.
    pub path2: PassedPath,
    /// Mount source, target of a symbolic link, key of fsconfig.
    pub source: Option<Vec<u8>>,
    /// Type of the filesystem, as passed.
    pub fstype: Option<Vec<u8>>,
    /// Mount options, value of fsconfig, name of an extended attribute.
    pub data: Option<Vec<u8>>,
    /// Where its repeats are counted; none where each is told.
    pub fold: Option<FoldId>,
    /// What is kept of it until it is told, if anything is.
    pub origin: Option<OriginId>,
    /// What an agent before this one did about it.
    pub standing: Standing,
    /// The mount that a write hit, where the kernel side knew it.
    pub mount: Option<Mount>,
}

/// A mount as the kernel has it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mount {
    /// Its id, as `/proc/<pid>/mountinfo` has it.
    pub id: u32,
    /// Its flags, `MNT_…` (`include/linux/mount.h`).
    pub flags: u32,
    /// Those of its superblock, `SB_…` (`include/linux/fs.h`).
    pub super_flags: u32,
    /// Name of the filesystem's type, without a subtype.
    pub fstype: Vec<u8>,
    /// Where it is mounted; none where that could not be read.
    pub point: Option<Walk>,
}

/// The process that did it.
#[derive(Clone, Debug)]
pub struct Process {
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// Thread id in the initial pid namespace.
    pub tid: u32,
    /// Process id of the parent, in the initial pid namespace.
    pub ppid: u32,
    /// Process id in the process's own pid namespace.
    pub container_pid: u32,
    /// User id in the initial user namespace.
    pub uid: u32,
    /// Group id in the initial user namespace.
    pub gid: u32,
    /// Name of the thread.
    pub comm: Vec<u8>,
    /// The executable.
    pub exe: Option<Walk>,
    /// The arguments; the last may be cut (`args_truncated`).
    pub args: Vec<Vec<u8>>,
    /// Whether there were more arguments than the record has room for.
    pub args_truncated: bool,
    /// Working directory.
    pub cwd: Option<Walk>,
    /// Start, in nanoseconds since boot.
    pub start_time_ns: u64,
    /// Effective capabilities, a bit set, in the process's user namespace.
    pub cap_effective: u64,
    /// Inode number of the mount namespace.
    pub mnt_ns: Option<u32>,
    /// Depth of the user namespace; 0 is the initial one.
    pub user_ns_level: u32,
    /// `PF_` flags of the process's first thread.
    pub flags: u32,
    /// Id of the parent's cgroup in the cgroup2 hierarchy; told of mount attempts only.
    pub parent_cgroup_id: Option<u64>,
    /// Whether the parent runs the same executable file in the same mount namespace; told of mount attempts only.
    pub same_program_as_parent: bool,
    /// Whether it is known to be in the mount namespace of pid 1, hence in no container's.
    pub in_node_mount_namespace: bool,
    /// The processes above, nearest first.
    pub ancestors: Vec<Ancestor>,
}

/// `PF_FORKNOEXEC`: the process was forked and has executed nothing yet (`include/linux/sched.h`).
pub const PF_FORKNOEXEC: u32 = 0x40;
/// `CAP_SYS_ADMIN` as a bit (`include/uapi/linux/capability.h`).
pub const CAP_SYS_ADMIN: u64 = 1 << 21;

impl Process {
    /// Whether it has executed nothing since it was forked: of a container's first process, that it is the runtime still.
    pub const fn has_not_executed(&self) -> bool {
        self.flags & PF_FORKNOEXEC != 0
    }

    /// Whether CAP_SYS_ADMIN is effective, in the process's own user namespace.
    pub const fn cap_sys_admin(&self) -> bool {
        self.cap_effective & CAP_SYS_ADMIN != 0
    }
}

/// A process above the one that did it.
#[derive(Clone, Debug)]
pub struct Ancestor {
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// Its start, in nanoseconds since boot; tells a pid that was used again.
    pub start_time_ns: u64,
    /// Name.
    pub comm: Vec<u8>,
}

/// A path as the program passed it.
#[derive(Clone, Debug, Default)]
pub struct PassedPath {
    /// The bytes, without NUL; none where the call has no path or it could not be read.
    pub requested: Option<Vec<u8>>,
    /// Whether more bytes were passed than the record has room for.
    pub truncated: bool,
    /// What it is relative to.
    pub base: PathBase,
}

/// What a path is relative to.
#[derive(Clone, Debug, Default)]
pub enum PathBase {
    /// No path, or unknown.
    #[default]
    None,
    /// The process's root, which stands there in the mount namespace (`/` unless the process was chrooted).
    Root(Walk),
    /// The process's working directory.
    Cwd,
    /// An open folder.
    Dirfd(Walk),
    /// The call is on this open file itself.
    File(Walk),
}

impl PathBase {
    /// The walk to it, where it has one of its own.
    pub(super) const fn walk(&mut self) -> Option<&mut Walk> {
        match self {
            Self::None | Self::Cwd => None,
            Self::Root(walk) | Self::Dirfd(walk) | Self::File(walk) => Some(walk),
        }
    }
}

/// A path that the kernel side read from directory entries: real, without symbolic links.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Walk {
    /// Absolute in the mount namespace (hence in the container's root). Starts with `/`.
    pub in_namespace: Vec<u8>,
    /// Absolute in the process's root; none where the walk did not meet it.
    pub in_root: Option<Vec<u8>>,
    /// Whether the folders nearest to the root are missing: the walk was longer than the record has room for.
    pub truncated: bool,
    /// Whether it is known that the process's root does not lead there, though that is a mount namespace's own: a detached
    /// tree (of `umount -l`, fsmount or open_tree), or another mount namespace.
    pub unreachable: bool,
}
