//! Which operations the programs on kernel functions see: the others fall back to the exits of syscalls and to io_uring's own
//! tracepoints, which must not report anything a second time.

use crate::atomic::Claim;

/// Bit sets by the operations' wire numbers, written by user space before the tracepoints are attached: [0] of syscalls,
/// [1] of io_uring. In a map of its own, which the programs read without looking it up.
#[unsafe(link_section = ".data.covered")]
static COVERED: [Claim; 2] = [Claim::new(), Claim::new()];

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
fn is_covered(door: usize, operation: u8) -> bool {
    COVERED[door].get() >> (operation & 63) & 1 != 0
}
