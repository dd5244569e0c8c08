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
    /// The programs on kernel functions without which a write is not told.
    reporting: Vec<OwnedFd>,
}

impl Counters {
    pub(super) const fn new(map: PerCpuArray<MapData, u64>, reporting: Vec<OwnedFd>) -> Self {
        Self { map, reporting }
    }

    /// How often a program on a kernel function was not run, because its CPU had it running for another task: each
    /// may have been a refused write. Only on kernels with full preemption. (`recursion_misses`, kernel 5.12.)
    pub fn recursion_misses(&self) -> u64 {
        let misses = |program: &OwnedFd| {
            misses_in(&fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_raw_fd())).ok()?)
        };
        self.reporting.iter().filter_map(misses).sum()
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
