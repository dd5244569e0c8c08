//! The way out: three rings and the counters.
//!
//! Refused writes, mount attempts and cgroups have a ring each, so that a flood of one can't drown the others. A wake-up of
//! the reader costs ten times what the record does, so refused writes wake it at most once each [`WAKE_INTERVAL_NS`] and CPU,
//! and the mount attempts of a cgroup at most once in that time; having been woken, it comes back by itself until it finds
//! nothing.

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::generated::{bpf_ktime_get_boot_ns, bpf_ringbuf_output, bpf_ringbuf_query},
    macros::map,
    maps::{PerCpuArray, RingBuf},
};
use detector_common::{counter::Counter, ring::WAKE_INTERVAL_NS};

use crate::{budget, memory, scratch::Scratch};

const WRITES_BYTES: u32 = 2 << 20;
const URGENT_BYTES: u32 = 1 << 20;

#[map]
static WRITES: RingBuf = RingBuf::with_byte_size(WRITES_BYTES, 0);
#[map]
static URGENT: RingBuf = RingBuf::with_byte_size(URGENT_BYTES, 0);
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

/// Whether the ring of refused writes is more than half full.
#[inline(always)]
pub fn writes_are_scarce() -> bool {
    unread(&WRITES) > u64::from(WRITES_BYTES / 2)
}

/// Whether the ring of mount attempts is more than half full.
#[inline(always)]
pub fn mounts_are_scarce() -> bool {
    unread(&URGENT) > u64::from(URGENT_BYTES / 2)
}

/// Bytes that the reader has not taken yet.
#[inline(always)]
fn unread(ring: &RingBuf) -> u64 {
    // SAFETY: a live map.
    unsafe { bpf_ringbuf_query(core::ptr::from_ref(ring).cast_mut().cast(), BPF_RB_AVAIL_DATA.into()) }
}

/// Sends the record of a refused write; whether there was room for it.
#[inline(always)]
pub fn send_write(scratch: &mut Scratch) -> bool {
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
    let sent = output(&WRITES, scratch, length, flags);
    if sent {
        budget::charge_write(scratch.cgroup_row, time_ns, scratch.record.header.length);
    } else {
        count(Counter::WriteRingFull);
    }
    sent
}

/// Sends the record of a mount attempt.
#[inline(always)]
pub fn send_mount_attempt(scratch: &mut Scratch) {
    let length = size_of_val(&scratch.record) + scratch.used as usize;
    let wakes = budget::charge_mount(scratch.cgroup_row, scratch.record.header.time_ns, length as u32);
    if !output(&URGENT, scratch, length, if wakes { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP }) {
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
    // The verifier wants the bound beside the call, and of the very number that is passed.
    let length = memory::opaque(length as u64) as usize;
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
