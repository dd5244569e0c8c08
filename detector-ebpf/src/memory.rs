//! Reads of memory that may not be there: every one is checked by the kernel and fails cleanly.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::{
    bpf_probe_read_kernel, bpf_probe_read_kernel_str, bpf_probe_read_user, bpf_probe_read_user_str,
};

/// Plain numbers and arrays of them: any bytes are a value.
pub trait Plain: Copy {}
impl Plain for u8 {}
impl Plain for u16 {}
impl Plain for u32 {}
impl Plain for u64 {}
impl<T: Plain, const N: usize> Plain for [T; N] {}

/// Reads the `T` at `offset` from `base` in kernel memory; zeros where it can't be read.
///
/// Without a branch, so that a chain of reads is one path for the verifier: reading on from 0 fails, and is 0 again.
#[inline(always)]
pub fn kernel_at<T: Plain>(base: u64, offset: u32) -> T {
    let mut value = MaybeUninit::<T>::zeroed();
    let address = base.wrapping_add(u64::from(offset));
    // SAFETY: `value` is writable for its size; the helper checks the address, and zeroes the value on a fault.
    unsafe { bpf_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, address as *const _) };
    // SAFETY: all bytes are written, and any are a value of a `Plain` type.
    unsafe { value.assume_init() }
}

/// Reads a `T` of the process's memory; a page that is not resident is a failure.
#[inline(always)]
pub fn user<T: Plain>(address: u64) -> Option<T> {
    // Zeroed, because the compiler may move a read of the value before the check of the error, and the verifier then
    // finds a register that nothing was written to.
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: `value` is writable for its size; the helper checks the address and fails on a fault.
    let error = unsafe { bpf_probe_read_user(value.as_mut_ptr().cast(), size_of::<T>() as u32, address as *const _) };
    // SAFETY: all bytes are written, and any are a value of a `Plain` type.
    (error == 0).then(|| unsafe { value.assume_init() })
}

/// Copies a kernel string with its NUL to `to`, at most `LEN` bytes; its length with the NUL, or a negated errno.
///
/// # Safety
/// `to` must be writable for `LEN` bytes.
#[inline(always)]
pub unsafe fn kernel_string<const LEN: u32>(to: *mut u8, address: u64) -> i64 {
    // SAFETY: the caller answers for `to`; the helper checks the address.
    unsafe { bpf_probe_read_kernel_str(to.cast(), LEN, address as *const _) }
}

/// Copies a string of the process with its NUL to `to`, at most `LEN` bytes; its length with the NUL, or a negated errno.
///
/// # Safety
/// `to` must be writable for `LEN` bytes.
#[inline(always)]
pub unsafe fn user_string<const LEN: u32>(to: *mut u8, address: u64) -> i64 {
    // SAFETY: the caller answers for `to`; the helper checks the address.
    unsafe { bpf_probe_read_user_str(to.cast(), LEN, address as *const _) }
}
