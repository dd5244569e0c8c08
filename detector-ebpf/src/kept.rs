//! Whether these programs report, and the memory that the agent keeps beside them. When one build of rosentry takes over from
//! another, the programs of both are attached for a moment: user space lets the one begin and the other end at an instant.

use core::ptr::read_volatile;

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    macros::map,
    maps::{Array, HashMap},
};
use detector_common::{
    fold::SLOTS,
    kept::{ACCOUNTS, Account, ON_THE_WAY, Origin, Record},
};

#[map]
static ARMED: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// The agent's own.
#[map]
static ACCOUNT: Array<Account> = Array::with_max_entries(ACCOUNTS, BPF_F_MMAPABLE);
/// The agent's own.
#[map]
static RECORD: Array<Record> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// The agent's own.
#[map]
static ORIGINS: HashMap<u32, Origin> = HashMap::with_max_entries((SLOTS + ON_THE_WAY) as u32, BPF_F_NO_PREALLOC);

/// Whether user space wants to hear of anything.
#[inline(always)]
pub fn is_armed() -> bool {
    // SAFETY: a live map value; volatile, because user space writes it.
    ARMED.get_ptr(0).is_some_and(|armed| unsafe { read_volatile(armed) } != 0)
}
