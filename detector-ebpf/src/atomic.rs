//! Atomic exchanges, which BPF has had since kernel 5.12 and which `core` doesn't offer for it.

use core::arch::asm;

/// A number in a map that several tasks claim by exchanging it.
#[repr(transparent)]
pub struct Claim(core::cell::UnsafeCell<u64>);

// SAFETY: it is only ever read as a whole and exchanged at once.
unsafe impl Sync for Claim {}

impl Claim {
    /// Nobody's.
    pub const fn new() -> Self {
        Self(core::cell::UnsafeCell::new(0))
    }

    /// Adds to it, at once.
    #[inline(always)]
    pub fn add(&self, value: u64) {
        // SAFETY: one instruction on a live, aligned map value.
        unsafe { asm!("lock *(u64 *)({at} + 0) += {value}", at = in(reg) self.0.get(), value = in(reg) value) };
    }

    /// What it is now.
    #[inline(always)]
    pub fn get(&self) -> u64 {
        // SAFETY: a live, aligned map value; volatile, because others change it.
        unsafe { core::ptr::read_volatile(self.0.get()) }
    }

    /// The number at this address as one to claim.
    ///
    /// # Safety
    /// It must be aligned and live as long as what is given, and changed by exchanging it alone.
    #[inline(always)]
    pub unsafe fn at<'a>(number: *mut u64) -> &'a Self {
        // SAFETY: of the same layout; the caller answers for the rest.
        unsafe { &*number.cast() }
    }

    /// Puts `value` there; what was there before. A full barrier.
    #[inline(always)]
    pub fn swap(&self, value: u64) -> u64 {
        let before;
        // SAFETY: one instruction on a live, aligned map value.
        unsafe {
            asm!("{value} = xchg_64({at} + 0, {value})", at = in(reg) self.0.get(), value = inout(reg) value => before)
        };
        before
    }

    /// Puts `new` there if `old` is; whether it was. A full barrier.
    #[inline(always)]
    pub fn replace(&self, old: u64, new: u64) -> bool {
        let before: u64;
        // SAFETY: one instruction on a live, aligned map value.
        unsafe {
            asm!("r0 = cmpxchg_64({at} + 0, r0, {new})", at = in(reg) self.0.get(), new = in(reg) new, inout("r0") old => before);
        }
        before == old
    }
}

/// Adds one to a count that others may add to at the same time.
///
/// # Safety
/// It must be aligned and live.
#[inline(always)]
pub unsafe fn increment(count: *mut u64) {
    // SAFETY: one instruction, on what the caller answers for.
    unsafe { asm!("lock *(u64 *)({at} + 0) += {one}", at = in(reg) count, one = in(reg) 1_u64) };
}
