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

/// Loads a member, as a number: `member!(task, "u32", task_flags)`. The offset is part of the instruction, where with
/// [`Readable::load`](crate::memory::Readable::load) there are three to add it. For whatever is done for a repeat.
macro_rules! member {
    ($structure:expr, $size:literal, $field:ident) => {{
        let value: u64;
        // SAFETY: the verifier checks the offset, which user space puts there, against the type of the structure, and the kernel
        // mends a fault.
        unsafe {
            core::arch::asm!(
                concat!("{value} = *(", $size, " *)({structure} - {placeholder})"),
                value = lateout(reg) value,
                structure = in(reg) $crate::memory::Readable::address($structure),
                placeholder = const -(detector_common::offsets::PLACEHOLDER as i32)
                    - core::mem::offset_of!(detector_common::offsets::Offsets, $field) as i32 / 4,
                options(pure, readonly, nostack, preserves_flags),
            )
        };
        value
    }};
}
pub(crate) use member;
