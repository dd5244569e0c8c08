//! Attempts whose container is not known yet, held back for a short while.
//!
//! The kernel side is faster than containerd: a container's first refused write can be here before containerd has said what
//! the container is. Such attempts wait for the answer, each until its own deadline; what is not known then goes out as it
//! is. Their number is bounded: when it is reached, the oldest goes out at once.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::kernel::attempt::Attempt;

/// How long an attempt waits for its container.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// How many wait at most.
pub const MOST: usize = 4096;

/// What is held, oldest first.
#[derive(Debug, Default)]
pub struct Held {
    attempts: VecDeque<(Instant, Box<Attempt>)>,
}

impl Held {
    /// Holds `attempt` from `now`; gives back the oldest where there is no more room.
    pub fn hold(&mut self, attempt: Box<Attempt>, now: Instant) -> Option<Box<Attempt>> {
        let oldest = if self.attempts.len() >= MOST { self.attempts.pop_front() } else { None };
        self.attempts.push_back((now + PATIENCE, attempt));
        oldest.map(|(_, attempt)| attempt)
    }

    /// Takes out those that `is_known` now, and those whose time is up at `now`, oldest first.
    #[expect(clippy::vec_box, reason = "they are in boxes already; to move them out would copy each")]
    pub fn release(&mut self, now: Instant, mut is_known: impl FnMut(&Attempt) -> bool) -> Vec<Box<Attempt>> {
        let mut released = Vec::new();
        let mut kept = VecDeque::with_capacity(self.attempts.len());
        for (deadline, attempt) in self.attempts.drain(..) {
            if deadline <= now || is_known(&attempt) {
                released.push(attempt);
            } else {
                kept.push_back((deadline, attempt));
            }
        }
        self.attempts = kept;
        released
    }

    /// When the next one's time is up.
    pub fn deadline(&self) -> Option<Instant> {
        self.attempts.front().map(|&(deadline, _)| deadline)
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.attempts.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use detector_common::{
        abi::Abi,
        record::{Hook, RecordKind},
        syscalls,
    };

    use super::*;
    use crate::kernel::attempt::{PassedPath, Process};

    fn attempt(cgroup_id: u64) -> Box<Attempt> {
        Box::new(Attempt {
            kind: RecordKind::WriteDenied,
            time_ns: 0,
            cgroup_id,
            process: Process {
                pid: 1,
                tid: 1,
                ppid: 0,
                container_pid: 1,
                uid: 0,
                gid: 0,
                comm: Vec::new(),
                exe: None,
                args: Vec::new(),
                args_truncated: false,
                cwd: None,
                start_time_ns: 0,
                cap_effective: 0,
                mnt_ns: None,
                user_ns_level: 0,
                flags: 0,
                parent_cgroup_id: None,
                same_program_as_parent: false,
                in_node_mount_namespace: false,
                ancestors: Vec::new(),
            },
            operation: detector_common::operation::Operation::Open,
            abi: Abi::X86_64,
            hook: Hook::Tracepoint,
            syscall: &syscalls::SYSCALLS[0],
            args: [0; 6],
            extra: [0; 4],
            result: -30,
            path: PassedPath::default(),
            path2: PassedPath::default(),
            source: None,
            fstype: None,
            data: None,
        })
    }

    fn cgroups(released: &[Box<Attempt>]) -> Vec<u64> {
        released.iter().map(|attempt| attempt.cgroup_id).collect()
    }

    #[test]
    fn what_becomes_known_goes_out_and_the_rest_waits() {
        let (mut held, now) = (Held::default(), Instant::now());
        for cgroup in [1, 2, 1] {
            assert!(held.hold(attempt(cgroup), now).is_none());
        }
        assert_eq!(cgroups(&held.release(now, |attempt| attempt.cgroup_id == 1)), [1, 1]);
        assert_eq!(held.deadline(), Some(now + PATIENCE));
        assert_eq!(cgroups(&held.release(now + PATIENCE, |_| false)), [2]);
        assert!(held.is_empty());
    }

    #[test]
    fn when_there_is_no_more_room_the_oldest_goes_out_at_once() {
        let (mut held, now) = (Held::default(), Instant::now());
        for cgroup in 0..u64::try_from(MOST).unwrap() {
            assert!(held.hold(attempt(cgroup), now).is_none());
        }
        assert_eq!(held.hold(attempt(7777), now).map(|oldest| oldest.cgroup_id), Some(0));
    }
}
