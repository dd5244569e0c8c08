//! Starting and stopping hold nothing up, and what is in between takes no capability.

use std::{
    thread,
    time::{Duration, Instant},
};

use detector::agent::privileges::{self, Stage};
use detector_common::counter::Counter;
use rustix::{
    thread::{CapabilitySet, capabilities},
    time::{ClockId, clock_gettime},
};

use super::{
    kernel_objects::KernelObjects,
    sensor::{Attached, PATIENCE, is_emulated, requested},
};

/// How long a stop may take, in an emulated machine too.
const STOP: Duration = Duration::from_secs(2);
/// How long a start may take a processor, but for an emulated one: `cargo xtask bench cost` holds that to a limit, in
/// instructions of a release build.
const START: Duration = Duration::from_millis(500);

/// What this process has taken of a processor. That others are busy does not add to it.
fn processor_time() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap())
}

#[tokio::test]
async fn the_programs_are_attached_and_detached_in_time() {
    // The best of some, since the machine may be busy with something else.
    let in_time = |_| {
        let (taken, stopped) = start_and_stop();
        (is_emulated() || taken < START) && stopped < STOP
    };
    assert!((0..5).any(in_time));
}

/// How much of a processor the start took, and how long the stop.
fn start_and_stop() -> (Duration, Duration) {
    let (start, taken) = (Instant::now(), processor_time());
    let Attached { sensor, stream, counters, .. } = Attached::new();
    let taken = processor_time() - taken;
    let programs = sensor.verified().len();
    println!("{programs} programs attached in {:?}, of which the processor's {taken:?}", start.elapsed());
    let stop = Instant::now();
    drop(sensor);
    let stopped = stop.elapsed();
    println!("detached in {stopped:?}");
    drop((stream, counters));
    (taken, stopped)
}

#[tokio::test]
async fn without_the_capabilities_that_attaching_took_records_come_counters_are_read_and_the_stop_is_clean() {
    let runtime = tokio::runtime::Handle::current();
    // Of that thread alone: what is left in the kernel, only who has them can ask.
    let held = thread::spawn(move || {
        let _within = runtime.enter();
        let mut attached = Attached::new();
        let before = attached.counters.read(Counter::MountAttempt).unwrap();
        privileges::keep_for(Stage::Watching).unwrap();
        assert_eq!(capabilities(None).unwrap().permitted, CapabilitySet::SYS_PTRACE);

        // SAFETY: a NUL-terminated path.
        assert_eq!(unsafe { libc::umount2(c"/nothing".as_ptr(), 0) }, -1);

        let attempts = attached.of_process(std::process::id());
        assert!(attempts.iter().any(|attempt| requested(attempt) == "/nothing"), "{attempts:?}");
        assert!(attached.counters.read(Counter::MountAttempt).unwrap() > before);
        let mut held = KernelObjects::default();
        held.note(std::process::id());
        assert!(held.are_attached(), "{held:?}");
        held
    })
    .join()
    .unwrap();
    let begun = Instant::now();
    while !held.left().are_none() {
        assert!(begun.elapsed() < PATIENCE, "the kernel has {:?}", held.left());
        thread::sleep(Duration::from_millis(10));
    }
}
