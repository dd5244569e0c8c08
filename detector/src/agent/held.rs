//! Attempts whose container is not known yet, held back for a short while.
//!
//! The kernel side is faster than containerd: a container's first refused write can be here before containerd has said what
//! the container is. Such attempts wait for the answer, each until its own deadline; what is not known then goes out as it
//! is. Their number and their size are bounded, of each cgroup and of all: when a bound is reached, the oldest go out at once.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use super::weight;
use crate::kernel::attempt::Attempt;

/// How long an attempt waits for its container.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// What waits at most.
pub const MOST: Amount = Amount { attempts: 4096, bytes: 16 << 20 };

/// What waits of one cgroup at most: it must not push out what others wait for.
pub const MOST_OF_CGROUP: Amount = Amount { attempts: MOST.attempts / 4, bytes: MOST.bytes / 4 };

/// How many attempts, and what they take.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Amount {
    /// How many.
    pub attempts: usize,
    /// What they take, about.
    pub bytes: usize,
}

impl Amount {
    const fn has_room_for(self, bytes: usize, most: Self) -> bool {
        self.attempts < most.attempts && self.bytes.saturating_add(bytes) <= most.bytes
    }

    const fn add(&mut self, bytes: usize) {
        self.attempts += 1;
        self.bytes += bytes;
    }

    const fn subtract(&mut self, bytes: usize) {
        self.attempts -= 1;
        self.bytes -= bytes;
    }
}

/// What is held, oldest first.
#[derive(Debug, Default)]
pub struct Held {
    waiting: VecDeque<Waiting>,
    all: Amount,
    by_cgroup: HashMap<u64, Amount>,
}

#[derive(Debug)]
struct Waiting {
    deadline: Instant,
    cgroup_id: u64,
    bytes: usize,
    attempt: Box<Attempt>,
}

impl Held {
    /// Holds `attempt` from `now`; gives back the oldest where there is no more room, of its own cgroup first.
    #[expect(clippy::vec_box, reason = "they are in boxes already; to move them out would copy each")]
    pub fn hold(&mut self, attempt: Box<Attempt>, now: Instant) -> Vec<Box<Attempt>> {
        let (cgroup_id, bytes) = (attempt.cgroup_id, weight::of_attempt(&attempt));
        let mut oldest = Vec::new();
        while self.by_cgroup.get(&cgroup_id).is_some_and(|held| !held.has_room_for(bytes, MOST_OF_CGROUP)) {
            let position = self.waiting.iter().position(|waiting| waiting.cgroup_id == cgroup_id);
            let Some(waiting) = position.and_then(|position| self.waiting.remove(position)) else { break };
            oldest.push(self.let_go(waiting));
        }
        while !self.all.has_room_for(bytes, MOST) {
            let Some(waiting) = self.waiting.pop_front() else { break };
            oldest.push(self.let_go(waiting));
        }
        self.all.add(bytes);
        self.by_cgroup.entry(cgroup_id).or_default().add(bytes);
        self.waiting.push_back(Waiting { deadline: now + PATIENCE, cgroup_id, bytes, attempt });
        oldest
    }

    /// Counts one that was taken out.
    fn let_go(&mut self, Waiting { cgroup_id, bytes, attempt, .. }: Waiting) -> Box<Attempt> {
        self.all.subtract(bytes);
        if let Some(of_cgroup) = self.by_cgroup.get_mut(&cgroup_id) {
            of_cgroup.subtract(bytes);
            if of_cgroup.attempts == 0 {
                self.by_cgroup.remove(&cgroup_id);
            }
        }
        attempt
    }

    /// Takes out those that `is_known` now, and those whose time is up at `now`, oldest first.
    #[expect(clippy::vec_box, reason = "they are in boxes already; to move them out would copy each")]
    pub fn release(&mut self, now: Instant, mut is_known: impl FnMut(&Attempt) -> bool) -> Vec<Box<Attempt>> {
        let mut released = Vec::new();
        let mut kept = VecDeque::with_capacity(self.waiting.len());
        for waiting in std::mem::take(&mut self.waiting) {
            if waiting.deadline <= now || is_known(&waiting.attempt) {
                released.push(self.let_go(waiting));
            } else {
                kept.push_back(waiting);
            }
        }
        self.waiting = kept;
        released
    }

    /// When the next one's time is up.
    pub fn deadline(&self) -> Option<Instant> {
        self.waiting.front().map(|waiting| waiting.deadline)
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::testing;

    fn attempt(cgroup_id: u64) -> Box<Attempt> {
        Box::new(Attempt { cgroup_id, ..testing::attempt("openat") })
    }

    fn with_long_path(cgroup_id: u64) -> Box<Attempt> {
        let mut attempt = attempt(cgroup_id);
        attempt.path.requested = Some(vec![b'x'; 64 << 10]);
        attempt
    }

    fn cgroups(released: &[Box<Attempt>]) -> Vec<u64> {
        released.iter().map(|attempt| attempt.cgroup_id).collect()
    }

    #[test]
    fn what_becomes_known_goes_out_and_the_rest_waits() {
        let (mut held, now) = (Held::default(), Instant::now());
        for cgroup in [1, 2, 1] {
            assert!(held.hold(attempt(cgroup), now).is_empty());
        }
        assert_eq!(cgroups(&held.release(now, |attempt| attempt.cgroup_id == 1)), [1, 1]);
        assert_eq!(held.deadline(), Some(now + PATIENCE));
        assert_eq!(cgroups(&held.release(now + PATIENCE, |_| false)), [2]);
        assert!(held.is_empty());
    }

    #[test]
    fn when_there_is_no_more_room_the_oldest_goes_out_at_once() {
        let (mut held, now) = (Held::default(), Instant::now());
        for cgroup in 0..u64::try_from(MOST.attempts).unwrap() {
            assert!(held.hold(attempt(cgroup), now).is_empty());
        }
        assert_eq!(cgroups(&held.hold(attempt(7777), now)), [0]);
    }

    #[test]
    fn a_cgroup_that_floods_pushes_out_its_own_attempts_alone() {
        let (mut held, now) = (Held::default(), Instant::now());
        held.hold(attempt(1), now);
        let pushed_out: Vec<_> = (0..2 * MOST.attempts).flat_map(|_| held.hold(attempt(2), now)).collect();
        assert_eq!(pushed_out.len(), 2 * MOST.attempts - MOST_OF_CGROUP.attempts);
        assert!(pushed_out.iter().all(|attempt| attempt.cgroup_id == 2));
        assert_eq!(cgroups(&held.release(now, |attempt| attempt.cgroup_id == 1)), [1]);
    }

    #[test]
    fn long_paths_take_no_more_memory_than_short_ones() {
        let (mut held, now) = (Held::default(), Instant::now());
        let of_one: usize = (0..100).map(|_| held.hold(with_long_path(1), now).len()).sum();
        assert!((30..50).contains(&of_one), "{of_one} of 100 by 64 KiB are more than 4 MiB");
        for cgroup in 2..1000 {
            held.hold(with_long_path(cgroup), now);
        }
        let bytes: usize = held.waiting.iter().map(|waiting| weight::of_attempt(&waiting.attempt)).sum();
        assert!(bytes <= MOST.bytes && bytes > MOST.bytes * 9 / 10, "{bytes}");
    }

    #[test]
    fn what_has_gone_out_counts_no_longer() {
        let (mut held, now) = (Held::default(), Instant::now());
        for cgroup in 0..1000 {
            held.hold(with_long_path(cgroup % 7), now);
        }
        held.release(now + PATIENCE, |_| false);
        assert_eq!(held.all, Amount::default());
        assert!(held.by_cgroup.is_empty());
    }
}
