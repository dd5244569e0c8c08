//! The clocks: the kernel side's (since boot) and the calendar's.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Translates times since boot to times of the calendar.
#[derive(Clone, Copy, Debug)]
pub struct BootClock {
    /// CLOCK_REALTIME less CLOCK_BOOTTIME, nanoseconds.
    pub unix_ns_at_boot: i128,
}

impl BootClock {
    /// Nanoseconds since the Unix epoch of a time since boot.
    pub const fn unix_ns(self, since_boot_ns: u64) -> i128 {
        self.unix_ns_at_boot + since_boot_ns as i128
    }
}

/// The relation of the two clocks as it is now; asked for anew with each event, because the calendar's can be set.
pub fn now() -> BootClock {
    BootClock { unix_ns_at_boot: unix_ns() - read(ClockId::Boottime) }
}

/// Time since boot.
pub fn since_boot() -> Duration {
    u64::try_from(read(ClockId::Boottime)).map_or(Duration::ZERO, Duration::from_nanos)
}

/// Nanoseconds since the Unix epoch.
pub fn unix_ns() -> i128 {
    read(ClockId::Realtime)
}

/// Nanoseconds since boot, as the kernel side's.
pub fn boot_ns() -> u64 {
    u64::try_from(read(ClockId::Boottime)).unwrap_or_default()
}

/// How long ago a time of the calendar is; zero where it is in the future.
pub fn since(unix_time_ns: i128) -> Duration {
    u64::try_from(unix_ns() - unix_time_ns).map_or(Duration::ZERO, Duration::from_nanos)
}

fn read(clock: ClockId) -> i128 {
    let time = clock_gettime(clock);
    i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
}
