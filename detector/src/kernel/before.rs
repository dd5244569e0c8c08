//! What an agent before this one has left in the kernel: what its programs counted and recorded while nobody read it.

use std::{collections::HashSet, thread, time::Duration};

use detector_common::{budget::OPERATIONS, operation::Operation, record::RecordKind};

use super::{
    attempt::{Attempt, Standing},
    counters::Tally,
    decode,
    folds::{Counted, FoldId, Tables, until_published},
    kept::{Kept, Told},
    load::KernelError,
    maps::Maps,
    stream::Record,
};
use crate::{export::chain::End, finding::operation::refine};

/// How long a program may be in the middle of a record.
pub(super) const IN_THE_MIDDLE: Duration = Duration::from_millis(200);

/// What was before this agent.
#[derive(Debug, Default)]
pub struct Before {
    /// When the agent before was last at work, nanoseconds since boot; none where there was none.
    pub alive_ns: Option<u64>,
    /// Whether its programs are these.
    pub same: bool,
    /// What it has left, in the order of its time.
    pub records: Vec<Record>,
    /// Refused writes of which nothing but their number is left, by cgroup.
    pub missing: Vec<(u64, Operation, u64)>,
    /// The last line that it has written.
    pub end: Option<End>,
}

impl Before {
    /// What programs have left that are gone, and those that go on.
    pub(super) fn and(mut self, mut same: Self) -> Self {
        self.records.append(&mut same.records);
        self.records.sort_by_key(Record::time_ns);
        Self { records: self.records, missing: self.missing, ..same }
    }

    /// The refused writes that programs have left which are gone: cgroup, operation, how many.
    pub(super) fn counts(&self) -> impl Iterator<Item = (u64, Operation, u64)> {
        let of_records = self.records.iter().filter_map(|record| match record {
            Record::Attempt(attempt) if attempt.kind == RecordKind::WriteDenied => match attempt.standing {
                Standing::Left(count) => Some((attempt.cgroup_id, refine(attempt), count)),
                Standing::New | Standing::Told => None,
            },
            _ => None,
        });
        of_records.chain(self.missing.iter().copied())
    }

    /// What the agent has left whose programs go on. `drain` takes what is in the rings.
    pub(super) fn of_same(kept: &Kept, tables: &Tables, drain: impl FnOnce(&mut Vec<Record>)) -> Self {
        let held = kept.attempts();
        // Before the rings are looked at: the record of one that begins to count after this is in a ring now, or comes later.
        let live = tables.live();
        let mut records = Vec::new();
        drain(&mut records);
        let (mut known, mut drained) = (HashSet::new(), HashSet::new());
        for record in &records {
            if let Record::Attempt(attempt) = record {
                known.extend(slot_of(attempt));
                drained.insert(Which::of(attempt));
            }
        }
        for (mut attempt, is_told) in held {
            if !is_told && drained.contains(&Which::of(&attempt)) {
                // The agent was killed before it left the ring.
                if let Some(origin) = attempt.origin {
                    kept.forget_twin(origin);
                }
                continue;
            }
            let slot = slot_of(&attempt);
            let is_current = |(kind, id)| tables.of(kind).is_some_and(|folds| folds.is_current(id));
            let counts = slot.is_some_and(|slot| is_current(slot) && live.contains(&slot));
            if is_told && !counts {
                if let Some((kind, id)) = slot.filter(|slot| !known.contains(slot)) {
                    kept.forget_slot(kind, id.slot);
                }
                continue;
            }
            known.extend(slot);
            attempt.standing = if is_told { Standing::Told } else { Standing::New };
            records.push(Record::Attempt(attempt));
        }
        // Nobody knows what these repeat: they are counted, and the next is told in full.
        let deadline = until_published();
        for (kind, id) in live.into_iter().filter(|slot| !known.contains(slot)) {
            if let Some(folds) = tables.of(kind) {
                folds.release(id, deadline);
            }
        }
        records.sort_by_key(Record::time_ns);
        Self { alive_ns: None, same: true, records, missing: Vec::new(), end: None }
    }

    /// What programs have left that report no more.
    pub(super) fn of_other(mut maps: Maps, end: Option<&End>) -> Result<Self, KernelError> {
        thread::sleep(IN_THE_MIDDLE);
        let kept = maps.kept()?;
        let written = kept.recover(end);
        let tables = maps.tables()?;
        let tallies = maps.tallies()?;
        let mut attempts: Vec<(Box<Attempt>, bool)> = kept.attempts();
        let held: HashSet<_> = attempts.iter().map(|(attempt, _)| Which::of(attempt)).collect();
        let mut records = Vec::new();
        for ring in &mut maps.rings()? {
            while let Some(item) = ring.next() {
                match decode::record(&item) {
                    // The agent was killed before it left the ring.
                    Ok(Record::Attempt(attempt)) if held.contains(&Which::of(&attempt)) => {}
                    Ok(Record::Attempt(attempt)) => attempts.push((attempt, false)),
                    // The cgroups are looked at anew.
                    Ok(_) => {}
                    Err(error) => tracing::warn!(%error, "a record of the programs before can't be read"),
                }
            }
        }
        let mut told = kept.told();
        for cgroup_id in tallies.read().into_keys() {
            told.entry(cgroup_id).or_default();
        }
        let deadline = until_published();
        for (mut attempt, is_told) in attempts {
            let folds = tables.of(attempt.kind);
            let repeats = match attempt.fold.take().and_then(|id| Some(folds?.release(id, deadline))) {
                Some(Counted::Some(repeats)) => repeats.count,
                _ => 0,
            };
            let count = repeats + u64::from(!is_told);
            attempt.origin = None;
            if count == 0 {
                continue;
            }
            attempt.standing = Standing::Left(count);
            if attempt.kind == RecordKind::WriteDenied {
                let told = &mut told.entry(attempt.cgroup_id).or_default().told;
                if let Some(told) = told.get_mut(refine(&attempt) as usize) {
                    *told += count;
                }
            }
            records.push(Record::Attempt(attempt));
        }
        records.sort_by_key(Record::time_ns);
        let mut missing = Vec::new();
        let mut counted = tallies.read();
        for (cgroup_id, Told { told, owed, .. }) in told {
            let tally = counted.remove(&cgroup_id).unwrap_or_default();
            let Tally { denied, untold, .. } = tally;
            for &operation in Operation::ALL {
                let of = |counts: &[u64; OPERATIONS]| counts.get(operation as usize).copied().unwrap_or_default();
                let count = (of(&denied) + of(&owed)).saturating_sub(of(&untold) + of(&told));
                if count > 0 {
                    missing.push((cgroup_id, operation, count));
                }
            }
        }
        Ok(Self { alive_ns: Some(kept.alive_ns()), same: false, records, missing, end: written })
    }
}

/// The slot that counts the attempt's repeats, if one does, and of which kind.
fn slot_of(attempt: &Attempt) -> Option<(RecordKind, FoldId)> {
    attempt.fold.map(|id| (attempt.kind, id))
}

/// What tells an attempt from every other.
#[derive(Eq, Hash, PartialEq)]
struct Which {
    kind: RecordKind,
    cgroup_id: u64,
    thread: u32,
    time_ns: u64,
    fold: Option<FoldId>,
}

impl Which {
    const fn of(attempt: &Attempt) -> Self {
        let Attempt { kind, cgroup_id, time_ns, fold, .. } = *attempt;
        Self { kind, cgroup_id, thread: attempt.process.tid, time_ns, fold }
    }
}
