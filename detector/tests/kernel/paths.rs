//! What a path is relative to is seen in the kernel: the working directory, an open folder, the root of a chroot.

use std::{
    fs::File,
    io::Write,
    os::{fd::AsRawFd, unix::process::CommandExt},
    path::Path,
    process::Command,
};

use detector::kernel::attempt::PathBase;

use super::{
    sealed::Sealed,
    sensor::{Attached, begin, only, requested},
};

#[tokio::test]
async fn a_relative_path_is_based_on_the_working_directory() {
    let mut attached = Attached::new();
    let seen = attached.watch(|| {
        let sealed = Sealed::new();
        rustix::process::chdir(sealed.root.join("usr")).unwrap();
        begin();
        std::fs::write("../etc/x", "x").unwrap_err();
    });
    let attempt = only(&seen.attempts);
    assert_eq!(requested(attempt), "../etc/x");
    assert!(matches!(attempt.path.base, PathBase::Cwd));
    assert_eq!(attempt.process.cwd.as_ref().unwrap().in_namespace, b"/mnt/usr");
}

#[tokio::test]
async fn a_path_by_dirfd_is_based_on_the_open_folder() {
    let mut attached = Attached::new();
    let seen = attached.watch(|| {
        let sealed = Sealed::new();
        let folder = File::open(sealed.root.join("usr/lib")).unwrap();
        begin();
        // SAFETY: an open descriptor and a NUL-terminated path.
        unsafe { libc::openat(folder.as_raw_fd(), c"b".as_ptr(), libc::O_CREAT | libc::O_WRONLY, 0o644) };
    });
    let attempt = only(&seen.attempts);
    let PathBase::Dirfd(folder) = &attempt.path.base else { panic!("based on a folder: {:?}", attempt.path) };
    assert_eq!(folder.in_namespace, b"/mnt/usr/lib");
}

#[tokio::test]
async fn in_a_chroot_an_absolute_path_is_based_on_its_root() {
    let mut attached = Attached::new();
    let seen = attached.watch(|| {
        let sealed = Sealed::new();
        rustix::process::chroot(&sealed.root).unwrap();
        rustix::process::chdir("/usr").unwrap();
        begin();
        std::fs::write("/etc/x", "x").unwrap_err();
    });
    let attempt = only(&seen.attempts);
    let PathBase::Root(root) = &attempt.path.base else { panic!("based on the root: {:?}", attempt.path) };
    assert_eq!(root.in_namespace, b"/mnt");
    let cwd = attempt.process.cwd.as_ref().unwrap();
    assert_eq!((cwd.in_namespace.as_slice(), cwd.in_root.as_deref()), (&b"/mnt/usr"[..], Some(&b"/usr"[..])));
}

#[tokio::test]
async fn a_folder_in_a_tree_that_was_detached_is_not_below_the_root() {
    let mut attached = Attached::new();
    let seen = attached.watch(|| {
        let sealed = Sealed::new();
        let folder = File::open(sealed.root.join("usr/lib")).unwrap();
        rustix::mount::unmount(&sealed.root, rustix::mount::UnmountFlags::DETACH).unwrap();
        begin();
        // SAFETY: an open descriptor and a NUL-terminated path.
        unsafe { libc::openat(folder.as_raw_fd(), c"b".as_ptr(), libc::O_CREAT | libc::O_WRONLY, 0o644) };
    });
    let attempt = only(&seen.attempts);
    let PathBase::Dirfd(folder) = &attempt.path.base else { panic!("based on a folder: {:?}", attempt.path) };
    assert_eq!((folder.in_namespace.as_slice(), folder.unreachable), (&b"/usr/lib"[..], true));
    assert!(!attempt.process.cwd.as_ref().unwrap().unreachable);
}

#[tokio::test]
async fn a_program_that_never_was_in_a_folder_is_told_by_the_name_it_was_given() {
    let mut attached = Attached::new();
    let child = std::thread::scope(|scope| {
        let act = || {
            super::sealed::enter_own_mount_namespace();
            Sealed::new();
            let mut program = File::from(rustix::fs::memfd_create("payload", rustix::fs::MemfdFlags::empty()).unwrap());
            program.write_all(&std::fs::read("/bin/sh").unwrap()).unwrap();
            let path = format!("/proc/self/fd/{}", program.as_raw_fd());
            // It is written to no longer, or it could not be executed.
            let program = (File::open(&path).unwrap(), program).0;
            let mut child = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()));
            // SAFETY: the child does nothing but make a system call.
            unsafe { child.pre_exec(move || Ok(rustix::io::fcntl_setfd(&program, rustix::io::FdFlags::empty())?)) };
            // A shell that is one of many programs in a file goes by its name.
            let mut child = child.arg0("sh").args(["-c", ": > /mnt/etc/x"]).spawn().unwrap();
            child.wait().unwrap();
            child.id()
        };
        scope.spawn(act).join().unwrap()
    });
    let attempts = attached.of_process(child);
    let exe = only(&attempts).process.exe.as_ref().unwrap();
    assert_eq!((exe.in_namespace.as_slice(), exe.in_root.as_deref()), (&b"/memfd:payload"[..], None));
}

#[tokio::test]
async fn the_name_of_a_socket_is_no_longer_than_its_address() {
    let mut attached = Attached::new();
    let seen = attached.watch(|| {
        Sealed::new();
        begin();
        let socket =
            rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM, None).unwrap();
        let mut address = *b"\x01\0/mnt/sock-and-what-stood-there\0";
        address[..2].copy_from_slice(&(libc::AF_UNIX as u16).to_ne_bytes());
        // SAFETY: an open descriptor, and an address that is longer than it is told to be.
        unsafe { libc::bind(socket.as_raw_fd(), address.as_ptr().cast(), 2 + 9) };
    });
    assert_eq!(requested(only(&seen.attempts)), "/mnt/sock");
}

#[tokio::test]
async fn a_folder_as_deep_as_the_record_has_steps_is_told_to_be_cut() {
    let mut attached = Attached::new();
    let seen = attached.watch(|| {
        Sealed::new();
        rustix::mount::mount("none", "/mnt", "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
        rustix::process::chdir("/mnt").unwrap();
        for _ in 0..200 {
            std::fs::create_dir("d").unwrap();
            rustix::process::chdir("d").unwrap();
        }
        rustix::mount::mount_remount("/mnt", rustix::mount::MountFlags::RDONLY, "").unwrap();
        begin();
        std::fs::write("x", "x").unwrap_err();
    });
    let cwd = only(&seen.attempts).process.cwd.as_ref().unwrap();
    assert!(cwd.truncated, "{cwd:?}");
    assert!(cwd.in_namespace.ends_with(b"/d/d/d"));
}

#[tokio::test]
async fn the_longest_path_comes_whole_and_hostile_bytes_come_as_they_are() {
    let mut attached = Attached::new();
    let name = format!("/mnt/{}", "etc/../".repeat(580));
    let long = format!("{name}{}", "x".repeat(4095 - name.len()));
    let hostile = b"/mnt/etc/\x1b[2J\n\xff\"\\";
    let seen = attached.watch(|| {
        Sealed::new();
        begin();
        std::fs::write(Path::new(&long), "x").unwrap_err();
        let path = std::ffi::CString::new(hostile).unwrap();
        // SAFETY: a NUL-terminated path.
        unsafe { libc::creat(path.as_ptr(), 0o644) };
    });
    let [first, second] = seen.attempts.as_slice() else { panic!("two attempts: {:?}", seen.attempts) };
    assert_eq!(requested(first), long);
    assert!(!first.path.truncated);
    assert_eq!(second.path.requested.as_deref(), Some(&hostile[..]));
}
