//! What each cgroup may say, and the exact counts of what it did.
//!
//! A container that floods costs itself detail, never its neighbours: while a ring has room anyone may use it, up to a rate
//! that the agent can follow; when it is half full, each cgroup has a little of the rest. What is cut is counted by cgroup.

use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    macros::map,
    maps::{Array, PerCpuArray},
};
use detector_common::{
    budget::{Allowance, Denied, MOUNTS, OPERATIONS, OTHERS, PROBES, ROWS, Row, WRITES},
    operation::Operation,
    ring::WAKE_INTERVAL_NS,
};

use crate::{
    atomic::{self, Claim},
    memory, ring,
};

#[map]
static CGROUP_ROWS: Array<Row> = Array::with_max_entries(ROWS, BPF_F_MMAPABLE);
/// By row.
#[map]
static DENIED: PerCpuArray<Denied> = PerCpuArray::with_max_entries(ROWS, 0);

/// Counts a refused write of the cgroup that has this row.
#[inline(always)]
pub fn count_denied(row: u32, operation: u8) {
    let operation = index(operation);
    if let Some(denied) = DENIED.get_ptr_mut(row)
        && operation < OPERATIONS
    {
        // SAFETY: a live map value. Atomic, because on kernels with full preemption another task of this CPU may come between.
        unsafe { atomic::increment(&raw mut (*denied)[operation]) };
    }
}

/// The same of an open, whose number is known when this is compiled.
#[inline(always)]
pub fn count_denied_open(row: u32) {
    if let Some(denied) = DENIED.get_ptr_mut(row) {
        // SAFETY: as above.
        unsafe { atomic::increment(&raw mut (*denied)[Operation::Open as usize]) };
    }
}

/// The same number, compared and used as it is: the verifier does not connect what the compiler makes of one that is a byte.
#[inline(always)]
fn index(operation: u8) -> usize {
    memory::opaque(operation.into()) as usize
}

/// Counts one of those whose record does not get out.
#[inline(always)]
pub fn count_untold(row: u32, operation: u8) {
    let operation = index(operation);
    if let Some(row) = CGROUP_ROWS.get_ptr_mut(row)
        && operation < OPERATIONS
    {
        // SAFETY: a live map value.
        unsafe { atomic::increment(&raw mut (*row).untold[operation]) };
    }
}

/// Counts one of those whose record is not made, for want of budget.
#[inline(always)]
pub fn count_cut(row: u32, operation: u8) {
    count_untold(row, operation);
    if let Some(row) = CGROUP_ROWS.get_ptr_mut(row) {
        // SAFETY: a live map value.
        unsafe { atomic::increment(&raw mut (*row).cut_writes) };
    }
}

/// Whether a record of a refused write may be made at `now_ns`.
#[inline(always)]
pub fn admits_write(row: u32, now_ns: u64) -> bool {
    let Some(row) = CGROUP_ROWS.get_ptr_mut(row) else { return true };
    // SAFETY: a live map value; volatile, because others write it.
    let until = unsafe { read_volatile(&raw const (*row).writes_until_ns) };
    has_room(until, now_ns, WRITES, ring::writes_are_scarce)
}

/// Whether a record of a mount attempt may be made at `now_ns`; where not, it is counted.
#[inline(always)]
pub fn admits_mount(row: u32, now_ns: u64) -> bool {
    let Some(row) = CGROUP_ROWS.get_ptr_mut(row) else { return true };
    // SAFETY: a live map value; volatile, because others write it.
    let until = unsafe { read_volatile(&raw const (*row).mounts_until_ns) };
    let admits = has_room(until, now_ns, MOUNTS, ring::mounts_are_scarce);
    if !admits {
        // SAFETY: as above.
        unsafe { atomic::increment(&raw mut (*row).cut_mounts) };
    }
    admits
}

/// Charges a record of a refused write of `length` bytes.
#[inline(always)]
pub fn charge_write(row: u32, now_ns: u64, length: u32) {
    let Some(row) = CGROUP_ROWS.get_ptr_mut(row) else { return };
    // SAFETY: a live map value; volatile, because others write it. What two write at once may count once.
    unsafe {
        let until = read_volatile(&raw const (*row).writes_until_ns);
        write_volatile(&raw mut (*row).writes_until_ns, after(until, now_ns, WRITES, length));
    }
}

/// Charges a record of a mount attempt of `length` bytes; whether it may wake the reader.
///
/// A reader that was woken comes back by itself as long as it finds something, and not sooner than the next time that this
/// cgroup may wake it: no record waits for the next one.
#[inline(always)]
pub fn charge_mount(row: u32, now_ns: u64, length: u32) -> bool {
    let Some(row) = CGROUP_ROWS.get_ptr_mut(row) else { return true };
    // SAFETY: as above.
    unsafe {
        let until = read_volatile(&raw const (*row).mounts_until_ns);
        write_volatile(&raw mut (*row).mounts_until_ns, after(until, now_ns, MOUNTS, length));
        let wakes = now_ns.wrapping_sub(read_volatile(&raw const (*row).woke_ns)) >= WAKE_INTERVAL_NS;
        if wakes {
            write_volatile(&raw mut (*row).woke_ns, now_ns);
        }
        wakes
    }
}

#[inline(always)]
fn has_room(until_ns: u64, now_ns: u64, allowance: Allowance, is_scarce: impl Fn() -> bool) -> bool {
    let ahead = until_ns.saturating_sub(now_ns);
    ahead <= allowance.ahead_when_scarce_ns || ahead <= allowance.ahead_ns && !is_scarce()
}

#[inline(always)]
fn after(until_ns: u64, now_ns: u64, allowance: Allowance, length: u32) -> u64 {
    let from = if until_ns > now_ns { until_ns } else { now_ns };
    from + allowance.per_kilobyte_ns * (1 + u64::from(length >> 10))
}

/// The row of a cgroup, claimed for it where it had none.
///
/// User space takes a cgroup that has two, because its first was claimed twice at once, for one.
#[inline(always)]
pub fn row_of(cgroup: u64) -> u32 {
    let first = row_at(cgroup, 0);
    if owner(first).is_some_and(|owner| owner.get() == cgroup) { first } else { find_row(cgroup) }
}

/// A global function (kernel 5.12): the verifier goes through its loops once, not once for each way to it.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn find_row(cgroup: u64) -> u32 {
    let mut probe = 0;
    while probe < PROBES {
        let row = row_at(cgroup, probe);
        if owner(row).is_some_and(|owner| owner.get() == cgroup) {
            return row;
        }
        probe += 1;
    }
    probe = 0;
    while probe < PROBES {
        let row = row_at(cgroup, probe);
        if owner(row).is_some_and(|owner| owner.replace(0, cgroup) || owner.get() == cgroup) {
            return row;
        }
        probe += 1;
    }
    OTHERS
}

#[inline(always)]
fn row_at(cgroup: u64, probe: u32) -> u32 {
    let first = (cgroup.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u32;
    // Never the row that is shared.
    (first.wrapping_add(probe) & (ROWS - 1)) | u32::from(first.wrapping_add(probe) & (ROWS - 1) == OTHERS)
}

#[inline(always)]
fn owner(row: u32) -> Option<&'static Claim> {
    let row = CGROUP_ROWS.get_ptr_mut(row)?;
    // SAFETY: a live, aligned map value, which both sides change by exchanging it.
    Some(unsafe { Claim::at(&raw mut (*row).owner) })
}
