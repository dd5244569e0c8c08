//! The per-CPU place in which a record is put together: a record can be larger than the 512 bytes of a program's stack.
//!
//! Tracepoints run with preemption off, so the CPU's place belongs to the running program alone.

use aya_ebpf::{macros::map, maps::PerCpuArray};
use detector_common::record::{PAYLOAD_MAX, SyscallRecord};

use crate::capture::{path::Walk, request::Places, text::STRINGS};

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
}

// The kernel allots at most 32 KiB a CPU to one value of a per-CPU map (PCPU_MIN_UNIT_SIZE).
const _: () = assert!(size_of::<Scratch>() <= 32 << 10);

#[map]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// This CPU's scratch.
#[inline(always)]
pub fn get() -> Option<&'static mut Scratch> {
    let scratch = SCRATCH.get_ptr_mut(0)?;
    // SAFETY: a live map value; nothing else runs on this CPU's copy until the program ends.
    Some(unsafe { &mut *scratch })
}
