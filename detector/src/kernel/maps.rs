//! The maps of the object: of one that was just loaded, or of one that an agent before has pinned.

use std::collections::BTreeMap;

use aya::{
    Ebpf,
    maps::{Map, MapData, MapError, PerCpuArray, RingBuf},
};
use detector_common::budget::ROWS;

use super::{counters::Tallies, folds::Folds, kept::Kept, load::KernelError, pins::Build, shared::Shared};
use crate::error_chain::chain;

/// Those that outlive the agent, by their names in the object.
const NAMES: [&str; 11] = [
    "WRITES",
    "URGENT",
    "CGROUPS",
    "COUNTERS",
    "DENIED",
    "CGROUP_ROWS",
    "FOLD",
    "ARMED",
    "ACCOUNT",
    "RECORD",
    "ORIGINS",
];

/// See the module.
pub(super) struct Maps(BTreeMap<&'static str, Map>);

impl Maps {
    /// Takes them out of an object. They must be kept until its programs are loaded.
    pub(super) fn of_object(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        let take = |name| Ok((name, ebpf.take_map(name).ok_or_else(|| missing(name))?));
        NAMES.into_iter().map(take).collect::<Result<_, _>>().map(Self)
    }

    /// Opens those of a build.
    pub(super) fn of_build(build: &Build) -> Result<Self, MapError> {
        NAMES.into_iter().map(|name| Ok((name, build.map(name)?))).collect::<Result<_, _>>().map(Self)
    }

    /// Pins all of them.
    pub(super) fn pin(&self, build: &Build) -> std::io::Result<()> {
        self.0.iter().try_for_each(|(name, map)| build.pin_map(name, map))
    }

    fn get(&self, name: &'static str) -> Result<&Map, KernelError> {
        self.0.get(name).ok_or_else(|| missing(name))
    }

    fn take(&mut self, name: &'static str) -> Result<Map, KernelError> {
        self.0.remove(name).ok_or_else(|| missing(name))
    }

    /// The rings: of writes, of mounts, of cgroups.
    pub(super) fn rings(&mut self) -> Result<[RingBuf<MapData>; 3], KernelError> {
        let mut ring = |name| RingBuf::try_from(self.take(name)?).map_err(unfit);
        Ok([ring("WRITES")?, ring("URGENT")?, ring("CGROUPS")?])
    }

    pub(super) fn counters(&mut self) -> Result<PerCpuArray<MapData, u64>, KernelError> {
        PerCpuArray::try_from(self.take("COUNTERS")?).map_err(unfit)
    }

    pub(super) fn tallies(&mut self) -> Result<Tallies, KernelError> {
        let denied = PerCpuArray::try_from(self.take("DENIED")?).map_err(unfit)?;
        let rows = Shared::of_map(self.get("CGROUP_ROWS")?, ROWS as usize).map_err(unfit)?;
        Ok(Tallies::new(rows, denied))
    }

    pub(super) fn folds(&self) -> Result<Folds, KernelError> {
        Folds::new(self.get("FOLD")?).map_err(unfit)
    }

    /// Whether the programs report: a number.
    pub(super) fn armed(&self) -> Result<Shared<u64>, KernelError> {
        Shared::of_map(self.get("ARMED")?, 1).map_err(unfit)
    }

    pub(super) fn kept(&mut self) -> Result<Kept, KernelError> {
        let origins = self.take("ORIGINS")?;
        Kept::new(self.get("ACCOUNT")?, self.get("RECORD")?, origins).map_err(unfit)
    }
}

fn missing(name: &str) -> KernelError {
    KernelError::Mismatch(format!("map {name} is missing"))
}

fn unfit(error: MapError) -> KernelError {
    KernelError::Mismatch(chain(&error))
}
