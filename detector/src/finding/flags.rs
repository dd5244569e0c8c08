//! Names of the flags that the watched calls take, as tables (Linux 6.18, `include/uapi`).

use detector_common::{abi::Abi, operation::Operation};

/// A flag: the bits that must all be set, and the name. Flags of several bits stand before those that they contain.
type Table = &'static [(u64, &'static str)];

/// The access mode of open, `O_ACCMODE`.
pub const O_ACCMODE: u64 = 3;
/// `O_CREAT`.
pub const O_CREAT: u64 = 0o100;
/// `O_EXCL`.
pub const O_EXCL: u64 = 0o200;
/// `O_TRUNC`.
pub const O_TRUNC: u64 = 0o1000;
/// `__O_TMPFILE`, without the `O_DIRECTORY` that `O_TMPFILE` has.
pub const O_TMPFILE: u64 = 0o20_000_000;
/// `AT_SYMLINK_NOFOLLOW`.
pub const AT_SYMLINK_NOFOLLOW: u64 = 0x100;
/// `AT_REMOVEDIR`.
pub const AT_REMOVEDIR: u64 = 0x200;
/// `AT_SYMLINK_FOLLOW`.
pub const AT_SYMLINK_FOLLOW: u64 = 0x400;
/// `AT_RECURSIVE`.
pub const AT_RECURSIVE: u64 = 0x8000;
/// `RESOLVE_IN_ROOT` of openat2.
pub const RESOLVE_IN_ROOT: u64 = 0x10;
/// `MS_RDONLY`.
pub const MS_RDONLY: u64 = 1;
/// `MS_REMOUNT`.
pub const MS_REMOUNT: u64 = 32;
/// `MS_BIND`.
pub const MS_BIND: u64 = 4096;
/// `MS_MOVE`.
pub const MS_MOVE: u64 = 8192;
/// `MS_UNBINDABLE`, `MS_PRIVATE`, `MS_SLAVE` and `MS_SHARED`.
pub const MS_PROPAGATION: u64 = 0xf << 17;
/// `UMOUNT_NOFOLLOW`.
pub const UMOUNT_NOFOLLOW: u64 = 8;
/// `MOUNT_ATTR_RDONLY`.
pub const MOUNT_ATTR_RDONLY: u64 = 1;
/// `MOVE_MOUNT_F_SYMLINKS`.
pub const MOVE_MOUNT_F_SYMLINKS: u64 = 1;
/// `MOVE_MOUNT_T_SYMLINKS`.
pub const MOVE_MOUNT_T_SYMLINKS: u64 = 0x10;
/// `FSPICK_SYMLINK_NOFOLLOW`.
pub const FSPICK_SYMLINK_NOFOLLOW: u64 = 2;
/// `FSCONFIG_SET_FLAG`.
pub const FSCONFIG_SET_FLAG: u64 = 0;
/// `FSCONFIG_CMD_RECONFIGURE`.
pub const FSCONFIG_CMD_RECONFIGURE: u64 = 7;

/// open(2) on x86 and in general (`include/uapi/asm-generic/fcntl.h`).
const OPEN: Table = &[
    (0o20_200_000, "O_TMPFILE"),
    (0o4_010_000, "O_SYNC"),
    (O_CREAT, "O_CREAT"),
    (O_EXCL, "O_EXCL"),
    (0o400, "O_NOCTTY"),
    (O_TRUNC, "O_TRUNC"),
    (0o2000, "O_APPEND"),
    (0o4000, "O_NONBLOCK"),
    (0o10_000, "O_DSYNC"),
    (0o20_000, "O_ASYNC"),
    (0o40_000, "O_DIRECT"),
    (0o100_000, "O_LARGEFILE"),
    (0o200_000, "O_DIRECTORY"),
    (0o400_000, "O_NOFOLLOW"),
    (0o1_000_000, "O_NOATIME"),
    (0o2_000_000, "O_CLOEXEC"),
    (0o10_000_000, "O_PATH"),
];

/// The four that arm and arm64 number otherwise (`arch/arm64/include/uapi/asm/fcntl.h`).
const OPEN_AARCH64: Table = &[
    (0o20_040_000, "O_TMPFILE"),
    (0o4_010_000, "O_SYNC"),
    (O_CREAT, "O_CREAT"),
    (O_EXCL, "O_EXCL"),
    (0o400, "O_NOCTTY"),
    (O_TRUNC, "O_TRUNC"),
    (0o2000, "O_APPEND"),
    (0o4000, "O_NONBLOCK"),
    (0o10_000, "O_DSYNC"),
    (0o20_000, "O_ASYNC"),
    (0o40_000, "O_DIRECTORY"),
    (0o100_000, "O_NOFOLLOW"),
    (0o200_000, "O_DIRECT"),
    (0o400_000, "O_LARGEFILE"),
    (0o1_000_000, "O_NOATIME"),
    (0o2_000_000, "O_CLOEXEC"),
    (0o10_000_000, "O_PATH"),
];

/// `resolve` of openat2 (`include/uapi/linux/openat2.h`).
pub const RESOLVE: Table = &[
    (0x01, "RESOLVE_NO_XDEV"),
    (0x02, "RESOLVE_NO_MAGICLINKS"),
    (0x04, "RESOLVE_NO_SYMLINKS"),
    (0x08, "RESOLVE_BENEATH"),
    (0x10, "RESOLVE_IN_ROOT"),
    (0x20, "RESOLVE_CACHED"),
];

/// The `*at` calls (`include/uapi/linux/fcntl.h`). 0x200 is `AT_REMOVEDIR` for unlinkat alone.
const AT: Table = &[
    (AT_SYMLINK_NOFOLLOW, "AT_SYMLINK_NOFOLLOW"),
    (AT_SYMLINK_FOLLOW, "AT_SYMLINK_FOLLOW"),
    (0x800, "AT_NO_AUTOMOUNT"),
    (0x1000, "AT_EMPTY_PATH"),
    (AT_RECURSIVE, "AT_RECURSIVE"),
];

const UNLINKAT: Table = &[(AT_REMOVEDIR, "AT_REMOVEDIR")];

const RENAME: Table = &[(1, "RENAME_NOREPLACE"), (2, "RENAME_EXCHANGE"), (4, "RENAME_WHITEOUT")];

/// ioctls that change inode flags, with ia32's numbers (`include/uapi/linux/fs.h`); a value, no bits.
const IOCTL: Table =
    &[(0x4008_6602, "FS_IOC_SETFLAGS"), (0x4004_6602, "FS_IOC_SETFLAGS"), (0x401c_5820, "FS_IOC_FSSETXATTR")];

/// mount(2) (`include/uapi/linux/mount.h`).
const MOUNT: Table = &[
    (MS_RDONLY, "MS_RDONLY"),
    (2, "MS_NOSUID"),
    (4, "MS_NODEV"),
    (8, "MS_NOEXEC"),
    (16, "MS_SYNCHRONOUS"),
    (MS_REMOUNT, "MS_REMOUNT"),
    (64, "MS_MANDLOCK"),
    (128, "MS_DIRSYNC"),
    (256, "MS_NOSYMFOLLOW"),
    (1024, "MS_NOATIME"),
    (2048, "MS_NODIRATIME"),
    (MS_BIND, "MS_BIND"),
    (MS_MOVE, "MS_MOVE"),
    (16_384, "MS_REC"),
    (32_768, "MS_SILENT"),
    (1 << 16, "MS_POSIXACL"),
    (1 << 17, "MS_UNBINDABLE"),
    (1 << 18, "MS_PRIVATE"),
    (1 << 19, "MS_SLAVE"),
    (1 << 20, "MS_SHARED"),
    (1 << 21, "MS_RELATIME"),
    (1 << 22, "MS_KERNMOUNT"),
    (1 << 23, "MS_I_VERSION"),
    (1 << 24, "MS_STRICTATIME"),
    (1 << 25, "MS_LAZYTIME"),
];

const UMOUNT: Table = &[(1, "MNT_FORCE"), (2, "MNT_DETACH"), (4, "MNT_EXPIRE"), (UMOUNT_NOFOLLOW, "UMOUNT_NOFOLLOW")];

const OPEN_TREE: Table = &[
    (1, "OPEN_TREE_CLONE"),
    (0x8_0000, "OPEN_TREE_CLOEXEC"),
    (AT_SYMLINK_NOFOLLOW, "AT_SYMLINK_NOFOLLOW"),
    (0x800, "AT_NO_AUTOMOUNT"),
    (0x1000, "AT_EMPTY_PATH"),
    (AT_RECURSIVE, "AT_RECURSIVE"),
];

const MOVE_MOUNT: Table = &[
    (MOVE_MOUNT_F_SYMLINKS, "MOVE_MOUNT_F_SYMLINKS"),
    (0x2, "MOVE_MOUNT_F_AUTOMOUNTS"),
    (0x4, "MOVE_MOUNT_F_EMPTY_PATH"),
    (MOVE_MOUNT_T_SYMLINKS, "MOVE_MOUNT_T_SYMLINKS"),
    (0x20, "MOVE_MOUNT_T_AUTOMOUNTS"),
    (0x40, "MOVE_MOUNT_T_EMPTY_PATH"),
    (0x100, "MOVE_MOUNT_SET_GROUP"),
    (0x200, "MOVE_MOUNT_BENEATH"),
];

const FSOPEN: Table = &[(1, "FSOPEN_CLOEXEC")];

const FSMOUNT: Table = &[(1, "FSMOUNT_CLOEXEC"), (2, "FSMOUNT_NAMESPACE")];

const FSPICK: Table = &[
    (1, "FSPICK_CLOEXEC"),
    (FSPICK_SYMLINK_NOFOLLOW, "FSPICK_SYMLINK_NOFOLLOW"),
    (4, "FSPICK_NO_AUTOMOUNT"),
    (8, "FSPICK_EMPTY_PATH"),
];

/// Commands of fsconfig by their number.
const FSCONFIG: &[&str] = &[
    "FSCONFIG_SET_FLAG",
    "FSCONFIG_SET_STRING",
    "FSCONFIG_SET_BINARY",
    "FSCONFIG_SET_PATH",
    "FSCONFIG_SET_PATH_EMPTY",
    "FSCONFIG_SET_FD",
    "FSCONFIG_CMD_CREATE",
    "FSCONFIG_CMD_RECONFIGURE",
    "FSCONFIG_CMD_CREATE_EXCL",
];

/// Attributes of a mount; `MOUNT_ATTR_RELATIME` is 0 within `MOUNT_ATTR__ATIME`, 0x70.
pub const MOUNT_ATTR: Table = &[
    (MOUNT_ATTR_RDONLY, "MOUNT_ATTR_RDONLY"),
    (2, "MOUNT_ATTR_NOSUID"),
    (4, "MOUNT_ATTR_NODEV"),
    (8, "MOUNT_ATTR_NOEXEC"),
    (0x70, "MOUNT_ATTR__ATIME"),
    (0x10, "MOUNT_ATTR_NOATIME"),
    (0x20, "MOUNT_ATTR_STRICTATIME"),
    (0x80, "MOUNT_ATTR_NODIRATIME"),
    (0x10_0000, "MOUNT_ATTR_IDMAP"),
    (0x20_0000, "MOUNT_ATTR_NOSYMFOLLOW"),
];

/// The names of open's flags, as callers through this door number them.
fn open_table(abi: Abi) -> Table {
    match abi {
        Abi::X86_64 | Abi::Ia32 => OPEN,
        Abi::Aarch64 => OPEN_AARCH64,
        // An io_uring takes the flags of the machine.
        Abi::IoUring if cfg!(target_arch = "aarch64") => OPEN_AARCH64,
        Abi::IoUring => OPEN,
    }
}

/// The bit of `O_NOFOLLOW`.
pub fn o_nofollow(abi: Abi) -> u64 {
    open_table(abi).iter().find(|(_, name)| *name == "O_NOFOLLOW").map_or(0, |(bits, _)| *bits)
}

/// The names of open's flags, the access mode first.
pub fn open_names(flags: u64, abi: Abi) -> Vec<String> {
    let access = match flags & O_ACCMODE {
        0 => "O_RDONLY",
        1 => "O_WRONLY",
        2 => "O_RDWR",
        // Neither reads nor writes, yet checks both rights.
        _ => "O_ACCMODE",
    };
    let mut names = vec![access.to_owned()];
    names.extend(bit_names(flags & !O_ACCMODE, open_table(abi)));
    names
}

/// The names of a call's flags; of [`Operation::Open`] see [`open_names`].
pub fn names(operation: Operation, flags: u64) -> Vec<String> {
    match operation {
        Operation::Fsconfig => {
            let name = usize::try_from(flags).ok().and_then(|number| FSCONFIG.get(number));
            vec![name.map_or_else(|| format!("{flags:#x}"), |name| (*name).to_owned())]
        }
        Operation::Setflags if IOCTL.iter().any(|(number, _)| *number == flags) => {
            IOCTL.iter().filter(|(number, _)| *number == flags).map(|(_, name)| (*name).to_owned()).collect()
        }
        _ => bit_names(flags, table(operation)),
    }
}

const fn table(operation: Operation) -> Table {
    match operation {
        Operation::Unlink | Operation::Rmdir => UNLINKAT,
        Operation::Rename => RENAME,
        Operation::Mount | Operation::Remount | Operation::BindMount | Operation::Move => MOUNT,
        Operation::Umount => UMOUNT,
        Operation::OpenTree => OPEN_TREE,
        Operation::MoveMount => MOVE_MOUNT,
        Operation::Fsopen => FSOPEN,
        Operation::Fsmount => FSMOUNT,
        Operation::Fspick => FSPICK,
        _ => AT,
    }
}

/// The names of the bits that are set; what has no name as one hexadecimal number at the end.
pub fn bit_names(flags: u64, table: Table) -> Vec<String> {
    let mut left = flags;
    let mut names = Vec::new();
    for (bits, name) in table {
        if left & bits == *bits {
            left &= !bits;
            names.push((*name).to_owned());
        }
    }
    if left != 0 {
        names.push(format!("{left:#x}"));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_access_mode_comes_first_and_is_always_told() {
        assert_eq!(open_names(0, Abi::X86_64), ["O_RDONLY"]);
        assert_eq!(open_names(0o101, Abi::X86_64), ["O_WRONLY", "O_CREAT"]);
        assert_eq!(open_names(3, Abi::X86_64), ["O_ACCMODE"]);
    }

    #[test]
    fn a_flag_of_several_bits_is_not_told_twice() {
        assert_eq!(open_names(0o4_010_001, Abi::X86_64), ["O_WRONLY", "O_SYNC"]);
        assert_eq!(open_names(0o20_200_002, Abi::X86_64), ["O_RDWR", "O_TMPFILE"]);
        assert_eq!(bit_names(0x70, MOUNT_ATTR), ["MOUNT_ATTR__ATIME"]);
    }

    #[test]
    fn the_same_bit_has_another_name_on_arm64() {
        assert_eq!(open_names(0o100_000, Abi::X86_64), ["O_RDONLY", "O_LARGEFILE"]);
        assert_eq!(open_names(0o100_000, Abi::Aarch64), ["O_RDONLY", "O_NOFOLLOW"]);
        assert_eq!(o_nofollow(Abi::Ia32), 0o400_000);
        assert_eq!(o_nofollow(Abi::Aarch64), 0o100_000);
    }

    #[test]
    fn bits_without_a_name_are_told_in_hexadecimal() {
        assert_eq!(bit_names(0x4000_0001, MOUNT), ["MS_RDONLY", "0x40000000"]);
    }

    #[test]
    fn a_command_of_fsconfig_is_a_number_and_no_set_of_bits() {
        assert_eq!(names(Operation::Fsconfig, 7), ["FSCONFIG_CMD_RECONFIGURE"]);
        assert_eq!(names(Operation::Fsconfig, 0), ["FSCONFIG_SET_FLAG"]);
        assert_eq!(names(Operation::Fsconfig, 99), ["0x63"]);
    }

    #[test]
    fn an_ioctl_is_told_by_its_name_for_32_bit_callers_too() {
        assert_eq!(names(Operation::Setflags, 0x4004_6602), ["FS_IOC_SETFLAGS"]);
        assert_eq!(names(Operation::Setflags, 0x4008_6602), ["FS_IOC_SETFLAGS"]);
        assert_eq!(names(Operation::Setflags, 0x100), ["AT_SYMLINK_NOFOLLOW"]);
    }
}
