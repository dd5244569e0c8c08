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
    capture::{mount::Refused, path::Walk, request::Places, text::STRINGS},
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

/// Runs `make` with a place of this CPU that no one else uses.
#[inline(always)]
pub fn with(make: impl FnOnce(&mut Scratch)) {
    let Some(scratch) = claim() else {
        ring::count(Counter::ScratchBusy);
        return;
    };
    make(scratch);
    scratch.busy.swap(0);
}

#[inline(always)]
fn claim() -> Option<&'static mut Scratch> {
    let mut index = 0;
    while index < PLACES {
        let scratch = SCRATCH.get_ptr_mut(index)?;
        // SAFETY: a live map value. Exchanged at once, because the task may lose its turn at any instruction.
        let busy = unsafe { &(*scratch).busy };
        if busy.swap(1) == 0 {
            // SAFETY: a live map value, and ours until `busy` is cleared.
            return Some(unsafe { &mut *scratch });
        }
        index += 1;
    }
    None
}
