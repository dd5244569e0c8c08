//! What the node's `/proc` tells of processes: when one started, and which capabilities there are at most.

use std::path::Path;

use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::process_stat::Stat;

const NANOSECONDS: i128 = 1_000_000_000;

/// When a process started, in nanoseconds since the Unix epoch, to the hundredth of a second that the kernel tells it in;
/// none where it has ended.
pub(super) fn started_at_unix_ns(host_proc: &Path, pid: u32) -> Option<i128> {
    let since_boot = i128::from(Stat::read(&host_proc.join(pid.to_string()))?.start_time_ns());
    let now = |clock| {
        let Timespec { tv_sec, tv_nsec } = clock_gettime(clock);
        i128::from(tv_sec) * NANOSECONDS + i128::from(tv_nsec)
    };
    Some(now(ClockId::Realtime) - now(ClockId::Boottime) + since_boot)
}

/// The capabilities that a process of this node can have at most, as a bit set; 0 where that can't be read.
pub(super) fn capabilities(host_proc: &Path) -> u64 {
    let status = std::fs::read_to_string(host_proc.join("1/status")).unwrap_or_default();
    bounding_set(&status).unwrap_or(0)
}

fn bounding_set(status: &str) -> Option<u64> {
    let set = status.lines().find_map(|line| line.strip_prefix("CapBnd:"))?;
    u64::from_str_radix(set.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn the_start_of_this_process_is_a_short_while_ago() {
        let started = started_at_unix_ns(Path::new("/proc"), std::process::id()).unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as i128;
        assert!((0..600 * NANOSECONDS).contains(&(now - started)), "{started} of {now}");
        assert_eq!(started_at_unix_ns(Path::new("/proc"), u32::MAX), None);
    }

    #[test]
    fn the_bounding_set_is_read_as_a_number() {
        assert_eq!(bounding_set("Name:\tinit\nCapBnd:\t000001fffeffffff\n"), Some(0x1ff_feff_ffff));
        assert_eq!(bounding_set("CapBnd:\tnone\n"), None);
        assert_eq!(bounding_set(""), None);
    }
}
