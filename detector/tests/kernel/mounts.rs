//! Every call that changes mounts is seen, whatever its result.

use detector::kernel::{attempt::Attempt, plan::Hooks};
use detector_common::{
    abi::Abi,
    operation::Operation,
    record::RecordKind,
    syscalls::{SYSCALLS, Syscall},
};

use super::{
    door::{Arena, ask},
    sealed::Sealed,
    sensor::{Attached, begin, hooks_under_test, requested},
};

const ENOSYS: i64 = -38;
const FDCWD: u64 = -100_i64 as u64;

fn number(syscall: &Syscall, door: Abi) -> Option<u16> {
    if door == Abi::Ia32 { syscall.ia32 } else { syscall.x86_64 }
}

/// Asks for each change of mounts in turn; name, result.
pub fn ask_for_all(door: Abi) -> Vec<(&'static str, i64)> {
    let mut arena = Arena::new();
    let etc = arena.string(c"/mnt/etc");
    let nowhere = arena.string(c"/mnt/nowhere");
    let tmpfs = arena.string(c"tmpfs");
    let attributes = arena.bytes(&[0; 32]);
    SYSCALLS
        .iter()
        .filter(|row| Operation::from_wire(row.call.operation).is_some_and(Operation::changes_mounts))
        .filter_map(|row| Some((row.name, number(row, door)?)))
        .map(|(name, number)| {
            let args = match name {
                "mount" => [tmpfs, etc, tmpfs, 0, 0, 0],
                "umount" | "umount2" | "chroot" => [nowhere, 0, 0, 0, 0, 0],
                "pivot_root" => [nowhere, nowhere, 0, 0, 0, 0],
                "open_tree" | "fspick" => [FDCWD, etc, 0, 0, 0, 0],
                "move_mount" => [FDCWD, etc, FDCWD, nowhere, 0, 0],
                "fsopen" => [tmpfs, 0, 0, 0, 0, 0],
                "fsconfig" => [999, 0, tmpfs, 0, 0, 0],
                "fsmount" => [999, 0, 0, 0, 0, 0],
                "mount_setattr" | "open_tree_attr" => [FDCWD, etc, 0, attributes, 32, 0],
                other => panic!("no test asks for the change of mounts {other}: add how"),
            };
            // SAFETY: the arguments of this very syscall.
            (name, unsafe { ask(door, number, args) })
        })
        .collect()
}

fn every_change_of_mounts_is_seen_through(door: Abi) {
    let mut attached = Attached::new();
    let seen = attached.watch(|| {
        Sealed::new();
        begin();
        ask_for_all(door)
    });
    let saw: Vec<_> = seen.attempts.iter().map(|attempt| (attempt.syscall.name, attempt.result)).collect();
    // At kernel functions a syscall that this kernel does not have ends nowhere.
    let exists = |&&(_, result): &&(&str, i64)| hooks_under_test() == Hooks::Tracepoint || result != ENOSYS;
    let asked: Vec<_> = seen.returned.iter().filter(exists).copied().collect();
    assert_eq!(saw, asked, "each is seen once, in order, with its result");
    assert!(saw.len() >= 11);
    assert!(seen.attempts.iter().all(|attempt| attempt.kind == RecordKind::MountAttempt && attempt.abi == door));
    let by_name = |name: &str| seen.attempts.iter().find(|attempt| attempt.syscall.name == name).unwrap();
    assert_eq!(requested(by_name("mount")), "/mnt/etc");
    assert_eq!(by_name("mount").fstype.as_deref(), Some(&b"tmpfs"[..]));
    assert_eq!(requested(by_name("move_mount")), "/mnt/nowhere");
    assert_eq!(by_name("move_mount").path2.requested.as_deref(), Some(&b"/mnt/etc"[..]));
    assert_eq!(by_name("fsopen").fstype.as_deref(), Some(&b"tmpfs"[..]));
    assert_eq!(by_name("fsconfig").source.as_deref(), Some(&b"tmpfs"[..]));
}

#[tokio::test]
async fn every_change_of_mounts_is_seen_through_64_bit_calls() {
    every_change_of_mounts_is_seen_through(Abi::X86_64);
}

#[tokio::test]
async fn every_change_of_mounts_is_seen_through_int_0x80_from_a_64_bit_program() {
    every_change_of_mounts_is_seen_through(Abi::Ia32);
}

#[tokio::test]
async fn a_remount_is_seen_with_its_flags_and_success() {
    let mut attached = Attached::new();
    let seen = attached.watch(|| {
        let sealed = Sealed::new();
        begin();
        rustix::mount::mount_remount(&sealed.root, rustix::mount::MountFlags::empty(), "").unwrap();
    });
    let [attempt]: &[Attempt] = seen.attempts.as_slice() else { panic!("one attempt: {:?}", seen.attempts) };
    assert_eq!((requested(attempt).as_str(), attempt.result), ("/mnt", 0));
    assert_eq!(attempt.args[3] & libc::MS_REMOUNT, libc::MS_REMOUNT);
}

#[tokio::test]
async fn mount_setattr_is_seen_with_the_attributes_it_clears() {
    const MOUNT_ATTR_RDONLY: u64 = 1;
    let mut attached = Attached::new();
    let seen = attached.watch(|| {
        Sealed::new();
        begin();
        let attributes = [0_u64, MOUNT_ATTR_RDONLY, 0, 0];
        // SAFETY: a NUL-terminated path and a `struct mount_attr`.
        unsafe { libc::syscall(442, libc::AT_FDCWD, c"/mnt".as_ptr(), 0, attributes.as_ptr(), 32) };
    });
    let [attempt]: &[Attempt] = seen.attempts.as_slice() else { panic!("one attempt: {:?}", seen.attempts) };
    assert_eq!((attempt.extra[1], attempt.extra_unreadable), (MOUNT_ATTR_RDONLY, false));
}

#[tokio::test]
async fn attributes_that_can_t_be_read_are_told_to_be_unreadable() {
    let mut attached = Attached::new();
    let seen = attached.watch(|| {
        Sealed::new();
        begin();
        // SAFETY: a NUL-terminated path; at address 8 nobody has anything.
        unsafe { libc::syscall(442, libc::AT_FDCWD, c"/mnt".as_ptr(), 0, 8, 32) };
    });
    let [attempt]: &[Attempt] = seen.attempts.as_slice() else { panic!("one attempt: {:?}", seen.attempts) };
    assert_eq!((attempt.extra, attempt.extra_unreadable), ([0; 4], true));
    assert_eq!(attempt.result, -i64::from(libc::EFAULT));
}
