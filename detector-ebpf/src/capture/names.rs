//! Paths that are kept from the entry of a kernel function to its exit.
//!
//! A program passes a path as a string in its own memory, which another of its threads can rewrite at any time. The kernel
//! copies it once, and works on the copy (`struct filename`). Most functions free the copy before they return, so it is
//! copied again at their entry, into a slot that belongs to the running task until the function's exit. Why so, and what it
//! costs: `docs/decisions/0008-kernel-functions.md`.

use aya_ebpf::{
    helpers::generated::{bpf_get_current_task, bpf_jiffies64},
    macros::map,
    maps::Array,
};
use detector_common::record::PATH_MAX;

use crate::{atomic::Claim, memory, offsets::offset};

/// The paths of one call.
#[repr(C)]
pub struct Names {
    /// Address of the task that is in the call; 0: free.
    owner: Claim,
    /// When it was claimed, in the kernel's ticks.
    claimed_at: u64,
    names: [[u8; PATH_MAX]; 2],
}

/// How many tasks may be in such a call at once; a power of two.
const SLOTS: u32 = 512;
/// How many slots a task may have its names in.
const PROBES: u32 = 4;
/// A slot that was claimed so long ago, in ticks (an hour at 1000 a second), was left behind: the exit of its call was
/// missed. A call that did last longer goes out without its paths.
const LEFT_BEHIND: u64 = 3_600_000;

#[map]
static NAMES: Array<Names> = Array::with_max_entries(SLOTS, 0);

/// Keeps the texts of the one or two `struct filename` at these addresses (0: none), if a slot is free.
#[inline(always)]
pub fn keep(first: u64, second: u64) {
    let task = current();
    let Some(slot) = claim(task) else {
        return;
    };
    copy(&mut slot.names[0], first);
    if second != 0 {
        copy(&mut slot.names[1], second);
    }
}

/// Hands the addresses of the names that the running task has kept to `with`, then frees their slot. They are 0 where no slot
/// was free, or where the program at the entry was not run.
#[inline(always)]
pub fn take(with: impl Fn([u64; 2])) {
    match find(current()) {
        Some(slot) => {
            with([slot.names[0].as_ptr() as u64, slot.names[1].as_ptr() as u64]);
            slot.owner.swap(0);
        }
        None => with([0; 2]),
    }
}

/// Frees the running task's slot.
#[inline(always)]
pub fn drop() {
    if let Some(slot) = find(current()) {
        slot.owner.swap(0);
    }
}

#[inline(always)]
fn copy(to: &mut [u8; PATH_MAX], filename: u64) {
    let text = memory::kernel_at(filename, offset!(filename_name));
    // SAFETY: as long as it says.
    let length = unsafe { memory::kernel_string(to.as_mut_ptr(), PATH_MAX as u32, text) };
    if length < 0 {
        // Not a path but an error in its place: the call will fail with it.
        to[0] = 0;
    }
}

#[inline(always)]
fn current() -> u64 {
    // SAFETY: the helper has no preconditions. A number, not a pointer to the verifier.
    unsafe { bpf_get_current_task() }
}

#[inline(always)]
fn slot(task: u64, probe: u32) -> Option<&'static mut Names> {
    let first = (task.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u32;
    let slot = NAMES.get_ptr_mut(first.wrapping_add(probe) & (SLOTS - 1))?;
    // SAFETY: a live map value; its names are touched by its owner alone.
    Some(unsafe { &mut *slot })
}

#[inline(always)]
fn claim(task: u64) -> Option<&'static mut Names> {
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_jiffies64() };
    let mut probe = 0;
    while probe < PROBES {
        let slot = slot(task, probe)?;
        let owner = slot.owner.get();
        let free = owner == 0 || owner == task || now.wrapping_sub(slot.claimed_at) > LEFT_BEHIND;
        if free && slot.owner.replace(owner, task) {
            slot.claimed_at = now;
            return Some(slot);
        }
        probe += 1;
    }
    None
}

#[inline(always)]
fn find(task: u64) -> Option<&'static mut Names> {
    let mut probe = 0;
    while probe < PROBES {
        let slot = slot(task, probe)?;
        if slot.owner.get() == task {
            return Some(slot);
        }
        probe += 1;
    }
    None
}
