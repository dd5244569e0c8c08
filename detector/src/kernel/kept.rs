//! What outlives the agent in pinned maps: what was told, and the records that were not told yet. See [`detector_common::kept`].
//!
//! A line and what it counts can't be written at one instant. So it is noted first what the counts will be; after a crash the record
//! itself says which lines are there, and the notes of those count.

use std::{
    collections::HashMap,
    mem::offset_of,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use aya::maps::{HashMap as BpfMap, Map, MapData, MapError};
use detector_common::{
    budget::OPERATIONS,
    fold::SLOTS,
    kept::{ACCOUNTS, Account, LINES, Line, NO_ACCOUNT, ON_SLOTS, ON_THE_WAY, ORIGIN_MAX, Origin, Record, STAGES},
    operation::Operation,
    record::RecordKind,
};

use super::{attempt::Attempt, decode, folds::FoldId, shared::Shared, stream};
use crate::export::chain::End;

/// A record that is kept.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct OriginId {
    number: u32,
    generation: u32,
}

impl OriginId {
    fn of(kind: RecordKind, fold: FoldId) -> Self {
        Self { number: number_of(kind, fold.slot), generation: fold.generation }
    }

    const fn is_of_slot(self) -> bool {
        (self.number as usize) < ON_SLOTS
    }
}

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
pub struct Kept {
    accounts: Shared<Account>,
    record: Shared<Record>,
    origins: Mutex<BpfMap<MapData, u32, Origin>>,
    /// Numbers of records on their way that are free.
    free: Mutex<Vec<u32>>,
    by_cgroup: Mutex<HashMap<u64, usize>>,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Kept").finish_non_exhaustive()
    }
}

impl Kept {
    pub(super) fn new(accounts: &Map, record: &Map, origins: Map) -> Result<Self, MapError> {
        let accounts: Shared<Account> = Shared::of_map(accounts, ACCOUNTS as usize)?;
        let owner =
            |index| accounts.number(index, offset_of!(Account, owner)).map_or(0, |id| id.load(Ordering::Acquire));
        let by_cgroup = (0..ACCOUNTS as usize).map(|index| (owner(index), index)).filter(|(id, _)| *id != 0).collect();
        let origins = BpfMap::try_from(origins)?;
        let mut free: Vec<u32> = (ON_SLOTS as u32..(ON_SLOTS + ON_THE_WAY) as u32).rev().collect();
        let used: Vec<u32> = origins.keys().filter_map(Result::ok).collect();
        if used.iter().any(|number| *number as usize >= ON_SLOTS) {
            free.retain(|number| !used.contains(number));
        }
        Ok(Self {
            accounts,
            record: Shared::of_map(record, 1)?,
            origins: Mutex::new(origins),
            free: Mutex::new(free),
            by_cgroup: Mutex::new(by_cgroup),
        })
    }

    fn origins(&self) -> MutexGuard<'_, BpfMap<MapData, u32, Origin>> {
        lock(&self.origins)
    }

    /// Keeps the bytes of a record until what is made of it is told, or its repeats are told no more. None where it has no room.
    pub(super) fn hold(&self, kind: RecordKind, fold: Option<FoldId>, bytes: &[u8]) -> Option<OriginId> {
        let mut origin = Origin { generation: 0, length: u32::try_from(bytes.len()).ok()?, bytes: [0; ORIGIN_MAX] };
        origin.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        let id = match fold {
            Some(fold) => OriginId::of(kind, fold),
            None => OriginId { number: lock(&self.free).pop()?, generation: 0 },
        };
        origin.generation = id.generation;
        if self.origins().insert(id.number, origin, 0).is_err() {
            if !id.is_of_slot() {
                lock(&self.free).push(id.number);
            }
            return None;
        }
        Some(id)
    }

    /// Gives up what is kept of an attempt that no slot counts, and that is kept under another number.
    pub(super) fn forget_twin(&self, id: OriginId) {
        if !id.is_of_slot() {
            self.done(id);
        }
    }

    /// Gives up what is kept of an attempt whose repeats are told no more.
    pub fn forget_slot(&self, kind: RecordKind, slot: u32) {
        let _ = self.origins().remove(&number_of(kind, slot));
    }

    /// All records that are kept, as attempts, each with whether it was told.
    pub(super) fn attempts(&self) -> Vec<(Box<Attempt>, bool)> {
        let origins = self.origins();
        let mut attempts = Vec::new();
        for (number, origin) in origins.iter().filter_map(Result::ok) {
            let id = OriginId { number, generation: origin.generation };
            let bytes = usize::try_from(origin.length).ok().and_then(|length| origin.bytes.get(..length));
            if let Some(Ok(stream::Record::Attempt(mut attempt))) = bytes.map(decode::record) {
                attempt.origin = Some(id);
                attempts.push((attempt, self.is_told(id)));
            }
        }
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
        } else if self.origins().remove(&id.number).is_ok() {
            lock(&self.free).push(id.number);
        }
    }

    /// Of each cgroup, what was told.
    pub fn told(&self) -> HashMap<u64, Told> {
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

    /// Notes what becomes no line: it is no event, or it was told as lost.
    pub fn settle(&self, mark: Mark) {
        self.add(mark.cgroup_id, offset_of!(Account, ignored), Some(mark.operation), mark.count);
        if let Some(origin) = mark.origin {
            self.done(origin);
        }
    }

    /// Notes what is counted as unknown.
    pub fn add_unknown(&self, cgroup_id: u64, operation: Operation, count: u64) {
        self.add(cgroup_id, offset_of!(Account, unknown), Some(operation), count);
    }

    /// Notes what programs before these have counted, and what is to be told.
    pub(super) fn owe(&self, cgroup_id: u64, operation: Operation, count: u64) {
        self.add(cgroup_id, offset_of!(Account, owed), Some(operation), count);
    }

    /// Notes what was told as beyond the budget.
    pub fn add_cut(&self, cgroup_id: u64, writes: u64, mounts: u64) {
        self.add(cgroup_id, offset_of!(Account, cut_writes), None, writes);
        self.add(cgroup_id, offset_of!(Account, cut_mounts), None, mounts);
    }

    fn add(&self, cgroup_id: u64, offset: usize, operation: Option<Operation>, count: u64) {
        let operation = operation.map_or(0, |operation| operation as usize);
        if count > 0
            && operation < OPERATIONS
            && let Some(index) = self.account(cgroup_id)
            && let Some(number) = self.accounts.number(index, offset + operation * 8)
        {
            number.fetch_add(count, Ordering::AcqRel);
        }
    }

    /// Forgets a cgroup that has gone, and of which all is told.
    pub fn forget(&self, cgroup_id: u64) {
        let Some(index) = lock(&self.by_cgroup).remove(&cgroup_id) else { return };
        // From its end on: its owner goes first.
        for offset in (0..size_of::<Account>()).step_by(8) {
            if let Some(number) = self.accounts.number(index, offset) {
                number.store(0, Ordering::Release);
            }
        }
    }

    /// The account of a cgroup, made where there is none; none where there is no room.
    fn account(&self, cgroup_id: u64) -> Option<usize> {
        if cgroup_id == 0 {
            return None;
        }
        let mut by_cgroup = lock(&self.by_cgroup);
        if let Some(&index) = by_cgroup.get(&cgroup_id) {
            return Some(index);
        }
        let is_free = |index: &usize| self.owner(*index).is_some_and(|owner| owner.load(Ordering::Acquire) == 0);
        let index = (0..ACCOUNTS as usize).find(is_free)?;
        self.owner(index)?.store(cgroup_id, Ordering::Release);
        by_cgroup.insert(cgroup_id, index);
        Some(index)
    }

    fn owner(&self, index: usize) -> Option<&AtomicU64> {
        self.accounts.number(index, offset_of!(Account, owner))
    }

    /// Notes which lines are about to be written, [`LINES`] at most, and what the counts are then.
    pub fn begin<'a>(&self, marks: impl Iterator<Item = Option<&'a Mark>>) {
        let mut sums: HashMap<(usize, usize), u64> = HashMap::new();
        let mut lines = 0;
        for (number, mark) in marks.take(LINES).enumerate() {
            let mut line = [NO_ACCOUNT, 0, NO_ACCOUNT];
            if let Some(mark) = mark {
                let operation = mark.operation as usize;
                let account =
                    (mark.count > 0 && operation < OPERATIONS).then(|| self.account(mark.cgroup_id)).flatten();
                if let Some(index) = account {
                    let now =
                        || self.accounts.number(index, written_at(operation)).map_or(0, |n| n.load(Ordering::Acquire));
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
                && let Some(cell) = self.accounts.number(index, written_at(operation))
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

    /// Notes that one is.
    pub fn is_alive(&self, now_ns: u64) {
        self.set(offset_of!(Record, alive_ns), now_ns);
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

/// The number of the record of the attempt whose repeats this slot counts.
fn number_of(kind: RecordKind, slot: u32) -> u32 {
    if kind == RecordKind::WriteObserved { slot + SLOTS as u32 } else { slot }
}

const fn written_at(operation: usize) -> usize {
    offset_of!(Account, written) + operation * 8
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
