//! What was told of each cgroup, in a pinned array.

use std::{
    collections::HashMap,
    mem::offset_of,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use aya::maps::{Map, MapError};
use detector_common::{
    budget::OPERATIONS,
    kept::{ACCOUNTS, Account},
    operation::Operation,
};

use super::{super::shared::Shared, lock};

/// What was told of a cgroup.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Told {
    /// Refused writes that the record tells of, or that are no event, by operation.
    pub told: [u64; OPERATIONS],
    /// Those that are counted as unknown.
    pub unknown: [u64; OPERATIONS],
    /// Those that programs before these have counted, and that are to be told.
    pub owed: [u64; OPERATIONS],
    /// Refused writes that were told as beyond the budget.
    pub cut_writes: u64,
    /// Mount attempts that were.
    pub cut_mounts: u64,
}

/// See the module.
pub(super) struct Accounts {
    accounts: Shared<Account>,
    by_cgroup: Mutex<HashMap<u64, usize>>,
}

impl Accounts {
    pub(super) fn new(map: &Map) -> Result<Self, MapError> {
        Ok(Self::of(Shared::of_map(map, ACCOUNTS as usize)?))
    }

    fn of(accounts: Shared<Account>) -> Self {
        let owner =
            |index| accounts.number(index, offset_of!(Account, owner)).map_or(0, |id| id.load(Ordering::Acquire));
        let by_cgroup = (0..ACCOUNTS as usize).map(|index| (owner(index), index)).filter(|(id, _)| *id != 0).collect();
        Self { accounts, by_cgroup: Mutex::new(by_cgroup) }
    }

    /// Of each cgroup.
    pub(super) fn told(&self) -> HashMap<u64, Told> {
        let by_cgroup = lock(&self.by_cgroup);
        by_cgroup.iter().map(|(&cgroup_id, &index)| (cgroup_id, self.told_of(index))).collect()
    }

    fn told_of(&self, index: usize) -> Told {
        let get = |offset| self.accounts.number(index, offset).map_or(0, |number| number.load(Ordering::Acquire));
        let mut told = Told {
            cut_writes: get(offset_of!(Account, cut_writes)),
            cut_mounts: get(offset_of!(Account, cut_mounts)),
            ..Told::default()
        };
        for operation in 0..OPERATIONS {
            told.told[operation] = get(written_at(operation)) + get(offset_of!(Account, ignored) + operation * 8);
            told.unknown[operation] = get(offset_of!(Account, unknown) + operation * 8);
            told.owed[operation] = get(offset_of!(Account, owed) + operation * 8);
        }
        told
    }

    /// How many refused writes the record tells of, as the account of this number has it.
    pub(super) fn written(&self, index: usize, operation: usize) -> Option<&AtomicU64> {
        self.accounts.number(index, written_at(operation))
    }

    /// Adds to what stands at `offset` of the cgroup's account, behind it by operation.
    pub(super) fn add(&self, cgroup_id: u64, offset: usize, operation: Option<Operation>, count: u64) {
        let operation = operation.map_or(0, |operation| operation as usize);
        if count > 0
            && operation < OPERATIONS
            && let Some(index) = self.of_cgroup(cgroup_id)
            && let Some(number) = self.accounts.number(index, offset + operation * 8)
        {
            number.fetch_add(count, Ordering::AcqRel);
        }
    }

    /// Forgets a cgroup.
    pub(super) fn forget(&self, cgroup_id: u64) {
        let mut by_cgroup = lock(&self.by_cgroup);
        if let Some(owner) = by_cgroup.remove(&cgroup_id).and_then(|index| self.owner(index)) {
            owner.store(0, Ordering::Release);
        }
    }

    /// The number of the account of a cgroup, which is made where there is none; none where there is no room.
    pub(super) fn of_cgroup(&self, cgroup_id: u64) -> Option<usize> {
        if cgroup_id == 0 {
            return None;
        }
        let mut by_cgroup = lock(&self.by_cgroup);
        if let Some(&index) = by_cgroup.get(&cgroup_id) {
            return Some(index);
        }
        let is_free = |index: &usize| self.owner(*index).is_some_and(|owner| owner.load(Ordering::Acquire) == 0);
        let index = (0..ACCOUNTS as usize).find(is_free)?;
        // Not when its former owner was forgotten: a line of that one may have been written since. (One that a stalled file gets even
        // later is counted for the next owner.)
        for offset in (0..size_of::<Account>()).step_by(8) {
            self.accounts.number(index, offset)?.store(0, Ordering::Release);
        }
        self.owner(index)?.store(cgroup_id, Ordering::Release);
        by_cgroup.insert(cgroup_id, index);
        Some(index)
    }

    fn owner(&self, index: usize) -> Option<&AtomicU64> {
        self.accounts.number(index, offset_of!(Account, owner))
    }
}

const fn written_at(operation: usize) -> usize {
    offset_of!(Account, written) + operation * 8
}

#[cfg(test)]
mod tests {
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

    use super::*;

    const WRITTEN: usize = offset_of!(Account, written);

    fn accounts() -> Accounts {
        let memory = memfd_create("accounts", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&memory, u64::from(ACCOUNTS) * size_of::<Account>() as u64).unwrap();
        Accounts::of(Shared::new(memory, ACCOUNTS as usize).unwrap())
    }

    #[test]
    fn an_account_has_nothing_of_whoever_had_it_before() {
        let accounts = accounts();
        accounts.add(7, WRITTEN, Some(Operation::Open), 3);
        let index = accounts.of_cgroup(7).unwrap();
        accounts.forget(7);
        assert!(accounts.told().is_empty());
        // A line that was on its way.
        accounts.written(index, Operation::Open as usize).unwrap().store(4, Ordering::Release);
        assert_eq!(accounts.of_cgroup(8), Some(index));
        assert_eq!(accounts.told(), HashMap::from([(8, Told::default())]));
    }
}
