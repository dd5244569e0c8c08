//! What the demo attempts, as data: each attempt is made by a process of its own, in one call or a few.

use std::ffi::CStr;

use detector_common::{
    abi::Abi,
    operation::Operation,
    syscalls::{SYSCALLS, Syscall},
};

use crate::finding::event::Effect;

/// One attempt, made by one process.
#[derive(Debug)]
pub struct Attempt {
    /// Names it on the command line of the process, and names the process: 15 bytes at most.
    pub name: &'static str,
    /// The process's working directory.
    pub cwd: &'static CStr,
    /// The door that its calls go through.
    pub door: Door,
    /// Whether the process keeps root's capabilities.
    pub privileged: bool,
    /// The calls, in their order.
    pub calls: &'static [Call],
}

/// The door into the kernel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Door {
    /// That of the program itself.
    Native,
    /// `int 0x80`, on x86-64 alone.
    Ia32,
}

/// One call.
#[derive(Debug)]
pub struct Call {
    /// What is tried, for a person.
    pub tells: &'static str,
    /// The row of the syscall table, by its name.
    pub syscall: &'static str,
    /// The arguments; the others are 0.
    pub args: &'static [Arg],
    /// What should be seen.
    pub wanted: Wanted,
}

/// What should be seen of a call.
#[derive(Clone, Copy, Debug)]
pub enum Wanted {
    /// One refused write.
    Denied(Operation, &'static str),
    /// One mount attempt: its target, where it has one, and its effect.
    Mount(Operation, Option<&'static str>, Effect),
    /// Nothing: it is no write that the seal refused.
    Nothing,
}

/// An argument of a call.
#[derive(Debug)]
pub enum Arg {
    /// `AT_FDCWD`.
    Cwd,
    /// A number.
    Number(u64),
    /// A string.
    Text(&'static CStr),
    /// A structure of 64-bit words.
    Words(&'static [u64]),
    /// A structure of bytes.
    Bytes(&'static [u8]),
    /// A file descriptor of this folder.
    Folder(&'static CStr),
    /// A file descriptor of a unix socket.
    Socket,
    /// What a call before this one returned.
    Returned(usize),
}

impl Attempt {
    const fn of(name: &'static str, calls: &'static [Call]) -> Self {
        Self { name, cwd: c"/", door: Door::Native, privileged: true, calls }
    }

    /// Its door as an ABI; none where this machine does not have it.
    pub const fn abi(&self) -> Option<Abi> {
        match self.door {
            Door::Native if cfg!(target_arch = "x86_64") => Some(Abi::X86_64),
            Door::Native if cfg!(target_arch = "aarch64") => Some(Abi::Aarch64),
            Door::Ia32 if cfg!(target_arch = "x86_64") => Some(Abi::Ia32),
            _ => None,
        }
    }
}

impl Call {
    /// Its row and its number; none where the ABI does not have it.
    pub fn row(&self, abi: Abi) -> Option<(&'static Syscall, u16)> {
        let row = SYSCALLS.iter().find(|row| row.name == self.syscall)?;
        let number = match abi {
            Abi::X86_64 => row.x86_64,
            Abi::Ia32 => row.ia32,
            Abi::Aarch64 => row.aarch64,
            Abi::IoUring => None,
        };
        Some((row, number?))
    }
}

/// The attempts that this architecture has calls for.
pub fn here() -> impl Iterator<Item = &'static Attempt> {
    ATTEMPTS
        .iter()
        .filter(|attempt| attempt.abi().is_some_and(|abi| attempt.calls.iter().all(|call| call.row(abi).is_some())))
}

/// The attempt with this name.
pub fn find(name: &str) -> Option<&'static Attempt> {
    here().find(|attempt| attempt.name == name)
}

const fn call(tells: &'static str, syscall: &'static str, args: &'static [Arg], wanted: Wanted) -> Call {
    Call { tells, syscall, args, wanted }
}

const fn denied(operation: Operation, path: &'static str) -> Wanted {
    Wanted::Denied(operation, path)
}

const fn flags(flags: i32) -> Arg {
    Arg::Number(flags as u64)
}

const CREATE: Arg = flags(libc::O_CREAT | libc::O_WRONLY);
const FILE_MODE: Arg = Arg::Number(0o644);
const NULL: Arg = Arg::Number(0);
/// `MOUNT_ATTR_RDONLY` (`include/uapi/linux/mount.h`).
const MOUNT_ATTR_RDONLY: u64 = 1;
/// `FSCONFIG_CMD_CREATE` (`include/uapi/linux/mount.h`).
const FSCONFIG_CMD_CREATE: u64 = 6;
/// `MOVE_MOUNT_F_EMPTY_PATH` (`include/uapi/linux/mount.h`).
const MOVE_MOUNT_F_EMPTY_PATH: u64 = 4;

/// Every attempt, in the order in which they are made.
#[rustfmt::skip]
static ATTEMPTS: &[Attempt] = {
    use Arg::{Bytes, Cwd, Folder, Number, Returned, Socket, Text, Words};
    use Operation as O;
    &[
        Attempt::of("open", &[call("open /etc/app.conf for writing", "openat",
            &[Cwd, Text(c"/etc/app.conf"), flags(libc::O_WRONLY | libc::O_TRUNC)], denied(O::Open, "/etc/app.conf"))]),
        Attempt { cwd: c"/usr", ..Attempt::of("open-relative", &[call("in /usr, create ../etc/x", "openat",
            &[Cwd, Text(c"../etc/x"), CREATE, FILE_MODE], denied(O::Open, "/etc/x"))]) },
        Attempt::of("open-dirfd", &[call("create plugin.so, by a descriptor of /usr/lib", "openat",
            &[Folder(c"/usr/lib"), Text(c"plugin.so"), CREATE, FILE_MODE], denied(O::Open, "/usr/lib/plugin.so"))]),
        Attempt::of("open-symlink", &[call("create /lib/hook.so, through the link /lib", "openat",
            &[Cwd, Text(c"/lib/hook.so"), CREATE, FILE_MODE], denied(O::Open, "/usr/lib/hook.so"))]),
        Attempt::of("openat2", &[call("append to /var/log/app.log, by openat2", "openat2",
            &[Cwd, Text(c"/var/log/app.log"), Words(&[(libc::O_WRONLY | libc::O_APPEND) as u64, 0, 0]), Number(24)],
            denied(O::Open, "/var/log/app.log"))]),
        Attempt::of("creat", &[call("creat /tmp/upload", "creat",
            &[Text(c"/tmp/upload"), FILE_MODE], denied(O::Open, "/tmp/upload"))]),
        Attempt::of("tmpfile", &[call("a file without a name in /tmp (O_TMPFILE)", "openat",
            &[Cwd, Text(c"/tmp"), flags(libc::O_TMPFILE | libc::O_RDWR), FILE_MODE], denied(O::Open, "/tmp"))]),
        Attempt { door: Door::Ia32, ..Attempt::of("open-32-bit", &[call("create /etc/x, by a 32-bit call", "open",
            &[Text(c"/etc/x"), CREATE, FILE_MODE], denied(O::Open, "/etc/x"))]) },
        Attempt::of("mkdir", &[call("mkdir /var/cache/app", "mkdirat",
            &[Cwd, Text(c"/var/cache/app"), Number(0o755)], denied(O::Mkdir, "/var/cache/app"))]),
        Attempt::of("rm", &[call("rm /etc/passwd", "unlinkat",
            &[Cwd, Text(c"/etc/passwd")], denied(O::Unlink, "/etc/passwd"))]),
        Attempt::of("mv", &[call("mv /etc/passwd /etc/passwd.bak", "renameat2",
            &[Cwd, Text(c"/etc/passwd"), Cwd, Text(c"/etc/passwd.bak")], denied(O::Rename, "/etc/passwd"))]),
        Attempt::of("ln", &[call("ln -s /data/tool /usr/bin/tool", "symlinkat",
            &[Text(c"/data/tool"), Cwd, Text(c"/usr/bin/tool")], denied(O::Symlink, "/usr/bin/tool"))]),
        Attempt::of("chmod", &[call("chmod 4755 /usr/bin/app", "fchmodat",
            &[Cwd, Text(c"/usr/bin/app"), Number(0o4755)], denied(O::Chmod, "/usr/bin/app"))]),
        Attempt::of("chown", &[call("chown 1:1 /etc/passwd", "fchownat",
            &[Cwd, Text(c"/etc/passwd"), Number(1), Number(1)], denied(O::Chown, "/etc/passwd"))]),
        Attempt::of("touch", &[call("touch /etc/passwd, which sets its times", "utimensat",
            &[Cwd, Text(c"/etc/passwd")], denied(O::Utimes, "/etc/passwd"))]),
        Attempt::of("truncate", &[call("truncate -s 0 /var/log/app.log", "truncate",
            &[Text(c"/var/log/app.log")], denied(O::Truncate, "/var/log/app.log"))]),
        Attempt::of("setfattr", &[call("set the attribute user.note of /usr/bin/app", "setxattr",
            &[Text(c"/usr/bin/app"), Text(c"user.note"), Bytes(b"1"), Number(1)], denied(O::Setxattr, "/usr/bin/app"))]),
        Attempt::of("bind-socket", &[call("bind a socket at /run/app.sock", "bind",
            // AF_UNIX, which is 1, and the path.
            &[Socket, Bytes(b"\x01\x00/run/app.sock\0"), Number(16)], denied(O::BindSocket, "/run/app.sock"))]),

        Attempt::of("remount", &[call("mount -o remount,rw /", "mount",
            &[NULL, Text(c"/"), NULL, Number(libc::MS_REMOUNT)], Wanted::Mount(O::Remount, Some("/"), Effect::Unseal))]),
        Attempt { privileged: false, ..Attempt::of("remount-no-caps", &[call(
            "the same without CAP_SYS_ADMIN", "mount",
            &[NULL, Text(c"/"), NULL, Number(libc::MS_REMOUNT)], Wanted::Mount(O::Remount, Some("/"), Effect::Unseal))]) },
        Attempt::of("mount_setattr", &[call("clear read-only of /, by mount_setattr", "mount_setattr",
            &[Cwd, Text(c"/"), NULL, Words(&[0, MOUNT_ATTR_RDONLY, 0, 0]), Number(32)],
            Wanted::Mount(O::MountSetattr, Some("/"), Effect::Unseal))]),
        Attempt::of("mount-over", &[call("mount a tmpfs over /usr/lib", "mount",
            &[Text(c"tmpfs"), Text(c"/usr/lib"), Text(c"tmpfs")],
            Wanted::Mount(O::Mount, Some("/usr/lib"), Effect::Shadow))]),
        Attempt::of("mount-bind", &[call("mount --bind /data /etc", "mount",
            &[Text(c"/data"), Text(c"/etc"), NULL, Number(libc::MS_BIND)],
            Wanted::Mount(O::BindMount, Some("/etc"), Effect::Shadow))]),
        Attempt::of("mount-new-api", &[
            call("the new mount API: fsopen tmpfs", "fsopen",
                &[Text(c"tmpfs")], Wanted::Mount(O::Fsopen, None, Effect::None)),
            call("… fsconfig, to create it", "fsconfig",
                &[Returned(0), Number(FSCONFIG_CMD_CREATE)], Wanted::Mount(O::Fsconfig, None, Effect::None)),
            call("… fsmount", "fsmount",
                &[Returned(0)], Wanted::Mount(O::Fsmount, None, Effect::None)),
            call("… move_mount, over /usr/bin", "move_mount",
                &[Returned(2), Text(c""), Cwd, Text(c"/usr/bin"), Number(MOVE_MOUNT_F_EMPTY_PATH)],
                Wanted::Mount(O::MoveMount, Some("/usr/bin"), Effect::Shadow)),
        ]),
        Attempt::of("umount", &[call("umount /data", "umount2",
            &[Text(c"/data")], Wanted::Mount(O::Umount, Some("/data"), Effect::Detach))]),

        Attempt::of("mkdir-existing", &[call("mkdir /etc, which is there already", "mkdirat",
            &[Cwd, Text(c"/etc"), Number(0o755)], Wanted::Nothing)]),
        Attempt::of("write-volume", &[call("create /data/x, on a writable volume", "openat",
            &[Cwd, Text(c"/data/x"), CREATE, FILE_MODE], Wanted::Nothing)]),
    ]
};

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_call_is_one_of_the_table_with_at_most_six_arguments() {
        for call in ATTEMPTS.iter().flat_map(|attempt| attempt.calls) {
            assert!(SYSCALLS.iter().any(|row| row.name == call.syscall), "{}", call.syscall);
            assert!(call.args.len() <= 6, "{}", call.tells);
        }
    }

    #[test]
    fn names_are_unique_and_fit_a_process() {
        let mut names = HashSet::new();
        for attempt in ATTEMPTS {
            assert!(names.insert(attempt.name), "{} is there twice", attempt.name);
            assert!(attempt.name.len() < 16, "{} is longer than a process's name may be", attempt.name);
        }
    }

    #[test]
    fn what_is_wanted_of_a_call_is_what_its_row_says() {
        for call in ATTEMPTS.iter().flat_map(|attempt| attempt.calls) {
            let row = SYSCALLS.iter().find(|row| row.name == call.syscall).unwrap();
            let changes_mounts = Operation::from_wire(row.call.operation).unwrap().changes_mounts();
            match call.wanted {
                Wanted::Denied(operation, _) => {
                    assert!(!changes_mounts && !operation.changes_mounts(), "{}", call.tells)
                }
                Wanted::Mount(operation, ..) => assert!(changes_mounts && operation.changes_mounts(), "{}", call.tells),
                Wanted::Nothing => assert!(!changes_mounts, "every change of mounts is seen: {}", call.tells),
            }
        }
    }

    #[test]
    fn calls_of_one_attempt_are_told_apart_by_their_syscall() {
        for attempt in ATTEMPTS {
            let syscalls: HashSet<_> = attempt.calls.iter().map(|call| call.syscall).collect();
            assert_eq!(syscalls.len(), attempt.calls.len(), "{}", attempt.name);
        }
    }
}
