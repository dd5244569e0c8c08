//! Starting and stopping hold nothing up.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::sensor::{Attached, is_emulated};

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
