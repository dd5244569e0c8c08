//! How long the agent may wait for answers, of one container and of all.
//!
//! There is one way for all events. A filesystem that answers each question just before the deadline hangs never, and yet
//! would hold up the events of the whole node for as long as its container asks for new paths.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// What is given anew after this time.
const WINDOW: Duration = Duration::from_secs(10);
/// To one container: what it can take of the agent's time is 2 %.
const TO_EACH: Duration = Duration::from_millis(200);
/// To all together, however many containers there are.
const TO_ALL: Duration = Duration::from_secs(3);
/// Of one question: a local filesystem takes less, and a program that is refused many writes by it is none to be stopped.
const FREE: Duration = Duration::from_micros(500);

/// What an answer costs that took so long.
pub(super) const fn cost(took: Duration) -> Duration {
    took.saturating_sub(FREE)
}

/// Who can be slow as one: a container, or all that is in none. Not a mount namespace: a container can make many of them.
pub(super) type Key = Option<String>;

/// What was spent in the present window.
#[derive(Debug)]
pub(super) struct Allowance {
    since: Instant,
    by_each: HashMap<Key, Duration>,
    by_all: Duration,
}

impl Allowance {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, by_each: HashMap::new(), by_all: Duration::ZERO }
    }

    /// Whether there is time left at `now` to wait for an answer about `key`.
    pub(super) fn is_left(&mut self, key: &Key, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) >= WINDOW {
            *self = Self::new(now);
        }
        self.by_all < TO_ALL && self.by_each.get(key).is_none_or(|spent| *spent < TO_EACH)
    }

    /// Notes what answers about `key` have cost.
    pub(super) fn spend(&mut self, key: &Key, spent: Duration) {
        if !spent.is_zero() {
            self.by_all += spent;
            *self.by_each.entry(key.clone()).or_default() += spent;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: &str) -> Key {
        Some(id.to_owned())
    }

    #[test]
    fn a_container_that_has_spent_its_time_gets_more_in_the_next_window_and_others_have_theirs() {
        let now = Instant::now();
        let mut allowance = Allowance::new(now);
        for _ in 0..3 {
            assert!(allowance.is_left(&key("a"), now));
            allowance.spend(&key("a"), Duration::from_millis(90));
        }
        assert!(!allowance.is_left(&key("a"), now + WINDOW - Duration::from_nanos(1)));
        assert!(allowance.is_left(&key("b"), now));
        assert!(allowance.is_left(&None, now));
        assert!(allowance.is_left(&key("a"), now + WINDOW));
    }

    #[test]
    fn all_containers_together_get_no_more_than_a_part_of_the_time() {
        let now = Instant::now();
        let mut allowance = Allowance::new(now);
        let spent = (0..1000).take_while(|id| {
            let key = key(&id.to_string());
            let left = allowance.is_left(&key, now);
            allowance.spend(&key, Duration::from_millis(100));
            left
        });
        assert!((30..=31).contains(&spent.count()), "3 s by 100 ms");
    }

    #[test]
    fn answers_as_fast_as_a_local_filesystem_gives_them_cost_nothing() {
        let now = Instant::now();
        let mut allowance = Allowance::new(now);
        for _ in 0..100_000 {
            allowance.spend(&key("a"), cost(Duration::from_micros(100)));
        }
        assert!(allowance.is_left(&key("a"), now));
        assert!(allowance.by_each.is_empty());
    }
}
