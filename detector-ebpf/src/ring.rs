//! The way out: three rings and the counters.
//!
//! Refused writes, mount attempts and cgroups have a ring each, so that a flood of one can't drown the others. A wake-up of the reader costs ten times what the record does, so refused writes wake it at most once each
//! [`WAKE_INTERVAL_NS`] and CPU; having been woken, it comes back by itself until it finds nothing.

use aya_ebpf::{
    bindings::{BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::generated::{bpf_ktime_get_boot_ns, bpf_ringbuf_output},
    macros::map,
    maps::{PerCpuArray, RingBuf},
};
use detector_common::{counter::Counter, ring::WAKE_INTERVAL_NS};

use crate::scratch::Scratch;

#[map]
static WRITES: RingBuf = RingBuf::with_byte_size(2 << 20, 0);
#[map]
static URGENT: RingBuf = RingBuf::with_byte_size(1 << 20, 0);
#[map]
static CGROUPS: RingBuf = RingBuf::with_byte_size(256 << 10, 0);
#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::COUNT, 0);
/// When this CPU last woke the reader of refused writes, nanoseconds since boot.
#[map]
static LAST_WAKE: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Adds one to a counter of this CPU.
#[inline(always)]
pub fn count(counter: Counter) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: a live map value, this CPU's own.
        unsafe { *value += 1 };
    }
}

/// Nanoseconds since boot (CLOCK_BOOTTIME).
#[inline(always)]
pub fn now_ns() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// Sends the record of a refused write.
#[inline(always)]
pub fn send_write(scratch: &mut Scratch) {
    let time_ns = scratch.record.header.time_ns;
    let mut flags = BPF_RB_NO_WAKEUP;
    if let Some(last) = LAST_WAKE.get_ptr_mut(0) {
        // SAFETY: a live map value, this CPU's own.
        let last = unsafe { &mut *last };
        if time_ns.wrapping_sub(*last) >= WAKE_INTERVAL_NS {
            *last = time_ns;
            flags = BPF_RB_FORCE_WAKEUP;
        }
    }
    let length = size_of_val(&scratch.record) + scratch.used as usize;
    if !output(&WRITES, scratch, length, flags) {
        count(Counter::WriteRingFull);
    }
}

/// Sends the record of a mount attempt.
#[inline(always)]
pub fn send_mount_attempt(scratch: &mut Scratch) {
    let length = size_of_val(&scratch.record) + scratch.used as usize;
    if !output(&URGENT, scratch, length, BPF_RB_FORCE_WAKEUP) {
        count(Counter::UrgentRingFull);
    }
}

/// Sends the record of a cgroup, of `length` bytes.
#[inline(always)]
pub fn send_cgroup(scratch: &mut Scratch, length: usize) {
    if !output(&CGROUPS, scratch, length, BPF_RB_FORCE_WAKEUP) {
        count(Counter::CgroupRingFull);
    }
}

#[inline(always)]
fn output(ring: &RingBuf, scratch: &mut Scratch, length: usize, flags: u32) -> bool {
    // The verifier wants the bound beside the call.
    if length > core::mem::offset_of!(Scratch, used) {
        return false;
    }
    scratch.record.header.length = length as u32;
    // SAFETY: record and payload are live and stand one behind the other for at least `length` bytes.
    let error = unsafe {
        bpf_ringbuf_output(
            core::ptr::from_ref(ring).cast_mut().cast(),
            core::ptr::from_mut(scratch).cast(),
            length as u64,
            u64::from(flags),
        )
    };
    error == 0
}
