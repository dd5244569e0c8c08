//! The maps of the object: of one that was just loaded, or of one that an agent before has pinned.

use std::collections::BTreeMap;

use aya::{
    Ebpf,
    maps::{Array, Map, MapData, MapError, PerCpuArray, RingBuf},
};
use detector_common::{
    budget::ROWS,
    fold::SETS,
    takeover::{self, ASK, COMING_FIRST, Door, TURN},
};

use super::{
    counters::Tallies,
    folds::{Folds, Tables},
    kept::Kept,
    load::KernelError,
    pins::Build,
    shared::Shared,
};
use crate::error_chain::chain;

/// Those that outlive the agent, by their names in the object.
const NAMES: [&str; 12] = [
    "WRITES",
    "URGENT",
    "CGROUPS",
    "COUNTERS",
    "DENIED",
    "CGROUP_ROWS",
    "FOLD",
    OBSERVED,
    COVERED,
    "ACCOUNT",
    "RECORD",
    ORIGINS,
];

/// The one that counts repeats of writes that succeed.
pub(super) const OBSERVED: &str = "OBSERVED";

/// The one of records that are kept.
pub(super) const ORIGINS: &str = "ORIGINS";

/// What the programs of two builds agree on while one takes over from the other. Those of an older version have none, or one of
/// another name, in which they agreed otherwise.
pub(super) const AGREEMENT: &str = "TURNS";

/// What the programs leave to others, or that they report nothing: a section of the object (`detector-ebpf/src/hooks/covers.rs`).
const COVERED: &str = ".data.covered";

/// See the module.
pub(super) struct Maps(BTreeMap<&'static str, Map>);

impl Maps {
    /// Takes them out of an object. They must be kept until its programs are loaded.
    pub(super) fn of_object(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        let take = |name| Ok((name, ebpf.take_map(name).ok_or_else(|| missing(name))?));
        NAMES.into_iter().chain([AGREEMENT]).map(take).collect::<Result<_, _>>().map(Self)
    }

    /// Opens those of a build.
    pub(super) fn of_build(build: &Build) -> Result<Self, MapError> {
        let agreement = build.has_map(AGREEMENT).then_some(AGREEMENT);
        NAMES.into_iter().chain(agreement).map(|name| Ok((name, build.map(name)?))).collect::<Result<_, _>>().map(Self)
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

    /// The slots that count repeats.
    pub(super) fn tables(&self) -> Result<Tables, KernelError> {
        let observed = self.get(OBSERVED)?;
        let Map::Array(data) = observed else { return Err(missing(OBSERVED)) };
        // One set where learning mode is off.
        let is_on = data.info().map_err(unfit)?.max_entries() as usize >= SETS;
        let observed = is_on.then(|| Folds::new(observed)).transpose().map_err(unfit)?;
        let folds = Folds::new(self.get("FOLD")?).map_err(unfit)?;
        Ok(Tables::new(folds, observed))
    }

    /// Has the programs report what is not `covered` by those on kernel functions: bit sets of operations, of syscalls and of io_uring.
    pub(super) fn arm(&mut self, [syscalls, io_uring]: [u64; 2]) -> Result<(), KernelError> {
        self.set_covered([syscalls, io_uring, takeover::ON])
    }

    /// Has the programs report nothing.
    pub(super) fn disarm(&mut self) -> Result<(), KernelError> {
        self.set_covered([u64::MAX, 0, takeover::OFF])
    }

    /// Has the programs agree with those of another build on who reports a call, as [`takeover::LEAVING`] or [`takeover::COMING`].
    pub(super) fn ask(&mut self, [syscalls, io_uring]: [u64; 2], party: u64) -> Result<(), KernelError> {
        self.set_covered([syscalls | ASK, io_uring, party])
    }

    /// What is covered, and what the programs do; the first is not known where that is [`takeover::OFF`].
    pub(super) fn covered(&self) -> Result<([u64; 2], u64), KernelError> {
        let covered = Array::try_from(self.get(COVERED)?).and_then(|map: Array<_, [u64; 3]>| map.get(&0, 0));
        let [syscalls, io_uring, party] = covered.map_err(unfit)?;
        Ok(([syscalls & !ASK, io_uring], party))
    }

    /// Whether the programs agree with those of another build on what they report.
    pub(super) fn is_agreeing(&self) -> Result<bool, KernelError> {
        let (_, party) = self.covered()?;
        Ok(party == takeover::LEAVING || party == takeover::COMING)
    }

    fn set_covered(&mut self, covered: [u64; 3]) -> Result<(), KernelError> {
        let map = self.0.get_mut(COVERED).ok_or_else(|| missing(COVERED))?;
        Array::try_from(map).and_then(|mut map: Array<_, [u64; 3]>| map.set(0, covered, 0)).map_err(unfit)
    }

    /// The map in which the programs agree with those of another build: its id, the same for both where they have one. None where
    /// they have none.
    pub(super) fn agreement(&self) -> Option<u32> {
        match self.0.get(AGREEMENT)? {
            Map::Array(map) => Some(map.info().ok()?.id()),
            _ => None,
        }
    }

    /// Whose turn it is ([`takeover::TURN`]).
    pub(super) fn turn(&self) -> Result<u64, KernelError> {
        Array::try_from(self.get(AGREEMENT)?).and_then(|map: Array<_, u64>| map.get(&TURN, 0)).map_err(unfit)
    }

    /// Says whose turn it is.
    pub(super) fn set_turn(&mut self, turn: u64) -> Result<(), KernelError> {
        self.agree(TURN, turn)
    }

    /// Says of what operations those that are coming ask first, of syscalls and of io_uring.
    pub(super) fn set_coming_first(&mut self, [syscalls, io_uring]: [u64; 2]) -> Result<(), KernelError> {
        self.agree(COMING_FIRST + Door::Syscall as u32, syscalls)?;
        self.agree(COMING_FIRST + Door::IoUring as u32, io_uring)
    }

    fn agree(&mut self, number: u32, value: u64) -> Result<(), KernelError> {
        let map = self.0.get_mut(AGREEMENT).ok_or_else(|| missing(AGREEMENT))?;
        Array::try_from(map).and_then(|mut map: Array<_, u64>| map.set(number, value, 0)).map_err(unfit)
    }

    /// A number that is the higher, the later the programs were loaded: the kernel numbers maps in turn (`bpf_map_alloc_id`).
    pub(super) fn number(&self) -> Result<u32, KernelError> {
        match self.get(COVERED)? {
            Map::Array(map) => Ok(map.info().map_err(unfit)?.id()),
            _ => Err(missing(COVERED)),
        }
    }

    pub(super) fn kept(&mut self) -> Result<Kept, KernelError> {
        let origins = self.take(ORIGINS)?;
        Kept::new(self.get("ACCOUNT")?, self.get("RECORD")?, origins).map_err(unfit)
    }
}

fn missing(name: &str) -> KernelError {
    KernelError::Mismatch(format!("map {name} is missing"))
}

fn unfit(error: MapError) -> KernelError {
    KernelError::Mismatch(chain(&error))
}
