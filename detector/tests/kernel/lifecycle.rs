//! Starting and stopping hold nothing up.

use std::time::{Duration, Instant};

use super::sensor::Attached;

/// How long a stop may take, in an emulated machine too.
const STOP: Duration = Duration::from_secs(2);

#[tokio::test]
async fn the_programs_are_detached_in_time() {
    // The best of some, since the machine may be busy with something else.
    assert!((0..3).any(|_| detached_after() < STOP));
}

fn detached_after() -> Duration {
    let start = Instant::now();
    let Attached { sensor, stream, counters } = Attached::new();
    println!("{} programs attached in {:?}", sensor.verified().len(), start.elapsed());
    let stop = Instant::now();
    drop(sensor);
    let took = stop.elapsed();
    println!("detached in {took:?}");
    drop((stream, counters));
    took
}
