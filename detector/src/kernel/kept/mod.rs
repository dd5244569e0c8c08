//! What outlives the agent in pinned maps: what was told, and the records that were not told yet. See [`detector_common::kept`].
//!
//! A line and what it counts can't be written at one instant. So it is noted first what the counts will be; after a crash the record
//! itself says which lines are there, and the notes of those count.

mod accounts;
mod origins;

use std::{
    collections::HashMap,
    mem::offset_of,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use aya::maps::{Map, MapError};
use detector_common::{
    budget::OPERATIONS,
    kept::{Account, LINES, Line, NO_ACCOUNT, Record, STAGES},
    operation::Operation,
    record::RecordKind,
};

use self::{accounts::Accounts, origins::Origins};
use super::{attempt::Attempt, folds::FoldId, shared::Shared};
use crate::{clock, export::chain::End};

pub use self::{accounts::Told, origins::OriginId};

/// What a line counts, once it is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Mark {
    /// The cgroup.
    pub cgroup_id: u64,
    /// The operation.
    pub operation: Operation,
    /// How many refused writes; 0 of a mount attempt.
    pub count: u64,
    /// The record that it tells of.
    pub origin: Option<OriginId>,
}

/// See the module.
pub struct Kept {
    accounts: Accounts,
    record: Shared<Record>,
    origins: Origins,
    /// Lines to be written until the record tells when nobody was there.
    until_gap: AtomicU64,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Kept").finish_non_exhaustive()
    }
}

impl Kept {
    pub(super) fn new(accounts: &Map, record: &Map, origins: Map) -> Result<Self, MapError> {
        Ok(Self {
            accounts: Accounts::new(accounts)?,
            record: Shared::of_map(record, 1)?,
            origins: Origins::new(origins)?,
            until_gap: AtomicU64::new(0),
        })
    }

    /// Keeps the bytes of a record until what is made of it is told, or its repeats are told no more. None where it has no room.
    pub(super) fn hold(&self, kind: RecordKind, fold: Option<FoldId>, bytes: &[u8]) -> Option<OriginId> {
        self.origins.hold(fold.map(|fold| OriginId::of(kind, fold)), bytes)
    }

    /// Gives up what is kept of an attempt that no slot counts, and that is kept under another number.
    pub(super) fn forget_twin(&self, id: OriginId) {
        if !id.is_of_slot() {
            self.done(id);
        }
    }

    /// Gives up what is kept of an attempt whose repeats are told no more.
    pub fn forget_slot(&self, kind: RecordKind, slot: u32) {
        self.origins.forget_slot(kind, slot);
    }

    /// All records that are kept, as attempts, each with whether it was told.
    pub(super) fn attempts(&self) -> Vec<(Box<Attempt>, bool)> {
        let all = self.origins.all().into_iter();
        let mut attempts: Vec<_> = all
            .map(|(id, mut attempt)| {
                attempt.origin = Some(id);
                (attempt, self.is_told(id))
            })
            .collect();
        attempts.sort_by_key(|(attempt, _)| attempt.time_ns);
        attempts
    }

    fn is_told(&self, id: OriginId) -> bool {
        let told = usize::try_from(id.number).ok().filter(|_| id.is_of_slot()).and_then(|slot| self.told_at(slot));
        told.is_some_and(|told| told.load(Ordering::Acquire) == u64::from(id.generation) + 1)
    }

    fn told_at(&self, slot: usize) -> Option<&AtomicU64> {
        self.record.number(0, offset_of!(Record, told) + slot * 8)
    }

    /// Notes that a record is told, or need not be.
    fn done(&self, id: OriginId) {
        if id.is_of_slot() {
            if let Some(told) = usize::try_from(id.number).ok().and_then(|slot| self.told_at(slot)) {
                let _ = told.fetch_update(Ordering::AcqRel, Ordering::Acquire, |told| told_with(told, id.generation));
            }
        } else {
            self.origins.forget_on_the_way(id);
        }
    }

    /// Of each cgroup, what was told.
    pub fn told(&self) -> HashMap<u64, Told> {
        self.accounts.told()
    }

    /// Notes what becomes no line: it is no event, or it was told as lost.
    pub fn settle(&self, mark: Mark) {
        self.accounts.add(mark.cgroup_id, offset_of!(Account, ignored), Some(mark.operation), mark.count);
        if let Some(origin) = mark.origin {
            self.done(origin);
        }
    }

    /// Notes what is counted as unknown.
    pub fn add_unknown(&self, cgroup_id: u64, operation: Operation, count: u64) {
        self.accounts.add(cgroup_id, offset_of!(Account, unknown), Some(operation), count);
    }

    /// Notes what programs before these have counted, and what is to be told.
    pub(super) fn owe(&self, cgroup_id: u64, operation: Operation, count: u64) {
        self.accounts.add(cgroup_id, offset_of!(Account, owed), Some(operation), count);
    }

    /// Notes what was told as beyond the budget.
    pub fn add_cut(&self, cgroup_id: u64, writes: u64, mounts: u64) {
        self.accounts.add(cgroup_id, offset_of!(Account, cut_writes), None, writes);
        self.accounts.add(cgroup_id, offset_of!(Account, cut_mounts), None, mounts);
    }

    /// Forgets a cgroup that has gone, and of which all is told.
    pub fn forget(&self, cgroup_id: u64) {
        self.accounts.forget(cgroup_id);
    }

    /// Notes which lines are about to be written, [`LINES`] at most, and what the counts are then.
    pub fn begin<'a>(&self, marks: impl Iterator<Item = Option<&'a Mark>>) {
        let mut sums: HashMap<(usize, usize), u64> = HashMap::new();
        let mut lines = 0;
        for (number, mark) in marks.take(LINES).enumerate() {
            let mut line = [NO_ACCOUNT, 0, NO_ACCOUNT];
            if let Some(mark) = mark {
                let operation = mark.operation as usize;
                let account = (mark.count > 0 && operation < OPERATIONS)
                    .then(|| self.accounts.of_cgroup(mark.cgroup_id))
                    .flatten();
                if let Some(index) = account {
                    let now = || self.accounts.written(index, operation).map_or(0, |n| n.load(Ordering::Acquire));
                    let sum = sums.entry((index, operation)).or_insert_with(now);
                    *sum += mark.count;
                    (line[0], line[1]) = ((index as u64) << 8 | operation as u64, *sum);
                }
                if let Some(OriginId { number, generation }) = mark.origin {
                    line[2] = u64::from(generation) << 32 | u64::from(number);
                }
            }
            for (word, value) in line.into_iter().enumerate() {
                self.set(line_at(number) + word * 8, value);
            }
            lines = number + 1;
        }
        self.set(offset_of!(Record, lines), lines as u64);
        self.set(offset_of!(Record, writing), 1);
    }

    /// Notes that so many of them are written, and where the record ends.
    pub fn commit(&self, count: usize, end: Option<&End>) {
        for number in 0..count.min(LINES) {
            let [account, written, origin] = [0, 1, 2].map(|word| self.get(line_at(number) + word * 8));
            let (index, operation) = ((account >> 8) as usize, (account & 0xff) as usize);
            if account != NO_ACCOUNT
                && operation < OPERATIONS
                && let Some(cell) = self.accounts.written(index, operation)
            {
                cell.store(written, Ordering::Release);
            }
            if origin != NO_ACCOUNT {
                self.done(OriginId { number: origin as u32, generation: (origin >> 32) as u32 });
            }
        }
        if let Some(end) = end {
            self.set_end(end);
        }
        self.set(offset_of!(Record, writing), 0);
        let until_gap = self.until_gap.load(Ordering::Acquire);
        if until_gap > 0 {
            self.until_gap.store(until_gap.saturating_sub(count as u64), Ordering::Release);
            self.is_alive(clock::boot_ns());
        }
    }

    fn set_end(&self, End { seq, chain }: &End) {
        self.set(offset_of!(Record, seq), *seq);
        for (word, digits) in chain.as_bytes().chunks(16).take(4).enumerate() {
            let number = std::str::from_utf8(digits).ok().and_then(|digits| u64::from_str_radix(digits, 16).ok());
            self.set(offset_of!(Record, chain) + word * 8, number.unwrap_or_default());
        }
    }

    /// After a crash: finds out which of the lines that were being written are in the record, which ends there; none: nobody knows, and
    /// they count as not written. Where a stream goes on that has no record of its own.
    pub fn recover(&self, end: Option<&End>) -> Option<End> {
        let known = self.end();
        if self.get(offset_of!(Record, writing)) == 0 {
            if let Some(end) = end {
                // Of another file, say: from there on lines are counted next.
                self.set_end(end);
            }
            return known;
        }
        let written = match end {
            Some(end) => end.seq.saturating_sub(known.map_or(0, |known| known.seq)),
            None => 0,
        };
        let lines = self.get(offset_of!(Record, lines));
        let is_ours = written <= lines;
        self.commit(if is_ours { usize::try_from(written).unwrap_or(0) } else { 0 }, end);
        end.cloned()
    }

    /// The last line that was written; none where there is none.
    fn end(&self) -> Option<End> {
        let seq = self.get(offset_of!(Record, seq));
        let chain = (0..4).map(|word| format!("{:016x}", self.get(offset_of!(Record, chain) + word * 8))).collect();
        (seq > 0).then_some(End { seq, chain })
    }

    /// When an agent was last at work, nanoseconds since boot; 0: never.
    pub fn alive_ns(&self) -> u64 {
        self.get(offset_of!(Record, alive_ns))
    }

    /// Notes that one is; not before the record tells since when nobody was.
    pub fn is_alive(&self, now_ns: u64) {
        if self.until_gap.load(Ordering::Acquire) == 0 {
            self.set(offset_of!(Record, alive_ns), now_ns);
        }
    }

    /// Says which of the next lines it is that tells when nobody was there, from 1 on. Should this agent be killed before that is
    /// written, the next one tells it.
    pub fn gap_is_told_with_line(&self, line: u64) {
        self.until_gap.store(line, Ordering::Release);
    }

    /// How many losses of a stage were told.
    pub fn lost(&self, stage: usize) -> u64 {
        if stage < STAGES { self.get(offset_of!(Record, lost) + stage * 8) } else { 0 }
    }

    /// Notes it.
    pub fn set_lost(&self, stage: usize, count: u64) {
        if stage < STAGES {
            self.set(offset_of!(Record, lost) + stage * 8, count);
        }
    }

    fn get(&self, offset: usize) -> u64 {
        self.record.number(0, offset).map_or(0, |number| number.load(Ordering::Acquire))
    }

    fn set(&self, offset: usize, value: u64) {
        if let Some(number) = self.record.number(0, offset) {
            number.store(value, Ordering::Release);
        }
    }
}

/// What is noted of a slot of which a generation is told; none where a later one is noted, whose first attempt would be told again.
fn told_with(told: u64, generation: u32) -> Option<u64> {
    let is_later = |noted: u64| (noted as u32).wrapping_sub(generation) as i32 > 0;
    let noted = told.checked_sub(1);
    (!noted.is_some_and(is_later)).then(|| u64::from(generation) + 1)
}

const fn line_at(number: usize) -> usize {
    offset_of!(Record, line) + number * size_of::<Line>()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::told_with;

    #[test]
    fn a_line_of_an_attempt_that_a_later_one_has_followed_in_its_slot_does_not_unsay_that_one() {
        assert_eq!(told_with(0, 7), Some(8));
        assert_eq!(told_with(8, 7), Some(8));
        assert_eq!(told_with(8, 9), Some(10));
        assert_eq!(told_with(10, 7), None);
        assert_eq!(told_with(u64::from(u32::MAX) + 1, 0), Some(1), "it begins anew");
        assert_eq!(told_with(1, u32::MAX), None);
    }
}
