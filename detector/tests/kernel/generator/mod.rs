//! Ten thousand random operations on sealed and writable filesystems, by eight threads through every door: the events and the
//! refusals that the generator itself saw are the same multiset of (operation, path, result), no more and no less.
//!
//! They are the same in each run, so that a change which passes does not fail later; `ROSENTRY_TEST_SEED` has others made: a
//! number, or `random`. The seed is printed.

mod calls;
mod note;
mod ring_calls;
mod route;
mod worker;
mod world;

use std::{
    collections::BTreeMap,
    sync::mpsc,
    time::{Duration, Instant},
};

use detector::kernel::attempt::Attempt;
use detector_common::{counter::Counter, record::RecordKind};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use self::{
    note::{Key, Note, shown},
    worker::Worker,
    world::World,
};
use super::{
    actor::{Actor, is_actor, tell},
    sensor::Attached,
    told,
};

const THREADS: u64 = 8;
/// Between two of them the rings are drained, so that nothing is lost however slow the machine is.
const ROUNDS: usize = 10;
const OPERATIONS_PER_ROUND_AND_THREAD: usize = 125;
const SEED: &str = "ROSENTRY_TEST_SEED";
/// How long an event may take to come.
const PATIENCE: Duration = Duration::from_secs(60);

/// The actor's part: makes the operations, and tells after each round what was refused.
fn act() {
    let seed: u64 = std::env::var(SEED).unwrap().parse().unwrap();
    let world = &World::new();
    std::thread::scope(|scope| {
        let (notes, noted) = mpsc::channel();
        let workers: Vec<_> = (0..THREADS)
            .map(|number| {
                let (go_on, turn) = mpsc::channel::<()>();
                let notes = notes.clone();
                scope.spawn(move || {
                    // SAFETY: a working directory of its own; no other thread relies on sharing it.
                    unsafe { unshare_unsafe(UnshareFlags::FS) }.unwrap();
                    let mut worker = Worker::new(world, seed ^ number << 48);
                    while turn.recv().is_ok() {
                        let of_round = (0..OPERATIONS_PER_ROUND_AND_THREAD).filter_map(|_| worker.act());
                        notes.send(of_round.map(|note| note.to_line()).collect::<Vec<_>>()).unwrap();
                    }
                });
                go_on
            })
            .collect();
        for _ in 0..ROUNDS {
            workers.iter().for_each(|worker| worker.send(()).unwrap());
            let of_round: Vec<_> = workers.iter().flat_map(|_| noted.recv().unwrap()).collect();
            tell(&of_round);
        }
    });
}

fn seed() -> u64 {
    match std::env::var(SEED).as_deref() {
        Ok("random") => fastrand::u64(..),
        Ok(seed) => seed.parse().expect("the seed is a number, or `random`"),
        Err(_) => 1,
    }
}

/// What the agent makes of refused writes of the actor, while that lives.
fn events(attempts: &[Attempt]) -> Vec<Note> {
    let of_write = attempts.iter().filter(|attempt| attempt.kind == RecordKind::WriteDenied);
    let note = |attempt: &Attempt| {
        let event = told::event(attempt, None);
        Note {
            operation: event.operation.unwrap().name().to_owned(),
            path: told::path(&event).map(<[u8]>::to_vec),
            new_path: told::new_path(&event).map(<[u8]>::to_vec),
            result: attempt.result,
            how: format!("{} by {}", attempt.syscall.name, attempt.abi.name()),
        }
    };
    of_write.map(note).collect()
}

/// How often each key is there: what was refused counts up, what was told counts down.
fn difference(refused: &[Note], told: &[Note]) -> Vec<String> {
    let mut counts: BTreeMap<Key, (i64, &str)> = BTreeMap::new();
    for (notes, step) in [(refused, 1), (told, -1)] {
        for note in notes {
            let (count, how) = counts.entry(note.key()).or_insert((0, &note.how));
            // How it was asked for is more than what an event says.
            if step == 1 {
                *how = &note.how;
            }
            *count += step;
        }
    }
    let differing = counts.iter().filter(|(_, (count, _))| *count != 0);
    let line = |(key, (count, how)): (&Key, &(i64, &str))| {
        let how_many = if *count > 0 { "refused, not told" } else { "told, not refused" };
        format!("{how_many}: {} times {}; {how}", count.abs(), shown(key))
    };
    differing.map(line).collect()
}

#[tokio::test]
async fn of_ten_thousand_random_operations_exactly_the_refused_ones_are_seen_with_their_paths() {
    if is_actor() {
        return act();
    }
    let seed = seed();
    println!("seed {seed}; {SEED}={seed} makes the same operations again");
    let mut attached = Attached::new();
    let mut actor = Actor::start(
        "generator::of_ten_thousand_random_operations_exactly_the_refused_ones_are_seen_with_their_paths",
        &[(SEED, seed.to_string())],
    );
    let pid = actor.pid();
    let (mut refused, mut told) = (Vec::new(), Vec::new());
    let began = Instant::now();
    for _ in 0..ROUNDS {
        refused.extend(actor.listen().iter().map(|line| Note::from_line(line)));
        told.extend(events(&attached.take(pid)));
        if refused.len() > told.len() {
            // What a worker of io_uring completes may be told a moment after its result can be read.
            std::thread::yield_now();
            told.extend(events(&attached.take(pid)));
        }
        actor.go_on();
    }
    let deadline = Instant::now() + PATIENCE;
    // Once more where nothing is missing: there may be too much.
    let mut last = false;
    while !last && Instant::now() < deadline {
        last = told.len() >= refused.len();
        std::thread::sleep(Duration::from_millis(20));
        told.extend(events(&attached.take(pid)));
    }
    println!("{} refused, {} told, in {:?}", refused.len(), told.len(), began.elapsed());
    for counter in [Counter::WriteRingFull, Counter::ScratchBusy] {
        assert_eq!(attached.counters.read(counter).unwrap(), 0, "{counter:?}: records were lost");
    }
    assert!(refused.len() > 3000, "the seal has refused much: {}", refused.len());
    let difference = difference(&refused, &told);
    assert!(
        difference.is_empty(),
        "{} differences, seed {seed}:\n{}",
        difference.len(),
        difference[..difference.len().min(40)].join("\n")
    );
}
