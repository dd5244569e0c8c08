//! The mount that a write hit, with the flags that refuse: its own, and those of its superblock.
//!
//! Where an operation is on an object that is at hand, its `struct path` has the mount. An operation on a name asks its mount
//! for write access on the way (`mnt_want_write`), and the mount that refuses is noted for the running task until the
//! operation's end: by then a `struct path` of it is gone, and the mount itself may be.

use detector_common::{
    offsets::UNAVAILABLE,
    record::{FSTYPE_LEN, MountRecord},
};

use crate::{
    atomic::Claim,
    capture::{
        names, path,
        slots::{self, SLOTS, Slot, Static},
    },
    memory::{self, Plain, Readable, Structure, Untyped},
    offsets::{member, offset},
};

/// A mount, and its root as a `struct path`, from where its point is walked to.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Refused {
    place: [u64; 2],
    pub mount: MountRecord,
}

impl Refused {
    /// Address of its root, as a `struct path`; 0 where it is not known.
    #[inline(always)]
    pub fn root(&self) -> u64 {
        if self.mount.known == 0 { 0 } else { self.place.as_ptr() as u64 }
    }

    /// Fills it from what was noted. Nothing is known of a mount of the kernel's own, which has no place in any namespace (a layer of
    /// an overlay), nor of one that has gone since it was noted.
    #[inline(always)]
    pub fn fill(&mut self, Noted { vfsmount, root }: Noted) {
        self.mount.known = 0;
        self.place[path::word(offset!(path_mnt))] = vfsmount;
        self.place[path::word(offset!(path_dentry))] = root;
        // The verifier knows no way from a part to the whole.
        let mount = Untyped(vfsmount.wrapping_sub(u64::from(offset!(mount_mnt))));
        let namespace: u64 = mount.load(offset!(mount_ns));
        if namespace == 0 || namespace > ERRORS {
            return;
        }
        self.mount.id = mount.load(offset!(mount_id));
        let vfsmount = Untyped(vfsmount);
        self.mount.flags = vfsmount.load(offset!(vfsmount_flags));
        let Some(superblock) = vfsmount.follow(offset!(vfsmount_sb)) else { return };
        self.mount.super_flags = superblock.load::<u64>(offset!(sb_flags)) as u32;
        let fstype = superblock.follow(offset!(sb_type)).map_or(0, |fstype| fstype.load(offset!(fstype_name)));
        memory::fill(&mut self.mount.fstype, 0);
        let to = self.mount.fstype.as_mut_ptr();
        // SAFETY: as long as it says. Where it can't be read, it stays empty.
        unsafe { memory::kernel_string(to, FSTYPE_LEN as u32, fstype) };
        // Last: what was read before is this mount's only if it still is.
        self.mount.known = u32::from(vfsmount.load::<u64>(offset!(vfsmount_root)) == root);
    }

    /// Fills it from the `struct path` at `path`.
    #[inline(always)]
    pub fn fill_from_path(&mut self, path: u64) {
        let vfsmount = Untyped(memory::kernel_at(path, offset!(path_mnt)));
        self.fill(Noted { vfsmount: vfsmount.0, root: vfsmount.load(offset!(vfsmount_root)) });
    }
}

/// A mount that has refused: what can't be read any more when the operation has ended, and no more, because most operations are
/// repeats.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Noted {
    /// Address of the `vfsmount`; 0: none has refused.
    vfsmount: u64,
    /// Address of its root, by which another mount in the same place is told from it.
    root: u64,
}

// SAFETY of what it allows: numbers, without padding.
impl Plain for Noted {}

impl Noted {
    /// None has refused.
    pub const NONE: Self = Self { vfsmount: 0, root: 0 };

    /// Where it is; 0 where none has refused.
    #[inline(always)]
    pub fn address(&self) -> u64 {
        if self.vfsmount == 0 { 0 } else { core::ptr::from_ref(self) as u64 }
    }

    #[inline(always)]
    fn note(&mut self, vfsmount: Structure) {
        self.vfsmount = vfsmount.address();
        self.root = member!(vfsmount, "u64", vfsmount_root);
    }
}

/// Pointers from there on are errors (`MAX_ERRNO`, `include/linux/err.h`).
const ERRORS: u64 = -4096_i64 as u64;

/// A refusal on the way, of a call whose names are not kept.
#[repr(C)]
struct OnTheWay {
    /// What tells its operation from others of the task: address of the `struct filename` that is looked up, else the number of the
    /// syscall.
    by: u64,
    /// 1 where it is one of [`OF_OPENS`].
    counted: u64,
    noted: Noted,
}

impl OnTheWay {
    const NOTHING: Self = Self { by: 0, counted: 0, noted: Noted::NONE };

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

static REFUSED: Static<OnTheWay> = Static::of([const { Slot::free_with(OnTheWay::NOTHING) }; SLOTS as usize]);

/// Whether a mount refuses to be written to: by its own flags, or by those of its superblock (`mnt_want_write`, `fs/namespace.c`).
#[inline(always)]
pub fn refuses(vfsmount: Structure) -> bool {
    const MNT_READONLY: u32 = 0x40;
    const SB_RDONLY: u64 = 0x1;
    member!(vfsmount, "u32", vfsmount_flags) as u32 & MNT_READONLY != 0
        || Structure::at(member!(vfsmount, "u64", vfsmount_sb))
            .is_some_and(|superblock| member!(superblock, "u64", sb_flags) & SB_RDONLY != 0)
}

/// Notes for the running task that its operation is refused by the mount. Whether the operation itself ends so is not said:
/// it may find that there is nothing to be written.
#[inline(always)]
pub fn note(vfsmount: Structure) {
    let Some(task) = Structure::current_task() else { return };
    let filename = looked_up(task);
    if filename != 0
        && let Some(Slot { value: on_the_way, .. }) = slots::claim_first(&REFUSED, slots::of(task))
    {
        on_the_way.by = filename;
        // What was free is not counted.
        OF_OPENS.add(1);
        on_the_way.counted = 1;
        on_the_way.noted.note(vfsmount);
    } else {
        note_apart(vfsmount);
    }
}

/// The same where it is not an open, or the slot that is looked at first is not free. A function of its own, so that opens save no
/// registers for it.
#[inline(never)]
fn note_apart(vfsmount: Structure) {
    let Some(task) = Structure::current_task() else { return };
    let owner = slots::of(task);
    let filename = looked_up(task);
    // Of what is looked up still, the names are not kept.
    if filename == 0
        && let Some(noted) = names::refused(owner)
    {
        noted.note(vfsmount);
    } else if let Some(Slot { value: on_the_way, .. }) = slots::claim(&REFUSED, owner, LEFT_BEHIND) {
        on_the_way.by = if filename == 0 { syscall() } else { filename };
        on_the_way.count(filename != 0);
        on_the_way.noted.note(vfsmount);
    }
}

/// Hands the address of the [`Noted`] of the running task to `with` (0: none), then frees its place.
///
/// `filename` is that of the operation, as it was when it was noted; 0 where the kernel had done with it by then. A note that is
/// of another operation, whose end nobody watches, is none.
#[inline(always)]
pub fn take(filename: u64, with: impl Fn(u64)) {
    match slots::find(&REFUSED, slots::current()) {
        Some(slot) => {
            let on_the_way = &mut slot.value;
            on_the_way.count(false);
            let by = if filename == 0 { syscall() } else { filename };
            with(if on_the_way.by == by { on_the_way.noted.address() } else { 0 });
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

/// The same, where an open of the running task's has ended.
#[inline(always)]
pub fn drop_of_open(task: Structure) {
    if let Some(slot) = slots::find_first(&REFUSED, slots::of(task)) {
        slot.value.count(false);
        slot.free();
    } else if is_any_of_an_open() {
        drop_apart();
    }
}

/// Hardly any note is in another slot than the one that is looked at first.
#[inline(never)]
fn drop_apart() {
    drop();
}

/// Whether any note is of an open, of whatever task.
#[inline(always)]
pub fn is_any_of_an_open() -> bool {
    OF_OPENS.get() != 0
}

/// The number of the syscall that the running task is in.
#[inline(always)]
fn syscall() -> u64 {
    memory::current_registers().orig_rax
}

/// Address of the `struct filename` that the running task is looking up; 0 for none.
#[inline(always)]
fn looked_up(task: Structure) -> u64 {
    // One of a structure's members is not without the other.
    if offset!(nameidata_name) == UNAVAILABLE {
        return 0;
    }
    Structure::at(member!(task, "u64", task_nameidata)).map_or(0, |nameidata| member!(nameidata, "u64", nameidata_name))
}
