//! Tests of [`super`].

use std::sync::Arc;

use super::*;
use crate::{
    finding::testing::{attempt, facts, sealed, unsealed, walk},
    kernel::attempt::{PF_FORKNOEXEC, PassedPath, Walk},
};

fn of(attempt: &Attempt, path: &str) -> Effect {
    effect(attempt, Target { path: Some(path.as_bytes()), ..Target::default() }, Some(&sealed()))
}

fn mount(flags: u64) -> Attempt {
    attempt("mount").arg(3, flags)
}

#[test]
fn a_remount_of_a_sealed_root_without_the_read_only_flag_unseals() {
    assert_eq!(of(&mount(0x20), "/"), Effect::Unseal);
    assert_eq!(of(&mount(0x1020), "/"), Effect::Unseal);
    assert_eq!(of(&mount(0xc0ed_0020), "/"), Effect::Unseal);
    assert_eq!(of(&mount(0x20), "/etc/app"), Effect::Unseal, "a volume that was declared read-only");
}

#[test]
fn a_remount_to_read_only_or_of_something_writable_does_not() {
    assert_eq!(of(&mount(0x21), "/"), Effect::None);
    assert_eq!(of(&mount(0x20), "/data"), Effect::None);
    let root = Target { path: Some(b"/"), ..Target::default() };
    assert_eq!(effect(&mount(0x20), root, Some(&unsealed())), Effect::None);
    assert_eq!(effect(&mount(0x20), root, None), Effect::None);
}

#[test]
fn a_remount_that_worked_unseals_though_what_is_seen_after_it_is_writable() {
    let clear = attempt("mount_setattr").extra([0, 1, 0, 0]);
    for path in ["/dev/x", "/etc", "/proc/sys", "/data/x"] {
        let seen = MountPoint {
            point: path.as_bytes().to_vec(),
            fstype: b"overlay".to_vec(),
            facts: facts(false),
            of_root: false,
        };
        let target = Target { path: Some(path.as_bytes()), mount: Some(&seen), source: None };
        for attempt in [&mount(0x1020), &mount(0x20), &clear] {
            assert_eq!(effect(attempt, target, Some(&sealed())), Effect::Unseal, "{path}, which nobody declared");
        }
        assert_eq!(effect(&mount(0x20), target, Some(&unsealed())), Effect::None, "{path} without a seal");
    }
}

#[test]
fn a_copy_of_the_root_over_a_writable_mount_is_not_taken_for_it() {
    for (path, fstype, of_root, expected) in [
        ("/data", "overlay", false, Effect::Unseal),
        ("/data", "ext4", false, Effect::None),
        ("/data", "ext4", true, Effect::Unseal),
        ("/dev", "ext4", false, Effect::Unseal),
        ("/dev", "tmpfs", false, Effect::None),
    ] {
        let seen = MountPoint {
            point: path.as_bytes().to_vec(),
            fstype: fstype.as_bytes().to_vec(),
            facts: facts(false),
            of_root,
        };
        let target = Target { path: Some(path.as_bytes()), mount: Some(&seen), source: None };
        assert_eq!(effect(&mount(0x1020), target, Some(&sealed())), expected, "{fstype} at {path}");
    }
}

#[test]
fn a_remount_of_a_path_that_the_runtime_makes_read_only_unseals_without_a_sealed_root_too() {
    let mut container = unsealed();
    let paths = SpecMount { destination: "/proc/sys".to_owned(), readonly: true, ..(*container.mounts[0]).clone() };
    container.mounts.push(Arc::new(paths));
    let target = |path| Target { path: Some(path), ..Target::default() };
    assert_eq!(effect(&mount(0x20), target(b"/proc/sys"), Some(&container)), Effect::Unseal);
    assert_eq!(effect(&mount(0x20), target(b"/proc"), Some(&container)), Effect::None);
    assert_eq!(of(&mount(0x20), "/proc"), Effect::None, "declared writable, in a sealed container");
}

#[test]
fn a_refused_remount_of_a_writable_volume_unseals_unless_the_volume_is_seen_to_be_writable() {
    let refused = mount(0x20).result(-1);
    assert_eq!(of(&refused, "/data"), Effect::Unseal, "it may have been read-only at the time");
    for (readonly, expected) in [(false, Effect::None), (true, Effect::Unseal)] {
        let seen =
            MountPoint { point: b"/data".to_vec(), fstype: b"ext4".to_vec(), facts: facts(readonly), of_root: false };
        let target = Target { path: Some(b"/data"), mount: Some(&seen), source: None };
        assert_eq!(effect(&refused, target, Some(&sealed())), expected, "seen read-only: {readonly}");
    }
}

#[test]
fn a_remount_of_a_mount_that_is_read_only_unseals_whatever_was_declared() {
    let seen = MountPoint { point: b"/srv".to_vec(), fstype: b"ext4".to_vec(), facts: facts(true), of_root: false };
    let target = Target { path: Some(b"/srv"), mount: Some(&seen), source: None };
    assert_eq!(effect(&mount(0x20), target, None), Effect::Unseal);
    let within = Target { path: Some(b"/srv/x"), ..target };
    assert_eq!(effect(&mount(0x20), within, None), Effect::None);
}

#[test]
fn attributes_that_could_not_be_read_count_as_the_worst() {
    let unreadable = |call| Attempt { extra_unreadable: true, ..attempt(call) };
    for call in ["mount_setattr", "open_tree_attr"] {
        assert_eq!(of(&unreadable(call), "/"), Effect::Unseal, "{call}");
    }
    assert_eq!(of(&attempt("mount_setattr"), "/"), Effect::None);
    assert_eq!(of(&unreadable("mount_setattr"), "/data"), Effect::None, "declared writable");
}

#[test]
fn a_remount_whose_target_could_not_be_read_counts_as_the_worst() {
    assert_eq!(effect(&mount(0x20), Target::default(), Some(&sealed())), Effect::Unseal);
    assert_eq!(effect(&mount(0x20), Target::default(), Some(&unsealed())), Effect::None);
}

#[test]
fn mount_setattr_unseals_where_it_clears_read_only() {
    let clear = attempt("mount_setattr").extra([0, 1, 0, 0]);
    assert_eq!(of(&clear, "/"), Effect::Unseal);
    assert_eq!(of(&clear, "/data"), Effect::None);
    assert_eq!(of(&attempt("mount_setattr").extra([1, 0, 0, 0]), "/"), Effect::None);
    assert_eq!(of(&attempt("mount_setattr").extra([1, 1, 0, 0]), "/"), Effect::None);
}

#[test]
fn mount_setattr_reaches_what_lies_below_where_it_is_recursive() {
    let clear = attempt("mount_setattr").extra([0, 1, 0, 0]);
    let etc = Target { path: Some(b"/etc"), ..Target::default() };
    assert_eq!(effect(&clear, etc, Some(&unsealed())), Effect::None);
    assert_eq!(effect(&clear.arg(2, 0x8000), etc, Some(&unsealed())), Effect::Unseal);
    let clear = attempt("mount_setattr").extra([0, 1, 0, 0]);
    let mut container = (*sealed()).clone();
    Arc::make_mut(&mut container.mounts[4]).destination = "/data/app".to_owned();
    let data = Target { path: Some(b"/data"), ..Target::default() };
    assert_eq!(effect(&clear, data, Some(&container)), Effect::None);
    assert_eq!(effect(&clear.arg(2, 0x8000), data, Some(&container)), Effect::Unseal);
}

#[test]
fn open_tree_attr_unseals_the_clone_that_it_makes_writable() {
    assert_eq!(of(&attempt("open_tree_attr").arg(2, 1).extra([0, 1, 0, 0]), "/"), Effect::Unseal);
    assert_eq!(of(&attempt("open_tree").arg(2, 1), "/"), Effect::None);
}

#[test]
fn the_option_rw_for_a_filesystem_unseals_in_a_sealed_container() {
    let rw = attempt("fsconfig").arg(1, 0).source("rw");
    assert_eq!(effect(&rw, Target::default(), Some(&sealed())), Effect::Unseal);
    assert_eq!(effect(&rw, Target::default(), Some(&unsealed())), Effect::None);
    let as_text = attempt("fsconfig").arg(1, 1).source("rw");
    assert_eq!(effect(&as_text, Target::default(), Some(&sealed())), Effect::Unseal, "the kernel heeds the key alone");
    let ro = attempt("fsconfig").arg(1, 0).source("ro");
    assert_eq!(effect(&ro, Target::default(), Some(&sealed())), Effect::None);
    let reconfigure = attempt("fsconfig").arg(1, 7);
    assert_eq!(effect(&reconfigure, Target::default(), Some(&sealed())), Effect::None);
}

#[test]
fn a_writable_mount_over_the_sealed_root_shadows() {
    assert_eq!(of(&mount(0), "/etc"), Effect::Shadow);
    assert_eq!(of(&mount(0), "/etc/app"), Effect::Shadow);
    assert_eq!(of(&mount(1), "/etc"), Effect::None, "a read-only mount");
    assert_eq!(of(&mount(0), "/data/x"), Effect::None, "on a writable volume");
    assert_eq!(of(&mount(0), "/sys/fs/bpf"), Effect::None, "on no part of the root");
    assert_eq!(of(&mount(1 << 18), "/"), Effect::None, "propagation");
    let etc = Target { path: Some(b"/etc"), ..Target::default() };
    assert_eq!(effect(&mount(0), etc, Some(&unsealed())), Effect::None);
}

#[test]
fn a_bind_mount_shadows_unless_its_source_is_read_only_too() {
    assert_eq!(of(&mount(0x1000).source("/data/etc"), "/etc"), Effect::Shadow);
    assert_eq!(of(&mount(0x1000).source("/usr"), "/etc"), Effect::None);
    assert_eq!(of(&mount(0x1000).source("usr/../data"), "/etc"), Effect::Shadow);
    assert_eq!(of(&mount(0x1001).source("/data"), "/etc"), Effect::Shadow, "the kernel ignores the flag here");
    assert_eq!(of(&mount(0x2000).source("/data"), "/etc"), Effect::Shadow, "a move");
}

#[test]
fn a_detached_mount_that_is_attached_in_the_sealed_root_shadows() {
    let mut attach = attempt("move_mount");
    attach.path2 = PassedPath { requested: None, truncated: false, base: PathBase::File(walk("/")) };
    let target = Target { path: Some(b"/mnt"), mount: None, source: Some(b"/") };
    assert_eq!(effect(&attach, target, Some(&sealed())), Effect::Shadow);

    // By a name in the detached mount: the way up ends at its root, not at that of the process.
    let detached = Walk { in_root: None, ..walk("/") };
    attach.path2 =
        PassedPath { requested: Some(b".".to_vec()), truncated: false, base: PathBase::Dirfd(detached.clone()) };
    assert_eq!(effect(&attach, target, Some(&sealed())), Effect::Shadow);
    attach.path2.base = PathBase::Cwd;
    attach.process.cwd = Some(detached.clone());
    assert_eq!(effect(&attach, target, Some(&sealed())), Effect::Shadow);
    let mut bind = mount(0x1000).source(".");
    bind.process.cwd = Some(detached);
    assert_eq!(of(&bind, "/mnt"), Effect::Shadow);

    attach.path2.base = PathBase::Root(walk("/"));
    let moved = Target { source: Some(b"/etc/app"), ..target };
    assert_eq!(effect(&attach, moved, Some(&sealed())), Effect::None);
}

#[test]
fn another_root_shadows_and_an_unmount_detaches() {
    assert_eq!(of(&attempt("pivot_root"), "/data/root"), Effect::Shadow);
    assert_eq!(of(&attempt("umount2"), "/etc/app"), Effect::Detach);
    assert_eq!(of(&attempt("chroot"), "/data"), Effect::None);
    assert_eq!(of(&attempt("fsopen"), "/"), Effect::None);
}

#[test]
fn runtime_setup_is_what_the_first_process_does_before_it_executes() {
    let container = sealed();
    let mut setup = mount(0x1021);
    setup.process.pid = 99;
    setup.process.flags = PF_FORKNOEXEC;
    assert!(is_runtime_setup(&setup, container.first_process(), false));

    let mut successor = setup.clone();
    successor.process.start_time_ns += 1_000_000_000;
    assert!(!is_runtime_setup(&successor, container.first_process(), false), "another process that has its id by now");
    let mut application = setup.clone();
    application.process.flags = 0;
    assert!(!is_runtime_setup(&application, container.first_process(), true), "it has executed");
    let mut child = setup;
    child.process.pid = 100;
    assert!(
        !is_runtime_setup(&child, container.first_process(), true),
        "another process that was forked and has not executed"
    );
}

#[test]
fn a_copy_of_the_runtime_is_told_by_a_parent_outside_that_runs_the_same_file() {
    let container = sealed();
    let mut stage = mount(0x1021);
    stage.process.same_program_as_parent = true;
    stage.process.in_node_mount_namespace = true;
    assert!(is_runtime_setup(&stage, container.first_process(), true));
    assert!(!is_runtime_setup(&stage, container.first_process(), false), "a child of the container's own process");
    let mut moved = stage.clone();
    moved.process.in_node_mount_namespace = false;
    assert!(
        !is_runtime_setup(&moved, container.first_process(), true),
        "a shell of the container that moved itself to another cgroup"
    );
    stage.process.same_program_as_parent = false;
    assert!(
        !is_runtime_setup(&stage, container.first_process(), true),
        "another program that was started from outside"
    );
}
