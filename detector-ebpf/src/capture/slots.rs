//! Places that belong to a task for as long as it is in a call, found again by the address of the task.

use core::cell::UnsafeCell;

use aya_ebpf::{helpers::generated::bpf_jiffies64, maps::Array};

use crate::{
    atomic::Claim,
    memory::{self, Readable as _, Structure},
};

/// How many slots a map of them has; a power of two.
pub const SLOTS: u32 = 512;
/// How many of them a task may have.
const PROBES: u32 = 4;

/// A place.
#[repr(C)]
pub struct Slot<T> {
    /// Address of the task that is in the call; 0: free.
    owner: Claim,
    /// When it was claimed, in the kernel's ticks.
    claimed_at: u64,
    pub value: T,
}

impl<T> Slot<T> {
    /// Nobody's, with what is in it then.
    pub const fn free_with(value: T) -> Self {
        Self { owner: Claim::new(), claimed_at: 0, value }
    }

    /// Frees it.
    #[inline(always)]
    pub fn free(&self) {
        self.owner.swap(0);
    }
}

/// Slots, by their numbers.
pub trait Slots<T>: Sync {
    /// The one of this number, which is masked.
    fn at(&self, number: u32) -> Option<*mut Slot<T>>;
}

/// In a map: slots of many pages.
impl<T> Slots<T> for Array<Slot<T>>
where
    Self: Sync,
{
    #[inline(always)]
    fn at(&self, number: u32) -> Option<*mut Slot<T>> {
        self.get_ptr_mut(number & (SLOTS - 1))
    }
}

/// In the programs' own memory, where a slot is found without a look-up.
pub struct Static<T>(UnsafeCell<[Slot<T>; SLOTS as usize]>);

// SAFETY: a slot is claimed by exchanging its owner, who alone touches the rest.
unsafe impl<T> Sync for Static<T> {}

impl<T> Static<T> {
    /// All the same, which is nobody's.
    pub const fn of(slots: [Slot<T>; SLOTS as usize]) -> Self {
        Self(UnsafeCell::new(slots))
    }
}

impl<T> Slots<T> for Static<T> {
    #[inline(always)]
    fn at(&self, number: u32) -> Option<*mut Slot<T>> {
        // SAFETY: within the slots.
        Some(unsafe { self.0.get().cast::<Slot<T>>().add(number as usize & (SLOTS as usize - 1)) })
    }
}

/// The running task, by its address.
#[inline(always)]
pub fn current() -> u64 {
    Structure::current_task().map_or(0, of)
}

/// The same of a task.
#[inline(always)]
pub fn of(task: Structure) -> u64 {
    task.address()
}

/// Claims a slot for `task`: its own, a free one, or one that was claimed more than `left_behind` ticks ago, because the end of
/// that call was missed.
#[inline(always)]
#[expect(clippy::mut_from_ref, reason = "a map gives the value that a key names, and its owner alone touches it")]
pub fn claim<T>(slots: &'static impl Slots<T>, task: u64, left_behind: u64) -> Option<&'static mut Slot<T>> {
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_jiffies64() };
    let mut probe = 0;
    while probe < PROBES {
        let slot = slot(slots, task, probe)?;
        let owner = slot.owner.get();
        let free = owner == 0 || owner == task || now.wrapping_sub(slot.claimed_at) > left_behind;
        if free && slot.owner.replace(owner, task) {
            slot.claimed_at = now;
            return Some(slot);
        }
        probe += 1;
    }
    None
}

/// Claims the slot that `task` looks at first, if it is free: in the fewest instructions.
#[inline(always)]
#[expect(clippy::mut_from_ref, reason = "a map gives the value that a key names, and its owner alone touches it")]
pub fn claim_first<T>(slots: &'static impl Slots<T>, task: u64) -> Option<&'static mut Slot<T>> {
    let slot = slot(slots, task, 0)?;
    if !slot.owner.replace(0, task) {
        return None;
    }
    // SAFETY: the helper has no preconditions.
    slot.claimed_at = unsafe { bpf_jiffies64() };
    Some(slot)
}

/// The slot that `task` looks at first, if it is its own.
#[inline(always)]
pub fn find_first<T>(slots: &'static impl Slots<T>, task: u64) -> Option<&'static mut Slot<T>> {
    slot(slots, task, 0).filter(|slot| slot.owner.get() == task)
}

/// The slot of `task`, if it has one.
#[inline(always)]
pub fn find<T>(slots: &'static impl Slots<T>, task: u64) -> Option<&'static mut Slot<T>> {
    let mut probe = 0;
    while probe < PROBES {
        let slot = slot(slots, task, probe)?;
        if slot.owner.get() == task {
            return Some(slot);
        }
        probe += 1;
    }
    None
}

#[inline(always)]
#[expect(clippy::mut_from_ref, reason = "a map gives the value that a key names, and its owner alone touches it")]
fn slot<T>(slots: &'static impl Slots<T>, task: u64, probe: u32) -> Option<&'static mut Slot<T>> {
    // The factor is part of an instruction, as it has 31 bits.
    let first = memory::lower_half(task).wrapping_mul(0x7ed5_58cd) >> 16;
    let slot = slots.at(first.wrapping_add(probe))?;
    // SAFETY: a live slot; what is in it is touched by its owner alone.
    Some(unsafe { &mut *slot })
}
