//! The mount that a write hit, with the flags that refuse: its own, and those of its superblock.
//!
//! Where an operation is on an object that is at hand, its `struct path` has the mount. An operation on a name asks its mount
//! for write access on the way (`mnt_want_write`), and the mount that refuses is noted for the running task until the
//! operation's end: by then a `struct path` of it is gone, and the mount itself may be.

use aya_ebpf::{macros::map, maps::Array};
use detector_common::{
    offsets::UNAVAILABLE,
    record::{FSTYPE_LEN, MountRecord},
};

use crate::{
    atomic::Claim,
    capture::{
        names, path,
        slots::{self, SLOTS, Slot},
    },
    memory::{self, Plain, Readable, Structure, Untyped},
    offsets::offset,
};

/// A mount, and its root as a `struct path`, from where its point is walked to.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Refused {
    place: [u64; 2],
    pub mount: MountRecord,
}

// SAFETY of what it allows: numbers and arrays of them, without padding.
impl Plain for Refused {}

impl Refused {
    /// Where it is; 0 where it is not known.
    #[inline(always)]
    pub fn address(&self) -> u64 {
        if self.mount.known == 0 { 0 } else { core::ptr::from_ref(self) as u64 }
    }

    /// Address of its root, as a `struct path`; 0 where it is not known.
    #[inline(always)]
    pub fn root(&self) -> u64 {
        if self.mount.known == 0 { 0 } else { self.place.as_ptr() as u64 }
    }

    /// Fills it from a `vfsmount`. None of the kernel's own, which has no place in any namespace: a layer of an overlay.
    #[inline(always)]
    pub fn fill<S: Readable>(&mut self, vfsmount: S) {
        self.mount.known = 0;
        // The verifier knows no way from a part to the whole.
        let mount = Untyped(vfsmount.address().wrapping_sub(u64::from(offset!(mount_mnt))));
        let namespace: u64 = mount.load(offset!(mount_ns));
        if namespace == 0 || namespace > ERRORS {
            return;
        }
        self.mount.id = mount.load(offset!(mount_id));
        self.mount.flags = vfsmount.load(offset!(vfsmount_flags));
        self.place[path::word(offset!(path_mnt))] = vfsmount.address();
        self.place[path::word(offset!(path_dentry))] = vfsmount.load(offset!(vfsmount_root));
        memory::fill(&mut self.mount.fstype, 0);
        self.mount.super_flags = 0;
        if let Some(superblock) = vfsmount.follow(offset!(vfsmount_sb)) {
            self.mount.super_flags = superblock.load::<u64>(offset!(sb_flags)) as u32;
            if let Some(fstype) = superblock.follow(offset!(sb_type)) {
                let name = fstype.load(offset!(fstype_name));
                let to = self.mount.fstype.as_mut_ptr();
                // SAFETY: as long as it says. Where it can't be read, it stays empty.
                unsafe { memory::kernel_string(to, FSTYPE_LEN as u32, name) };
            }
        }
        self.mount.known = 1;
    }

    /// Fills it from the `struct path` at `path`.
    #[inline(always)]
    pub fn fill_from_path(&mut self, path: u64) {
        self.fill(Untyped(memory::kernel_at(path, offset!(path_mnt))));
    }
}

/// Pointers from there on are errors (`MAX_ERRNO`, `include/linux/err.h`).
const ERRORS: u64 = -4096_i64 as u64;

/// What tells one operation of a task from another.
#[derive(Clone, Copy, Eq, PartialEq)]
#[repr(C)]
struct Operation {
    /// Address of the `struct filename` that is looked up; 0 for none.
    filename: u64,
    /// Number of the syscall.
    syscall: u64,
}

impl Operation {
    #[inline(always)]
    fn of(filename: u64) -> Self {
        Self { filename, syscall: memory::current_registers().orig_rax }
    }
}

/// A refusal on the way, of a call whose names are not kept.
#[repr(C)]
struct Noted {
    by: Operation,
    /// 1 where it is one of [`OF_OPENS`].
    counted: u64,
    refused: Refused,
}

impl Noted {
    #[inline(always)]
    fn count(&mut self, is_open: bool) {
        let counted = u64::from(is_open);
        if self.counted != counted {
            OF_OPENS.add(counted.wrapping_sub(self.counted));
            self.counted = counted;
        }
    }
}

/// Some seconds. The end of the call comes at once, unless it is none that is watched.
const LEFT_BEHIND: u64 = 2_500;

/// How many notes are of opens: hardly ever any, so that an open which succeeds need not look for its own.
static OF_OPENS: Claim = Claim::new();

#[map]
static REFUSED: Array<Slot<Noted>> = Array::with_max_entries(SLOTS, 0);

/// Notes for the running task that its operation was refused by the mount. Whether the operation itself ends so is not said:
/// it may find that there is nothing to be written.
#[inline(always)]
pub fn note(vfsmount: Structure) {
    let task = slots::current();
    if let Some(refused) = names::refused(task) {
        refused.fill(vfsmount);
    } else if let Some(Slot { value: noted, .. }) = slots::claim(&REFUSED, task, LEFT_BEHIND) {
        noted.by = Operation::of(looked_up());
        noted.count(noted.by.filename != 0);
        noted.refused.fill(vfsmount);
    }
}

/// Hands the address of the [`Refused`] that was noted for the running task to `with` (0: none), then frees its place.
///
/// `filename` is that of the operation, as it was when it was noted; 0 where the kernel had done with it by then. A note that is
/// of another operation, whose end nobody watches, is none.
#[inline(always)]
pub fn take(filename: u64, with: impl Fn(u64)) {
    match slots::find(&REFUSED, slots::current()) {
        Some(slot) => {
            let noted = &mut slot.value;
            noted.count(false);
            with(if noted.by == Operation::of(filename) { noted.refused.address() } else { 0 });
            slot.free();
        }
        None => with(0),
    }
}

/// Forgets what was noted for the running task: the operation did not end so.
#[inline(always)]
pub fn drop() {
    if let Some(slot) = slots::find(&REFUSED, slots::current()) {
        slot.value.count(false);
        slot.free();
    }
}

/// Whether any note is of an open, of whatever task.
#[inline(always)]
pub fn is_any_of_an_open() -> bool {
    OF_OPENS.get() != 0
}

/// Address of the `struct filename` that the running task is looking up; 0 for none.
#[inline(always)]
fn looked_up() -> u64 {
    if offset!(task_nameidata) == UNAVAILABLE || offset!(nameidata_name) == UNAVAILABLE {
        return 0;
    }
    let nameidata = Structure::current_task().map_or(0, |task| task.load(offset!(task_nameidata)));
    // From 0 nothing can be read, and what can't be read is 0.
    memory::kernel_at(nameidata, offset!(nameidata_name))
}
