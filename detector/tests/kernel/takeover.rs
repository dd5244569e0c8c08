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
    Restart, Sensor, attempt::Standing, counters::Counters, pins::Pins, plan::Hooks, stream::Stream,
};
use detector_common::{operation::Operation, record::RecordKind};
use rustix::{
    mm::{MapFlags, ProtFlags, mmap},
    process::{Signal, nice, set_parent_process_death_signal},
    thread::{CpuSet, sched_setaffinity},
};

use super::{
    cgroup::{Cgroup, write_numbered},
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

#[tokio::test]
async fn of_writes_without_a_pause_each_is_counted_by_one_of_the_builds() {
    const WAIT: u64 = 0;
    const WRITE: u64 = 1;
    const END: u64 = 2;
    if is_emulated() {
        // While programs come and go the kernel patches the code at the exit of syscalls, and QEMU's other processor may go on with
        // what it had translated before: a breakpoint of which the kernel knows no more, so a panic. With one there is none.
        let mut one = CpuSet::new();
        one.set(0);
        sched_setaffinity(None, &one).unwrap();
    }
    let (_folder, path) = stage();
    let cgroup = Cgroup::new("takeover");
    let (phase, written) = (shared_number(), shared_number());
    let write = || {
        // Where the test is killed. And the agent goes first, which they would hold up.
        let _ = set_parent_process_death_signal(Some(Signal::KILL));
        let _ = nice(19);
        while phase.load(Ordering::SeqCst) == WAIT {
            thread::sleep(Duration::from_millis(1));
        }
        let mut number = 0;
        while phase.load(Ordering::SeqCst) == WRITE {
            write_numbered(number % 5, 0);
            written.fetch_add(1, Ordering::SeqCst);
            number += 1;
        }
    };
    // Before there is a folder that is locked, which they would hold.
    let writers = [cgroup.start(write), cgroup.start(write)];
    let (mut sensor, mut stream, mut counters, mut restart) = attach(&path, hooks_under_test());
    phase.store(WRITE, Ordering::SeqCst);
    for hooks in [other_hooks(), hooks_under_test()].repeat(if is_emulated() { 1 } else { 2 }) {
        sensor.leave();
        drop((stream, counters, restart));
        (sensor, stream, counters, restart) = attach(&path, hooks);
        assert!(!restart.before.same);
    }
    phase.store(END, Ordering::SeqCst);
    writers.into_iter().for_each(|writer| writer.wait());
    let owed = restart.kept.told().get(&cgroup.id).map_or(0, |told| told.owed[Operation::Open as usize]);
    let counted = counters.tallies().read()[&cgroup.id].denied[Operation::Open as usize];
    let (told, written) = (owed + counted, written.load(Ordering::SeqCst));
    // An emulated processor may stand still for longer than the two wait for calls that are under way, at the end of one of two
    // programs: the limit that the decision names. Elsewhere there is none.
    let slack = if is_emulated() { 2 } else { 0 };
    assert!(told.abs_diff(written) <= slack, "{told} of {written}, {counted} of them by the last one");
    drop((sensor, stream));
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
