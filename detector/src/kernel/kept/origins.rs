//! Records that are kept until what is made of them is told, in a pinned map.

use std::sync::{Mutex, MutexGuard};

use aya::maps::{HashMap as BpfMap, Map, MapData, MapError};
use detector_common::{
    fold::SLOTS,
    kept::{ON_SLOTS, ON_THE_WAY, ORIGIN_MAX, Origin},
    record::RecordKind,
};

use super::{
    super::{attempt::Attempt, decode, folds::FoldId, stream},
    lock,
};

/// A record that is kept.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct OriginId {
    pub(super) number: u32,
    pub(super) generation: u32,
}

impl OriginId {
    pub(super) fn of(kind: RecordKind, fold: FoldId) -> Self {
        Self { number: number_of(kind, fold.slot), generation: fold.generation }
    }

    pub(super) const fn is_of_slot(self) -> bool {
        (self.number as usize) < ON_SLOTS
    }
}

/// See the module.
pub(super) struct Origins {
    records: Mutex<BpfMap<MapData, u32, Origin>>,
    /// Numbers of records on their way.
    free: Free,
}

impl Origins {
    pub(super) fn new(map: Map) -> Result<Self, MapError> {
        let records = BpfMap::try_from(map)?;
        let free = Free::but(records.keys().filter_map(Result::ok).collect());
        Ok(Self { records: Mutex::new(records), free })
    }

    fn records(&self) -> MutexGuard<'_, BpfMap<MapData, u32, Origin>> {
        lock(&self.records)
    }

    /// Keeps the bytes of a record, under a number of its own where it is of no slot. None where it has no room.
    pub(super) fn hold(&self, of_slot: Option<OriginId>, bytes: &[u8]) -> Option<OriginId> {
        let mut origin = Origin { generation: 0, length: u32::try_from(bytes.len()).ok()?, bytes: [0; ORIGIN_MAX] };
        origin.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        origin.generation = of_slot.map_or(0, |id| id.generation);
        let keep = |number| self.records().insert(number, origin, 0).is_ok();
        match of_slot {
            Some(id) => keep(id.number).then_some(id),
            None => self.free.take_if(keep).map(|number| OriginId { number, generation: 0 }),
        }
    }

    pub(super) fn forget_slot(&self, kind: RecordKind, slot: u32) {
        let _ = self.records().remove(&number_of(kind, slot));
    }

    /// Gives up one that no slot counts.
    pub(super) fn forget_on_the_way(&self, id: OriginId) {
        if self.records().remove(&id.number).is_ok() {
            self.free.give(id.number);
        }
    }

    /// All of them, as attempts.
    pub(super) fn all(&self) -> Vec<(OriginId, Box<Attempt>)> {
        let attempt = |origin: &Origin| {
            let bytes = origin.bytes.get(..usize::try_from(origin.length).ok()?)?;
            match decode::record(bytes) {
                Ok(stream::Record::Attempt(attempt)) => Some(attempt),
                _ => None,
            }
        };
        let records = self.records();
        let all = records.iter().filter_map(Result::ok);
        all.filter_map(|(number, origin)| Some((OriginId { number, generation: origin.generation }, attempt(&origin)?)))
            .collect()
    }
}

/// Numbers of records that no slot counts and that are on their way, as far as they are free.
struct Free(Mutex<Vec<u32>>);

impl Free {
    /// All of them but those that are `used`.
    fn but(used: Vec<u32>) -> Self {
        let mut free: Vec<u32> = (ON_SLOTS as u32..(ON_SLOTS + ON_THE_WAY) as u32).rev().collect();
        if used.iter().any(|number| *number as usize >= ON_SLOTS) {
            free.retain(|number| !used.contains(number));
        }
        Self(Mutex::new(free))
    }

    /// Takes one under which something can be kept.
    fn take_if(&self, keep: impl FnOnce(u32) -> bool) -> Option<u32> {
        let number = lock(&self.0).pop()?;
        let is_kept = keep(number);
        if !is_kept {
            self.give(number);
        }
        is_kept.then_some(number)
    }

    fn give(&self, number: u32) {
        lock(&self.0).push(number);
    }
}

/// The number of the record of the attempt whose repeats this slot counts.
fn number_of(kind: RecordKind, slot: u32) -> u32 {
    if kind == RecordKind::WriteObserved { slot + SLOTS as u32 } else { slot }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_under_which_nothing_could_be_kept_is_free_again() {
        let free = Free::but(vec![3, ON_SLOTS as u32]);
        for _ in 0..2 * ON_THE_WAY {
            assert_eq!(free.take_if(|_| false), None);
        }
        let taken: std::collections::HashSet<_> = std::iter::from_fn(|| free.take_if(|_| true)).collect();
        assert_eq!(taken.len(), ON_THE_WAY - 1, "all but the one that is used");
    }
}
