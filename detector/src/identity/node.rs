//! What the node's `/proc` tells of processes: which one is a container's first, and which capabilities there are at most.

use std::path::Path;

use super::registry::First;
use crate::{clock, process_stat::Stat};

/// By how much the calendar's clock may be set between a word of containerd and its reading, nanoseconds.
const CLOCK_SLACK_NS: i128 = 2_000_000_000;

/// The process that containerd has named, at that time, as the first of a container. What has its pid now started before, or
/// it is another process, and the one meant is gone.
pub(super) fn first_process(host_proc: &Path, pid: u32, named_at_unix_ns: Option<i128>) -> First {
    let clock = clock::now();
    let start_time_ns = Stat::read(&host_proc.join(pid.to_string()))
        .map(|stat| stat.start_time_ns())
        .filter(|start| named_at_unix_ns.is_none_or(|named| clock.unix_ns(*start) <= named + CLOCK_SLACK_NS));
    First { pid, start_time_ns, started_at_unix_ns: start_time_ns.map(|start| clock.unix_ns(start)) }
}

/// Whether a process of our own pid namespace sees the node's cgroups from their root; none where it may not be asked.
pub(super) fn in_node_cgroup_namespace(pid: i32) -> Option<bool> {
    /// `PROC_CGROUP_INIT_INO` (`include/linux/proc_ns.h`, since 4.6).
    const NODE: &str = "cgroup:[4026531835]";
    let namespace = std::fs::read_link(format!("/proc/{pid}/ns/cgroup")).ok()?;
    Some(namespace.to_str() == Some(NODE))
}

/// The capabilities that a process of this node can have at most, as a bit set; 0 where that can't be read.
pub(super) fn capabilities(host_proc: &Path) -> u64 {
    let status = std::fs::read_to_string(host_proc.join("1/status")).unwrap_or_default();
    bounding_set(&status).unwrap_or(0)
}

pub(crate) fn bounding_set(status: &str) -> Option<u64> {
    let set = status.lines().find_map(|line| line.strip_prefix("CapBnd:"))?;
    u64::from_str_radix(set.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: i128 = 1_000_000_000;

    #[test]
    fn the_start_of_this_process_is_a_short_while_ago() {
        let first = first_process(Path::new("/proc"), std::process::id(), Some(clock::unix_ns()));
        let ago = clock::unix_ns() - first.started_at_unix_ns.unwrap();
        assert!((0..600 * SECOND_NS).contains(&ago), "{ago}");
        assert_eq!(first_process(Path::new("/proc"), u32::MAX, None).start_time_ns, None);
    }

    #[test]
    fn a_process_that_started_after_its_pid_was_named_is_another() {
        let long_ago = clock::unix_ns() - 3600 * SECOND_NS;
        let first = first_process(Path::new("/proc"), std::process::id(), Some(long_ago));
        assert_eq!((first.start_time_ns, first.started_at_unix_ns), (None, None));
    }

    #[test]
    fn the_bounding_set_is_read_as_a_number() {
        assert_eq!(bounding_set("Name:\tinit\nCapBnd:\t000001fffeffffff\n"), Some(0x1ff_feff_ffff));
        assert_eq!(bounding_set("CapBnd:\tnone\n"), None);
        assert_eq!(bounding_set(""), None);
    }
}
