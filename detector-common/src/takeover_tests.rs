//! Every moment at which user space can go on with a take-over, against every moment of a call that the programs of both builds see.

use core::cell::Cell;

use super::*;

impl Place for Cell<u64> {
    fn get(&self) -> u64 {
        Self::get(self)
    }

    fn put(&self, note: u64) {
        self.set(note);
    }

    fn take(&self, note: u64) {
        if self.get() == note {
            self.set(0);
        }
    }
}

/// What user space does in a take-over, in turn.
#[derive(Clone, Copy, Debug)]
enum Step {
    AskLeaving,
    AskComing,
    Turn,
    Arm,
    Disarm,
}

/// What may fall into one call: between the three user space waits until none is under way.
const STEPS: [&[Step]; 3] = [&[Step::AskLeaving, Step::AskComing], &[Step::Turn], &[Step::Arm, Step::Disarm]];

/// Moments of a call: the first looks up what to go by, asks; the second the same.
const MOMENTS: usize = 4;

struct World {
    /// What those that are leaving do, and those that are coming.
    parties: [u64; 2],
    turn: u64,
    is_coming_first: bool,
    place: Cell<u64>,
}

/// A call as far as it has come.
#[derive(Clone, Default)]
struct Call {
    thread: u32,
    moment: usize,
    looked_up: Option<(u64, u64)>,
    reported: u32,
}

impl Call {
    fn of(thread: u32) -> Self {
        Self { thread, ..Self::default() }
    }
}

impl World {
    fn new(is_coming_first: bool) -> Self {
        Self { parties: [ON, OFF], turn: 6, is_coming_first, place: Cell::new(0) }
    }

    fn does(&mut self, step: Step) {
        match step {
            Step::AskLeaving => self.parties[0] = LEAVING,
            Step::AskComing => self.parties[1] = COMING,
            Step::Turn => self.turn |= 1,
            Step::Arm => self.parties[1] = ON,
            Step::Disarm => self.parties[0] = OFF,
        }
    }

    fn goes_on(&self, call: &mut Call) {
        let is_first = call.moment < 2;
        let party = self.parties[usize::from(is_first == self.is_coming_first)];
        match call.looked_up.take() {
            None => call.looked_up = Some((party, self.turn)),
            Some((party, turn)) => {
                let asked = Asked {
                    party,
                    turn,
                    coming_first: u64::from(self.is_coming_first) << 5,
                    operation: 5,
                    kind: Kind::Refused,
                    thread: call.thread,
                };
                let agrees = party == LEAVING || party == COMING;
                call.reported += u32::from(if agrees { asked.is_theirs(&self.place) } else { party == ON });
            }
        }
        call.moment += 1;
    }

    /// A call of which nothing comes in between; only the first asks about it, only the second, or both. Whether it was reported once.
    fn whole(&self, thread: u32, moments: core::ops::Range<usize>) -> bool {
        let mut call = Call { moment: moments.start, ..Call::of(thread) };
        while call.moment < moments.end {
            self.goes_on(&mut call);
        }
        call.reported == 1
    }
}

/// Every way in which two steps can fall into a call: before which of its moments each.
fn ways() -> impl Iterator<Item = [usize; 2]> {
    (0..=MOMENTS).flat_map(|first| (first..=MOMENTS).map(move |second| [first, second]))
}

#[test]
fn in_either_order_each_call_is_reported_once_whenever_the_take_over_goes_on() {
    for is_coming_first in [false, true] {
        for now in 0..STEPS.len() {
            for way in ways() {
                let mut world = World::new(is_coming_first);
                STEPS[..now].iter().copied().flatten().for_each(|&step| world.does(step));
                assert!((0..3).all(|_| world.whole(7, 0..MOMENTS)));
                let mut call = Call::of(7);
                for moment in 0..=MOMENTS {
                    let at_once = way.iter().zip(STEPS[now]).filter(|(at, _)| **at == moment);
                    at_once.for_each(|(_, &step)| world.does(step));
                    if moment < MOMENTS {
                        world.goes_on(&mut call);
                    }
                }
                assert_eq!(call.reported, 1, "coming first: {is_coming_first}, {:?} at {way:?}", STEPS[now]);
                assert!((0..3).all(|_| world.whole(7, 0..MOMENTS)), "{is_coming_first} {:?} {way:?}", STEPS[now]);
            }
        }
    }
}

#[test]
fn a_call_that_only_one_asks_about_costs_no_other_call_its_report() {
    for is_coming_first in [false, true] {
        for lonely in [0..2, 2..MOMENTS] {
            for moment in 0..=MOMENTS {
                let mut world = World::new(is_coming_first);
                STEPS[0].iter().for_each(|&step| world.does(step));
                world.whole(7, lonely.clone());
                let mut call = Call::of(7);
                for at in 0..=MOMENTS {
                    if at == moment {
                        world.does(Step::Turn);
                    }
                    if at < MOMENTS {
                        world.goes_on(&mut call);
                    }
                }
                assert_eq!(call.reported, 1);
                world.whole(7, lonely.clone());
                assert!((0..3).all(|_| world.whole(7, 0..MOMENTS)), "{is_coming_first} {lonely:?} {moment}");
            }
        }
    }
}

#[test]
fn a_note_of_an_earlier_take_over_counts_for_nothing() {
    for is_coming_first in [false, true] {
        let mut world = World::new(is_coming_first);
        STEPS[0].iter().for_each(|&step| world.does(step));
        // At the end of one, of whose last call the second sees nothing: the opposite of what the next begins with.
        world.does(Step::Turn);
        world.whole(7, 0..2);
        world.turn += 1;
        let mut call = Call { moment: 2, ..Call::of(7) };
        world.goes_on(&mut call);
        world.goes_on(&mut call);
        assert_eq!(call.reported, u32::from(is_coming_first), "it is the turn of those that are leaving");
    }
}

/// Every order in which two calls can go on, as bit sets of the moments at which it is the second's.
fn orders() -> impl Iterator<Item = u32> {
    (0_u32..1 << (2 * MOMENTS)).filter(|order| order.count_ones() as usize == MOMENTS)
}

#[test]
fn of_threads_that_share_a_place_only_a_call_into_whose_midst_the_turn_falls_can_be_miscounted() {
    for is_coming_first in [false, true] {
        let mut miscounted = 0;
        for order in orders() {
            for turn in 0..=2 * MOMENTS {
                let mut world = World::new(is_coming_first);
                STEPS[0].iter().for_each(|&step| world.does(step));
                let mut calls = [Call::of(7), Call::of(7 + AGREED)];
                let mut at_turn = [0; 2];
                for at in 0..=2 * MOMENTS {
                    if at == turn {
                        world.does(Step::Turn);
                        at_turn = [calls[0].moment, calls[1].moment];
                    }
                    if at < 2 * MOMENTS {
                        world.goes_on(&mut calls[(order >> at & 1) as usize]);
                    }
                }
                for (call, at_turn) in calls.iter().zip(at_turn) {
                    let is_between = (1..MOMENTS).contains(&at_turn);
                    assert!(call.reported == 1 || is_between, "{is_coming_first} {order:b} {turn}");
                    miscounted += u32::from(call.reported != 1);
                }
                assert!(
                    [7, 7 + AGREED].iter().all(|&thread| world.whole(thread, 0..MOMENTS)),
                    "it ends with that call"
                );
            }
        }
        assert!(miscounted > 0, "or the decision need not name it");
    }
}
