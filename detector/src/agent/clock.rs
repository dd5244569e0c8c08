//! The clocks: the kernel side's (since boot) and the calendar's.

use rustix::time::{ClockId, clock_gettime};

use crate::finding::BootClock;

/// The relation of the two clocks as it is now; asked for anew with each event, because the calendar's can be set.
pub fn now() -> BootClock {
    BootClock { unix_ns_at_boot: unix_ns() - read(ClockId::Boottime) }
}

/// Nanoseconds since the Unix epoch.
pub fn unix_ns() -> i128 {
    read(ClockId::Realtime)
}

fn read(clock: ClockId) -> i128 {
    let time = clock_gettime(clock);
    i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
}
