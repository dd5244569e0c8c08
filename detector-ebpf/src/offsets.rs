//! Where members of kernel structures stand in the running kernel.

use detector_common::offsets::Offsets;

/// Set by user space before the programs are loaded; frozen then, so that the verifier sees constants.
#[unsafe(no_mangle)]
static OFFSETS: Offsets = Offsets::UNSET;

/// Reads one offset. A macro, so that each use is one load of one member.
macro_rules! offset {
    ($field:ident) => {
        // SAFETY: the address of a live static; volatile, because user space writes it before the load of the programs.
        unsafe { core::ptr::read_volatile(&raw const $crate::offsets::get().$field) }
    };
}
pub(crate) use offset;

#[inline(always)]
pub fn get() -> &'static Offsets {
    &OFFSETS
}
