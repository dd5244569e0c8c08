//! Which operations the programs on kernel functions see: the others fall back to the exits of syscalls and to io_uring's own
//! tracepoints, which must not report anything a second time.

use aya_ebpf::{macros::map, maps::Array};

/// Bit sets by the operations' wire numbers, written by user space before the tracepoints are attached: [0] of syscalls,
/// [1] of io_uring.
#[map]
static COVERED: Array<u64> = Array::with_max_entries(2, 0);

/// Whether programs on kernel functions see this operation when a syscall asks for it.
#[inline(always)]
pub fn syscalls(operation: u8) -> bool {
    is_covered(0, operation)
}

/// Whether they see it when it is queued on an io_uring.
#[inline(always)]
pub fn io_uring(operation: u8) -> bool {
    is_covered(1, operation)
}

#[inline(always)]
fn is_covered(door: u32, operation: u8) -> bool {
    let covered = COVERED.get(door).copied().unwrap_or(0);
    covered >> (operation & 63) & 1 != 0
}
