//! Changes of mounts: every way to make a sealed root writable, to put something over it, or to get out of it.

use std::ffi::CStr;

use detector::finding::event::Effect;
use detector_common::{abi::Abi, operation::Operation};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::{
    super::door::ask,
    case::{Case, Path},
    stage::{Said, forked},
};

const FDCWD: u64 = -100_i64 as u64;
const ENOSYS: i64 = -38;
const MOUNT_ATTR_RDONLY: u64 = 1;
const OPEN_TREE_CLONE: u64 = 1;
const AT_EMPTY_PATH: u64 = 0x1000;
const AT_RECURSIVE: u64 = 0x8000;
const FSCONFIG_SET_FLAG: u64 = 0;
const FSCONFIG_CMD_CREATE: u64 = 6;
const FSCONFIG_CMD_RECONFIGURE: u64 = 7;
const MOVE_MOUNT_F_EMPTY_PATH: u64 = 4;

const MOUNT: u16 = 165;
const UMOUNT2: u16 = 166;
const PIVOT_ROOT: u16 = 155;
const CHROOT: u16 = 161;
const OPEN_TREE: u16 = 428;
const MOVE_MOUNT: u16 = 429;
const FSOPEN: u16 = 430;
const FSCONFIG: u16 = 431;
const FSMOUNT: u16 = 432;
const FSPICK: u16 = 433;
const MOUNT_SETATTR: u16 = 442;
const OPEN_TREE_ATTR: u16 = 467;

/// By a 64-bit call; what the kernel answers.
fn call(number: u16, args: &[u64]) -> i64 {
    let padded = std::array::from_fn(|index| args.get(index).copied().unwrap_or(0));
    // SAFETY: the cases pass what each syscall wants, of static lifetime.
    unsafe { ask(Abi::X86_64, number, padded) }
}

fn at(text: &'static CStr) -> u64 {
    text.as_ptr() as u64
}

/// `struct mount_attr` that clears the read-only attribute.
static CLEAR_READ_ONLY: [u64; 4] = [0, MOUNT_ATTR_RDONLY, 0, 0];

fn clear_read_only() -> u64 {
    CLEAR_READ_ONLY.as_ptr() as u64
}

fn mount(source: u64, target: &'static CStr, fstype: u64, flags: u64) -> i64 {
    call(MOUNT, &[source, at(target), fstype, flags])
}

fn done(result: i64) -> Said {
    assert!(result >= 0, "{result}");
    Said::myself()
}

fn new_tmpfs() -> u64 {
    let context = call(FSOPEN, &[at(c"tmpfs"), 0]).unsigned_abs();
    assert_eq!(call(FSCONFIG, &[context, FSCONFIG_CMD_CREATE]), 0);
    call(FSMOUNT, &[context]).unsigned_abs()
}

/// A copy of the sealed root that can be written to, while `/mnt` still looks sealed.
fn writable_clone() -> u64 {
    let tree = call(OPEN_TREE, &[FDCWD, at(c"/mnt"), OPEN_TREE_CLONE]).unsigned_abs();
    assert_eq!(call(MOUNT_SETATTR, &[tree, at(c""), AT_EMPTY_PATH, clear_read_only(), 32]), 0);
    tree
}

#[rustfmt::skip]
pub const CASES: &[Case] = &[
    Case::mount("remount", || done(mount(0, c"/mnt", 0, libc::MS_REMOUNT)),
        Operation::Remount, "/mnt", Effect::Unseal),
    Case::mount("remount with the magic number of old programs", || done(mount(0, c"/mnt", 0, libc::MS_REMOUNT | 0xc0ed_0000)),
        Operation::Remount, "/mnt", Effect::Unseal),
    Case::mount("remount of the mount alone", || done(mount(0, c"/mnt", 0, libc::MS_REMOUNT | libc::MS_BIND)),
        Operation::Remount, "/mnt", Effect::Unseal),
    Case::mount("remount by a relative path", || {
        rustix::process::chdir("/mnt/usr/lib").unwrap();
        done(mount(0, c"../..", 0, libc::MS_REMOUNT))
    }, Operation::Remount, "/mnt", Effect::Unseal),
    Case::mount("fsconfig of a picked filesystem", || {
        let context = call(FSPICK, &[FDCWD, at(c"/mnt"), 0]).unsigned_abs();
        assert_eq!(call(FSCONFIG, &[context, FSCONFIG_SET_FLAG, at(c"rw")]), 0);
        done(call(FSCONFIG, &[context, FSCONFIG_CMD_RECONFIGURE]))
    }, Operation::Fsconfig, "", Effect::Unseal).path(Path::None),
    Case::mount("fspick", || done(call(FSPICK, &[FDCWD, at(c"/mnt"), 0])), Operation::Fspick, "/mnt", Effect::None),
    Case::mount("mount_setattr", || done(call(MOUNT_SETATTR, &[FDCWD, at(c"/mnt"), 0, clear_read_only(), 32])),
        Operation::MountSetattr, "/mnt", Effect::Unseal),
    Case::mount("mount_setattr of all below", || done(call(MOUNT_SETATTR, &[FDCWD, at(c"/"), AT_RECURSIVE, clear_read_only(), 32])),
        Operation::MountSetattr, "/", Effect::Unseal),
    Case::mount("open_tree_attr", || match call(OPEN_TREE_ATTR, &[FDCWD, at(c"/mnt"), OPEN_TREE_CLONE, clear_read_only(), 32]) {
        ENOSYS => Said::skipped("this kernel has no open_tree_attr"),
        result => done(result),
    }, Operation::OpenTree, "/mnt", Effect::Unseal).function("x64_open_tree_attr"),
    Case::mount("open_tree of a clone", || done(call(OPEN_TREE, &[FDCWD, at(c"/mnt"), OPEN_TREE_CLONE])),
        Operation::OpenTree, "/mnt", Effect::None),
    Case::mount("a clone that is made writable and written through", || {
        // Sealed as a mount alone, as a container's root is.
        assert_eq!(mount(0, c"/mnt", 0, libc::MS_REMOUNT), 0);
        assert_eq!(mount(0, c"/mnt", 0, libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY), 0);
        let tree = i32::try_from(writable_clone()).unwrap();
        // SAFETY: an open descriptor and a NUL-terminated path.
        let file = unsafe { libc::openat(tree, c"etc/through the clone".as_ptr(), libc::O_CREAT | libc::O_WRONLY, 0o644) };
        assert!(file >= 0, "the clone can be written to");
        assert!(std::fs::write("/mnt/etc/x", "").is_err(), "and the root still looks sealed");
        Said::myself()
        // The clone is nowhere, hence has no path.
    }, Operation::MountSetattr, "", Effect::Unseal).path(Path::None),
    Case::mount("move_mount of a clone", || {
        done(call(MOVE_MOUNT, &[writable_clone(), at(c""), FDCWD, at(c"/mnt/etc"), MOVE_MOUNT_F_EMPTY_PATH]))
    }, Operation::MoveMount, "/mnt/etc", Effect::Shadow),
    Case::mount("a new tmpfs by fsopen", || {
        done(call(MOVE_MOUNT, &[new_tmpfs(), at(c""), FDCWD, at(c"/mnt/etc"), MOVE_MOUNT_F_EMPTY_PATH]))
    }, Operation::MoveMount, "/mnt/etc", Effect::Shadow),
    Case::mount("fsopen", || done(call(FSOPEN, &[at(c"tmpfs")])), Operation::Fsopen, "", Effect::None).path(Path::None),
    Case::mount("fsmount", || { new_tmpfs(); Said::myself() }, Operation::Fsmount, "", Effect::None).path(Path::None),
    Case::mount("a tmpfs over a folder", || done(mount(at(c"none"), c"/mnt/etc", at(c"tmpfs"), 0)),
        Operation::Mount, "/mnt/etc", Effect::Shadow),
    Case::mount("a writable folder bound over a folder", || done(mount(at(c"/tmp"), c"/mnt/etc", 0, libc::MS_BIND)),
        Operation::BindMount, "/mnt/etc", Effect::Shadow),
    Case::mount("an overlay over a folder", || {
        // Tried is enough: not every kernel has it at hand.
        let options = c"lowerdir=/mnt/etc,upperdir=/tmp/none,workdir=/tmp/none";
        call(MOUNT, &[at(c"overlay"), at(c"/mnt/etc"), at(c"overlay"), 0, at(options)]);
        Said::myself()
    }, Operation::Mount, "/mnt/etc", Effect::Shadow),
    Case::mount("a mount moved over a folder", || {
        assert_eq!(mount(at(c"none"), c"/tmp", at(c"tmpfs"), 0), 0);
        done(mount(at(c"/tmp"), c"/mnt/etc", 0, libc::MS_MOVE))
    }, Operation::Move, "/mnt/etc", Effect::Shadow),
    Case::mount("propagation", || done(mount(0, c"/mnt", 0, libc::MS_SHARED)), Operation::Mount, "/mnt", Effect::None),
    Case::mount("a tmpfs in a user namespace of its own", || {
        // SAFETY: this process has no other thread.
        if unsafe { unshare_unsafe(UnshareFlags::NEWUSER | UnshareFlags::NEWNS) }.is_err() {
            return Said::skipped("user namespaces can't be made here");
        }
        std::fs::write("/proc/self/uid_map", "0 0 1").unwrap();
        done(mount(at(c"none"), c"/mnt/etc", at(c"tmpfs"), 0))
    }, Operation::Mount, "/mnt/etc", Effect::Shadow)
        .check(|attempt| assert_eq!((attempt.process.user_ns_level, attempt.result), (1, 0))),
    Case::mount("a remount without any capability", || {
        Said::Did(forked(|| {
            // SAFETY: numbers alone.
            assert_eq!(unsafe { libc::syscall(libc::SYS_setresuid, 1234, 1234, 1234) }, 0);
            assert_eq!(mount(0, c"/mnt", 0, libc::MS_REMOUNT), -i64::from(libc::EPERM));
        }))
    }, Operation::Remount, "/mnt", Effect::Unseal).check(|attempt| assert_eq!(attempt.process.uid, 1234)),
    Case::mount("a lazy unmount", || done(call(UMOUNT2, &[at(c"/mnt"), libc::MNT_DETACH as u64])),
        Operation::Umount, "/mnt", Effect::Detach),
    Case::mount("pivot_root", || {
        assert_eq!(mount(at(c"none"), c"/tmp", at(c"tmpfs"), 0), 0);
        // Where the root is the kernel's first one it can't be left.
        call(PIVOT_ROOT, &[at(c"/tmp"), at(c"/tmp")]);
        Said::myself()
    }, Operation::PivotRoot, "/tmp", Effect::Shadow),
    Case::mount("chroot out of a folder by a relative path", || {
        rustix::process::chdir("/mnt/usr").unwrap();
        done(call(CHROOT, &[at(c"lib/..")]))
    }, Operation::Chroot, "/mnt/usr", Effect::None),
    Case::mount("chroot", || done(call(CHROOT, &[at(c"/mnt")])), Operation::Chroot, "/mnt", Effect::None),
];
