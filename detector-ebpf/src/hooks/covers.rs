//! What the programs leave to others. Those on kernel functions see some operations, and the exits of syscalls and io_uring's own
//! tracepoints must not report these a second time. And when one build of rosentry takes over from another, the programs of both are
//! attached for a moment, and agree on who reports a call.

use aya_ebpf::{helpers::bpf_get_current_pid_tgid, macros::map, maps::Array};
use detector_common::takeover::{
    AGREED, ASK, AT_EXIT, Asked, COMING, COMING_FIRST, Door, FIRST_AGREED, Kind, LEAVING, NUMBERS, ON, Place, TURN,
};

use crate::atomic::Claim;

/// Written by user space (`detector/src/kernel/maps.rs`), in a map of its own, which the programs read without looking it up. Bit sets by
/// the operations' wire numbers, [0] of syscalls, [1] of io_uring; [2]: whether the programs report at all
/// ([`detector_common::takeover`]). As long as they don't, [0] has all bits, and [`ASK`] while they may have to, so that a refused write
/// has one word to look at.
#[unsafe(link_section = ".data.covered")]
static COVERED: [Claim; 3] = [Claim::new(), Claim::new(), Claim::new()];

/// What the programs of two builds agree on: user space gives both the same map. Another name than that of a version which agrees
/// otherwise.
#[map]
static TURNS: Array<u64> = Array::with_max_entries(NUMBERS, 0);

/// Whether this call is none of the exits of syscalls' business: programs on kernel functions see it, or it is not reported by these.
/// To be asked once for each call: see [`is_ours`].
#[inline(always)]
pub fn syscalls(operation: u8, kind: Kind) -> bool {
    let covered = COVERED[0].get();
    // None, where there are no programs on functions: what costs least.
    covered != 0 && (has(covered, operation) || covered & ASK != 0 && !is_ours(kind, Door::Syscall, operation))
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
pub fn report(kind: Kind, door: Door, operation: u8) -> bool {
    COVERED[2].get() == ON || is_ours(kind, door, operation)
}

/// Whether these programs report a write that succeeded. The same.
#[inline(always)]
pub fn report_observed() -> bool {
    report(Kind::Observed, Door::Syscall, AT_EXIT)
}

/// Whether user space wants to hear of anything.
#[inline(always)]
pub fn is_armed() -> bool {
    COVERED[2].get() != 0
}

/// Whether a call that two builds see is these programs' to report: see [`Asked`].
///
/// A function of its own: it is asked while programs are replaced, and never else.
#[inline(never)]
fn is_ours(kind: Kind, door: Door, operation: u8) -> bool {
    let party = COVERED[2].get();
    if party != LEAVING && party != COMING {
        // User space writes word by word.
        return party == ON;
    }
    let thread = bpf_get_current_pid_tgid() as u32;
    let at = |number| {
        // SAFETY: aligned, in a map that lives as long as the programs, and touched by atomic operations alone.
        TURNS.get_ptr_mut(number).map(|number| unsafe { Claim::at(number) })
    };
    let (Some(turn), Some(coming_first), Some(place)) =
        (at(TURN), at(COMING_FIRST + door as u32), at(FIRST_AGREED + thread % AGREED))
    else {
        return false;
    };
    let (turn, coming_first) = (turn.get(), coming_first.get());
    Asked { party, turn, coming_first, operation, kind, thread }.is_theirs(place)
}

impl Place for Claim {
    #[inline(always)]
    fn get(&self) -> u64 {
        Self::get(self)
    }

    #[inline(always)]
    fn put(&self, note: u64) {
        self.swap(note);
    }

    #[inline(always)]
    fn take(&self, note: u64) {
        self.replace(note, 0);
    }
}
