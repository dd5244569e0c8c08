//! Writes by paths and descriptors that hide what is meant.

use std::{
    ffi::CStr,
    fs::File,
    os::fd::{AsRawFd as _, IntoRawFd as _},
};

use detector::kernel::plan::Hooks;
use detector_common::operation::Operation;
use io_uring::{opcode, types};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::{
    super::{door::Arena, ring::Ring, sensor::hooks_under_test},
    case::{Case, Path},
    stage::Said,
};

const EROFS: i32 = 30;

pub fn refused(result: impl Into<i64>) {
    let errno = std::io::Error::last_os_error().raw_os_error();
    assert_eq!((result.into(), errno), (-1, Some(EROFS)), "the seal refuses it");
}

/// Creates a file, as the seal forbids.
pub fn create(path: &CStr) {
    // SAFETY: a NUL-terminated path.
    refused(unsafe { libc::open(path.as_ptr(), libc::O_CREAT | libc::O_WRONLY, 0o644) });
}

/// Opens a file that is there to write to it.
fn open(path: &CStr) {
    // SAFETY: a NUL-terminated path.
    refused(unsafe { libc::open(path.as_ptr(), libc::O_WRONLY) });
}

fn existing() -> i32 {
    File::open("/mnt/etc/passwd").unwrap().into_raw_fd()
}

/// Whether the call is not there: then the case is skipped.
fn refused_or_unknown(result: i64) -> Said {
    if std::io::Error::last_os_error().raw_os_error() == Some(libc::ENOSYS) {
        return Said::skipped("this kernel does not have the call");
    }
    refused(result);
    Said::myself()
}

#[rustfmt::skip]
pub const CASES: &[Case] = &[
    Case::write("a relative path after chdir", || {
        rustix::process::chdir("/mnt/usr/lib").unwrap();
        create(c"../../etc/./x");
        Said::myself()
    }, Operation::Open, "/mnt/etc/x"),
    Case::write("a path from an open folder", || {
        let folder = File::open("/mnt/usr").unwrap();
        // SAFETY: an open descriptor and a NUL-terminated path.
        refused(unsafe { libc::mkdirat(folder.as_raw_fd(), c"lib/../new".as_ptr(), 0o755) });
        Said::myself()
    }, Operation::Mkdir, "/mnt/usr/new"),
    Case::write("a path through symbolic links", || {
        create(c"/mnt/lib/../lib/x");
        Said::myself()
    }, Operation::Open, "/mnt/usr/lib/x"),
    Case::write("a name of hostile bytes", || {
        create(c"/mnt/etc/\x1b[2J\n\"\\");
        Said::myself()
    }, Operation::Open, "/mnt/etc/\x1b[2J\n\"\\"),
    Case::write("a path in a chroot", || {
        rustix::process::chroot("/mnt").unwrap();
        rustix::process::chdir("/").unwrap();
        create(c"/../../etc/x");
        Said::myself()
    }, Operation::Open, "/mnt/etc/x"),
    Case::write("a file without a name", || {
        // SAFETY: a NUL-terminated path.
        refused(unsafe { libc::open(c"/mnt/tmp".as_ptr(), libc::O_TMPFILE | libc::O_WRONLY, 0o600) });
        Said::myself()
    }, Operation::Open, "/mnt/tmp"),
    Case::write("an absolute path within an open folder", || {
        let root = File::open("/mnt").unwrap();
        const RESOLVE_IN_ROOT: u64 = 0x10;
        let how = [(libc::O_CREAT | libc::O_WRONLY) as u64, 0o644, RESOLVE_IN_ROOT];
        // SAFETY: a descriptor, a NUL-terminated path and a `struct open_how`.
        refused(unsafe { libc::syscall(libc::SYS_openat2, root.as_raw_fd(), c"/../etc/x".as_ptr(), how.as_ptr(), 24) });
        Said::myself()
    }, Operation::Open, "/mnt/etc/x"),
    Case::write("an absolute path within an open folder, on a ring", || {
        let root = File::open("/mnt").unwrap();
        let how = types::OpenHow::new().flags((libc::O_CREAT | libc::O_WRONLY) as u64).mode(0o644).resolve(0x10);
        let entry = opcode::OpenAt2::new(types::Fd(root.as_raw_fd()), c"/etc/x".as_ptr(), &raw const how).build();
        assert_eq!(Ring::new().ask(vec![entry]), [-EROFS]);
        Said::myself()
    }, Operation::Open, "/mnt/etc/x").by_io_uring(),
    Case::write("an open file by an empty path", || {
        // SAFETY: an open descriptor and a NUL-terminated path.
        refused(unsafe { libc::fchownat(existing(), c"".as_ptr(), 1, 1, libc::AT_EMPTY_PATH) });
        Said::myself()
    }, Operation::Chown, "/mnt/etc/passwd"),
    Case::write("an open file by an empty path, in a newer call", || {
        // SAFETY: an open descriptor and a NUL-terminated path.
        refused_or_unknown(unsafe { libc::syscall(452, existing(), c"".as_ptr(), 0o600, libc::AT_EMPTY_PATH) })
    }, Operation::Chmod, "/mnt/etc/passwd"),
    Case::write("an open file without a path", || {
        // SAFETY: an open descriptor; null pointers mean the file itself, and now.
        refused(unsafe { libc::syscall(libc::SYS_utimensat, existing(), 0, 0, 0) });
        Said::myself()
    }, Operation::Utimes, "/mnt/etc/passwd"),
    Case::write("an open file by its link in proc", || {
        // SAFETY: an open descriptor.
        assert_eq!(unsafe { libc::dup2(existing(), 50) }, 50);
        open(c"/proc/self/fd/50");
        Said::myself()
    }, Operation::Open, "/proc/self/fd/50"),
    Case::write("chmod by the link in proc", || {
        // SAFETY: an open descriptor, and a NUL-terminated path.
        unsafe {
            assert_eq!(libc::dup2(existing(), 50), 50);
            refused(libc::chmod(c"/proc/self/fd/50".as_ptr(), 0o600));
        }
        Said::myself()
    }, Operation::Chmod, "").path(Path::Differs { tracepoint: Some("/proc/self/fd/50"), fexit: Some("/mnt/etc/passwd") }),
    Case::write("a path through the root of a process", || {
        open(c"/proc/self/root/mnt/etc/passwd");
        Said::myself()
    }, Operation::Open, "/proc/self/root/mnt/etc/passwd"),
    Case::write("a thread with a working directory of its own", || {
        std::thread::spawn(|| {
            // SAFETY: of this thread alone; it ends here.
            unsafe { unshare_unsafe(UnshareFlags::FS) }.unwrap();
            rustix::process::chdir("/mnt/tmp").unwrap();
            create(c"x");
        }).join().unwrap();
        Said::myself()
    }, Operation::Open, "/mnt/tmp/x").check(|attempt| assert_ne!(attempt.process.tid, attempt.process.pid)),
    Case::write("a path that a second thread rewrites", || {
        // SAFETY: a path that is NUL-terminated at every instant.
        super::rewriting::race(c"/mnt/etc/sealed", |path| unsafe { libc::mkdir(path, 0o755) });
        Said::myself()
    }, Operation::Mkdir, "").path(Path::Any).check(|attempt| {
        let path = attempt.path.requested.as_deref().unwrap();
        // With any other beginning the kernel would have answered something else.
        assert!(hooks_under_test() == Hooks::Tracepoint || path.starts_with(b"/mnt/"), "{}", path.escape_ascii());
    }),
    Case::write("a path of chown that a second thread rewrites", || {
        // SAFETY: a path that is NUL-terminated at every instant.
        super::rewriting::race(c"/mnt/etc/passwd", |path| unsafe { libc::lchown(path, 0, 0) });
        Said::myself()
    }, Operation::Chown, "").path(Path::Any),
    Case::write("an open by a handle", || {
        let mount = File::open("/mnt").unwrap();
        let handle = super::super::every_syscall::handle_of(std::path::Path::new("/mnt/etc/passwd"), &mut Arena::new());
        // SAFETY: an open descriptor and a handle.
        refused(unsafe { libc::syscall(libc::SYS_open_by_handle_at, mount.as_raw_fd(), handle, libc::O_WRONLY) });
        Said::myself()
    }, Operation::Open, "").path(Path::Differs { tracepoint: None, fexit: Some("/mnt/etc/passwd") })
        .function("exit_open_handle"),
    Case::write("another credential's personality", || {
        let ring = Ring::new();
        let personality = ring.personality();
        // SAFETY: numbers alone.
        assert_eq!(unsafe { libc::syscall(libc::SYS_setresuid, 1234, 1234, 1234) }, 0);
        let entry = opcode::MkDirAt::new(types::Fd(libc::AT_FDCWD), c"/mnt/etc/by root".as_ptr()).mode(0o755).build();
        let mut ring = ring;
        assert_eq!(ring.ask(vec![entry.personality(personality)]), [-EROFS]);
        Said::myself()
    }, Operation::Mkdir, "/mnt/etc/by root").by_io_uring(),
];
