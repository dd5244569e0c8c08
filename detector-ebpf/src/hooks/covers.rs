//! What the programs leave to others. Those on kernel functions see some operations, and the exits of syscalls and io_uring's own
//! tracepoints must not report these a second time. And when one build of rosentry takes over from another, the programs of both are
//! attached for a moment: user space lets the one begin and the other end at an instant.

use crate::atomic::Claim;

/// Written by user space (`detector/src/kernel/maps.rs`), in a map of its own, which the programs read without looking it up. Bit sets by
/// the operations' wire numbers, [0] of syscalls, [1] of io_uring; [2]: not 0 where the programs report at all. As long as they
/// don't, [0] has all bits, so that a refused write has one word to look at.
#[unsafe(link_section = ".data.covered")]
static COVERED: [Claim; 3] = [Claim::new(), Claim::new(), Claim::new()];

/// Whether this operation is none of the exits of syscalls' business: programs on kernel functions see it, or nothing is reported.
#[inline(always)]
pub fn syscalls(operation: u8) -> bool {
    is_covered(0, operation)
}

/// Whether programs on kernel functions see this operation when it is queued on an io_uring.
#[inline(always)]
pub fn io_uring(operation: u8) -> bool {
    is_covered(1, operation)
}

#[inline(always)]
fn is_covered(door: usize, operation: u8) -> bool {
    COVERED[door].get() >> (operation & 63) & 1 != 0
}

/// Whether user space wants to hear of anything.
#[inline(always)]
pub fn is_armed() -> bool {
    COVERED[2].get() != 0
}
