//! What exactly was asked: the operation behind a call's flags, the flags' names, and whether the last component of a path
//! is followed where it is a symbolic link.

use detector_common::{
    abi::Abi,
    operation::Operation,
    syscalls::{Form, NONE},
};

use super::flags;
use crate::kernel::attempt::Attempt;

/// The magic number that mount(2) flags of old programs carry, `MS_MGC_VAL`, and its mask, `MS_MGC_MSK`.
const MS_MGC_VAL: u64 = 0xc0ed_0000;
const MS_MGC_MSK: u64 = 0xffff_0000;

/// The operation, refined by the flags where the table of syscalls can't tell.
pub fn refine(attempt: &Attempt) -> Operation {
    match attempt.operation {
        Operation::Mount => refine_mount(call_flags(attempt)),
        Operation::Unlink if call_flags(attempt) & flags::AT_REMOVEDIR != 0 => Operation::Rmdir,
        other => other,
    }
}

/// In the order of `path_mount` (`fs/namespace.c`, Linux 6.18), which looks at one bit after the other.
const fn refine_mount(flags: u64) -> Operation {
    if flags & flags::MS_REMOUNT != 0 {
        Operation::Remount
    } else if flags & flags::MS_BIND != 0 {
        Operation::BindMount
    } else if flags & flags::MS_PROPAGATION != 0 {
        Operation::Mount
    } else if flags & flags::MS_MOVE != 0 {
        Operation::Move
    } else {
        Operation::Mount
    }
}

/// The flags that the call took; 0 where it takes none. Without the magic number of mount(2).
pub fn call_flags(attempt: &Attempt) -> u64 {
    let call = &attempt.syscall.call;
    if attempt.syscall.name == "creat" {
        return 1 | flags::O_CREAT | flags::O_TRUNC;
    }
    if call.form == Form::OpenHow as u8 {
        return attempt.extra[0];
    }
    let raw = argument(attempt, call.flags).unwrap_or(0);
    // Every other call takes an int or an unsigned int: the upper half of the register is whatever was left there.
    let wide = attempt.syscall.name == "mount" && attempt.abi != Abi::Ia32;
    let passed = if wide { raw } else { raw & 0xffff_ffff };
    if attempt.syscall.name == "mount" && passed & MS_MGC_MSK == MS_MGC_VAL { passed & !MS_MGC_MSK } else { passed }
}

/// The names of the flags, of the attributes too: `attr_set.…` and `attr_clr.…` of mount_setattr and open_tree_attr.
pub fn flag_names(attempt: &Attempt) -> Vec<String> {
    let call = &attempt.syscall.call;
    if call.form == Form::OpenHow as u8 && attempt.extra_unreadable {
        return Vec::new();
    }
    let flags = call_flags(attempt);
    let mut names = match attempt.operation {
        Operation::Open => flags::open_names(flags, attempt.abi),
        operation => flags::names(operation, flags),
    };
    if call.form == Form::OpenHow as u8 {
        names.extend(flags::bit_names(attempt.extra[2], flags::RESOLVE));
    }
    if call.form == Form::MountAttr as u8 {
        for (member, bits) in [("attr_set", attempt.extra[0]), ("attr_clr", attempt.extra[1])] {
            names.extend(flags::bit_names(bits, flags::MOUNT_ATTR).into_iter().map(|name| format!("{member}.{name}")));
        }
    }
    if attempt.operation == Operation::Fsmount {
        names.extend(flags::bit_names(mode_argument(attempt).unwrap_or(0), flags::MOUNT_ATTR));
    }
    names
}

/// The mode that was asked for: of open only where a file may be made.
pub fn mode(attempt: &Attempt) -> Option<u32> {
    // An inode's mode has 16 bits.
    const S_IALLUGO_AND_TYPE: u64 = 0o177_777;
    if attempt.operation.changes_mounts() || attempt.extra_unreadable {
        return None;
    }
    if attempt.operation == Operation::Open && call_flags(attempt) & (flags::O_CREAT | flags::O_TMPFILE) == 0 {
        return None;
    }
    let mode =
        if attempt.syscall.call.form == Form::OpenHow as u8 { Some(attempt.extra[1]) } else { mode_argument(attempt) };
    mode.map(|mode| (mode & S_IALLUGO_AND_TYPE) as u32)
}

fn mode_argument(attempt: &Attempt) -> Option<u64> {
    argument(attempt, attempt.syscall.call.mode).map(|mode| mode & 0xffff_ffff)
}

fn argument(attempt: &Attempt, position: u8) -> Option<u64> {
    if position == NONE { None } else { attempt.args.get(usize::from(position)).copied() }
}

/// Whether the last component of the path is followed where it is a symbolic link.
pub fn follows_last(attempt: &Attempt) -> bool {
    use Operation as O;
    let flags = call_flags(attempt);
    let without = |bit: u64| flags & bit == 0;
    match attempt.operation {
        O::Open => {
            let exclusive = flags::O_CREAT | flags::O_EXCL;
            without(flags::o_nofollow(attempt.abi)) && flags & exclusive != exclusive
        }
        O::Mkdir | O::Rmdir | O::Unlink | O::Rename | O::Symlink | O::Mknod | O::BindSocket => false,
        O::Link => !without(flags::AT_SYMLINK_FOLLOW),
        O::Chown | O::Setxattr | O::Removexattr if attempt.syscall.name.starts_with('l') => false,
        O::Setflags if attempt.syscall.call.form == Form::Ioctl as u8 => true,
        O::Chmod | O::Chown | O::Utimes | O::Setxattr | O::Removexattr | O::Setflags => {
            without(flags::AT_SYMLINK_NOFOLLOW)
        }
        O::Truncate => true,
        O::Umount => without(flags::UMOUNT_NOFOLLOW),
        O::OpenTree | O::MountSetattr => without(flags::AT_SYMLINK_NOFOLLOW),
        O::Fspick => without(flags::FSPICK_SYMLINK_NOFOLLOW),
        O::MoveMount => !without(flags::MOVE_MOUNT_T_SYMLINKS),
        O::Mount | O::Remount | O::BindMount | O::Move | O::PivotRoot | O::Chroot => true,
        O::Fsopen | O::Fsconfig | O::Fsmount => true,
    }
}

/// Whether what the path is relative to is its root as well.
pub fn resolves_in_root(attempt: &Attempt) -> bool {
    attempt.syscall.call.form == Form::OpenHow as u8 && attempt.extra[2] & flags::RESOLVE_IN_ROOT != 0
}

/// Whether the last component of the second path is followed where it is a symbolic link.
pub fn follows_last_of_second(attempt: &Attempt) -> bool {
    match attempt.operation {
        Operation::MoveMount => call_flags(attempt) & flags::MOVE_MOUNT_F_SYMLINKS != 0,
        Operation::PivotRoot => true,
        _ => false,
    }
}

/// Whether the kernel looks at the folder that holds the name, rather than at what the name stands for, to tell a read-only
/// mount: these operations change the folder (`filename_create`, `do_unlinkat`, `do_renameat2` in `fs/namei.c`).
pub const fn changes_folder(operation: Operation) -> bool {
    matches!(
        operation,
        Operation::Mkdir
            | Operation::Rmdir
            | Operation::Unlink
            | Operation::Rename
            | Operation::Link
            | Operation::Symlink
            | Operation::Mknod
            | Operation::BindSocket
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::testing::attempt;

    #[test]
    fn mount_is_refined_in_the_order_in_which_the_kernel_looks_at_its_flags() {
        for (flags, expected) in [
            (0x20, Operation::Remount),
            (0x1020, Operation::Remount),
            (0x1000, Operation::BindMount),
            (0x5000, Operation::BindMount),
            (1 << 18 | 16_384, Operation::Mount),
            (1 << 18 | 8192, Operation::Mount),
            (8192, Operation::Move),
            (8192 | 4096, Operation::BindMount),
            (0, Operation::Mount),
            (1, Operation::Mount),
        ] {
            assert_eq!(refine(&attempt("mount").arg(3, flags)), expected, "{flags:#x}");
        }
    }

    #[test]
    fn the_old_magic_number_is_no_flag() {
        let with_magic = attempt("mount").arg(3, 0xc0ed_0020);
        assert_eq!(refine(&with_magic), Operation::Remount);
        assert_eq!(flag_names(&with_magic), ["MS_REMOUNT"]);
        // Another upper half is no magic number, and its bits count.
        assert_eq!(flag_names(&attempt("mount").arg(3, 0x0004_0000)), ["MS_PRIVATE"]);
    }

    #[test]
    fn unlinkat_with_removedir_is_rmdir() {
        assert_eq!(refine(&attempt("unlinkat").arg(2, 0x200)), Operation::Rmdir);
        assert_eq!(refine(&attempt("unlinkat").arg(2, 0)), Operation::Unlink);
    }

    #[test]
    fn creat_is_an_open_that_writes_creates_and_truncates() {
        let creat = attempt("creat").arg(1, 0o644);
        assert_eq!(flag_names(&creat), ["O_WRONLY", "O_CREAT", "O_TRUNC"]);
        assert_eq!(mode(&creat), Some(0o644));
    }

    #[test]
    fn the_upper_half_of_a_register_is_no_part_of_an_int() {
        assert_eq!(flag_names(&attempt("openat").arg(2, 0xdead_beef_0000_0041)), ["O_WRONLY", "O_CREAT"]);
    }

    #[test]
    fn an_open_that_makes_no_file_has_no_mode() {
        assert_eq!(mode(&attempt("openat").arg(2, 1).arg(3, 0o7777)), None);
        assert_eq!(mode(&attempt("openat").arg(2, 0o101).arg(3, 0o600)), Some(0o600));
        assert_eq!(mode(&attempt("mkdir").arg(1, 0o755)), Some(0o755));
    }

    #[test]
    fn openat2_tells_its_flags_mode_and_resolve_from_its_struct() {
        let open = attempt("openat2").extra([0o102, 0o640, 0x10, 0]);
        assert_eq!(flag_names(&open), ["O_RDWR", "O_CREAT", "RESOLVE_IN_ROOT"]);
        assert_eq!(mode(&open), Some(0o640));
    }

    #[test]
    fn of_a_struct_that_could_not_be_read_nothing_is_told() {
        let open = Attempt { extra_unreadable: true, ..attempt("openat2") };
        assert_eq!((flag_names(&open), mode(&open)), (Vec::new(), None));
        let setattr = Attempt { extra_unreadable: true, ..attempt("mount_setattr").arg(2, 0x8000) };
        assert_eq!(flag_names(&setattr), ["AT_RECURSIVE"], "that is an argument of its own");
    }

    #[test]
    fn attributes_of_a_mount_are_told_as_set_or_cleared() {
        let attempt = attempt("mount_setattr").arg(2, 0x8000).extra([2, 1, 0, 0]);
        assert_eq!(flag_names(&attempt), ["AT_RECURSIVE", "attr_set.MOUNT_ATTR_NOSUID", "attr_clr.MOUNT_ATTR_RDONLY"]);
    }

    #[test]
    fn what_makes_or_removes_a_name_does_not_follow_it() {
        for name in ["mkdir", "rmdir", "unlink", "rename", "symlink", "mknod", "lchown", "lsetxattr", "link"] {
            assert!(!follows_last(&attempt(name)), "{name}");
        }
        for name in ["open", "creat", "chmod", "chown", "truncate", "utimes", "setxattr", "mount", "umount2"] {
            assert!(follows_last(&attempt(name)), "{name}");
        }
    }

    #[test]
    fn flags_say_whether_the_last_link_is_followed() {
        assert!(!follows_last(&attempt("openat").arg(2, 0o400_001)), "O_NOFOLLOW");
        assert!(!follows_last(&attempt("openat").arg(2, 0o301)), "O_CREAT|O_EXCL");
        assert!(follows_last(&attempt("openat").arg(2, 0o101)), "O_CREAT");
        assert!(!follows_last(&attempt("fchownat").arg(4, 0x100)));
        assert!(follows_last(&attempt("linkat").arg(4, 0x400)));
        assert!(!follows_last(&attempt("umount2").arg(1, 8)));
        assert!(!follows_last(&attempt("move_mount")));
        assert!(follows_last(&attempt("move_mount").arg(4, 0x10)));
        assert!(follows_last_of_second(&attempt("move_mount").arg(4, 1)));
    }
}
