//! The kernel side's own counters: exact, whatever becomes of the records.

use std::{
    collections::HashMap,
    fs,
    mem::offset_of,
    os::fd::{AsRawFd as _, OwnedFd},
    sync::{Mutex, MutexGuard, PoisonError, atomic::Ordering},
};

use aya::maps::{MapData, MapError, PerCpuArray, PerCpuValues};
use detector_common::{
    budget::{Denied, OPERATIONS, OTHERS, ROWS, Row},
    counter::Counter,
};

use super::shared::Shared;

/// In place of an id: that of no cgroup.
pub const SHARED: u64 = 0;

/// A reader of the counters; cheap enough for every scrape.
pub struct Counters {
    map: PerCpuArray<MapData, u64>,
    tallies: Mutex<Tallies>,
    /// The programs on kernel functions without which a write is not told.
    reporting: Vec<OwnedFd>,
}

impl Counters {
    pub(super) const fn new(map: PerCpuArray<MapData, u64>, tallies: Tallies, reporting: Vec<OwnedFd>) -> Self {
        Self { map, tallies: Mutex::new(tallies), reporting }
    }

    /// How often a program on a kernel function was not run, because its CPU had it running for another task: each
    /// may have been a refused write. Only on kernels with full preemption. (`recursion_misses`, kernel 5.12.)
    pub fn recursion_misses(&self) -> u64 {
        let misses = |program: &OwnedFd| {
            misses_in(&fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_raw_fd())).ok()?)
        };
        self.reporting.iter().filter_map(misses).sum()
    }

    /// The counts of each cgroup.
    pub fn tallies(&self) -> MutexGuard<'_, Tallies> {
        self.tallies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sum over all CPUs.
    ///
    /// # Errors
    /// The kernel's, when it refuses the bpf(2) call.
    pub fn read(&self, counter: Counter) -> Result<u64, MapError> {
        Ok(self.map.get(&(counter as u32), 0)?.iter().sum())
    }
}

/// Reads a program's misses from what `/proc/<pid>/fdinfo` tells of it (`bpf_prog_show_fdinfo`, `kernel/bpf/syscall.c`, 6.18).
fn misses_in(info: &str) -> Option<u64> {
    info.lines().find_map(|line| line.strip_prefix("recursion_misses:"))?.trim().parse().ok()
}

/// What the kernel side has counted of one cgroup.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    /// Refused writes, by [`Operation`](detector_common::operation::Operation): each, whatever became of its record.
    pub denied: [u64; OPERATIONS],
    /// Those among them whose record did not get out of the kernel: no event counts them.
    pub untold: [u64; OPERATIONS],
    /// Those among `untold` that had no room in the cgroup's budget.
    pub cut_writes: u64,
    /// Mount attempts that had no room in it.
    pub cut_mounts: u64,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        let Self { denied, untold, cut_writes, cut_mounts } = other;
        for (sum, count) in self.denied.iter_mut().zip(denied).chain(self.untold.iter_mut().zip(untold)) {
            *sum += count;
        }
        self.cut_writes += cut_writes;
        self.cut_mounts += cut_mounts;
    }
}

/// The counts of each cgroup.
pub struct Tallies {
    rows: Shared<Row>,
    denied: PerCpuArray<MapData, Denied>,
    /// Refused writes of cgroups whose rows were given back.
    of_gone: u64,
}

impl Tallies {
    pub(super) const fn new(rows: Shared<Row>, denied: PerCpuArray<MapData, Denied>) -> Self {
        Self { rows, denied, of_gone: 0 }
    }

    /// The counts by cgroup id; by [`SHARED`] those of cgroups that share them.
    pub fn read(&self) -> HashMap<u64, Tally> {
        let mut tallies: HashMap<u64, Tally> = HashMap::new();
        for row in 0..ROWS {
            let owner = self.owner(row);
            if row == OTHERS || owner != SHARED {
                // Of two rows of one cgroup, the sum.
                tallies.entry(owner).or_default().add(&self.tally(row));
            }
        }
        tallies
    }

    /// All refused writes, of cgroups that have gone, too.
    pub fn write_denied(&self) -> u64 {
        self.of_gone + self.read().values().flat_map(|tally| tally.denied).sum::<u64>()
    }

    /// Gives back the row of a cgroup that has gone.
    pub fn remove(&mut self, cgroup_id: u64) {
        for row in (0..ROWS).filter(|&row| row != OTHERS) {
            if self.owner(row) == cgroup_id {
                self.clear(row);
            }
        }
    }

    fn clear(&mut self, row: u32) {
        let cpus = aya::util::nr_cpus().ok();
        let none = cpus.and_then(|cpus| PerCpuValues::try_from(vec![[0; OPERATIONS]; cpus]).ok());
        let denied = self.tally(row).denied.iter().sum::<u64>();
        // Where it can't be cleared it stays as it is, and nobody else's.
        let Some(true) = none.map(|none| self.denied.set(row, none, 0).is_ok()) else { return };
        self.of_gone += denied;
        for operation in 0..OPERATIONS {
            self.set(row, untold_at(operation));
        }
        self.set(row, offset_of!(Row, cut_writes));
        self.set(row, offset_of!(Row, cut_mounts));
        self.set(row, offset_of!(Row, writes_until_ns));
        self.set(row, offset_of!(Row, mounts_until_ns));
        self.set(row, offset_of!(Row, woke_ns));
        // Last: from now on it is anyone's.
        self.set(row, offset_of!(Row, owner));
    }

    fn tally(&self, row: u32) -> Tally {
        let mut tally = Tally::default();
        for of_cpu in self.denied.get(&row, 0).iter().flat_map(|values| values.iter()) {
            tally.add(&Tally { denied: *of_cpu, ..Tally::default() });
        }
        for (operation, count) in tally.untold.iter_mut().enumerate() {
            *count = self.get(row, untold_at(operation));
        }
        tally.cut_writes = self.get(row, offset_of!(Row, cut_writes));
        tally.cut_mounts = self.get(row, offset_of!(Row, cut_mounts));
        tally
    }

    fn owner(&self, row: u32) -> u64 {
        self.get(row, offset_of!(Row, owner))
    }

    fn get(&self, row: u32, offset: usize) -> u64 {
        let index = usize::try_from(row).unwrap_or(usize::MAX);
        self.rows.number(index, offset).map_or(0, |number| number.load(Ordering::Acquire))
    }

    fn set(&self, row: u32, offset: usize) {
        let index = usize::try_from(row).unwrap_or(usize::MAX);
        if let Some(number) = self.rows.number(index, offset) {
            number.store(0, Ordering::Release);
        }
    }
}

/// Where the count of an operation stands in a row.
const fn untold_at(operation: usize) -> usize {
    offset_of!(Row, untold) + operation * size_of::<u64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misses_are_read_from_the_programs_entry() {
        let info =
            "pos:\t0\nprog_type:\t26\nprog_jited:\t1\nrun_cnt:\t12\nrecursion_misses:\t7\nverified_insns:\t161\n";
        assert_eq!(misses_in(info), Some(7));
        assert_eq!(misses_in("pos:\t0\nprog_type:\t26\n"), None, "kernels before 5.12");
    }
}
