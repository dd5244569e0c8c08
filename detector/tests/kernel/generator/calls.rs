//! Every call that asks for a write, as the generator can make it: which operation that is, and what its arguments are.

/// What a name stands for, where it is a symbolic link.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Last {
    /// What the link leads to.
    Followed,
    /// The link itself.
    NotFollowed,
    /// A link that is about to be made. Where it can be, nothing else goes by its name, so that all links stay known.
    Made,
}
use Last::{Followed, Made, NotFollowed};

/// One argument of a call, or two.
#[derive(Clone, Copy, Debug)]
pub enum Arg {
    /// A path: absolute, or relative to the working directory.
    Path(Last),
    /// A descriptor and a path: absolute, relative to the working directory or to the open folder.
    At(Last),
    /// The new name, as a path.
    NewPath,
    /// The new name, as a descriptor and a path.
    NewAt,
    /// A descriptor and a path of a folder that is there.
    FolderAt,
    /// An open file.
    File,
    /// An open file, and an empty path.
    FileAndEmpty,
    /// An open file, and no path.
    FileAndNull,
    /// A folder, and an absolute path that begins in it: `RESOLVE_IN_ROOT`.
    InRoot,
    /// The descriptor of a mount and a handle of a file there.
    Handle,
    /// A unix socket, its address, and the length of that.
    SocketAt,
    /// The same, for ia32's socketcall.
    SocketCall,
    /// One of these numbers.
    OneOf(&'static [u64]),
    /// `struct open_how` with one of these flags and one of these restrictions.
    How(&'static [u64], &'static [u64]),
    /// A string.
    Text(&'static [u8]),
    /// So many zeros.
    Zeros(usize),
    /// `struct xattr_args`.
    AttributeValue,
    /// The number of FS_IOC_SETFLAGS, which differs between the doors, of FS_IOC_FSSETXATTR, or of another ioctl.
    SetFlags,
}
use Arg::{
    At, AttributeValue, File, FileAndEmpty, FileAndNull, FolderAt, Handle, How, InRoot, NewAt, NewPath, OneOf, Path,
    SetFlags, SocketAt, SocketCall, Text, Zeros,
};

/// A call.
#[derive(Debug)]
pub struct Call {
    /// Of the syscall, or of the one that means the same as the io_uring operation.
    pub name: &'static str,
    /// The operation in events.
    pub operation: &'static str,
    pub args: &'static [Arg],
}

const fn call(name: &'static str, operation: &'static str, args: &'static [Arg]) -> Call {
    Call { name, operation, args }
}

const fn flags(flags: i32) -> u64 {
    flags as u64
}

/// Some of which write, some of which don't.
const FOLLOWING: &[u64] = &[
    flags(libc::O_WRONLY),
    flags(libc::O_RDWR | libc::O_APPEND),
    flags(libc::O_RDWR | libc::O_TRUNC),
    flags(libc::O_RDONLY | libc::O_TRUNC),
    flags(libc::O_WRONLY | libc::O_CREAT),
    flags(libc::O_RDONLY | libc::O_CREAT),
    flags(libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC),
    flags(libc::O_RDONLY),
    flags(libc::O_RDWR | libc::O_PATH),
    flags(libc::O_WRONLY | libc::O_DIRECTORY),
];
const NOT_FOLLOWING: &[u64] = &[
    flags(libc::O_WRONLY | libc::O_NOFOLLOW),
    flags(libc::O_RDWR | libc::O_CREAT | libc::O_NOFOLLOW),
    flags(libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL),
];
const TMPFILE: &[u64] = &[flags(libc::O_TMPFILE | libc::O_WRONLY), flags(libc::O_TMPFILE | libc::O_RDWR)];
const NO_XDEV: u64 = 1;
const NO_SYMLINKS: u64 = 4;
const BENEATH: u64 = 8;
const IN_ROOT: u64 = 0x10;

const NULL: Arg = OneOf(&[0]);
const ONE: Arg = OneOf(&[1]);
const MODE: Arg = OneOf(&[0o644, 0o600, 0o777]);
// No fifo: creat would wait for its other end.
const KIND: Arg = OneOf(&[libc::S_IFREG as u64 | 0o600, libc::S_IFSOCK as u64]);
const NOFOLLOW: Arg = OneOf(&[libc::AT_SYMLINK_NOFOLLOW as u64]);
const FOLLOW: Arg = OneOf(&[libc::AT_SYMLINK_FOLLOW as u64]);
const EMPTY_PATH: Arg = OneOf(&[libc::AT_EMPTY_PATH as u64]);
const REMOVEDIR: Arg = OneOf(&[libc::AT_REMOVEDIR as u64]);
const RENAME_FLAGS: Arg = OneOf(&[0, libc::RENAME_NOREPLACE as u64, libc::RENAME_EXCHANGE as u64]);
const OWNER: Arg = OneOf(&[0, 1, 65_534]);
const HOW_SIZE: Arg = OneOf(&[24]);
const TARGET: Arg = Text(b"nothing at all");
const ATTRIBUTE: Arg = Text(b"user.a");
const VALUE: Arg = Text(b"1");

/// All of them. Where a flag says whether a link is followed, there is a row for each.
#[rustfmt::skip]
pub const CALLS: &[Call] = &[
    call("open", "open", &[Path(Followed), OneOf(FOLLOWING), MODE]),
    call("open", "open", &[Path(NotFollowed), OneOf(NOT_FOLLOWING), MODE]),
    call("creat", "open", &[Path(Followed), MODE]),
    call("openat", "open", &[At(Followed), OneOf(FOLLOWING), MODE]),
    call("openat", "open", &[At(NotFollowed), OneOf(NOT_FOLLOWING), MODE]),
    call("openat", "open", &[FolderAt, OneOf(TMPFILE), MODE]),
    call("openat2", "open", &[At(Followed), How(FOLLOWING, &[0, NO_XDEV, NO_SYMLINKS, BENEATH]), HOW_SIZE]),
    call("openat2", "open", &[At(NotFollowed), How(NOT_FOLLOWING, &[0, NO_XDEV, NO_SYMLINKS, BENEATH]), HOW_SIZE]),
    call("openat2", "open", &[InRoot, How(NOT_FOLLOWING, &[IN_ROOT]), HOW_SIZE]),
    call("open_by_handle_at", "open", &[Handle, OneOf(FOLLOWING)]),
    call("mkdir", "mkdir", &[Path(NotFollowed), MODE]),
    call("mkdirat", "mkdir", &[At(NotFollowed), MODE]),
    call("rmdir", "rmdir", &[Path(NotFollowed)]),
    call("unlink", "unlink", &[Path(NotFollowed)]),
    call("unlinkat", "unlink", &[At(NotFollowed), NULL]),
    call("unlinkat", "rmdir", &[At(NotFollowed), REMOVEDIR]),
    call("rename", "rename", &[Path(NotFollowed), NewPath]),
    call("renameat", "rename", &[At(NotFollowed), NewAt]),
    call("renameat2", "rename", &[At(NotFollowed), NewAt, RENAME_FLAGS]),
    call("link", "link", &[Path(NotFollowed), NewPath]),
    call("linkat", "link", &[At(NotFollowed), NewAt, NULL]),
    call("linkat", "link", &[At(Followed), NewAt, FOLLOW]),
    call("linkat", "link", &[FileAndEmpty, NewAt, EMPTY_PATH]),
    call("symlink", "symlink", &[TARGET, Path(Made)]),
    call("symlinkat", "symlink", &[TARGET, At(Made)]),
    call("mknod", "mknod", &[Path(NotFollowed), KIND, NULL]),
    call("mknodat", "mknod", &[At(NotFollowed), KIND, NULL]),
    call("chmod", "chmod", &[Path(Followed), MODE]),
    call("fchmod", "chmod", &[File, MODE]),
    call("fchmodat", "chmod", &[At(Followed), MODE]),
    call("fchmodat2", "chmod", &[At(Followed), MODE, NULL]),
    call("fchmodat2", "chmod", &[At(NotFollowed), MODE, NOFOLLOW]),
    call("fchmodat2", "chmod", &[FileAndEmpty, MODE, EMPTY_PATH]),
    call("chown", "chown", &[Path(Followed), OWNER, OWNER]),
    call("lchown", "chown", &[Path(NotFollowed), OWNER, OWNER]),
    call("fchown", "chown", &[File, OWNER, OWNER]),
    call("chown32", "chown", &[Path(Followed), OWNER, OWNER]),
    call("lchown32", "chown", &[Path(NotFollowed), OWNER, OWNER]),
    call("fchown32", "chown", &[File, OWNER, OWNER]),
    call("fchownat", "chown", &[At(Followed), OWNER, OWNER, NULL]),
    call("fchownat", "chown", &[At(NotFollowed), OWNER, OWNER, NOFOLLOW]),
    call("fchownat", "chown", &[FileAndEmpty, OWNER, OWNER, EMPTY_PATH]),
    call("utime", "utimes", &[Path(Followed), NULL]),
    call("utimes", "utimes", &[Path(Followed), NULL]),
    call("futimesat", "utimes", &[At(Followed), NULL]),
    call("futimesat", "utimes", &[FileAndNull, NULL]),
    call("utimensat", "utimes", &[At(Followed), NULL, NULL]),
    call("utimensat", "utimes", &[At(NotFollowed), NULL, NOFOLLOW]),
    call("utimensat", "utimes", &[FileAndNull, NULL, NULL]),
    call("utimensat_time64", "utimes", &[At(Followed), NULL, NULL]),
    call("utimensat_time64", "utimes", &[FileAndNull, NULL, NULL]),
    call("truncate", "truncate", &[Path(Followed), ONE]),
    call("truncate64", "truncate", &[Path(Followed), ONE, NULL]),
    call("setxattr", "setxattr", &[Path(Followed), ATTRIBUTE, VALUE, ONE, NULL]),
    call("lsetxattr", "setxattr", &[Path(NotFollowed), ATTRIBUTE, VALUE, ONE, NULL]),
    call("fsetxattr", "setxattr", &[File, ATTRIBUTE, VALUE, ONE, NULL]),
    call("setxattrat", "setxattr", &[At(Followed), NULL, ATTRIBUTE, AttributeValue]),
    call("setxattrat", "setxattr", &[At(NotFollowed), NOFOLLOW, ATTRIBUTE, AttributeValue]),
    call("setxattrat", "setxattr", &[FileAndEmpty, EMPTY_PATH, ATTRIBUTE, AttributeValue]),
    call("removexattr", "removexattr", &[Path(Followed), ATTRIBUTE]),
    call("lremovexattr", "removexattr", &[Path(NotFollowed), ATTRIBUTE]),
    call("fremovexattr", "removexattr", &[File, ATTRIBUTE]),
    call("removexattrat", "removexattr", &[At(Followed), NULL, ATTRIBUTE]),
    call("removexattrat", "removexattr", &[FileAndEmpty, EMPTY_PATH, ATTRIBUTE]),
    call("bind", "bind", &[SocketAt]),
    call("socketcall", "bind", &[SocketCall]),
    call("ioctl", "setflags", &[File, SetFlags, Zeros(28)]),
    call("file_setattr", "setflags", &[At(Followed), Zeros(24), HOW_SIZE, NULL]),
    call("file_setattr", "setflags", &[At(NotFollowed), Zeros(24), HOW_SIZE, NOFOLLOW]),
];

/// Calls that write nothing, though the seal may refuse them.
#[rustfmt::skip]
pub const PROBES: &[Call] = &[
    call("access", "", &[Path(Followed), OneOf(&[libc::W_OK as u64, libc::R_OK as u64])]),
    call("faccessat", "", &[At(Followed), OneOf(&[libc::W_OK as u64])]),
    call("faccessat2", "", &[At(Followed), OneOf(&[libc::W_OK as u64]), NULL]),
    call("faccessat2", "", &[At(NotFollowed), OneOf(&[libc::W_OK as u64]), NOFOLLOW]),
];

/// Their numbers: of 64-bit programs, of 32-bit calls.
pub fn probe_number(name: &str) -> (u16, u16) {
    match name {
        "access" => (21, 33),
        "faccessat" => (269, 307),
        "faccessat2" => (439, 439),
        other => panic!("{other} is no probe"),
    }
}
