//! Repeats: of what was told once, the kernel side counts the rest, and here they become an event each few seconds.
//!
//! The first attempt of its kind comes as a record, with the slot that counts its repeats. Its event is kept, and told again with
//! `count`, `first_time` and `last_time` when the slot has counted some. What is kept is bounded: where there is no more room, one
//! is given up, its slot given back, and its next repeat comes as a record again. No repeat is told twice or not at all: each is
//! taken out of the slot's count as it is told.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use detector_common::{operation::Operation, record::RecordKind};

use super::weight;
use crate::{
    clock,
    finding::Event,
    kernel::{
        folds::{self, Counted, FoldId, Folds},
        kept,
    },
};

/// How often repeats are told.
pub const INTERVAL: Duration = Duration::from_secs(2);

/// Rounds without a repeat after which one is given up.
const IDLE_ROUNDS: u32 = 15;

/// By how much two looks at the clocks may differ, nanoseconds.
const JITTER_NS: i128 = 1_000_000;

/// How many that are being repeated are passed over to find one that is not, where one has to be given up.
const PASSED_OVER: usize = 64;

/// What is kept takes at most.
const MOST_BYTES: usize = 8 << 20;

/// What became of the first attempt, and becomes of its repeats.
#[derive(Debug)]
pub enum Told {
    /// This event.
    Event(Box<Event>),
    /// This event, though nobody knew whose it is: it is asked again soon.
    Unattributed(Box<Event>),
    /// None, for this reason.
    Ignored(&'static str),
    /// None, because nobody knew whose it is, for this reason: it is asked again soon.
    Unknown(&'static str),
}

/// An attempt that was told, and whose repeats are counted.
#[derive(Debug)]
pub struct First {
    /// By whom.
    pub id: FoldId,
    /// The cgroup that the kernel side counts it for.
    pub cgroup_id: u64,
    /// The operation that the kernel side counts it for.
    pub operation: Operation,
    /// When it was, nanoseconds since boot.
    pub time_ns: u64,
    /// What became of it.
    pub told: Told,
}

/// Repeats that have been taken.
#[derive(Debug)]
pub struct Repeated<'a> {
    /// The cgroup that the kernel side counts them for.
    pub cgroup_id: u64,
    /// The operation that it counts them for.
    pub operation: Operation,
    /// What became of the first.
    pub told: &'a Told,
    /// How many.
    pub count: u64,
    first_ns: u64,
    last_ns: u64,
}

impl Repeated<'_> {
    /// The event that tells of them; none where the first was none.
    pub fn event(&self) -> Option<Event> {
        let (Told::Event(first) | Told::Unattributed(first)) = self.told else { return None };
        let clock = clock::now();
        // Two looks at the clocks differ by microseconds; that must not turn the order round.
        let after_first = |unix_ns: i128| {
            let told = first.last_time_unix_ns;
            if (told - JITTER_NS..told).contains(&unix_ns) { told } else { unix_ns }
        };
        Some(Event {
            count: self.count,
            first_time_unix_ns: after_first(clock.unix_ns(self.first_ns)),
            last_time_unix_ns: after_first(clock.unix_ns(self.last_ns)),
            ..(**first).clone()
        })
    }
}

#[derive(Debug)]
struct Kept {
    id: FoldId,
    cgroup_id: u64,
    operation: Operation,
    told: Told,
    /// When the attempt was told, nanoseconds since boot.
    told_ns: u64,
    /// The last time that was told.
    until_ns: u64,
    idle_rounds: u32,
    /// Whether it was to be given up when its slot was about to count.
    is_over: bool,
    bytes: usize,
}

impl Kept {
    /// Whether there were repeats lately.
    fn is_repeated(&self, folds: &Folds) -> bool {
        (self.until_ns > self.told_ns && self.idle_rounds == 0) || folds.waiting(self.id) > 0
    }
}

#[derive(Debug, Default)]
struct Table {
    by_slot: HashMap<u32, Kept>,
    /// In the order in which they may be given up; those that are kept no longer among them.
    queue: VecDeque<FoldId>,
    bytes: usize,
}

impl Table {
    fn insert(&mut self, kept: Kept) {
        if self.queue.len() > 2 * self.by_slot.len() + PASSED_OVER {
            let by_slot = &self.by_slot;
            self.queue.retain(|id| by_slot.get(&id.slot).is_some_and(|kept| kept.id == *id));
        }
        self.bytes += kept.bytes;
        self.queue.push_back(kept.id);
        self.by_slot.insert(kept.id.slot, kept);
    }

    /// The slot of the one to give up: the oldest that is not being repeated, since to tell the next repeat of one that is
    /// costs its cgroup's budget. None where there is none left.
    fn next_to_give_up(&mut self, folds: &Folds) -> Option<u32> {
        let mut passed_over = 0;
        while let Some(id) = self.queue.pop_front() {
            match self.by_slot.get(&id.slot).filter(|kept| kept.id == id) {
                Some(kept) if passed_over < PASSED_OVER && kept.is_repeated(folds) => {
                    passed_over += 1;
                    self.queue.push_back(id);
                }
                Some(_) => return Some(id.slot),
                None => {}
            }
        }
        None
    }

    fn remove(&mut self, slot: u32) -> Option<Kept> {
        let kept = self.by_slot.remove(&slot)?;
        self.bytes -= kept.bytes;
        Some(kept)
    }
}

/// What was told once, by the slots that count its repeats. Clones share one.
#[derive(Clone, Debug)]
pub struct Repeats {
    kind: RecordKind,
    folds: Arc<Folds>,
    kept: Option<Arc<kept::Kept>>,
    table: Arc<Mutex<Table>>,
}

impl Repeats {
    /// Of attempts of this kind, which these slots count; nothing told yet.
    pub fn new(kind: RecordKind, folds: Arc<Folds>, kept: Option<Arc<kept::Kept>>) -> Self {
        Self { kind, folds, kept, table: Arc::default() }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is anything to look at each [`INTERVAL`].
    pub fn is_empty(&self) -> bool {
        self.table().by_slot.is_empty()
    }

    /// Keeps what became of an attempt. Where there is no room, others are given up; `tell` gets their repeats.
    pub fn keep(&self, first: First, mut tell: impl FnMut(&Repeated<'_>)) {
        let First { id, cgroup_id, operation, time_ns, told } = first;
        let bytes = match &told {
            Told::Event(event) | Told::Unattributed(event) => weight::of_event(event),
            Told::Ignored(_) | Told::Unknown(_) => 0,
        } + size_of::<Kept>();
        let table = &mut *self.table();
        // Of what had the slot before, all repeats were taken, or the kernel side had not given it away. So it is with this one, if
        // it was long in coming.
        if !self.folds.is_current(id) {
            return;
        }
        table.remove(id.slot);
        // One that can't be given up now comes back to the end of the queue.
        let mut tries = table.by_slot.len();
        while table.bytes + bytes > MOST_BYTES
            && tries > 0
            && let Some(slot) = table.next_to_give_up(&self.folds)
        {
            tries -= 1;
            self.release(table, slot, Instant::now(), &mut tell);
        }
        let (told_ns, until_ns) = (time_ns, time_ns);
        table.insert(Kept { id, cgroup_id, operation, told, told_ns, until_ns, idle_rounds: 0, is_over: false, bytes });
    }

    /// Tells of all repeats since the last time, and gives up what has not been repeated for long.
    pub fn sweep(&self, mut tell: impl FnMut(&Repeated<'_>)) {
        let table = &mut *self.table();
        let mut over = Vec::new();
        for (&slot, kept) in &mut table.by_slot {
            match self.folds.take(kept.id) {
                Counted::Gone => over.push(slot),
                Counted::None | Counted::Busy => kept.idle_rounds += 1,
                Counted::Some(repeats) => tell_of(kept, repeats, &mut tell),
            }
            let is_over = kept.is_over || kept.idle_rounds >= IDLE_ROUNDS;
            if is_over || matches!(kept.told, Told::Unattributed(_) | Told::Unknown(_)) {
                over.push(slot);
            }
        }
        // Without waiting: what is about to count has its turn in the next round.
        let now = Instant::now();
        for slot in over {
            self.release(table, slot, now, &mut tell);
        }
    }

    /// Tells of the repeats in a cgroup that has gone, and gives them up.
    pub fn forget(&self, cgroup_id: u64, mut tell: impl FnMut(&Repeated<'_>)) {
        let table = &mut *self.table();
        let slots: Vec<u32> =
            table.by_slot.iter().filter(|(_, kept)| kept.cgroup_id == cgroup_id).map(|(&slot, _)| slot).collect();
        let deadline = folds::until_published();
        for slot in slots {
            self.release(table, slot, deadline, &mut tell);
        }
    }

    /// Tells of all that is left; how many repeats there were of what never came here.
    pub fn finish(&self, mut tell: impl FnMut(&Repeated<'_>)) -> u64 {
        let table = &mut *self.table();
        let slots: Vec<u32> = table.by_slot.keys().copied().collect();
        let deadline = folds::until_published();
        for slot in slots {
            self.release(table, slot, deadline, &mut tell);
        }
        self.folds.release_all(deadline)
    }

    /// Calls `read` with the events that repeats have been counted of and not told yet, and how many. None is told meanwhile.
    pub fn with_untold<T>(&self, read: impl FnOnce(&[(&Event, u64)]) -> T) -> T {
        let table = self.table();
        let untold: Vec<_> = table
            .by_slot
            .values()
            .filter_map(|kept| match &kept.told {
                Told::Event(event) | Told::Unattributed(event) => Some((&**event, self.folds.waiting(kept.id))),
                Told::Ignored(_) | Told::Unknown(_) => None,
            })
            .filter(|&(_, count)| count > 0)
            .collect();
        read(&untold)
    }

    /// Gives one up, or, where its slot is still about to count at the deadline, in the next round.
    fn release(&self, table: &mut Table, slot: u32, deadline: Instant, tell: &mut impl FnMut(&Repeated<'_>)) {
        let Some(mut kept) = table.remove(slot) else { return };
        if !self.folds.is_published_by(kept.id, deadline) {
            // Or it would count for nobody.
            kept.is_over = true;
            table.insert(kept);
            return;
        }
        if let Some(records) = &self.kept
            && self.folds.is_current(kept.id)
        {
            records.forget_slot(self.kind, slot);
        }
        if let Counted::Some(repeats) = self.folds.release(kept.id, deadline) {
            tell_of(&mut kept, repeats, tell);
        }
    }
}

fn tell_of(kept: &mut Kept, repeats: folds::Repeats, tell: &mut impl FnMut(&Repeated<'_>)) {
    let folds::Repeats { count, first_after, last_after } = repeats;
    let at = |after: Duration| kept.told_ns.saturating_add(u64::try_from(after.as_nanos()).unwrap_or(u64::MAX));
    kept.idle_rounds = 0;
    // The kernel side writes the times just after it has counted, and ticks are coarse.
    let first_ns = at(first_after).max(kept.until_ns);
    let last_ns = at(last_after).max(first_ns);
    kept.until_ns = last_ns;
    tell(&Repeated {
        cgroup_id: kept.cgroup_id,
        operation: kept.operation,
        told: &kept.told,
        count,
        first_ns,
        last_ns,
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        export::testing::touch,
        kernel::folds::testing::{self, folds},
    };

    const CGROUP: u64 = 7;

    fn first(id: FoldId, told: Told) -> First {
        First { id, cgroup_id: CGROUP, operation: Operation::Open, time_ns: 1_000, told }
    }

    fn event() -> Told {
        Told::Event(Box::new(touch()))
    }

    /// What is told by `act`: how many of what became an event.
    fn told(act: impl FnOnce(&mut dyn FnMut(&Repeated<'_>))) -> Vec<u64> {
        let mut told = Vec::new();
        act(&mut |repeated| told.extend(repeated.event().map(|event| event.count)));
        told
    }

    /// Of one attempt that was told and repeated three times.
    fn repeated(told: Told) -> (Arc<Folds>, Repeats, FoldId) {
        let folds = Arc::new(folds());
        let repeats = Repeats::new(RecordKind::WriteDenied, Arc::clone(&folds), None);
        let id = testing::tell(&folds, 3);
        repeats.keep(first(id, told), |_| {});
        (0..3).for_each(|_| testing::repeat(&folds, 3));
        (folds, repeats, id)
    }

    #[test]
    fn repeats_are_told_once_with_their_number() {
        let (folds, repeats, _) = repeated(event());
        assert_eq!(repeats.with_untold(|untold| untold.iter().map(|(_, count)| *count).sum::<u64>()), 3);
        assert_eq!(told(|tell| repeats.sweep(tell)), [3]);
        assert_eq!(told(|tell| repeats.sweep(tell)), [0; 0]);
        testing::repeat(&folds, 3);
        assert_eq!(told(|tell| repeats.sweep(tell)), [1]);
    }

    #[test]
    fn the_times_of_repeats_are_not_before_those_that_were_told() {
        let (_, repeats, _) = repeated(event());
        let mut times = Vec::new();
        repeats.sweep(|repeated| times.push((repeated.first_ns, repeated.last_ns)));
        assert!(matches!(times.as_slice(), [(first, last)] if *first >= 1_000 && last >= first), "{times:?}");
    }

    #[test]
    fn repeats_of_what_is_no_event_are_none_but_counted() {
        let (_, repeats, _) = repeated(Told::Ignored("host_process"));
        let mut counts = Vec::new();
        repeats.sweep(|repeated| counts.push((repeated.event().is_some(), repeated.count, repeated.operation)));
        assert_eq!(counts, [(false, 3, Operation::Open)]);
    }

    #[test]
    fn at_the_end_all_is_told_and_what_never_came_is_counted() {
        let (folds, repeats, _) = repeated(event());
        testing::tell(&folds, 4);
        testing::repeat(&folds, 4);
        let mut left = 0;
        assert_eq!(told(|tell| left = repeats.finish(tell)), [3]);
        assert_eq!(left, 1);
        assert!(repeats.is_empty());
    }

    #[test]
    fn with_its_cgroup_an_attempt_is_told_and_given_up() {
        let (folds, repeats, id) = repeated(event());
        assert_eq!(told(|tell| repeats.forget(CGROUP + 1, tell)), [0; 0]);
        assert_eq!(told(|tell| repeats.forget(CGROUP, tell)), [3]);
        assert_eq!(folds.take(id), Counted::Gone, "the next is told in full");
    }

    /// Of one attempt whose record is there, and whose slot does not count yet.
    fn about_to_count(slot: u32) -> (Arc<Folds>, Repeats, FoldId) {
        let folds = Arc::new(folds());
        let repeats = Repeats::new(RecordKind::WriteDenied, Arc::clone(&folds), None);
        let before = testing::tell(&folds, slot);
        assert!(testing::claim(&folds, slot));
        let id = FoldId { generation: before.generation + 1, ..before };
        repeats.keep(first(id, event()), |_| {});
        (folds, repeats, id)
    }

    #[test]
    fn one_whose_slot_counts_only_after_it_was_to_be_given_up_is_told_all_the_same() {
        let (folds, repeats, id) = about_to_count(3);
        assert_eq!(told(|tell| repeats.forget(CGROUP, tell)), [0; 0]);
        assert_eq!(testing::publish(&folds, 3), Some(id));
        testing::repeat(&folds, 3);
        testing::repeat(&folds, 3);
        assert_eq!(told(|tell| repeats.sweep(tell)), [2]);
        assert_eq!(folds.take(id), Counted::Gone, "the slot is given back then");
        assert!(repeats.is_empty());
    }

    #[test]
    fn at_the_end_slots_that_never_count_are_waited_for_together() {
        const LOST: u32 = 200;
        let (folds, repeats, _) = about_to_count(0);
        for slot in 1..LOST {
            let before = testing::tell(&folds, slot);
            assert!(testing::claim(&folds, slot));
            let id = FoldId { generation: before.generation + 1, ..before };
            repeats.keep(first(id, event()), |_| {});
        }
        let began = Instant::now();
        assert_eq!(repeats.finish(|_| {}), 0);
        // One by one it would be twice that.
        assert!(began.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn where_there_is_no_room_one_that_cannot_be_given_up_yet_does_not_hold_up_the_next() {
        let (folds, repeats, id) = about_to_count(0);
        for slot in 1..1000 {
            let mut long = touch();
            long.file.get_or_insert_default().path = Some(vec![b'x'; 64 << 10]);
            let id = testing::tell(&folds, slot);
            repeats.keep(first(id, Told::Event(Box::new(long))), |_| {});
        }
        assert!(repeats.table().by_slot.get(&0).is_some_and(|kept| kept.id == id), "it is kept");
        assert!(repeats.table().bytes <= MOST_BYTES);
    }

    #[test]
    fn what_is_not_repeated_for_long_is_given_up() {
        let (folds, repeats, id) = repeated(event());
        for _ in 0..=IDLE_ROUNDS {
            assert!(!repeats.is_empty());
            repeats.sweep(|_| {});
        }
        assert!(repeats.is_empty());
        assert_eq!(folds.take(id), Counted::Gone);
    }

    #[test]
    fn who_did_what_nobody_knew_is_asked_again_soon() {
        let (folds, repeats, id) = repeated(Told::Unattributed(Box::new(touch())));
        assert_eq!(told(|tell| repeats.sweep(tell)), [3]);
        assert_eq!(folds.take(id), Counted::Gone);
        let (folds, repeats, id) = repeated(Told::Unknown("no_answer"));
        assert_eq!(told(|tell| repeats.sweep(tell)), [0; 0]);
        assert_eq!(folds.take(id), Counted::Gone);
    }

    #[test]
    fn an_attempt_that_was_long_in_coming_does_not_displace_the_one_that_has_its_slot() {
        let (folds, repeats, late) = repeated(event());
        repeats.sweep(|_| {});
        let id = testing::tell(&folds, 3);
        repeats.keep(first(id, event()), |_| {});
        repeats.keep(first(late, Told::Ignored("late")), |_| {});
        testing::repeat(&folds, 3);
        assert_eq!(told(|tell| repeats.sweep(tell)), [1]);
    }

    #[test]
    fn what_is_being_repeated_is_kept_though_many_others_come_once() {
        let folds = Arc::new(folds());
        let repeats = Repeats::new(RecordKind::WriteDenied, Arc::clone(&folds), None);
        let of_bytes = |bytes| {
            let mut event = touch();
            event.file.get_or_insert_default().path = Some(vec![b'x'; bytes]);
            Told::Event(Box::new(event))
        };
        let busy: Vec<_> = (0..20).map(|slot| testing::tell(&folds, slot)).collect();
        for id in &busy {
            repeats.keep(first(*id, of_bytes(1)), |_| {});
        }
        for slot in 20..2000 {
            busy.iter().for_each(|id| testing::repeat(&folds, id.slot));
            let id = testing::tell(&folds, slot);
            repeats.keep(first(id, of_bytes(64 << 10)), |_| {});
            if slot % 50 == 0 {
                repeats.sweep(|_| {});
            }
        }
        assert!(repeats.table().by_slot.len() < 200, "most of those that came once were given up");
        assert!(busy.iter().all(|id| folds.is_current(*id) && repeats.table().by_slot.contains_key(&id.slot)));
        assert!(repeats.table().queue.len() < 1000, "nor does the order of what was kept grow without an end");
    }

    #[test]
    fn what_is_kept_takes_bounded_memory_and_no_count_is_lost_for_that() {
        let folds = Arc::new(folds());
        let repeats = Repeats::new(RecordKind::WriteDenied, Arc::clone(&folds), None);
        let mut counts = 0;
        for slot in 0..1000 {
            let mut long = touch();
            long.file.get_or_insert_default().path = Some(vec![b'x'; 64 << 10]);
            let id = testing::tell(&folds, slot);
            testing::repeat(&folds, slot);
            repeats.keep(first(id, Told::Event(Box::new(long))), |repeated| counts += repeated.count);
        }
        assert!(repeats.table().bytes <= MOST_BYTES, "{}", repeats.table().bytes);
        repeats.sweep(|repeated| counts += repeated.count);
        assert_eq!(counts, 1000);
    }
}
