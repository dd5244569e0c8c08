//! Given a sealed root, when a program asks for a write by any syscall of the table, then the kernel side sees it: with its
//! operation, its door and its path.

use std::{ffi::CString, fs::File, os::fd::IntoRawFd, path::Path};

use detector::kernel::{
    attempt::{Attempt, PathBase},
    plan::Hooks,
};
use detector_common::{
    abi::Abi,
    operation::Operation,
    syscalls::{SYSCALLS, Syscall},
};

use super::{
    door::{Arena, ask},
    sealed::Sealed,
    sensor::{Attached, begin, hooks_under_test, named},
};

const FDCWD: u64 = -100_i64 as u64;
const EROFS: i64 = -30;
const ENOSYS: i64 = -38;
const EXISTING: &str = "/mnt/etc/passwd";
const NEW: &str = "/mnt/etc/new";
const FOLDER: &str = "/mnt/tmp";

/// What a call asks for: its arguments, and the path that should be seen.
type Asked = ([u64; 6], &'static str);

fn number(syscall: &Syscall, door: Abi) -> Option<u16> {
    if door == Abi::Ia32 { syscall.ia32 } else { syscall.x86_64 }
}

/// Arguments of each write of the table, so that a writable filesystem would do it.
fn asked(name: &str, door: Abi, arena: &mut Arena) -> Asked {
    let open = u64::try_from(libc::O_CREAT | libc::O_WRONLY).unwrap();
    let existing = arena.string(c"/mnt/etc/passwd");
    let new = arena.string(c"/mnt/etc/new");
    let folder = arena.string(c"/mnt/tmp");
    let attribute = arena.string(c"user.a");
    let one = arena.bytes(b"1");
    let fd = |path: &str| u64::try_from(File::open(path).unwrap().into_raw_fd()).unwrap();
    match name {
        "open" => ([new, open, 0o644, 0, 0, 0], NEW),
        "creat" => ([new, 0o644, 0, 0, 0, 0], NEW),
        "openat" => ([FDCWD, new, open, 0o644, 0, 0], NEW),
        "openat2" => {
            let how: Vec<u8> = [open, 0o644, 0].iter().flat_map(|word| word.to_ne_bytes()).collect();
            ([FDCWD, new, arena.bytes(&how), 24, 0, 0], NEW)
        }
        "open_by_handle_at" => {
            let mount = fd("/mnt");
            // A handle has no path, and only at the function is the file known.
            let opened = if hooks_under_test() == Hooks::Fexit { EXISTING } else { "" };
            ([mount, handle_of(Path::new(EXISTING), arena), u64::try_from(libc::O_WRONLY).unwrap(), 0, 0, 0], opened)
        }
        "mkdir" => ([new, 0o755, 0, 0, 0, 0], NEW),
        "mkdirat" => ([FDCWD, new, 0o755, 0, 0, 0], NEW),
        "rmdir" => ([folder, 0, 0, 0, 0, 0], FOLDER),
        "unlink" | "truncate" | "truncate64" => ([existing, 0, 0, 0, 0, 0], EXISTING),
        "unlinkat" => ([FDCWD, existing, 0, 0, 0, 0], EXISTING),
        "rename" | "link" => ([existing, new, 0, 0, 0, 0], EXISTING),
        "renameat" | "renameat2" | "linkat" => ([FDCWD, existing, FDCWD, new, 0, 0], EXISTING),
        "symlink" => ([existing, new, 0, 0, 0, 0], NEW),
        "symlinkat" => ([existing, FDCWD, new, 0, 0, 0], NEW),
        "mknod" => ([new, u64::from(libc::S_IFIFO), 0, 0, 0, 0], NEW),
        "mknodat" => ([FDCWD, new, u64::from(libc::S_IFIFO), 0, 0, 0], NEW),
        "chmod" => ([existing, 0o600, 0, 0, 0, 0], EXISTING),
        "fchmod" => ([fd(EXISTING), 0o600, 0, 0, 0, 0], EXISTING),
        "fchmodat" | "fchmodat2" => ([FDCWD, existing, 0o600, 0, 0, 0], EXISTING),
        "chown" | "lchown" | "chown32" | "lchown32" => ([existing, 1, 1, 0, 0, 0], EXISTING),
        "fchown" | "fchown32" => ([fd(EXISTING), 1, 1, 0, 0, 0], EXISTING),
        "fchownat" => ([FDCWD, existing, 1, 1, 0, 0], EXISTING),
        "utime" | "utimes" => ([existing, 0, 0, 0, 0, 0], EXISTING),
        "futimesat" | "utimensat" | "utimensat_time64" => ([FDCWD, existing, 0, 0, 0, 0], EXISTING),
        "setxattr" | "lsetxattr" => ([existing, attribute, one, 1, 0, 0], EXISTING),
        "fsetxattr" => ([fd(EXISTING), attribute, one, 1, 0, 0], EXISTING),
        "setxattrat" => {
            let value: Vec<u8> = [one, 1].iter().flat_map(|word| word.to_ne_bytes()).collect();
            ([FDCWD, existing, 0, attribute, arena.bytes(&value), 16], EXISTING)
        }
        "removexattr" | "lremovexattr" => ([existing, attribute, 0, 0, 0, 0], EXISTING),
        "fremovexattr" => ([fd(EXISTING), attribute, 0, 0, 0, 0], EXISTING),
        "removexattrat" => ([FDCWD, existing, 0, attribute, 0, 0], EXISTING),
        "bind" | "socketcall" => {
            // SAFETY: no pointers.
            let socket = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0) };
            let mut address = vec![1, 0];
            address.extend_from_slice(b"/mnt/etc/new\0");
            let length = u64::try_from(address.len()).unwrap();
            let args = [u64::try_from(socket).unwrap(), arena.bytes(&address), length];
            if name == "bind" {
                ([args[0], args[1], args[2], 0, 0, 0], NEW)
            } else {
                let words: Vec<u8> = args.iter().flat_map(|&arg| u32::try_from(arg).unwrap().to_ne_bytes()).collect();
                ([2, arena.bytes(&words), 0, 0, 0, 0], NEW)
            }
        }
        "ioctl" => {
            let set_flags = if door == Abi::Ia32 { 0x4004_6602 } else { 0x4008_6602 };
            ([fd(EXISTING), set_flags, arena.bytes(&[0; 8]), 0, 0, 0], EXISTING)
        }
        "file_setattr" => ([FDCWD, existing, arena.bytes(&[0; 24]), 24, 0, 0], EXISTING),
        other => panic!("no test asks for the write {other}: add how"),
    }
}

/// Address of the `struct file_handle` of a path.
pub fn handle_of(path: &Path, arena: &mut Arena) -> u64 {
    let path = CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
    let mut handle = [0_u8; 8 + 128];
    handle[..4].copy_from_slice(&128_u32.to_ne_bytes());
    let mut mount_id = 0;
    // SAFETY: a handle with room for 128 bytes, as its first word says.
    let result =
        unsafe { libc::name_to_handle_at(libc::AT_FDCWD, path.as_ptr(), handle.as_mut_ptr().cast(), &mut mount_id, 0) };
    assert_eq!(result, 0, "a tmpfs gives file handles");
    arena.bytes(&handle)
}

/// Asks for each write of the table on a sealed root; those that this kernel has: name of the syscall, path that should be seen.
pub fn ask_for_every_write(door: Abi) -> Vec<(&'static str, &'static str)> {
    let mut arena = Arena::new();
    let writes = SYSCALLS
        .iter()
        .filter(|row| Operation::from_wire(row.call.operation).is_some_and(|operation| !operation.changes_mounts()));
    let mut asked_for = Vec::new();
    for row in writes {
        let Some(number) = number(row, door) else { continue };
        let (args, path) = asked(row.name, door, &mut arena);
        // SAFETY: the arguments of this very syscall.
        let result = unsafe { ask(door, number, args) };
        if result == ENOSYS {
            println!("{}: skipped, this kernel does not have it", row.name);
            continue;
        }
        assert_eq!(result, EROFS, "{} is refused by the seal", row.name);
        asked_for.push((row.name, path));
    }
    assert!(asked_for.len() > 35, "the table has its rows");
    asked_for
}

fn every_write_is_seen_through(door: Abi) {
    let mut attached = Attached::new();
    let seen = attached.watch(|| {
        let sealed = Sealed::new();
        assert!(sealed.root.exists());
        begin();
        ask_for_every_write(door)
    });
    let saw: Vec<_> = seen.attempts.iter().map(|attempt| (attempt.syscall.name, named(attempt))).collect();
    let wanted: Vec<_> = seen.returned.iter().map(|&(name, path)| (name, path.to_owned())).collect();
    assert_eq!(saw, wanted, "each write is seen once, in order, by its name and path");
    for attempt in &seen.attempts {
        assert_eq!((attempt.abi, attempt.result), (door, EROFS), "{}", attempt.syscall.name);
        on_a_file_descriptor_the_path_is_the_file(attempt);
    }
}

fn on_a_file_descriptor_the_path_is_the_file(attempt: &Attempt) {
    let by_handle = attempt.syscall.name == "open_by_handle_at";
    if by_handle && hooks_under_test() == Hooks::Tracepoint {
        assert!(matches!(attempt.path.base, PathBase::None), "a handle has no path: {:?}", attempt.path);
    } else if by_handle
        || ["fchmod", "fchown", "fchown32", "fsetxattr", "fremovexattr", "ioctl"].contains(&attempt.syscall.name)
    {
        let PathBase::File(file) = &attempt.path.base else {
            panic!("{}: the base is the open file", attempt.syscall.name)
        };
        assert_eq!(file.in_namespace, EXISTING.as_bytes(), "{}", attempt.syscall.name);
    }
}

#[tokio::test]
async fn every_write_is_seen_through_64_bit_calls() {
    every_write_is_seen_through(Abi::X86_64);
}

#[tokio::test]
async fn every_write_is_seen_through_int_0x80_from_a_64_bit_program() {
    every_write_is_seen_through(Abi::Ia32);
}

#[tokio::test]
async fn both_paths_of_a_rename_are_seen() {
    let mut attached = Attached::new();
    let seen = attached.watch(|| {
        let sealed = Sealed::new();
        begin();
        std::fs::rename(sealed.root.join("etc/passwd"), sealed.root.join("etc/new")).unwrap_err();
    });
    let [attempt] = seen.attempts.as_slice() else { panic!("one attempt, not {:?}", seen.attempts) };
    assert_eq!(attempt.path.requested.as_deref(), Some(EXISTING.as_bytes()));
    assert_eq!(attempt.path2.requested.as_deref(), Some(NEW.as_bytes()));
}

#[tokio::test]
async fn the_process_is_seen_with_its_executable_arguments_and_ancestors() {
    let mut attached = Attached::new();
    let seen = attached.watch(|| {
        Sealed::new();
        begin();
        std::fs::write(NEW, "x").unwrap_err();
    });
    let [attempt] = seen.attempts.as_slice() else { panic!("one attempt, not {:?}", seen.attempts) };
    let process = &attempt.process;
    let own = std::env::current_exe().unwrap();
    assert_eq!(process.exe.as_ref().unwrap().in_namespace, own.as_os_str().as_encoded_bytes());
    assert_eq!(process.args, std::env::args_os().map(|arg| arg.into_encoded_bytes()).collect::<Vec<_>>());
    assert_eq!(process.pid, std::process::id());
    assert_eq!(process.ppid, std::os::unix::process::parent_id());
    assert_eq!(process.ancestors[0].pid, process.ppid);
    assert_eq!(
        process.cwd.as_ref().unwrap().in_namespace,
        std::env::current_dir().unwrap().as_os_str().as_encoded_bytes()
    );
    assert!(process.cap_sys_admin(), "the tests run as root");
    assert!(!process.has_not_executed(), "a thread is new, but its process has executed the test");
}

#[tokio::test]
async fn user_and_group_are_those_of_the_thread_that_asked() {
    let mut attached = Attached::new();
    let seen = attached.watch(|| {
        let sealed = Sealed::new();
        begin();
        // Directly, because the library's functions change the whole process.
        // SAFETY: numbers alone.
        unsafe {
            assert_eq!(libc::syscall(libc::SYS_setresgid, 2345, 2345, 2345), 0);
            assert_eq!(libc::syscall(libc::SYS_setresuid, 1234, 1234, 1234), 0);
        }
        let refused = std::fs::OpenOptions::new().write(true).open(sealed.root.join("etc/passwd")).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EROFS));
    });
    let [attempt] = seen.attempts.as_slice() else { panic!("one attempt, not {:?}", seen.attempts) };
    assert_eq!((attempt.process.uid, attempt.process.gid), (1234, 2345));
    assert!(!attempt.process.cap_sys_admin(), "a thread that becomes a user has no capabilities left");
}
