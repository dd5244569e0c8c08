//! Places that belong to a task for as long as it is in a call, found again by the address of the task.

use aya_ebpf::{
    helpers::generated::{bpf_get_current_task, bpf_jiffies64},
    maps::Array,
};

use crate::atomic::Claim;

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
    /// Frees it.
    #[inline(always)]
    pub fn free(&self) {
        self.owner.swap(0);
    }
}

/// The address of the running task. A number, not a pointer to the verifier.
#[inline(always)]
pub fn current() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_get_current_task() }
}

/// Claims a slot for `task`: its own, a free one, or one that was claimed more than `left_behind` ticks ago, because the end of
/// that call was missed.
#[inline(always)]
#[expect(clippy::mut_from_ref, reason = "a map gives the value that a key names, and its owner alone touches it")]
pub fn claim<T>(map: &'static Array<Slot<T>>, task: u64, left_behind: u64) -> Option<&'static mut Slot<T>> {
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_jiffies64() };
    let mut probe = 0;
    while probe < PROBES {
        let slot = slot(map, task, probe)?;
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

/// The slot of `task`, if it has one.
#[inline(always)]
pub fn find<T>(map: &'static Array<Slot<T>>, task: u64) -> Option<&'static mut Slot<T>> {
    let mut probe = 0;
    while probe < PROBES {
        let slot = slot(map, task, probe)?;
        if slot.owner.get() == task {
            return Some(slot);
        }
        probe += 1;
    }
    None
}

#[inline(always)]
#[expect(clippy::mut_from_ref, reason = "a map gives the value that a key names, and its owner alone touches it")]
fn slot<T>(map: &'static Array<Slot<T>>, task: u64, probe: u32) -> Option<&'static mut Slot<T>> {
    let first = (task.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u32;
    let slot = map.get_ptr_mut(first.wrapping_add(probe) & (SLOTS - 1))?;
    // SAFETY: a live map value; what is in it is touched by its owner alone.
    Some(unsafe { &mut *slot })
}
