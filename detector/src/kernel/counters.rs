//! The kernel side's own counters: exact, whatever becomes of the records.

use aya::maps::{MapData, MapError, PerCpuArray};
use detector_common::counter::Counter;

/// A reader of the counters; cheap enough for every scrape.
pub struct Counters(PerCpuArray<MapData, u64>);

impl Counters {
    pub(super) const fn new(map: PerCpuArray<MapData, u64>) -> Self {
        Self(map)
    }

    /// The sum over all CPUs.
    ///
    /// # Errors
    /// The kernel's, when it refuses the bpf(2) call.
    pub fn read(&self, counter: Counter) -> Result<u64, MapError> {
        Ok(self.0.get(&(counter as u32), 0)?.iter().sum())
    }
}
