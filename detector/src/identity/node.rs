//! What the node's `/proc` tells of processes: when one started, and which capabilities there are at most.

use std::path::Path;

use rustix::{
    param::clock_ticks_per_second,
    time::{ClockId, Timespec, clock_gettime},
};

const NANOSECONDS: i128 = 1_000_000_000;

/// When a process started, in nanoseconds since the Unix epoch, to the hundredth of a second that the kernel tells it in;
/// none where it has ended.
pub(super) fn started_at_unix_ns(host_proc: &Path, pid: u32) -> Option<i128> {
    let stat = std::fs::read_to_string(host_proc.join(format!("{pid}/stat"))).ok()?;
    let ticks = start_ticks(&stat)?;
    let since_boot = i128::from(ticks) * NANOSECONDS / i128::from(clock_ticks_per_second().max(1));
    let now = |clock| {
        let Timespec { tv_sec, tv_nsec } = clock_gettime(clock);
        i128::from(tv_sec) * NANOSECONDS + i128::from(tv_nsec)
    };
    Some(now(ClockId::Realtime) - now(ClockId::Boottime) + since_boot)
}

/// Field 22 (`man 5 proc_pid_stat`), counted after the name, which may hold any character.
fn start_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(19)?.parse().ok()
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
    fn a_name_with_brackets_and_spaces_does_not_shift_the_fields() {
        let stat = "7 (a) 1 2 (b) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 99 1";
        assert_eq!(start_ticks(stat), Some(4711));
        assert_eq!(start_ticks("7 (a) S 1"), None);
        assert_eq!(start_ticks(""), None);
    }

    #[test]
    fn the_bounding_set_is_read_as_a_number() {
        assert_eq!(bounding_set("Name:\tinit\nCapBnd:\t000001fffeffffff\n"), Some(0x1ff_feff_ffff));
        assert_eq!(bounding_set("CapBnd:\tnone\n"), None);
        assert_eq!(bounding_set(""), None);
    }
}
