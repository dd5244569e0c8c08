//! Paths that are kept from the entry of a kernel function to its exit.
//!
//! A program passes a path as a string in its own memory, which another of its threads can rewrite at any time. The kernel
//! copies it once, and works on the copy (`struct filename`). Most functions free the copy before they return, so it is
//! copied again at their entry, into a slot that belongs to the running task until the function's exit. Why so, and what it
//! costs: `docs/decisions/0008-kernel-functions.md`.

use aya_ebpf::{macros::map, maps::Array};
use detector_common::record::PATH_MAX;

use crate::{
    capture::{
        mount::Noted,
        slots::{self, SLOTS, Slot},
    },
    memory::{self, Readable as _, Structure},
    offsets::offset,
};

/// The paths of one call.
#[repr(C)]
pub struct Names {
    names: [[u8; PATH_MAX]; 2],
    /// The mount that has refused in the course of the call.
    refused: Noted,
}

/// An hour, at 1000 ticks a second. A call that did last longer goes out without its paths.
const LEFT_BEHIND: u64 = 3_600_000;

#[map]
static NAMES: Array<Slot<Names>> = Array::with_max_entries(SLOTS, 0);

/// What was kept of a call.
#[derive(Clone, Copy)]
pub struct Kept {
    /// Addresses of the names. 0 where no slot was free, or where the program at the entry was not run.
    pub names: [u64; 2],
    /// Address of the mount that has refused, as [`Noted`]; 0 where none has.
    pub refused: u64,
}

/// Keeps the texts of the one or two `struct filename`, if a slot is free.
#[inline(always)]
pub fn keep(first: Option<Structure>, second: Option<Structure>) {
    let Some(Slot { value: kept, .. }) = slots::claim(&NAMES, slots::current(), LEFT_BEHIND) else {
        return;
    };
    kept.refused = Noted::NONE;
    copy(&mut kept.names[0], first);
    if second.is_some() {
        copy(&mut kept.names[1], second);
    }
}

/// Hands what the running task has kept to `with`, then frees its slot.
#[inline(always)]
pub fn take(with: impl Fn(Kept)) {
    match slots::find(&NAMES, slots::current()) {
        Some(slot) => {
            let names = [slot.value.names[0].as_ptr() as u64, slot.value.names[1].as_ptr() as u64];
            with(Kept { names, refused: slot.value.refused.address() });
            slot.free();
        }
        None => with(Kept { names: [0; 2], refused: 0 }),
    }
}

/// Frees the running task's slot.
#[inline(always)]
pub fn drop() {
    if let Some(slot) = slots::find(&NAMES, slots::current()) {
        slot.free();
    }
}

/// Where to note the mount that refuses `task`, if it is in a call whose names are kept.
#[inline(always)]
pub fn refused(task: u64) -> Option<&'static mut Noted> {
    slots::find(&NAMES, task).map(|slot| &mut slot.value.refused)
}

#[inline(always)]
fn copy(to: &mut [u8; PATH_MAX], filename: Option<Structure>) {
    // Not a path but an error in its place reads as 0, from where nothing is copied: the call will fail with it.
    let text = filename.map_or(0, |filename| filename.load(offset!(filename_name)));
    // SAFETY: as long as it says.
    let length = unsafe { memory::kernel_string(to.as_mut_ptr(), PATH_MAX as u32, text) };
    if length < 0 {
        to[0] = 0;
    }
}
