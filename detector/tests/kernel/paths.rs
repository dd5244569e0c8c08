//! What a path is relative to is seen in the kernel: the working directory, an open folder, the root of a chroot.

use std::{fs::File, os::fd::AsRawFd, path::Path};

use detector::kernel::attempt::{Attempt, PathBase};

use super::{
    sealed::Sealed,
    sensor::{Attached, begin, requested},
};

fn only(attempts: &[Attempt]) -> &Attempt {
    let [attempt] = attempts else { panic!("one attempt, not {attempts:?}") };
    attempt
}

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
