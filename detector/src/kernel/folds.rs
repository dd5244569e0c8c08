//! The kernel side's counts of repeats, mapped into this process: see [`detector_common::fold`].

use std::{
    io,
    mem::offset_of,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use aya::maps::{Map, MapError};
use detector_common::{
    fold::{HASHED_WORDS, SLOTS, Secret, Slot, State},
    record::{FoldRecord, NOT_FOLDED, RecordKind},
};
use rustix::{
    rand::{GetRandomFlags, getrandom},
    time::{ClockId, clock_getres},
};

use super::shared::Shared;

/// How long a program may take at most from its record to the slot that counts.
const UNTIL_PUBLISHED: Duration = Duration::from_millis(200);

/// Which slot counts the repeats of an attempt, and which of the attempts that have had it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct FoldId {
    /// Number of the slot.
    pub slot: u32,
    /// Its generation.
    pub generation: u32,
}

impl FoldId {
    /// From the wire; none where no slot counts.
    pub(super) fn from_wire(FoldRecord { slot, generation }: FoldRecord) -> Option<Self> {
        (slot != NOT_FOLDED && usize::try_from(slot).is_ok_and(|slot| slot < SLOTS))
            .then_some(Self { slot, generation })
    }
}

/// Repeats of an attempt since they were last taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Repeats {
    /// How many.
    pub count: u64,
    /// When the first was, after the attempt was told; as of the kernel's last tick, some milliseconds before. Of one that is counted
    /// at this very instant it may be the time of those before.
    pub first_after: Duration,
    /// When the last was.
    pub last_after: Duration,
}

/// What a slot has to say.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Counted {
    /// The slot was given to another attempt; all repeats of this one had been taken.
    Gone,
    /// There were none.
    None,
    /// Its record is there, and the slot begins to count at any moment. Nothing was taken, and nothing given back.
    Busy,
    /// There were some; they are taken.
    Some(Repeats),
}

/// Until when to wait for slots that are about to count.
pub fn until_published() -> Instant {
    Instant::now() + UNTIL_PUBLISHED
}

/// The table of slots.
#[derive(Debug)]
pub struct Folds {
    slots: Shared<Slot>,
}

impl Folds {
    /// The table in this map.
    pub(super) fn new(map: &Map) -> Result<Self, MapError> {
        Ok(Self { slots: Shared::of_map(map, SLOTS)? })
    }

    /// Takes the repeats that were counted.
    pub fn take(&self, id: FoldId) -> Counted {
        self.exchange(id, State::taken)
    }

    /// Takes the repeats that were counted, and gives the slot back: the next repeat is told in full. Until the deadline it waits for a
    /// slot that is about to count: see [`until_published`], to be called once for all that are given back together.
    pub fn release(&self, id: FoldId, deadline: Instant) -> Counted {
        self.is_published_by(id, deadline);
        self.exchange(id, State::freed)
    }

    /// Waits until the slot counts, or is another attempt's; whether it came to that.
    pub fn is_published_by(&self, id: FoldId, deadline: Instant) -> bool {
        // Its record comes an instant before the slot counts; to take it away from the program that is about to say so would
        // leave it to nobody. No program takes as long as the deadline, but one that was lost would hold up the agent for good.
        loop {
            let state = self.state(id.slot).map_or(State(0), |state| State(state.load(Ordering::Acquire)));
            if state.generation() != id.generation || !state.is_busy() {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::yield_now();
        }
    }

    /// Whether the slot is still the attempt's.
    pub fn is_current(&self, id: FoldId) -> bool {
        self.state(id.slot).is_some_and(|state| State(state.load(Ordering::Acquire)).generation() == id.generation)
    }

    /// How many repeats were counted and not taken yet.
    pub fn waiting(&self, id: FoldId) -> u64 {
        let state = self.state(id.slot).map_or(State(0), |state| State(state.load(Ordering::Acquire)));
        if state.generation() == id.generation { state.count() } else { 0 }
    }

    /// The slots that count.
    fn live(&self) -> Vec<FoldId> {
        let slots = 0..u32::try_from(SLOTS).unwrap_or(u32::MAX);
        let live = |slot| {
            let state = State(self.state(slot)?.load(Ordering::Acquire));
            state.is_live().then_some(FoldId { slot, generation: state.generation() })
        };
        slots.filter_map(live).collect()
    }

    /// Gives all slots back; how many repeats nobody has taken.
    pub fn release_all(&self, deadline: Instant) -> u64 {
        let mut left = 0;
        for slot in 0..u32::try_from(SLOTS).unwrap_or(u32::MAX) {
            let generation = self.state(slot).map_or(0, |state| State(state.load(Ordering::Acquire)).generation());
            if let Counted::Some(repeats) = self.release(FoldId { slot, generation }, deadline) {
                left += repeats.count;
            }
        }
        left
    }

    fn exchange(&self, id: FoldId, to: impl Fn(State) -> State) -> Counted {
        let Some(state) = self.state(id.slot) else { return Counted::Gone };
        let mut before = State(state.load(Ordering::Acquire));
        loop {
            if before.generation() != id.generation || !before.is_live() {
                let is_busy = before.is_busy() && before.generation() == id.generation;
                return if is_busy { Counted::Busy } else { Counted::Gone };
            }
            match state.compare_exchange(before.0, to(before).0, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => break,
                Err(now) => before = State(now),
            }
        }
        if before.count() == 0 {
            return Counted::None;
        }
        let [first_after, last_after] = self.times(id.slot);
        Counted::Some(Repeats { count: before.count(), first_after, last_after })
    }

    /// When the first and the last were, after the attempt was told.
    fn times(&self, slot: u32) -> [Duration; 2] {
        let index = usize::try_from(slot).unwrap_or(usize::MAX);
        let ticks = |ticks: Option<&AtomicU64>| ticks.map_or(0, |ticks| ticks.load(Ordering::Relaxed));
        let told = ticks(self.slots.number(index, offset_of!(Slot, told_ticks)));
        let first = ticks(self.slots.number(index, offset_of!(Slot, first_ticks)));
        let last = ticks(self.slots.number(index, offset_of!(Slot, last_ticks)));
        let after = |ticks: u64| Duration::from_nanos(ticks.saturating_sub(told).saturating_mul(tick_ns()));
        [after(first), after(last)]
    }

    fn state(&self, slot: u32) -> Option<&AtomicU64> {
        self.slots.number(usize::try_from(slot).ok()?, offset_of!(Slot, state))
    }
}

/// The tables of slots, by what they count.
#[derive(Clone, Debug)]
pub(super) struct Tables {
    /// Refused writes.
    pub(super) refused: Arc<Folds>,
    /// Writes that succeeded; none where learning mode is off.
    pub(super) observed: Option<Arc<Folds>>,
}

impl Tables {
    pub(super) fn new(refused: Folds, observed: Option<Folds>) -> Self {
        Self { refused: Arc::new(refused), observed: observed.map(Arc::new) }
    }

    /// That which counts the repeats of attempts of this kind.
    pub(super) fn of(&self, kind: RecordKind) -> Option<&Folds> {
        match kind {
            RecordKind::WriteDenied => Some(&self.refused),
            RecordKind::WriteObserved => self.observed.as_deref(),
            RecordKind::MountAttempt | RecordKind::CgroupCreated | RecordKind::CgroupRemoved => None,
        }
    }

    /// The slots that count, and of which kind.
    pub(super) fn live(&self) -> Vec<(RecordKind, FoldId)> {
        let live = |kind| self.of(kind).map_or_else(Vec::new, Folds::live).into_iter().map(move |id| (kind, id));
        [RecordKind::WriteDenied, RecordKind::WriteObserved].into_iter().flat_map(live).collect()
    }
}

/// Length of a tick of the kernel: it is what the coarse clocks resolve.
fn tick_ns() -> u64 {
    clock_getres(ClockId::MonotonicCoarse).tv_nsec.unsigned_abs()
}

/// A secret for the hash that nobody can guess.
///
/// # Errors
/// Where the kernel has no random numbers.
pub(super) fn secret() -> io::Result<Box<Secret>> {
    let mut secret = Box::new(Secret::UNSET);
    let Secret(numbers) = &mut *secret;
    // SAFETY: as many bytes as there are, and any are a value.
    let mut bytes = unsafe { std::slice::from_raw_parts_mut(numbers.as_mut_ptr().cast::<u8>(), HASHED_WORDS * 32) };
    while !bytes.is_empty() {
        let filled = getrandom(&mut *bytes, GetRandomFlags::empty())?;
        bytes = bytes.split_at_mut(filled).1;
    }
    Ok(secret)
}

/// A kernel side for the tests.
#[cfg(any(test, fuzzing))]
#[expect(clippy::expect_used, reason = "a test has what it needs, or fails")]
pub(crate) mod testing {
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

    use super::*;

    /// A table that no kernel side writes to.
    pub fn folds() -> Folds {
        let memory = memfd_create("fold", MemfdFlags::CLOEXEC).expect("there is memory");
        ftruncate(&memory, (SLOTS * size_of::<Slot>()) as u64).expect("a new file can be enlarged");
        Folds { slots: Shared::new(memory, SLOTS).expect("there is memory") }
    }

    fn of(folds: &Folds, slot: u32) -> &AtomicU64 {
        folds.state(slot).expect("a slot of the table")
    }

    /// Does as the kernel side when it has told an attempt.
    pub fn tell(folds: &Folds, slot: u32) -> FoldId {
        let state = of(folds, slot);
        let claimed = State(state.load(Ordering::Relaxed)).claimed();
        state.store(claimed.published().0, Ordering::Relaxed);
        FoldId { slot, generation: claimed.generation() }
    }

    /// Does as the kernel side when it gives a slot to another attempt: where nothing waits in it. Whether it did.
    pub fn claim(folds: &Folds, slot: u32) -> bool {
        let state = of(folds, slot);
        let before = State(state.load(Ordering::Relaxed));
        let is_free = !before.is_busy() && before.count() == 0;
        if is_free {
            state.store(before.claimed().0, Ordering::Relaxed);
        }
        is_free
    }

    /// Does as the kernel side when that attempt is told.
    pub fn publish(folds: &Folds, slot: u32) -> Option<FoldId> {
        let state = of(folds, slot);
        let claimed = Some(State(state.load(Ordering::Relaxed))).filter(|state| state.is_busy())?;
        state.store(claimed.published().0, Ordering::Relaxed);
        Some(FoldId { slot, generation: claimed.generation() })
    }

    /// Does as the kernel side when it has counted one.
    pub fn repeat(folds: &Folds, slot: u32) {
        of(folds, slot).fetch_add(1, Ordering::Relaxed);
    }

    /// Does as the kernel side that is to count so many: how many it has.
    pub fn count(folds: &Folds, slot: u32, times: u64) -> u64 {
        if !State(of(folds, slot).load(Ordering::Relaxed)).is_live() {
            return 0;
        }
        (0..times).for_each(|_| repeat(folds, slot));
        times
    }

    /// Writes what no kernel side does: anything but that the slot is being given away, for which one waits, and any times.
    pub fn forge(folds: &Folds, slot: u32, word: u64) {
        let state = State(word);
        let state = if state.is_busy() { state.published() } else { state };
        of(folds, slot).store(state.0, Ordering::Relaxed);
        for offset in [offset_of!(Slot, told_ticks), offset_of!(Slot, first_ticks), offset_of!(Slot, last_ticks)] {
            let ticks = folds.slots.number(slot as usize, offset).expect("a slot of the table");
            ticks.store(word.rotate_left(offset as u32), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        testing::{folds, repeat, tell},
        *,
    };

    #[test]
    fn what_is_taken_is_taken_once() {
        let folds = folds();
        let id = tell(&folds, 7);
        assert_eq!(folds.take(id), Counted::None);
        repeat(&folds, 7);
        repeat(&folds, 7);
        assert_eq!(folds.waiting(id), 2);
        let Counted::Some(repeats) = folds.take(id) else { panic!("two were counted") };
        assert_eq!(repeats.count, 2);
        assert_eq!((folds.take(id), folds.waiting(id)), (Counted::None, 0));
    }

    #[test]
    fn a_slot_that_another_attempt_has_says_nothing_of_the_first() {
        let folds = folds();
        let first = tell(&folds, 7);
        let second = tell(&folds, 7);
        repeat(&folds, 7);
        assert_eq!(
            (folds.take(first), folds.release(first, until_published()), folds.waiting(first)),
            (Counted::Gone, Counted::Gone, 0)
        );
        assert_eq!(folds.waiting(second), 1);
    }

    #[test]
    fn a_slot_that_is_given_back_counts_no_longer_and_is_of_the_next_generation() {
        let folds = folds();
        let first = tell(&folds, 7);
        repeat(&folds, 7);
        assert!(matches!(folds.release(first, until_published()), Counted::Some(Repeats { count: 1, .. })));
        assert_eq!(folds.take(first), Counted::Gone);
        assert_ne!(tell(&folds, 7), first);
    }

    #[test]
    fn no_count_is_lost_between_who_counts_and_who_takes() {
        const TIMES: u64 = 200_000;
        let folds = folds();
        let id = tell(&folds, 7);
        let taken = std::thread::scope(|scope| {
            let counting = scope.spawn(|| (0..TIMES).for_each(|_| repeat(&folds, 7)));
            let mut taken = 0;
            let mut done = false;
            loop {
                if let Counted::Some(repeats) = folds.take(id) {
                    taken += repeats.count;
                }
                if done {
                    break taken;
                }
                done = counting.is_finished();
            }
        });
        assert_eq!(taken, TIMES);
    }

    #[test]
    fn a_slot_that_is_never_published_holds_up_nobody() {
        let folds = folds();
        let id = tell(&folds, 7);
        assert!(testing::claim(&folds, 7));
        let next = FoldId { generation: id.generation + 1, ..id };
        let now = Instant::now();
        assert_eq!(
            (folds.take(next), folds.release(next, now), folds.release_all(now)),
            (Counted::Busy, Counted::Busy, 0)
        );
        assert_eq!(testing::publish(&folds, 7), Some(next), "nor is it taken away from who is about to publish it");
        assert_eq!(folds.release(next, now), Counted::None);
    }

    #[test]
    fn what_nobody_has_taken_is_said_at_the_end() {
        let folds = folds();
        for slot in [0, 3, 8191] {
            tell(&folds, slot);
            repeat(&folds, slot);
        }
        let now = Instant::now();
        assert_eq!((folds.release_all(now), folds.release_all(now)), (3, 0));
    }

    #[test]
    fn secrets_differ() {
        let (one, other) = (secret().unwrap(), secret().unwrap());
        assert_ne!(one.0[0], other.0[0]);
        assert_ne!(one.0[HASHED_WORDS - 1], [0; 4]);
    }
}
