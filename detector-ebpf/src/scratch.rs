//! The per-CPU places in which records are put together: a record can be larger than the 512 bytes of a program's stack.
//!
//! A program at the exit of a kernel function stays on its CPU, but on a kernel with full preemption another task may take its
//! turn there in the middle, and run another of our programs. So there is more than one place, and each is claimed for as
//! long as a record is made in it. Where none is free the record is lost, and counted.

use aya_ebpf::{macros::map, maps::PerCpuArray};
use detector_common::{
    counter::Counter,
    record::{PAYLOAD_MAX, SyscallRecord},
    syscalls::Call,
};

use crate::{
    atomic::Claim,
    capture::{call::Actor, mount::Refused, path::Walk, request::Places, text::STRINGS},
    quick::WORDS,
    ring,
};

/// A record under construction. The payload stands right behind the record, as on the wire.
#[repr(C)]
pub struct Scratch {
    pub record: SyscallRecord,
    pub payload: [u8; PAYLOAD_MAX],
    /// Bytes of the payload that are filled.
    pub used: u32,
    pub walk: Walk,
    /// Addresses of the strings to append, by section; 0: none.
    pub strings: [u64; STRINGS],
    /// What both paths are relative to: mount and dentry; zeros where nothing is.
    pub bases: [[u64; 2]; 2],
    /// Who does it.
    pub actor: Actor,
    /// Row of the cgroup in [`crate::budget`].
    pub cgroup_row: u32,
    /// 1: the strings are the kernel's, or copies; 0: the program's.
    pub of_kernel: u32,
    /// 1: the key is known, and known to be new.
    pub is_new: u32,
    /// The path as it was read, if so.
    pub text: [u64; WORDS],
    /// What tells the attempt from others; see [`crate::fold`].
    pub key: [u64; 2],
    /// Where the paths of a request of an io_uring begin, as they were when it was submitted.
    pub places: Places,
    /// The mount that the write hit.
    pub refused: Refused,
    /// The row of the table of syscalls, for programs that take it from more than one.
    pub row: Call,
    /// 1 while a record is put together here.
    busy: Claim,
}

// The kernel allots at most 32 KiB a CPU to one value of a per-CPU map (PCPU_MIN_UNIT_SIZE).
const _: () = assert!(size_of::<Scratch>() <= 32 << 10);

/// Tasks that can be in the middle of a record at once on a CPU.
const PLACES: u32 = 2;

#[map]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(PLACES, 0);

/// Runs `make` with a place of this CPU that no one else uses; `claimed`: with the one of this number, which was claimed before, and
/// is released by whoever did so.
#[inline(always)]
pub fn with(claimed: Option<u32>, make: impl FnOnce(&mut Scratch)) {
    let scratch = match claimed {
        Some(index) => get(index),
        None => claim().map(|(scratch, _)| {
            scratch.is_new = 0;
            scratch
        }),
    };
    let Some(scratch) = scratch else {
        ring::count(Counter::ScratchBusy);
        return;
    };
    make(scratch);
    if claimed.is_none() {
        scratch.busy.swap(0);
    }
}

/// Claims a place of this CPU; with its number.
#[inline(always)]
pub fn claim() -> Option<(&'static mut Scratch, u32)> {
    let mut index = 0;
    while index < PLACES {
        let scratch = get(index)?;
        // Exchanged at once, because the task may lose its turn at any instruction.
        if scratch.busy.swap(1) == 0 {
            return Some((scratch, index));
        }
        index += 1;
    }
    None
}

/// Gives up a place that was claimed.
#[inline(always)]
pub fn release(index: u32) {
    if let Some(scratch) = get(index) {
        scratch.busy.swap(0);
    }
}

#[inline(always)]
fn get(index: u32) -> Option<&'static mut Scratch> {
    let scratch = SCRATCH.get_ptr_mut(index)?;
    // SAFETY: a live map value; but for `busy` it is touched by who has claimed it.
    Some(unsafe { &mut *scratch })
}
