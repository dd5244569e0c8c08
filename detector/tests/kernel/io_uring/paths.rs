//! Given a sealed root, when a write is queued on an io_uring, then its path is based on what held when it was looked up.

use std::{ffi::CString, fs::File, io::Write as _, os::fd::AsRawFd, time::Duration};

use detector::kernel::attempt::PathBase;
use io_uring::{opcode, squeue::Flags, types};

use super::{
    EROFS,
    requests::{CWD, at_functions, mkdir, open},
};
use crate::{
    ring::Ring,
    sealed::Sealed,
    sensor::{Attached, begin, only, requested},
};

#[tokio::test]
async fn a_path_is_based_on_the_folder_that_the_descriptor_stands_for_when_a_worker_looks_it_up() {
    let mut attached = Attached::new();
    let seen = attached.watch(|| {
        let sealed = Sealed::new();
        let folder = File::open(sealed.root.join("etc")).unwrap();
        let other = File::open(sealed.root.join("usr/lib")).unwrap();
        let ring = &mut Ring::new();
        let (reader, mut writer) = std::io::pipe().unwrap();
        let mut byte = [0];
        begin();
        // The second waits for the first, and that for something to read.
        ring.submit(vec![
            opcode::Read::new(types::Fd(reader.as_raw_fd()), byte.as_mut_ptr(), 1).build().flags(Flags::IO_HARDLINK),
            opcode::MkDirAt::new(types::Fd(folder.as_raw_fd()), c"b".as_ptr()).build(),
        ]);
        // SAFETY: two open descriptors.
        unsafe { libc::dup2(other.as_raw_fd(), folder.as_raw_fd()) };
        writer.write_all(b"x").unwrap();
        assert_eq!(ring.results(2), [1, EROFS]);
    });
    let attempt = only(&seen.attempts);
    assert_eq!(requested(attempt), "b");
    let PathBase::Dirfd(folder) = &attempt.path.base else { panic!("based on a folder: {:?}", attempt.path) };
    assert_eq!(folder.in_namespace, b"/mnt/usr/lib");
}

#[tokio::test]
async fn a_path_is_based_on_what_held_at_its_submission_when_its_end_is_told_late() {
    let mut attached = Attached::new();
    // Nothing tells when the kernel's threads have done it: on a busy machine they need more than the first.
    let pauses = [100, 1_000, 10_000].map(Duration::from_millis);
    assert!(pauses.into_iter().any(|pause| is_based_on_what_held_at_its_submission(&mut attached, pause)));
}

/// Whether it is, where what was submitted is done after so long.
fn is_based_on_what_held_at_its_submission(attached: &mut Attached, pause: Duration) -> bool {
    let seen = attached.watch(|| {
        let sealed = Sealed::new();
        rustix::process::chdir(sealed.root.join("usr")).unwrap();
        let folder = File::open(sealed.root.join("usr/lib")).unwrap();
        // Its completions are told when the thread asks for them.
        let ring = &mut Ring::deferred();
        begin();
        ring.submit(vec![
            mkdir(c"x".as_ptr()),
            opcode::MkDirAt::new(types::Fd(folder.as_raw_fd()), c"y".as_ptr()).build(),
        ]);
        std::thread::sleep(pause);
        rustix::process::chdir(sealed.root.join("etc")).unwrap();
        drop(folder);
        ring.results(2)
    });
    let bases: Vec<_> = seen.attempts.iter().map(|attempt| (&attempt.path.base, &attempt.process.cwd)).collect();
    println!("{pause:?}: {:?} with {bases:?}", seen.returned);
    if seen.returned != [EROFS, EROFS] {
        return false;
    }
    let [(PathBase::Cwd, Some(cwd)), (PathBase::Dirfd(folder), _)] = bases[..] else { return false };
    cwd.in_namespace == b"/mnt/usr" && folder.in_namespace == b"/mnt/usr/lib"
}

#[tokio::test]
async fn a_relative_path_is_based_on_the_working_directory() {
    for flags in [Flags::empty(), Flags::ASYNC] {
        let mut attached = Attached::new();
        let seen = attached.watch(|| {
            let sealed = Sealed::new();
            rustix::process::chdir(sealed.root.join("usr")).unwrap();
            begin();
            assert_eq!(Ring::new().ask(vec![open(c"../etc/x".as_ptr()).flags(flags)]), [EROFS]);
        });
        let attempt = only(&seen.attempts);
        assert_eq!(requested(attempt), "../etc/x");
        assert!(matches!(attempt.path.base, PathBase::Cwd));
        assert_eq!(attempt.process.cwd.as_ref().unwrap().in_namespace, b"/mnt/usr");
    }
}

#[tokio::test]
async fn in_a_chroot_an_absolute_path_is_based_on_its_root() {
    let mut attached = Attached::new();
    let seen = attached.watch(|| {
        let sealed = Sealed::new();
        rustix::process::chroot(&sealed.root).unwrap();
        begin();
        assert_eq!(Ring::new().ask(vec![mkdir(c"/etc/x".as_ptr()).flags(Flags::ASYNC)]), [EROFS]);
    });
    let attempt = only(&seen.attempts);
    let PathBase::Root(root) = &attempt.path.base else { panic!("based on the root: {:?}", attempt.path) };
    assert_eq!((requested(attempt).as_str(), root.in_namespace.as_slice()), ("/etc/x", &b"/mnt"[..]));
}

#[tokio::test]
async fn the_longest_path_comes_whole_and_the_second_of_two_is_told_to_be_cut() {
    let mut attached = Attached::new();
    let long = |end: &str| CString::new(format!("/mnt/{}etc/{end}", "./".repeat((4095 - 10) / 2))).unwrap();
    let (old, new) = (long("a"), long("b"));
    let seen = attached.watch(|| {
        Sealed::new();
        begin();
        let rename = opcode::RenameAt::new(CWD, old.as_ptr(), CWD, new.as_ptr()).build();
        assert_eq!(Ring::new().ask(vec![rename]), [EROFS]);
    });
    let attempt = only(&seen.attempts);
    assert_eq!((attempt.path.requested.as_deref(), attempt.path.truncated), (Some(old.as_bytes()), false));
    assert_eq!(attempt.path2.truncated, !at_functions(), "{:?}", attempt.path2);
}
