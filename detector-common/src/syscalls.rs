//! The table of watched syscalls: which operation each asks for, its number per ABI, and where its arguments stand.
//!
//! Both sides read this one table: the kernel side to know what to capture, user space to name syscalls and to say what is
//! covered. Numbers: `arch/x86/entry/syscalls/syscall_{64,32}.tbl` and `include/uapi/asm-generic/unistd.h`, Linux 6.18.

use crate::{operation::Operation, uring::OPCODES};

/// No such argument.
pub const NONE: u8 = 0xff;

/// Numbers at and above this are not in the table.
pub const TABLE_LEN: usize = 512;

/// When a call is reported.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Report {
    /// When it ended with EROFS.
    Refused = 1,
    /// Whatever its result.
    Always = 2,
}

/// What is peculiar about a call's arguments.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Form {
    /// Nothing.
    Plain = 0,
    /// `struct open_how` at argument 2.
    OpenHow = 1,
    /// `struct mount_attr` at argument 3.
    MountAttr = 2,
    /// `struct sockaddr_un` at argument 1.
    SockAddr = 3,
    /// An ioctl: only FS_IOC_SETFLAGS and FS_IOC_FSSETXATTR are watched.
    Ioctl = 4,
    /// ia32's socketcall(2): only SYS_BIND is watched, with its arguments in memory.
    SocketCall = 5,
}

/// One watched syscall of one ABI, as the kernel side reads it: the operation and the position of each argument.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(C)]
pub struct Call {
    /// [`Operation`] as on the wire; 0 where the number is not watched.
    pub operation: u8,
    /// [`Report`].
    pub report: u8,
    /// [`Form`].
    pub form: u8,
    /// File descriptor that `path` is relative to; without `path` it is the object itself.
    pub dirfd: u8,
    /// The path.
    pub path: u8,
    /// File descriptor that `path2` is relative to.
    pub dirfd2: u8,
    /// The second path of rename, link, pivot_root; the source of move_mount.
    pub path2: u8,
    /// A string: mount source, target of a symbolic link, key of fsconfig.
    pub source: u8,
    /// A string: type of the filesystem.
    pub fstype: u8,
    /// A string: mount options, value of fsconfig, name of an extended attribute.
    pub data: u8,
    /// Flags.
    pub flags: u8,
    /// Mode, or the attributes of fsmount.
    pub mode: u8,
    /// 1: a write with a path and no other string, whose arguments are all in registers.
    pub has_one_path: u8,
}

impl Call {
    /// A number that is not watched.
    pub const UNWATCHED: Self = Self {
        operation: 0,
        report: Report::Refused as u8,
        form: Form::Plain as u8,
        dirfd: NONE,
        path: NONE,
        dirfd2: NONE,
        path2: NONE,
        source: NONE,
        fstype: NONE,
        data: NONE,
        flags: NONE,
        mode: NONE,
        has_one_path: 0,
    };

    const fn of(operation: Operation) -> Self {
        let report = if operation.changes_mounts() { Report::Always } else { Report::Refused };
        Self { operation: operation as u8, report: report as u8, ..Self::UNWATCHED }
    }

    const fn has_one_path(&self) -> bool {
        let others = self.path2 != NONE || self.source != NONE || self.fstype != NONE || self.data != NONE;
        self.report == Report::Refused as u8 && self.form == Form::Plain as u8 && self.path != NONE && !others
    }

    const fn path(self, path: u8) -> Self {
        Self { path, ..self }
    }

    /// The object is an open file.
    const fn fd(self, dirfd: u8) -> Self {
        Self { dirfd, ..self }
    }

    const fn at(self, dirfd: u8, path: u8) -> Self {
        Self { dirfd, path, ..self }
    }

    const fn path2(self, path2: u8) -> Self {
        Self { path2, ..self }
    }

    const fn at2(self, dirfd2: u8, path2: u8) -> Self {
        Self { dirfd2, path2, ..self }
    }

    const fn source(self, source: u8) -> Self {
        Self { source, ..self }
    }

    const fn fstype(self, fstype: u8) -> Self {
        Self { fstype, ..self }
    }

    const fn data(self, data: u8) -> Self {
        Self { data, ..self }
    }

    const fn flags(self, flags: u8) -> Self {
        Self { flags, ..self }
    }

    const fn mode(self, mode: u8) -> Self {
        Self { mode, ..self }
    }

    const fn form(self, form: Form) -> Self {
        Self { form: form as u8, ..self }
    }
}

/// One row of the table: a syscall by its name, with its numbers.
#[derive(Clone, Copy, Debug)]
pub struct Syscall {
    /// The kernel's name of it.
    pub name: &'static str,
    /// Number for 64-bit programs on x86-64.
    pub x86_64: Option<u16>,
    /// Number for 32-bit calls on x86-64.
    pub ia32: Option<u16>,
    /// Number on arm64.
    pub aarch64: Option<u16>,
    /// The io_uring operation that does the same (`enum io_uring_op`, `include/uapi/linux/io_uring.h`), with its arguments
    /// in this call's order. Where the kernel keeps them: [`crate::uring`].
    pub io_uring: Option<u16>,
    /// What to read.
    pub call: Call,
}

const fn row(name: &'static str, numbers: [i16; 3], call: Call) -> Syscall {
    const fn number(number: i16) -> Option<u16> {
        if number < 0 { None } else { Some(number as u16) }
    }
    Syscall {
        name,
        x86_64: number(numbers[0]),
        ia32: number(numbers[1]),
        aarch64: number(numbers[2]),
        io_uring: None,
        call: Call { has_one_path: call.has_one_path() as u8, ..call },
    }
}

impl Syscall {
    const fn io_uring(self, opcode: u16) -> Self {
        Self { io_uring: Some(opcode), ..self }
    }
}

/// Every watched syscall: name, numbers on x86-64, ia32 and arm64 (-1: has none), operation and arguments, and the io_uring
/// operation of the same meaning. The io_uring operations that are not here can't end with EROFS, or, as ftruncate and write,
/// only on a file that is open for writing already.
#[rustfmt::skip]
pub const SYSCALLS: &[Syscall] = {
    use Operation::*;
    &[
        row("open",               [  2,   5,  -1], Call::of(Open).path(0).flags(1).mode(2)),
        row("creat",              [ 85,   8,  -1], Call::of(Open).path(0).mode(1)),
        row("openat",             [257, 295,  56], Call::of(Open).at(0, 1).flags(2).mode(3)).io_uring(18),
        row("openat2",            [437, 437, 437], Call::of(Open).at(0, 1).form(Form::OpenHow)).io_uring(28),
        // Its descriptor is any file of the filesystem, and its handle no path: where the file is can't be told.
        row("open_by_handle_at",  [304, 342, 265], Call::of(Open).flags(2)),
        row("mkdir",              [ 83,  39,  -1], Call::of(Mkdir).path(0).mode(1)),
        row("mkdirat",            [258, 296,  34], Call::of(Mkdir).at(0, 1).mode(2)).io_uring(37),
        row("rmdir",              [ 84,  40,  -1], Call::of(Rmdir).path(0)),
        row("unlink",             [ 87,  10,  -1], Call::of(Unlink).path(0)),
        row("unlinkat",           [263, 301,  35], Call::of(Unlink).at(0, 1).flags(2)).io_uring(36),
        row("rename",             [ 82,  38,  -1], Call::of(Rename).path(0).path2(1)),
        row("renameat",           [264, 302,  38], Call::of(Rename).at(0, 1).at2(2, 3)),
        row("renameat2",          [316, 353, 276], Call::of(Rename).at(0, 1).at2(2, 3).flags(4)).io_uring(35),
        row("link",               [ 86,   9,  -1], Call::of(Link).path(0).path2(1)),
        row("linkat",             [265, 303,  37], Call::of(Link).at(0, 1).at2(2, 3).flags(4)).io_uring(39),
        row("symlink",            [ 88,  83,  -1], Call::of(Symlink).source(0).path(1)),
        row("symlinkat",          [266, 304,  36], Call::of(Symlink).source(0).at(1, 2)).io_uring(38),
        row("mknod",              [133,  14,  -1], Call::of(Mknod).path(0).mode(1)),
        row("mknodat",            [259, 297,  33], Call::of(Mknod).at(0, 1).mode(2)),
        row("chmod",              [ 90,  15,  -1], Call::of(Chmod).path(0).mode(1)),
        row("fchmod",             [ 91,  94,  52], Call::of(Chmod).fd(0).mode(1)),
        row("fchmodat",           [268, 306,  53], Call::of(Chmod).at(0, 1).mode(2)),
        row("fchmodat2",          [452, 452, 452], Call::of(Chmod).at(0, 1).mode(2).flags(3)),
        row("chown",              [ 92, 182,  -1], Call::of(Chown).path(0)),
        row("fchown",             [ 93,  95,  55], Call::of(Chown).fd(0)),
        row("lchown",             [ 94,  16,  -1], Call::of(Chown).path(0)),
        row("chown32",            [ -1, 212,  -1], Call::of(Chown).path(0)),
        row("fchown32",           [ -1, 207,  -1], Call::of(Chown).fd(0)),
        row("lchown32",           [ -1, 198,  -1], Call::of(Chown).path(0)),
        row("fchownat",           [260, 298,  54], Call::of(Chown).at(0, 1).flags(4)),
        row("utime",              [132,  30,  -1], Call::of(Utimes).path(0)),
        row("utimes",             [235, 271,  -1], Call::of(Utimes).path(0)),
        row("futimesat",          [261, 299,  -1], Call::of(Utimes).at(0, 1)),
        row("utimensat",          [280, 320,  88], Call::of(Utimes).at(0, 1).flags(3)),
        row("utimensat_time64",   [ -1, 412,  -1], Call::of(Utimes).at(0, 1).flags(3)),
        row("truncate",           [ 76,  92,  45], Call::of(Truncate).path(0)),
        row("truncate64",         [ -1, 193,  -1], Call::of(Truncate).path(0)),
        row("setxattr",           [188, 226,   5], Call::of(Setxattr).path(0).data(1)).io_uring(42),
        row("lsetxattr",          [189, 227,   6], Call::of(Setxattr).path(0).data(1)),
        row("fsetxattr",          [190, 228,   7], Call::of(Setxattr).fd(0).data(1)).io_uring(41),
        row("setxattrat",         [463, 463, 463], Call::of(Setxattr).at(0, 1).flags(2).data(3)),
        row("removexattr",        [197, 235,  14], Call::of(Removexattr).path(0).data(1)),
        row("lremovexattr",       [198, 236,  15], Call::of(Removexattr).path(0).data(1)),
        row("fremovexattr",       [199, 237,  16], Call::of(Removexattr).fd(0).data(1)),
        row("removexattrat",      [466, 466, 466], Call::of(Removexattr).at(0, 1).flags(2).data(3)),
        row("bind",               [ 49, 361, 200], Call::of(BindSocket).form(Form::SockAddr)).io_uring(56),
        row("socketcall",         [ -1, 102,  -1], Call::of(BindSocket).form(Form::SocketCall)),
        row("ioctl",              [ 16,  54,  29], Call::of(Setflags).fd(0).flags(1).form(Form::Ioctl)),
        row("file_setattr",       [469, 469, 469], Call::of(Setflags).at(0, 1).flags(4)),
        row("mount",              [165,  21,  40], Call::of(Mount).source(0).path(1).fstype(2).flags(3).data(4)),
        row("umount",             [ -1,  22,  -1], Call::of(Umount).path(0)),
        row("umount2",            [166,  52,  39], Call::of(Umount).path(0).flags(1)),
        row("pivot_root",         [155, 217,  41], Call::of(PivotRoot).path(0).path2(1)),
        row("chroot",             [161,  61,  51], Call::of(Chroot).path(0)),
        row("open_tree",          [428, 428, 428], Call::of(OpenTree).at(0, 1).flags(2)),
        row("move_mount",         [429, 429, 429], Call::of(MoveMount).at(2, 3).at2(0, 1).flags(4)),
        row("fsopen",             [430, 430, 430], Call::of(Fsopen).fstype(0).flags(1)),
        row("fsconfig",           [431, 431, 431], Call::of(Fsconfig).flags(1).source(2).data(3)),
        row("fsmount",            [432, 432, 432], Call::of(Fsmount).flags(1).mode(2)),
        row("fspick",             [433, 433, 433], Call::of(Fspick).at(0, 1).flags(2)),
        row("mount_setattr",      [442, 442, 442], Call::of(MountSetattr).at(0, 1).flags(2).form(Form::MountAttr)),
        row("open_tree_attr",     [467, 467, 467], Call::of(OpenTree).at(0, 1).flags(2).form(Form::MountAttr)),
    ]
};

/// A table by syscall number.
pub type CallTable = [Call; TABLE_LEN];

/// Calls of 64-bit programs on x86-64.
pub const X86_64: CallTable = {
    let mut table = [Call::UNWATCHED; TABLE_LEN];
    let mut i = 0;
    while i < SYSCALLS.len() {
        if let Some(number) = SYSCALLS[i].x86_64 {
            table[number as usize] = SYSCALLS[i].call;
        }
        i += 1;
    }
    table
};

/// 32-bit calls on x86-64.
pub const IA32: CallTable = {
    let mut table = [Call::UNWATCHED; TABLE_LEN];
    let mut i = 0;
    while i < SYSCALLS.len() {
        if let Some(number) = SYSCALLS[i].ia32 {
            table[number as usize] = SYSCALLS[i].call;
        }
        i += 1;
    }
    table
};

/// Calls on arm64.
pub const AARCH64: CallTable = {
    let mut table = [Call::UNWATCHED; TABLE_LEN];
    let mut i = 0;
    while i < SYSCALLS.len() {
        if let Some(number) = SYSCALLS[i].aarch64 {
            table[number as usize] = SYSCALLS[i].call;
        }
        i += 1;
    }
    table
};

/// The io_uring operations by their number.
pub const IO_URING: [Call; OPCODES] = {
    let mut table = [Call::UNWATCHED; OPCODES];
    let mut i = 0;
    while i < SYSCALLS.len() {
        if let Some(opcode) = SYSCALLS[i].io_uring {
            table[opcode as usize] = SYSCALLS[i].call;
        }
        i += 1;
    }
    table
};

/// Which numbers are reported whatever their result, in any ABI of this machine: the first and cheapest question at the
/// exit of every syscall of every process.
pub const fn always_reported(tables: &[&CallTable]) -> [bool; TABLE_LEN] {
    let mut numbers = [false; TABLE_LEN];
    let mut t = 0;
    while t < tables.len() {
        let mut i = 0;
        while i < TABLE_LEN {
            if tables[t][i].operation != 0 && tables[t][i].report == Report::Always as u8 {
                numbers[i] = true;
            }
            i += 1;
        }
        t += 1;
    }
    numbers
}

/// Which numbers are writes, in any ABI of this machine: as [`always_reported`], for learning mode.
pub const fn writing(tables: &[&CallTable]) -> [bool; TABLE_LEN] {
    let mut numbers = [false; TABLE_LEN];
    let mut t = 0;
    while t < tables.len() {
        let mut i = 0;
        while i < TABLE_LEN {
            if tables[t][i].operation != 0 && tables[t][i].report == Report::Refused as u8 {
                numbers[i] = true;
            }
            i += 1;
        }
        t += 1;
    }
    numbers
}

#[cfg(feature = "user")]
mod user {
    use super::{SYSCALLS, Syscall};
    use crate::abi::Abi;

    /// The watched syscall with this number, if there is one.
    pub fn find(abi: Abi, number: u16) -> Option<&'static Syscall> {
        SYSCALLS.iter().find(|row| {
            let of_abi = match abi {
                Abi::X86_64 => row.x86_64,
                Abi::Ia32 => row.ia32,
                Abi::Aarch64 => row.aarch64,
                Abi::IoUring => row.io_uring,
            };
            of_abi == Some(number)
        })
    }
}
#[cfg(feature = "user")]
pub use user::find;
