//! Paths from directory entries: where the working directory, an open folder or the executable really stand.
//!
//! A `struct path` is a pair of mount and dentry. From the dentry the way up goes by `d_parent`; at the root of a mount it
//! goes on at the mount's mountpoint in the mount below, until a mount is its own parent: the root of the mount namespace,
//! which for a container is the container's root. The components are appended from the last to the first, as they are met;
//! user space turns them round.
//!
//! The position is kept in the map value rather than in registers, and the steps of all paths of a record are taken by one
//! `bpf_loop` (kernel 5.17): a loop in registers makes the verifier follow every step on its own, and 64 of them exceed its
//! million instructions.

use aya_ebpf::{cty::c_void, helpers::generated::bpf_loop};
use detector_common::record::{LENGTHS_ROOM, PAYLOAD_MAX, ROOT_AT_ROOM, ROOT_NOT_MET, Section, WALK_MAX, WALK_STEPS};

use crate::{
    capture::text::{mark_truncated, mark_unreadable},
    memory,
    offsets::offset,
    scratch::Scratch,
};

/// `NAME_MAX` and its NUL.
const COMPONENT_MAX: u32 = 256;

/// The walks, one behind the other in the payload: base, second base, working directory, executable, mount.
pub const WALKS: usize = 5;
/// Which of them the mount is.
pub const MOUNT: usize = WALKS - 1;
const FIRST: u32 = Section::Base as u32;
const _: () = assert!(Section::Exe as usize == FIRST as usize + MOUNT - 1);
const _: () = assert!(section(MOUNT as u32) == Section::Mount as u32);
const _: () = assert!(WALKS <= ROOT_AT_ROOM && section(ROOT_AT_ROOM as u32 - 1) < LENGTHS_ROOM as u32);

/// The section of a walk. Without a branch, so that the verifier knows that it is less than [`LENGTHS_ROOM`].
const fn section(place: u32) -> u32 {
    FIRST + place + place / MOUNT as u32
}

/// Where a `struct path` leads.
#[derive(Clone, Copy)]
#[repr(C)]
struct Place {
    /// Address of the `struct path`.
    path: u64,
    /// What it holds: the `vfsmount`, and the dentry.
    mnt: u64,
    dentry: u64,
}

/// What is known of a mount.
#[derive(Clone, Copy)]
#[repr(C)]
struct Mount {
    /// The `vfsmount` within it; 0 between two walks.
    mnt: u64,
    /// The mount that it stands on; itself for the first of a namespace.
    parent: u64,
    /// Where it stands there.
    mountpoint: u64,
    /// Its root dentry.
    root: u64,
}

/// The paths to walk, and the position.
#[repr(C)]
pub struct Walk {
    /// Address of the `struct path` of each walk; 0: none. More than there are walks, so that an index can be masked.
    pub places: [u64; ROOT_AT_ROOM],
    dentry: u64,
    mount: Mount,
    /// The root of the process, to note where it is met, and its working directory, which is read with it.
    root: Place,
    pwd: Place,
    /// The mount of the root. Most walks begin and end on it, so it is not read again.
    root_mount: Mount,
    /// 1 where no folder is above the root in the mount namespace: no walk goes on from there.
    root_is_top: u32,
    /// Which of `places`.
    place: u32,
    /// Bytes of the payload that were used when the walk began.
    start: u32,
    steps: u32,
    components: u16,
    root_at: u16,
}

/// What the steps need; on the stack, because that is what `bpf_loop` hands on.
struct Steps<'a> {
    scratch: &'a mut Scratch,
}

/// Appends the walks from `scratch.walk.places`. The process's root, whose `struct path` is at `root`, is noted where met; its
/// working directory's is at `pwd`.
#[inline(always)]
pub fn append_walks(scratch: &mut Scratch) {
    let origin = &scratch.actor.origin;
    let walk = &mut scratch.walk;
    walk.root = Place { path: origin.root, mnt: origin.root_pair[0], dentry: origin.root_pair[1] };
    walk.pwd = Place { path: origin.pwd, mnt: origin.pwd_pair[0], dentry: origin.pwd_pair[1] };
    walk.root_mount = mount(walk.root.mnt);
    walk.root_is_top = u32::from(walk.root.dentry == walk.root_mount.root && is_top(&walk.root_mount));
    scratch.walk.place = 0;
    scratch.walk.mount.mnt = 0;
    let mut steps = Steps { scratch };
    // A step to find that there is no walk left, besides those of the walks themselves.
    const MOST: u32 = WALKS as u32 * (WALK_STEPS + 1) + 1;
    // SAFETY: `step` has the signature that the helper calls, and `steps` outlives the call.
    unsafe { bpf_loop(MOST, step as *const () as *mut c_void, (&raw mut steps).cast(), 0) };
}

/// Which word of a `struct path` the member at this offset is.
#[inline(always)]
pub fn word(offset: u32) -> usize {
    (offset as usize / size_of::<u64>()) & 1
}

/// Reads the mount of the `vfsmount` at `mnt`: with one call where the members stand together, which is known when the program
/// is loaded.
#[inline(always)]
fn mount(mnt: u64) -> Mount {
    const WORD: u32 = size_of::<u64>() as u32;
    let start = mnt.wrapping_sub(u64::from(offset!(mount_mnt)));
    let root_offset = offset!(mount_mnt).wrapping_add(offset!(vfsmount_root));
    let [parent, mountpoint, root] = if offset!(mount_mountpoint) == offset!(mount_parent) + WORD
        && root_offset == offset!(mount_mountpoint) + WORD
    {
        memory::kernel_at(start, offset!(mount_parent))
    } else {
        let [parent, mountpoint] = memory::kernel_words(start, offset!(mount_parent), offset!(mount_mountpoint));
        [parent, mountpoint, memory::kernel_at(start, root_offset)]
    };
    Mount { mnt, parent, mountpoint, root }
}

/// Whether nothing above the root of the mount has a name: it is the first of its namespace, or covers the whole of that, as a
/// container's root does.
#[inline(always)]
fn is_top(covering: &Mount) -> bool {
    let within = u64::from(offset!(mount_mnt));
    if covering.parent.wrapping_add(within) == covering.mnt {
        return true;
    }
    let below = mount(covering.parent.wrapping_add(within));
    covering.mountpoint == below.root && below.parent.wrapping_add(within) == below.mnt
}

const CONTINUE: i64 = 0;
const STOP: i64 = 1;

/// Takes one step up, at the beginning of a walk and after it.
extern "C" fn step(_index: u64, steps: *mut c_void) -> i64 {
    // SAFETY: `append_walks` handed on its own live `Steps`, and touches it again only after the loop.
    let scratch = unsafe { &mut *(*steps.cast::<Steps<'_>>()).scratch };
    if scratch.walk.mount.mnt == 0 && !begin(scratch) {
        return STOP;
    }
    let walk = &mut scratch.walk;
    if walk.dentry == walk.root.dentry && walk.mount.mnt == walk.root.mnt && walk.root_at == ROOT_NOT_MET {
        walk.root_at = walk.components;
        if walk.root_is_top != 0 {
            return end(scratch, false);
        }
    }
    if walk.steps >= WALK_STEPS {
        return end(scratch, true);
    }
    walk.steps += 1;
    if walk.dentry == walk.mount.root {
        let parent = walk.mount.parent.wrapping_add(u64::from(offset!(mount_mnt)));
        if parent == walk.mount.mnt || walk.mount.parent == 0 {
            return end(scratch, false);
        }
        walk.dentry = walk.mount.mountpoint;
        enter(walk, parent);
        return CONTINUE;
    }
    let [parent, name] = memory::kernel_words(walk.dentry, offset!(dentry_parent), offset!(dentry_name));
    // Not below its mount's root: a path that was moved away under us, or a dentry without a tree, whose name is all there is to
    // tell of it (a memfd's is `memfd:` and what it was called).
    let is_top = parent == walk.dentry || parent == 0;
    if is_top && walk.components != 0 {
        return end(scratch, false);
    }
    let used = scratch.used as usize;
    let start = scratch.walk.start as usize;
    if used > PAYLOAD_MAX - COMPONENT_MAX as usize || used > start + WALK_MAX - COMPONENT_MAX as usize {
        return end(scratch, true);
    }
    // SAFETY: `used + COMPONENT_MAX` is within the payload, as checked.
    let length = unsafe { memory::kernel_string(scratch.payload.as_mut_ptr().add(used), COMPONENT_MAX, name) };
    if length <= 0 {
        return end(scratch, true);
    }
    scratch.used = used as u32 + length as u32;
    scratch.walk.components += 1;
    scratch.walk.dentry = parent;
    if is_top {
        return end(scratch, false);
    }
    CONTINUE
}

/// Begins the walk of the next place that has one; false where none is left.
#[inline(always)]
fn begin(scratch: &mut Scratch) -> bool {
    for place in 0..WALKS {
        let walk = &mut scratch.walk;
        if (place as u32) < walk.place || walk.places[place] == 0 {
            continue;
        }
        walk.place = place as u32 + 1;
        walk.start = scratch.used;
        walk.steps = 0;
        walk.components = 0;
        walk.root_at = ROOT_NOT_MET;
        let path = walk.places[place];
        let [mnt, dentry] = if path == walk.root.path {
            [walk.root.mnt, walk.root.dentry]
        } else if path == walk.pwd.path {
            [walk.pwd.mnt, walk.pwd.dentry]
        } else {
            pair_at(path)
        };
        walk.dentry = dentry;
        if mnt != 0 && dentry != 0 {
            enter(walk, mnt);
            return true;
        }
        mark_unreadable(scratch, section(place as u32));
    }
    false
}

/// Goes on at the `vfsmount` at `mnt`.
#[inline(always)]
fn enter(walk: &mut Walk, mnt: u64) {
    walk.mount = if mnt == walk.root.mnt { walk.root_mount } else { mount(mnt) };
}

/// Notes what the walk that ends here has found.
#[inline(always)]
fn end(scratch: &mut Scratch, truncated: bool) -> i64 {
    let walk = &mut scratch.walk;
    walk.mount.mnt = 0;
    // Masked rather than compared: the verifier believes a mask wherever the compiler moves it.
    let place = walk.place.wrapping_sub(1) & (ROOT_AT_ROOM as u32 - 1);
    let is_last = place == MOUNT as u32 || place + 1 == MOUNT as u32 && walk.places[MOUNT] == 0;
    scratch.record.call.root_at[place as usize] = walk.root_at;
    scratch.record.call.lengths[section(place) as usize & (LENGTHS_ROOM - 1)] = (scratch.used - walk.start) as u16;
    if truncated {
        mark_truncated(scratch, section(place));
    }
    if is_last { STOP } else { CONTINUE }
}

/// Address of the `struct path` of the open file `fd` of the process whose `files_struct` is at `files`.
#[inline(always)]
pub fn of_open_file(files: u64, fd: u32) -> Option<u64> {
    of_file(open_file(files, fd))
}

/// Address of the `struct file` of that open file; 0 where there is none.
#[inline(always)]
pub fn open_file(files: u64, fd: u32) -> u64 {
    let fdtable = memory::kernel_at(files, offset!(files_fdt));
    let max_fds: u32 = memory::kernel_at(fdtable, offset!(fdtable_max_fds));
    if fd >= max_fds {
        return 0;
    }
    let array: u64 = memory::kernel_at(fdtable, offset!(fdtable_fd));
    memory::kernel_at(array.wrapping_add(8 * u64::from(fd)), 0)
}

/// Mount and dentry of the `struct path` at `path`.
#[inline(always)]
pub fn pair_at(path: u64) -> [u64; 2] {
    memory::kernel_words(path, offset!(path_mnt), offset!(path_dentry))
}

/// Address of the `struct path` of the `struct file` at `file`.
#[inline(always)]
pub fn of_file(file: u64) -> Option<u64> {
    (file != 0).then(|| file.wrapping_add(u64::from(offset!(file_path))))
}
