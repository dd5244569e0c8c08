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
    /// Address of the name of its type of file system.
    fstype: u64,
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

    /// Notes a `vfsmount` with what costs next to nothing to read, while it can't go; the rest is read when it is
    /// [completed](Self::complete).
    #[inline(always)]
    fn note<S: Readable>(&mut self, vfsmount: S) {
        self.mount.known = 0;
        self.place[path::word(offset!(path_mnt))] = vfsmount.address();
        self.place[path::word(offset!(path_dentry))] = vfsmount.load(offset!(vfsmount_root));
        self.mount.flags = vfsmount.load(offset!(vfsmount_flags));
        self.mount.super_flags = 0;
        self.fstype = 0;
        let Some(superblock) = vfsmount.follow(offset!(vfsmount_sb)) else { return };
        self.mount.super_flags = superblock.load::<u64>(offset!(sb_flags)) as u32;
        let Some(fstype) = superblock.follow(offset!(sb_type)) else { return };
        self.fstype = fstype.load(offset!(fstype_name));
        self.mount.known = NOTED;
    }

    /// Reads the rest of what was noted, if anything was. Nothing is known of a mount of the kernel's own, which has no place in any
    /// namespace (a layer of an overlay), nor of one that has gone since it was noted.
    #[inline(always)]
    pub fn complete(&mut self) {
        if self.mount.known != NOTED {
            return;
        }
        self.mount.known = 0;
        let vfsmount = self.place[path::word(offset!(path_mnt))];
        // The verifier knows no way from a part to the whole.
        let mount = Untyped(vfsmount.wrapping_sub(u64::from(offset!(mount_mnt))));
        let namespace: u64 = mount.load(offset!(mount_ns));
        if namespace == 0 || namespace > ERRORS {
            return;
        }
        self.mount.id = mount.load(offset!(mount_id));
        memory::fill(&mut self.mount.fstype, 0);
        let to = self.mount.fstype.as_mut_ptr();
        // SAFETY: as long as it says. Where it can't be read, it stays empty.
        unsafe { memory::kernel_string(to, FSTYPE_LEN as u32, self.fstype) };
        let root: u64 = Untyped(vfsmount).load(offset!(vfsmount_root));
        self.mount.known = u32::from(root == self.place[path::word(offset!(path_dentry))]);
    }

    /// Fills it from the `struct path` at `path`.
    #[inline(always)]
    pub fn fill_from_path(&mut self, path: u64) {
        self.note(Untyped(memory::kernel_at(path, offset!(path_mnt))));
        self.complete();
    }
}

/// `known` of what was noted, and is not complete yet.
const NOTED: u32 = 2;
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

/// Whether a mount refuses to be written to: by its own flags, or by those of its superblock (`mnt_want_write`, `fs/namespace.c`).
#[inline(always)]
pub fn refuses(vfsmount: Structure) -> bool {
    const MNT_READONLY: u32 = 0x40;
    const SB_RDONLY: u64 = 0x1;
    vfsmount.load::<u32>(offset!(vfsmount_flags)) & MNT_READONLY != 0
        || vfsmount
            .follow(offset!(vfsmount_sb))
            .is_some_and(|superblock| superblock.load::<u64>(offset!(sb_flags)) & SB_RDONLY != 0)
}

/// Notes for the running task that its operation is refused by the mount. Whether the operation itself ends so is not said:
/// it may find that there is nothing to be written.
#[inline(always)]
pub fn note(vfsmount: Structure) {
    let task = slots::current();
    let filename = looked_up();
    // Of what is looked up still, the names are not kept.
    if filename == 0
        && let Some(refused) = names::refused(task)
    {
        refused.note(vfsmount);
    } else if let Some(Slot { value: noted, .. }) = slots::claim(&REFUSED, task, LEFT_BEHIND) {
        noted.by = Operation::of(filename);
        noted.count(filename != 0);
        noted.refused.note(vfsmount);
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
    Structure::current_task()
        .and_then(|task| task.follow(offset!(task_nameidata)))
        .map_or(0, |nameidata| nameidata.load(offset!(nameidata_name)))
}
