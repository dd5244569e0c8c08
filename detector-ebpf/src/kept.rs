//! The memory that the agent keeps beside the programs, and that no program touches: see [`detector_common::kept`].

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    macros::map,
    maps::{Array, HashMap},
};
use detector_common::kept::{ACCOUNTS, Account, ON_SLOTS, ON_THE_WAY, Origin, Record};

#[map]
static ACCOUNT: Array<Account> = Array::with_max_entries(ACCOUNTS, BPF_F_MMAPABLE);
#[map]
static RECORD: Array<Record> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static ORIGINS: HashMap<u32, Origin> = HashMap::with_max_entries((ON_SLOTS + ON_THE_WAY) as u32, BPF_F_NO_PREALLOC);
