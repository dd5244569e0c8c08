//! The records on the wire from the kernel to user space, little-endian as the machine is.
//!
//! A [`SyscallRecord`] or [`CgroupRecord`] is followed by its payload: the sections of [`Section`], one behind the other
//! in [`Section::ORDER`], each as long as the record's `lengths` says. Members are fixed-width and laid out without implicit
//! padding; the sizes are asserted below, so that a change on one side alone does not compile.

/// What a record is about. The numbers are on the wire: never reuse one.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(u16)]
pub enum RecordKind {
    /// A [`SyscallRecord`] of an operation that ended with EROFS.
    WriteDenied = 1,
    /// A [`SyscallRecord`] of a try to change mounts.
    MountAttempt = 2,
    /// A [`CgroupRecord`]: a cgroup was made.
    CgroupCreated = 3,
    /// A [`CgroupRecord`]: a cgroup was removed.
    CgroupRemoved = 4,
    /// A [`SyscallRecord`] of a write that succeeded, in learning mode.
    WriteObserved = 5,
}

/// The start of every record.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
pub struct RecordHeader {
    /// [`crate::WIRE_VERSION`].
    pub version: u16,
    /// [`RecordKind`].
    pub kind: u16,
    /// Length of the record with its payload, bytes.
    pub length: u32,
    /// When, in nanoseconds since boot (CLOCK_BOOTTIME).
    pub time_ns: u64,
    /// Id of the cgroup in the cgroup2 hierarchy.
    pub cgroup_id: u64,
}

/// Ancestors that a record has room for.
pub const MAX_ANCESTORS: usize = 8;

/// Length of a thread's name with its NUL, `TASK_COMM_LEN`.
pub const COMM_LEN: usize = 16;

/// A process above the one that did it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
pub struct AncestorRecord {
    /// Its start, in nanoseconds since boot; tells a pid that was used again.
    pub start_time_ns: u64,
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// Explicit padding.
    pub padding: u32,
    /// Name, NUL-padded.
    pub comm: [u8; COMM_LEN],
}

/// Who did it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
pub struct ProcessRecord {
    /// Start of the process, in nanoseconds since boot.
    pub start_time_ns: u64,
    /// Effective capabilities as a bit set, in the process's user namespace.
    pub cap_effective: u64,
    /// Id of the parent's cgroup in the cgroup2 hierarchy; 0 of a refused write.
    pub parent_cgroup_id: u64,
    /// Process id (tgid) in the initial pid namespace.
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
    /// Inode number of the mount namespace; 0 where it could not be read.
    pub mnt_ns: u32,
    /// Depth of the user namespace; 0 is the initial one.
    pub user_ns_level: u32,
    /// `PF_` flags of the process's first thread (`include/linux/sched.h`).
    pub flags: u32,
    /// 1 where the parent runs the same executable file in the same mount namespace; 0 of a refused write.
    pub same_program_as_parent: u32,
    /// 1 where it is in the mount namespace of pid 1, hence no container's; 0 where not, or where pid 1 is not among `ancestors`.
    pub in_node_mount_namespace: u32,
    /// How many of `ancestors` are filled, nearest first.
    pub ancestor_count: u32,
    /// Name of the thread, NUL-padded.
    pub comm: [u8; COMM_LEN],
    /// The processes above.
    pub ancestors: [AncestorRecord; MAX_ANCESTORS],
}

/// What a path is relative to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Base {
    /// There is no path, or it could not be read.
    None = 0,
    /// The process's root: the path is absolute. The base's section is where that root stands in the mount namespace.
    Root = 1,
    /// The working directory: see its own section; the base's section is empty.
    Cwd = 2,
    /// An open folder: the base's section is its path.
    Dirfd = 3,
    /// The operation is on an open file itself: the base's section is its path, and there is no path.
    File = 4,
}

/// The parts of the payload. The numbers are on the wire: never reuse one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Section {
    /// The path, as the program passed it.
    Path = 0,
    /// The second path, as passed.
    Path2 = 1,
    /// A string of the call: mount source, target of a symbolic link, key of fsconfig.
    Source = 2,
    /// A string of the call: type of the filesystem.
    Fstype = 3,
    /// A string of the call: mount options, value of fsconfig, name of an extended attribute.
    Data = 4,
    /// What the path is relative to; a walk.
    Base = 5,
    /// What the second path is relative to; a walk.
    Base2 = 6,
    /// The working directory; a walk.
    Cwd = 7,
    /// The executable; a walk.
    Exe = 8,
    /// The arguments, each ended by NUL.
    Args = 9,
    /// The point of the mount that a write hit; a walk.
    Mount = 10,
}

impl Section {
    /// How many there are.
    pub const COUNT: usize = 11;

    /// All of them, as they stand in the payload: strings, walks, arguments.
    pub const ORDER: [Self; Self::COUNT] = [
        Self::Path,
        Self::Path2,
        Self::Source,
        Self::Fstype,
        Self::Data,
        Self::Base,
        Self::Base2,
        Self::Cwd,
        Self::Exe,
        Self::Mount,
        Self::Args,
    ];
}

/// Length of the name of a filesystem's type with its NUL; longer ones are cut.
pub const FSTYPE_LEN: usize = 32;

/// The mount that a write hit, as the kernel has it. Its point is [`Section::Mount`].
#[derive(Clone, Copy, Debug)]
#[repr(C)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
pub struct MountRecord {
    /// 1 where the rest is known; else it means nothing.
    pub known: u32,
    /// Its id, as `/proc/<pid>/mountinfo` has it.
    pub id: u32,
    /// Its flags, `MNT_…` (`include/linux/mount.h`).
    pub flags: u32,
    /// Those of its superblock, `SB_…` (`include/linux/fs.h`).
    pub super_flags: u32,
    /// Name of the filesystem's type, NUL-padded.
    pub fstype: [u8; FSTYPE_LEN],
}

/// `root_at` of a walk that did not meet the process's root.
pub const ROOT_NOT_MET: u16 = u16::MAX;

/// What was asked, and how it ended.
///
/// A *walk* is a path that the kernel side read from directory entries: its components from the last to the first, each
/// ended by NUL, up to the root of the mount namespace. `root_at` says after how many components the process's root was met.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
pub struct CallRecord {
    /// The six arguments as the program passed them; the last two are 0.
    pub args: [u64; 8],
    /// `struct open_how` or `struct mount_attr`, where the call has one.
    pub extra: [u64; 4],
    /// What the call returned.
    pub result: i64,
    /// Number of the syscall in its ABI.
    pub syscall: u16,
    /// [`crate::operation::Operation`].
    pub operation: u8,
    /// [`crate::abi::Abi`].
    pub abi: u8,
    /// [`Hook`].
    pub hook: u8,
    /// [`Base`] of the path.
    pub base: u8,
    /// [`Base`] of the second path.
    pub base2: u8,
    /// 1 where `extra` could not be read, and is zeros therefore.
    pub extra_unreadable: u8,
    /// Bit set by [`Section`]: did not fit, the start is there (of a walk: the components nearest to the file).
    pub truncated: u16,
    /// Bit set by [`Section`]: could not be read.
    pub unreadable: u16,
    /// Components of `Base`, `Base2`, `Cwd`, `Exe`, `Mount` up to the process's root, or [`ROOT_NOT_MET`].
    pub root_at: [u16; ROOT_AT_ROOM],
    /// Length of each section by its number, bytes.
    pub lengths: [u16; LENGTHS_ROOM],
    /// Explicit padding.
    pub padding2: u32,
    /// The mount that a write hit, as far as the kernel side could tell.
    pub mount: MountRecord,
    /// Where repeats are counted, in [`crate::fold`]; of a mount attempt, and of a write whose repeats are told one by one, none.
    pub fold: FoldRecord,
}

/// Which slot counts the repeats of an attempt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(C)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
pub struct FoldRecord {
    /// Number of the slot, or [`NOT_FOLDED`].
    pub slot: u32,
    /// Generation of the slot's state.
    pub generation: u32,
}

/// No slot.
pub const NOT_FOLDED: u32 = u32::MAX;

impl FoldRecord {
    /// Repeats are told one by one.
    pub const NONE: Self = Self { slot: NOT_FOLDED, generation: 0 };
}

/// Room for the walks' `root_at`, and for the sections' lengths: powers of two, so that an index can be masked.
pub const ROOT_AT_ROOM: usize = 8;
/// See [`ROOT_AT_ROOM`].
pub const LENGTHS_ROOM: usize = 16;

/// Which kind of program saw it. The numbers are on the wire: never reuse one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Hook {
    /// At the exit of the syscall.
    Tracepoint = 1,
    /// At the exit of a kernel function.
    Fexit = 2,
}

/// An operation that was asked for by a syscall.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
pub struct SyscallRecord {
    /// Kind, time, cgroup.
    pub header: RecordHeader,
    /// Who.
    pub process: ProcessRecord,
    /// What.
    pub call: CallRecord,
}

/// A cgroup that came or went; its payload is the path in the cgroup2 hierarchy, absolute.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
pub struct CgroupRecord {
    /// Kind, time, and the id of that cgroup.
    pub header: RecordHeader,
}

const _: () = assert!(size_of::<RecordHeader>() == 24);
const _: () = assert!(size_of::<AncestorRecord>() == 32);
const _: () = assert!(size_of::<ProcessRecord>() == 88 + 32 * MAX_ANCESTORS);
const _: () = assert!(size_of::<MountRecord>() == 48);
const _: () = assert!(size_of::<CallRecord>() == 224);
const _: () = assert!(size_of::<SyscallRecord>() == 24 + 344 + 224);
const _: () = assert!(size_of::<CgroupRecord>() == 24);

/// Room for a path as a program passed it, `PATH_MAX`.
pub const PATH_MAX: usize = 4096;
/// Room for a walk.
pub const WALK_MAX: usize = 4096;
/// Components that a walk takes at most.
pub const WALK_STEPS: u32 = 128;
/// Room for the arguments.
pub const ARGS_MAX: usize = 1024;
/// Room for each of the strings of a call.
pub const STRING_MAX: usize = 512;
/// Room for the whole payload.
pub const PAYLOAD_MAX: usize = 2 * PATH_MAX + 3 * STRING_MAX + 5 * WALK_MAX + ARGS_MAX;
