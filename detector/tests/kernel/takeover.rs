//! Programs of one build that take over from those of another, and agents that were killed at a bad moment.

use std::{
    fs,
    os::fd::AsFd as _,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use aya::maps::MapData;
use detector::kernel::{
    Restart, Sensor,
    attempt::Standing,
    counters::Counters,
    pins::Pins,
    plan::{Hooks, Observing},
    stream::Stream,
};
use detector_common::{operation::Operation, record::RecordKind};
use rustix::{
    mm::{MapFlags, ProtFlags, mmap},
    process::{Signal, nice, set_parent_process_death_signal},
    thread::{CpuSet, sched_setaffinity},
};

use super::{
    cgroup::{Cgroup, Child, write_numbered},
    pinned::{of_cgroup, of_kind, stage},
    sensor::{hooks_under_test, is_emulated},
};

/// New memory, shared with processes that are forked.
fn shared_number() -> &'static AtomicU64 {
    // SAFETY: zeroed memory that stays.
    let number = unsafe {
        rustix::mm::mmap_anonymous(std::ptr::null_mut(), 4096, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED)
    };
    // SAFETY: aligned and never given back.
    unsafe { AtomicU64::from_ptr(number.unwrap().cast()) }
}

fn attach(pins: &Path, hooks: Hooks) -> (Sensor, Stream, Counters, Restart) {
    Sensor::attach_pinned(hooks, None, Pins::open(pins).unwrap(), None).unwrap()
}

/// What makes another build of these programs.
fn other_hooks() -> Hooks {
    if hooks_under_test() == Hooks::Tracepoint { Hooks::Auto } else { Hooks::Tracepoint }
}

/// Processes that do refused writes without a pause, while they are told to.
struct Writers {
    cgroup: Cgroup,
    phase: &'static AtomicU64,
    paused: &'static AtomicU64,
    written: &'static AtomicU64,
    children: Vec<Child>,
}

impl Writers {
    const COUNT: usize = 2;
    const END: u64 = u64::MAX;

    /// To be called before there is a folder that is locked, which they would hold.
    fn start() -> Self {
        let cgroup = Cgroup::new("takeover");
        let [phase, paused, written] = [shared_number(), shared_number(), shared_number()];
        let is_alone = is_emulated();
        let write = || {
            // Where the test is killed.
            let _ = set_parent_process_death_signal(Some(Signal::KILL));
            if is_alone {
                // The agent goes first, which they would hold up. Beside other programs they themselves would be held up, amid a call.
                let _ = nice(19);
            }
            let (mut number, mut seen) = (0, 0);
            loop {
                let now = phase.load(Ordering::SeqCst);
                if now == Self::END {
                    return;
                }
                if now % 2 == 1 {
                    write_numbered(number % 5, 0);
                    written.fetch_add(1, Ordering::SeqCst);
                    number += 1;
                } else {
                    if seen != now {
                        paused.fetch_add(1, Ordering::SeqCst);
                    }
                    thread::sleep(Duration::from_millis(1));
                }
                seen = now;
            }
        };
        let children = (0..Self::COUNT).map(|_| cgroup.start(write)).collect();
        Self { cgroup, phase, paused, written, children }
    }

    fn go_on(&self) {
        self.paused.store(0, Ordering::SeqCst);
        self.phase.fetch_add(1, Ordering::SeqCst);
    }

    /// Waits until none is in a write.
    fn pause(&self) {
        self.phase.fetch_add(1, Ordering::SeqCst);
        while self.paused.load(Ordering::SeqCst) < Self::COUNT as u64 {
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// How many of their writes these programs, and those before them, have counted.
    fn counted(&self, counters: &Counters, restart: &Restart) -> u64 {
        let owed = restart.kept.told().get(&self.cgroup.id).map_or(0, |told| told.owed[Operation::Open as usize]);
        let tallies = counters.tallies().read();
        owed + tallies.get(&self.cgroup.id).map_or(0, |tally| tally.denied[Operation::Open as usize])
    }

    fn end(self) {
        self.phase.store(Self::END, Ordering::SeqCst);
        self.children.into_iter().for_each(Child::wait);
    }
}

/// Has two builds take over from each other in turn, while there are writes: how many were told too many (or too few, where it is negative), of each take-over.
fn miscounted(builds: [(Hooks, Option<Observing>); 2], times: usize) -> Vec<i64> {
    if is_emulated() {
        // While programs come and go the kernel patches the code at the exit of syscalls, and QEMU's other processor may go on with
        // what it had translated before: a breakpoint of which the kernel knows no more, so a panic. With one there is none.
        let mut one = CpuSet::new();
        one.set(0);
        sched_setaffinity(None, &one).unwrap();
    }
    let (_folder, path) = stage();
    let writers = Writers::start();
    let attach =
        |(hooks, observing)| Sensor::attach_pinned(hooks, observing, Pins::open(&path).unwrap(), None).unwrap();
    let (mut sensor, mut stream, mut counters, mut restart) = attach(builds[0]);
    let mut difference = 0;
    let mut miscounted = Vec::new();
    for build in (1..=times).map(|number| builds[number % 2]) {
        let written_before = writers.written.load(Ordering::SeqCst);
        writers.go_on();
        sensor.leave();
        drop((stream, counters, restart));
        (sensor, stream, counters, restart) = attach(build);
        writers.pause();
        assert!(!restart.before.same);
        let written = writers.written.load(Ordering::SeqCst);
        assert!(written > written_before, "it is about writes meanwhile");
        let now = writers.counted(&counters, &restart).cast_signed() - written.cast_signed();
        miscounted.push(now - difference);
        difference = now;
    }
    drop((sensor, stream));
    writers.end();
    miscounted
}

/// Builds that take over from each other. With the tracepoints: the one whose programs are at functions, where the kernel allows it, so
/// that these see each call before the others do. With functions: one that has its programs at the same functions.
fn builds() -> [(Hooks, Option<Observing>); 2] {
    match hooks_under_test() {
        Hooks::Fexit => [(Hooks::Fexit, None), (Hooks::Fexit, Some(Observing::default()))],
        hooks => [(hooks, None), (Hooks::Auto, None)],
    }
}

#[tokio::test]
async fn of_writes_without_a_pause_each_is_counted_by_one_of_the_builds() {
    // There and back, and where it does not take minutes, that again.
    let times = if is_emulated() { 2 } else { 4 };
    let miscounted = miscounted(builds(), times);
    // An emulated processor may stand still for longer than the two builds wait for calls that are under way, at the end of one of two
    // programs: the limit that the decision names. It does not do so each time.
    let excused = usize::from(is_emulated());
    assert!(miscounted.iter().filter(|&&calls| calls != 0).count() <= excused, "{miscounted:?}");
}

/// The place in a pinned ring up to which it was read.
struct Consumed {
    position: &'static AtomicU64,
    before: u64,
}

impl Consumed {
    fn of(pins: &Path, ring: &str) -> Self {
        let build = fs::read_dir(pins).unwrap().next().unwrap().unwrap().path();
        let ring = MapData::from_pin(build.join(format!("map_{ring}"))).unwrap();
        // SAFETY: a new mapping of its first page, which stays.
        let page = unsafe {
            mmap(std::ptr::null_mut(), 4096, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, ring.fd().as_fd(), 0)
        };
        // SAFETY: an aligned number in it.
        let position = unsafe { AtomicU64::from_ptr(page.unwrap().cast()) };
        Self { position, before: position.load(Ordering::SeqCst) }
    }

    /// As if the agent had been killed before it went on.
    fn go_back(&self) {
        assert!(self.position.swap(self.before, Ordering::SeqCst) > self.before, "something was read");
    }
}

/// What the next agent, which asks for `hooks`, finds to be told of a refused write and of a mount attempt, after one was killed between
/// keeping their records and moving the rings on.
fn left_after_a_kill_before_the_rings_moved_on(hooks: Hooks) -> [Vec<Standing>; 2] {
    let (_folder, path) = stage();
    let cgroup = Cgroup::new("twice");
    let (sensor, mut stream, counters, restart) = attach(&path, hooks_under_test());
    let rings = ["WRITES", "URGENT"].map(|ring| Consumed::of(&path, ring));
    cgroup.run(|| {
        write_numbered(1, 0);
        // SAFETY: a NUL-terminated path.
        unsafe { libc::umount2(c"/mnt/none".as_ptr(), 0) };
    });
    let mut records = Vec::new();
    while stream.drain(&mut records) {}
    assert_eq!(of_cgroup(records, cgroup.id).len(), 1);
    sensor.leave();
    drop((stream, counters, restart));
    rings.iter().for_each(Consumed::go_back);

    let (_sensor, _stream, _counters, restart) = attach(&path, hooks);

    let left = restart.before.records;
    [RecordKind::WriteDenied, RecordKind::MountAttempt]
        .map(|kind| of_kind(left.clone(), kind, cgroup.id).iter().map(|attempt| attempt.standing).collect())
}

#[tokio::test]
async fn what_is_kept_and_still_in_a_ring_is_told_once_by_an_agent_that_goes_on() {
    let left = left_after_a_kill_before_the_rings_moved_on(hooks_under_test());
    assert_eq!(left, [[Standing::New], [Standing::New]]);
}

#[tokio::test]
async fn what_is_kept_and_still_in_a_ring_is_told_once_by_an_agent_that_replaces_the_programs() {
    let left = left_after_a_kill_before_the_rings_moved_on(other_hooks());
    assert_eq!(left, [[Standing::Left(1)], [Standing::Left(1)]]);
}
