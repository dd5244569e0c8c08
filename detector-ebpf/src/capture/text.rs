//! Strings of the program: paths as passed, mount options, arguments.

use aya_ebpf::{
    cty::c_void,
    helpers::generated::{bpf_loop, bpf_probe_read_user},
};
use detector_common::{
    counter::Counter,
    record::{ARGS_MAX, PATH_MAX, PAYLOAD_MAX, STRING_MAX, Section},
};

use crate::{memory, ring, scratch::Scratch};

/// The sections that are strings of the program: the first ones of the payload.
pub const STRINGS: usize = 5;
const _: () = assert!(Section::Data as usize == STRINGS - 1);

/// Notes that a section could not be read.
#[inline(always)]
pub fn mark_unreadable(scratch: &mut Scratch, section: u32) {
    scratch.record.call.unreadable |= 1 << (section & 15);
    ring::count(Counter::SectionUnreadable);
}

/// Notes that a section did not fit.
#[inline(always)]
pub fn mark_truncated(scratch: &mut Scratch, section: u32) {
    scratch.record.call.truncated |= 1 << (section & 15);
    ring::count(Counter::SectionTruncated);
}

/// What the steps need; on the stack, because that is what `bpf_loop` hands on.
struct Steps<'a> {
    scratch: &'a mut Scratch,
}

/// Appends the strings at the addresses in `scratch.strings` (0: none), each without its NUL; they are the running process's,
/// or the kernel's own, as `scratch.of_kernel` says. `count` of them are looked at.
///
/// By `bpf_loop`, so that the verifier follows the outcomes of one string rather than those of five in a row.
#[inline(always)]
pub fn append_strings(scratch: &mut Scratch, count: u32) {
    let mut steps = Steps { scratch };
    let append = append_string as *const () as *mut c_void;
    // SAFETY: `append_string` has the signature that the helper calls, and `steps` outlives the call.
    unsafe { bpf_loop(count, append, (&raw mut steps).cast(), 0) };
}

extern "C" fn append_string(index: u64, steps: *mut c_void) -> i64 {
    // SAFETY: `append_strings` handed on its own live `Steps`, and touches it again only after the loop.
    let scratch = unsafe { &mut *(*steps.cast::<Steps<'_>>()).scratch };
    if index >= STRINGS as u64 {
        return 1;
    }
    let address = scratch.strings[index as usize];
    let used = scratch.used as usize;
    if address == 0 {
        return 0;
    }
    let is_path = index <= Section::Path2 as u64;
    let most = if is_path { PATH_MAX } else { STRING_MAX };
    if used > PAYLOAD_MAX - PATH_MAX - 1 {
        mark_truncated(scratch, index as u32);
        return 0;
    }
    // One byte more than there is room for: with it, the string was cut.
    // SAFETY: `used + PATH_MAX + 1` is within the payload, as checked, and STRING_MAX is less.
    let length = unsafe {
        let to = scratch.payload.as_mut_ptr().add(used);
        if scratch.of_kernel != 0 {
            memory::kernel_string(to, most as u32 + 1, address)
        } else {
            memory::user_string(to, most as u32 + 1, address)
        }
    };
    if length <= 0 {
        // Before 6.13 the length of an empty one is told without its NUL (`strncpy_from_user_nofault`, `mm/maccess.c`).
        if length < 0 {
            mark_unreadable(scratch, index as u32);
        }
        return 0;
    }
    if length as usize > most {
        mark_truncated(scratch, index as u32);
    }
    scratch.record.call.lengths[index as usize] = (length - 1) as u16;
    scratch.used = used as u32 + (length - 1) as u32;
    0
}

/// Appends the arguments of the process, which must be the running one.
#[inline(always)]
pub fn append_args(scratch: &mut Scratch) {
    let (start, length) = (scratch.actor.executed.args, scratch.actor.executed.args_length);
    let used = scratch.used as usize;
    if start == 0 || length == 0 || used > PAYLOAD_MAX - ARGS_MAX {
        return;
    }
    let mut take = length;
    if take > ARGS_MAX as u64 {
        take = ARGS_MAX as u64;
        mark_truncated(scratch, Section::Args as u32);
    }
    // SAFETY: `used + ARGS_MAX` is within the payload, as checked, and `take` is at most that; the helper checks the address.
    let error =
        unsafe { bpf_probe_read_user(scratch.payload.as_mut_ptr().add(used).cast(), take as u32, start as *const _) };
    if error != 0 {
        mark_unreadable(scratch, Section::Args as u32);
        return;
    }
    scratch.record.call.lengths[Section::Args as usize] = take as u16;
    scratch.used = used as u32 + take as u32;
}
