//! What the programs leave to others. Those on kernel functions see some operations, and the exits of syscalls and io_uring's own
//! tracepoints must not report these a second time. And when one build of rosentry takes over from another, the programs of both are
//! attached for a moment, and agree on who reports a call.

use aya_ebpf::{helpers::bpf_get_current_pid_tgid, macros::map, maps::Array};
use detector_common::takeover::{AGREED, ASK, COMING, Kind, LEAVING, NUMBERS, ON, TURN};

use crate::atomic::Claim;

/// Written by user space (`detector/src/kernel/maps.rs`), in a map of its own, which the programs read without looking it up. Bit sets by
/// the operations' wire numbers, [0] of syscalls, [1] of io_uring; [2]: whether the programs report at all
/// ([`detector_common::takeover`]). As long as they don't, [0] has all bits, and [`ASK`] while they may have to, so that a refused write
/// has one word to look at.
#[unsafe(link_section = ".data.covered")]
static COVERED: [Claim; 3] = [Claim::new(), Claim::new(), Claim::new()];

/// What the programs of two builds agree on: user space gives both the same map.
#[map]
static AGREEMENT: Array<u64> = Array::with_max_entries(NUMBERS, 0);

/// Whether this call is none of the exits of syscalls' business: programs on kernel functions see it, or it is not reported by these.
/// To be asked once for each call: see [`is_ours`].
#[inline(always)]
pub fn syscalls(operation: u8, kind: Kind) -> bool {
    let covered = COVERED[0].get();
    // None, where there are no programs on functions: what costs least.
    covered != 0 && (has(covered, operation) || covered & ASK != 0 && !is_ours(kind))
}

/// Whether programs on kernel functions see this operation when it is queued on an io_uring.
#[inline(always)]
pub fn io_uring(operation: u8) -> bool {
    has(COVERED[1].get(), operation)
}

#[inline(always)]
fn has(covered: u64, operation: u8) -> bool {
    covered >> (operation & 63) & 1 != 0
}

/// Whether these programs report this call. To be asked once for each: see [`is_ours`].
#[inline(always)]
pub fn report(kind: Kind) -> bool {
    COVERED[2].get() == ON || is_ours(kind)
}

/// Whether user space wants to hear of anything.
#[inline(always)]
pub fn is_armed() -> bool {
    COVERED[2].get() != 0
}

/// Whether a call that two builds see is these programs' to report. The first of the two to ask goes by whose turn it is, and notes
/// that; the other goes by the note, and takes it away: so one of them reports it, though the turn may change in between.
///
/// A function of its own: it is asked while programs are replaced, and never else.
#[inline(never)]
fn is_ours(kind: Kind) -> bool {
    let party = COVERED[2].get();
    if party != LEAVING && party != COMING {
        // User space writes word by word.
        return party == ON;
    }
    let thread = bpf_get_current_pid_tgid() as u32;
    let at = |number| AGREEMENT.get_ptr_mut(number);
    let (Some(turn), Some(noted)) = (at(TURN), at(1 + thread % AGREED)) else { return false };
    // SAFETY: aligned, in maps that live as long as the programs, and touched by atomic operations alone.
    let (turn, noted) = unsafe { (Claim::at(turn), Claim::at(noted)) };
    let note = |party: u64, takes: bool| u64::from(thread) << 32 | (kind as u64) << 8 | party << 1 | u64::from(takes);
    let other = if party == LEAVING { COMING } else { LEAVING };
    let (taken, left) = (note(other, true), note(other, false));
    let found = noted.get();
    if found == taken || found == left {
        noted.swap(0);
        return found == left;
    }
    let takes = turn.get() == party & 1;
    noted.swap(note(party, takes));
    takes
}
