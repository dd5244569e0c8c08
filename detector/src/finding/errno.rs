//! Names of the kernel's error numbers.

use std::borrow::Cow;

/// An error number of the kernel. The numbers are those of `include/uapi/asm-generic/errno{,-base}.h`, which x86 and arm64
/// share, and those of `include/linux/errno.h`, which a program never sees but the exit of a syscall may.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Errno(u16);

/// The highest number that a result can carry, `MAX_ERRNO` (`include/linux/err.h`).
const MAX_ERRNO: i64 = 4095;

impl Errno {
    /// Read-only file system.
    pub const EROFS: Self = Self(30);

    /// The error that a result carries: none of 0 or more, and none of what is no error number.
    pub const fn of_result(result: i64) -> Option<Self> {
        if result < 0 && result >= -MAX_ERRNO { Some(Self(result.unsigned_abs() as u16)) } else { None }
    }

    /// The number.
    pub const fn number(self) -> u16 {
        self.0
    }

    /// The kernel's name, `EPERM`; `E` and the number where it has none.
    pub fn name(self) -> Cow<'static, str> {
        let name = match self.0 {
            number @ 1.. if (number as usize) <= GENERIC.len() => GENERIC[number as usize - 1],
            512 => "ERESTARTSYS",
            513 => "ERESTARTNOINTR",
            514 => "ERESTARTNOHAND",
            515 => "ENOIOCTLCMD",
            516 => "ERESTART_RESTARTBLOCK",
            517 => "EPROBE_DEFER",
            518 => "EOPENSTALE",
            519 => "ENOPARAM",
            524 => "ENOTSUPP",
            _ => "",
        };
        if name.is_empty() { Cow::Owned(format!("E{}", self.0)) } else { Cow::Borrowed(name) }
    }
}

/// Names from 1 on; empty where the number is not used.
#[rustfmt::skip]
const GENERIC: [&str; 133] = [
    "EPERM", "ENOENT", "ESRCH", "EINTR", "EIO", "ENXIO", "E2BIG", "ENOEXEC", "EBADF", "ECHILD",
    "EAGAIN", "ENOMEM", "EACCES", "EFAULT", "ENOTBLK", "EBUSY", "EEXIST", "EXDEV", "ENODEV", "ENOTDIR",
    "EISDIR", "EINVAL", "ENFILE", "EMFILE", "ENOTTY", "ETXTBSY", "EFBIG", "ENOSPC", "ESPIPE", "EROFS",
    "EMLINK", "EPIPE", "EDOM", "ERANGE", "EDEADLK", "ENAMETOOLONG", "ENOLCK", "ENOSYS", "ENOTEMPTY", "ELOOP",
    "", "ENOMSG", "EIDRM", "ECHRNG", "EL2NSYNC", "EL3HLT", "EL3RST", "ELNRNG", "EUNATCH", "ENOCSI",
    "EL2HLT", "EBADE", "EBADR", "EXFULL", "ENOANO", "EBADRQC", "EBADSLT", "", "EBFONT", "ENOSTR",
    "ENODATA", "ETIME", "ENOSR", "ENONET", "ENOPKG", "EREMOTE", "ENOLINK", "EADV", "ESRMNT", "ECOMM",
    "EPROTO", "EMULTIHOP", "EDOTDOT", "EBADMSG", "EOVERFLOW", "ENOTUNIQ", "EBADFD", "EREMCHG", "ELIBACC", "ELIBBAD",
    "ELIBSCN", "ELIBMAX", "ELIBEXEC", "EILSEQ", "ERESTART", "ESTRPIPE", "EUSERS", "ENOTSOCK", "EDESTADDRREQ", "EMSGSIZE",
    "EPROTOTYPE", "ENOPROTOOPT", "EPROTONOSUPPORT", "ESOCKTNOSUPPORT", "EOPNOTSUPP", "EPFNOSUPPORT", "EAFNOSUPPORT",
    "EADDRINUSE", "EADDRNOTAVAIL", "ENETDOWN", "ENETUNREACH", "ENETRESET", "ECONNABORTED", "ECONNRESET", "ENOBUFS",
    "EISCONN", "ENOTCONN", "ESHUTDOWN", "ETOOMANYREFS", "ETIMEDOUT", "ECONNREFUSED", "EHOSTDOWN", "EHOSTUNREACH",
    "EALREADY", "EINPROGRESS", "ESTALE", "EUCLEAN", "ENOTNAM", "ENAVAIL", "EISNAM", "EREMOTEIO", "EDQUOT",
    "ENOMEDIUM", "EMEDIUMTYPE", "ECANCELED", "ENOKEY", "EKEYEXPIRED", "EKEYREVOKED", "EKEYREJECTED", "EOWNERDEAD",
    "ENOTRECOVERABLE", "ERFKILL", "EHWPOISON",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: i64) -> String {
        Errno::of_result(-number).unwrap().name().into_owned()
    }

    #[test]
    fn the_table_agrees_with_the_kernel_headers_at_its_marks() {
        for (number, expected) in [
            (1, "EPERM"),
            (16, "EBUSY"),
            (22, "EINVAL"),
            (30, "EROFS"),
            (40, "ELOOP"),
            (42, "ENOMSG"),
            (57, "EBADSLT"),
            (59, "EBFONT"),
            (75, "EOVERFLOW"),
            (90, "EMSGSIZE"),
            (95, "EOPNOTSUPP"),
            (110, "ETIMEDOUT"),
            (116, "ESTALE"),
            (117, "EUCLEAN"),
            (122, "EDQUOT"),
            (133, "EHWPOISON"),
            (512, "ERESTARTSYS"),
        ] {
            assert_eq!(name(number), expected);
        }
    }

    #[test]
    fn a_number_without_a_name_is_told_by_its_number() {
        assert_eq!(name(41), "E41");
        assert_eq!(name(4095), "E4095");
    }

    #[test]
    fn a_result_that_is_no_error_number_carries_none() {
        assert_eq!(Errno::of_result(0), None);
        assert_eq!(Errno::of_result(3), None);
        assert_eq!(Errno::of_result(-4096), None);
        assert_eq!(Errno::of_result(i64::MIN), None);
    }
}
