//! Which mount has refused a write: at kernel functions the kernel itself tells, at the time of the call.

use std::{
    ffi::{CStr, CString},
    fs::{self, OpenOptions},
    path::Path,
};

use detector::{
    finding::{mount_flags::MountFlags, seal::MountInfo},
    kernel::{
        attempt::{Attempt, Mount},
        plan::Hooks,
    },
};
use rustix::mount::{MountFlags as Flags, MountPropagationFlags, mount, mount_bind, mount_change, mount_remount};

use super::{
    sealed::Sealed,
    sensor::{Attached, begin, hooks_under_test, named},
};

const EROFS: Option<i32> = Some(libc::EROFS);

/// Two filesystems: `/mnt` can be written to, but for the folder `/mnt/ro`, a mount of its own that is read-only though its
/// superblock is not. `/mnt/link` leads there.
fn with_a_read_only_part() {
    mount("none", "/mnt", "tmpfs", Flags::empty(), None).unwrap();
    fs::create_dir_all("/mnt/ro/sub").unwrap();
    fs::write("/mnt/ro/file", "x").unwrap();
    fs::write("/mnt/ro/other", "x").unwrap();
    fs::write("/mnt/elsewhere", "x").unwrap();
    std::os::unix::fs::symlink("ro/sub", "/mnt/link").unwrap();
    mount_bind("/mnt/ro", "/mnt/ro").unwrap();
    mount_change("/mnt/ro", MountPropagationFlags::PRIVATE).unwrap();
    mount_remount("/mnt/ro", Flags::BIND | Flags::RDONLY | Flags::NOSUID, "").unwrap();
}

/// What the calling thread's mountinfo says of the mount there; of several, of the uppermost.
fn mounted_at(point: &str) -> MountInfo {
    let mounts = detector::agent::mountinfo::read(Path::new("/proc/thread-self/mountinfo")).unwrap();
    mounts.into_iter().rfind(|mount| mount.point == point.as_bytes()).unwrap()
}

fn told(attempt: &Attempt) -> &Mount {
    attempt.mount.as_ref().unwrap_or_else(|| panic!("the mount is told: {attempt:?}"))
}

fn point(attempt: &Attempt) -> String {
    String::from_utf8(told(attempt).point.as_ref().unwrap().in_namespace.clone()).unwrap()
}

/// Does a call that must end with EROFS.
fn refused(call: impl FnOnce() -> libc::c_int) {
    assert_eq!((call(), std::io::Error::last_os_error().raw_os_error()), (-1, EROFS));
}

fn cstring(path: &str) -> CString {
    CString::new(path).unwrap()
}

/// Whether the mode under test tells mounts; says so where it doesn't.
fn is_told() -> bool {
    let told = hooks_under_test() == Hooks::Fexit;
    if !told {
        println!("skipped: at the tracepoints the mount is looked up after the call");
    }
    told
}

#[tokio::test]
async fn each_operation_tells_the_mount_that_refused_it_with_its_id_and_flags() {
    if !is_told() {
        return;
    }
    let mut attached = Attached::new();
    let seen = attached.watch(|| {
        with_a_read_only_part();
        let expected = mounted_at("/mnt/ro");
        // SAFETY: NUL-terminated paths; a descriptor that nothing else uses.
        let file = unsafe { libc::open(c"/mnt/ro/file".as_ptr(), libc::O_RDONLY) };
        let (new, old) = (cstring("/mnt/link/new"), cstring("/mnt/ro/file"));
        let (new, old) = (new.as_ptr(), old.as_ptr());
        let socket = std::os::unix::net::UnixListener::bind;
        begin();
        // SAFETY: all have NUL-terminated paths, an open descriptor, one readable byte.
        unsafe {
            refused(|| libc::open(new, libc::O_CREAT | libc::O_WRONLY, 0o644));
            refused(|| libc::open(old, libc::O_TRUNC | libc::O_WRONLY));
            refused(|| libc::mkdir(new, 0o755));
            refused(|| libc::rmdir(c"/mnt/ro/sub".as_ptr()));
            refused(|| libc::unlink(old));
            refused(|| libc::rename(old, new));
            refused(|| libc::link(old, new));
            refused(|| libc::symlink(c"target".as_ptr(), new));
            refused(|| libc::mkfifo(new, 0o644));
            refused(|| libc::chmod(old, 0o600));
            refused(|| libc::fchmod(file, 0o600));
            refused(|| libc::chown(old, 1, 1));
            refused(|| libc::fchown(file, 1, 1));
            refused(|| libc::utimes(old, std::ptr::null()));
            refused(|| libc::truncate(old, 0));
            refused(|| libc::setxattr(old, c"trusted.a".as_ptr(), c"1".as_ptr().cast(), 1, 0));
            refused(|| libc::fremovexattr(file, c"trusted.a".as_ptr()));
        }
        assert_eq!(socket("/mnt/link/new").unwrap_err().raw_os_error(), EROFS);
        expected
    });
    let MountInfo { id, flags, .. } = seen.returned;
    assert_eq!(seen.attempts.len(), 18, "{:?}", seen.attempts);
    for attempt in &seen.attempts {
        let name = attempt.syscall.name;
        let mount = told(attempt);
        assert_eq!((u64::from(mount.id), point(attempt).as_str()), (id, "/mnt/ro"), "{name}");
        let told = MountFlags { mount: mount.flags, superblock: mount.super_flags };
        assert_eq!(told.of_mount(), flags.of_mount(), "{name}");
        assert!(told.of_mount().contains(&"ro") && told.of_mount().contains(&"nosuid"), "{told:?}");
        assert_eq!((told.of_superblock(), mount.fstype.as_slice()), (vec!["rw"], &b"tmpfs"[..]), "{name}");
    }
}

#[tokio::test]
async fn a_superblock_that_is_read_only_is_told_so() {
    if !is_told() {
        return;
    }
    let mut attached = Attached::new();
    let seen = attached.watch(|| {
        mount("none", "/mnt", "tmpfs", Flags::empty(), None).unwrap();
        // Both are, with mount(2); the mount alone is writable again then.
        mount_remount("/mnt", Flags::RDONLY, "").unwrap();
        mount_remount("/mnt", Flags::BIND, "").unwrap();
        begin();
        assert_eq!(fs::create_dir("/mnt/x").unwrap_err().raw_os_error(), EROFS);
    });
    let [attempt] = seen.attempts.as_slice() else { panic!("one attempt: {:?}", seen.attempts) };
    let mount = told(attempt);
    let told = MountFlags { mount: mount.flags, superblock: mount.super_flags };
    assert_eq!((told.of_mount()[0], told.of_superblock()[0]), ("rw", "ro"));
}

#[tokio::test]
async fn in_a_chroot_the_point_is_told_in_its_root_too() {
    if !is_told() {
        return;
    }
    let mut attached = Attached::new();
    let seen = attached.watch(|| {
        with_a_read_only_part();
        rustix::process::chroot("/mnt").unwrap();
        begin();
        assert_eq!(fs::create_dir("/ro/x").unwrap_err().raw_os_error(), EROFS);
    });
    let [attempt] = seen.attempts.as_slice() else { panic!("one attempt: {:?}", seen.attempts) };
    let walked = told(attempt).point.as_ref().unwrap();
    assert_eq!((walked.in_namespace.as_slice(), walked.in_root.as_deref()), (&b"/mnt/ro"[..], Some(&b"/ro"[..])));
}

#[tokio::test]
async fn a_mount_that_refused_a_part_of_an_operation_which_went_well_is_not_told_of_the_next() {
    if !is_told() {
        return;
    }
    let mut attached = Attached::new();
    let seen = attached.watch(|| {
        let sealed = Sealed::new();
        mount("none", "/mnt/tmp", "tmpfs", Flags::empty(), None).unwrap();
        fs::write("/mnt/tmp/writable", "x").unwrap();
        let place = sealed.root.join("etc/passwd");
        mount_bind("/mnt/tmp/writable", &place).unwrap();
        fs::write("/mnt/tmp/other", "x").unwrap();
        mount_bind("/mnt/tmp/other", sealed.root.join("usr/lib/a")).unwrap();
        mount_remount("/mnt/usr/lib/a", Flags::BIND | Flags::RDONLY, "").unwrap();
        begin();
        // The folder's mount is asked for write access first, and refuses; the file that is there can be written.
        OpenOptions::new().write(true).create(true).truncate(false).open(&place).unwrap();
        // Nothing asks for write access by a name here, once the name is known.
        fs::read("/mnt/usr/lib/a").unwrap();
        let existing = OpenOptions::new().write(true).open("/mnt/usr/lib/a").unwrap_err();
        assert_eq!(existing.raw_os_error(), EROFS);
    });
    let [attempt] = seen.attempts.as_slice() else { panic!("one attempt: {:?}", seen.attempts) };
    assert_eq!(named(attempt), "/mnt/usr/lib/a");
    if attempt.mount.is_some() {
        assert_eq!(point(attempt), "/mnt/usr/lib/a");
    }
}

#[tokio::test]
async fn an_operation_that_is_refused_in_part_and_fails_otherwise_is_not_told_of_the_next() {
    if !is_told() {
        return;
    }
    let path: &CStr = c"/mnt/elsewhere-ro";
    let mut attached = Attached::new();
    let seen = attached.watch(|| {
        with_a_read_only_part();
        mount_bind("/mnt/elsewhere", {
            fs::write("/mnt/elsewhere-ro", "x").unwrap();
            "/mnt/elsewhere-ro"
        })
        .unwrap();
        mount_remount("/mnt/elsewhere-ro", Flags::BIND | Flags::RDONLY, "").unwrap();
        begin();
        for _ in 0..20 {
            assert_eq!(fs::create_dir("/mnt/ro/sub").unwrap_err().raw_os_error(), Some(libc::EEXIST));
            let bound = std::os::unix::net::UnixListener::bind("/mnt/ro/file").unwrap_err();
            assert_eq!(bound.raw_os_error(), Some(libc::EADDRINUSE));
            // SAFETY: a NUL-terminated path.
            refused(|| unsafe { libc::open(path.as_ptr(), libc::O_WRONLY) });
            // SAFETY: a NUL-terminated path.
            refused(|| unsafe { libc::chmod(path.as_ptr(), 0o600) });
        }
    });
    assert_eq!(seen.attempts.len(), 40, "{:?}", seen.attempts);
    for attempt in seen.attempts.iter().filter(|attempt| attempt.mount.is_some()) {
        assert_eq!(point(attempt), "/mnt/elsewhere-ro", "{}", attempt.syscall.name);
    }
}

/// Beside [`with_a_read_only_part`]: a file that is a read-only mount of its own, `/mnt/elsewhere-ro`.
fn with_a_read_only_file() {
    fs::write("/mnt/elsewhere-ro", "x").unwrap();
    mount_bind("/mnt/elsewhere", "/mnt/elsewhere-ro").unwrap();
    mount_remount("/mnt/elsewhere-ro", Flags::BIND | Flags::RDONLY, "").unwrap();
}

/// Another path to it each time, so that none is a repeat.
fn read_only_file(index: usize) -> CString {
    cstring(&format!("/mnt/{}elsewhere-ro", "./".repeat(index)))
}

#[tokio::test]
async fn a_mount_that_refused_a_repeat_is_not_told_of_what_comes_next() {
    if !is_told() {
        return;
    }
    let mut attached = Attached::new();
    let seen = attached.watch(|| {
        with_a_read_only_part();
        with_a_read_only_file();
        begin();
        // SAFETY: NUL-terminated paths.
        unsafe {
            for index in 0..20 {
                refused(|| libc::open(c"/mnt/ro/new".as_ptr(), libc::O_CREAT | libc::O_WRONLY, 0o644));
                // Nothing is asked for write access by a name here.
                refused(|| libc::open(read_only_file(index).as_ptr(), libc::O_WRONLY));
                refused(|| libc::open(c"/mnt/ro/new".as_ptr(), libc::O_CREAT | libc::O_WRONLY, 0o644));
                refused(|| libc::truncate(read_only_file(index).as_ptr(), 0));
                refused(|| libc::open(c"/mnt/ro/new".as_ptr(), libc::O_CREAT | libc::O_WRONLY, 0o644));
                refused(|| libc::rename(c"/mnt/ro/file".as_ptr(), cstring(&format!("/mnt/ro/{index}")).as_ptr()));
            }
        }
    });
    assert_eq!(seen.attempts.len(), 120, "{:?}", seen.attempts);
    for attempt in seen.attempts.iter().filter(|attempt| attempt.mount.is_some()) {
        let name = named(attempt);
        let expected = if name.ends_with("elsewhere-ro") { "/mnt/elsewhere-ro" } else { "/mnt/ro" };
        assert_eq!(point(attempt), expected, "{name}");
    }
    let with_mount = seen.counted.iter().filter(|(attempt, _)| attempt.mount.is_some());
    // One open and one truncate, whose object is the same by each path, and each rename.
    assert_eq!(with_mount.count(), 22, "{:?}", seen.counted);
}

#[tokio::test]
async fn a_mount_that_refused_an_operation_nobody_watches_is_not_told_of_the_next() {
    if !is_told() {
        return;
    }
    let mut attached = Attached::new();
    let seen = attached.watch(|| {
        with_a_read_only_part();
        with_a_read_only_file();
        let map = bpf_map();
        begin();
        for index in 0..20 {
            assert_eq!(pin(map, c"/mnt/ro/map"), EROFS);
            // SAFETY: a NUL-terminated path.
            refused(|| unsafe { libc::open(read_only_file(index).as_ptr(), libc::O_WRONLY) });
        }
    });
    assert_eq!(seen.attempts.len(), 20, "{:?}", seen.attempts);
    for attempt in seen.attempts.iter().filter(|attempt| attempt.mount.is_some()) {
        assert_eq!(point(attempt), "/mnt/elsewhere-ro");
    }
}

/// `bpf(2)` with the beginning of its attributes, the rest being zero.
fn bpf(command: libc::c_long, attributes: [u32; 4]) -> libc::c_long {
    // SAFETY: as many readable bytes as it says.
    unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), size_of_val(&attributes)) }
}

/// The descriptor of a map.
fn bpf_map() -> u32 {
    const BPF_MAP_CREATE: libc::c_long = 0;
    const BPF_MAP_TYPE_ARRAY: u32 = 2;
    u32::try_from(bpf(BPF_MAP_CREATE, [BPF_MAP_TYPE_ARRAY, 4, 4, 1])).expect("a map can be made")
}

/// Asks for a map to be pinned, which asks the mount for write access; the error.
fn pin(map: u32, path: &'static CStr) -> Option<i32> {
    const BPF_OBJ_PIN: libc::c_long = 6;
    let address = path.as_ptr() as u64;
    let result = bpf(BPF_OBJ_PIN, [address as u32, (address >> 32) as u32, map, 0]);
    if result < 0 { std::io::Error::last_os_error().raw_os_error() } else { None }
}
