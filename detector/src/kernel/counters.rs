//! The kernel side's own counters: exact, whatever becomes of the records.

use std::{
    fs,
    os::fd::{AsRawFd as _, OwnedFd},
};

use aya::maps::{MapData, MapError, PerCpuArray};
use detector_common::counter::Counter;

/// A reader of the counters; cheap enough for every scrape.
pub struct Counters {
    map: PerCpuArray<MapData, u64>,
    /// The programs at the exits of kernel functions.
    exits: Vec<OwnedFd>,
}

impl Counters {
    pub(super) const fn new(map: PerCpuArray<MapData, u64>, exits: Vec<OwnedFd>) -> Self {
        Self { map, exits }
    }

    /// How often a program at the exit of a kernel function was not run, because its CPU had it running for another task: each
    /// may have been a refused write. Only on kernels with full preemption. (`recursion_misses`, kernel 5.12.)
    pub fn recursion_misses(&self) -> u64 {
        let misses = |program: &OwnedFd| {
            let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_raw_fd())).ok()?;
            info.lines().find_map(|line| line.strip_prefix("recursion_misses:"))?.trim().parse::<u64>().ok()
        };
        self.exits.iter().filter_map(misses).sum()
    }

    /// The sum over all CPUs.
    ///
    /// # Errors
    /// The kernel's, when it refuses the bpf(2) call.
    pub fn read(&self, counter: Counter) -> Result<u64, MapError> {
        Ok(self.map.get(&(counter as u32), 0)?.iter().sum())
    }
}
