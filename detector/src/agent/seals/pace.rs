//! How often something is looked at that changes all the time.
//!
//! The first change after a quiet time is looked at almost at once. Who goes on changing waits longer each time, and the longer
//! the dearer a look is, but never so long that a change would be found later than within a second.

use std::time::{Duration, Instant};

/// Between two looks there is at least this.
const SHORTEST: Duration = Duration::from_millis(20);
/// After so long it is looked at again, whatever it costs.
const LONGEST: Duration = Duration::from_millis(500);
/// So many times as long as a look takes there is none.
const REST: u32 = 10;

/// See the module.
#[derive(Debug)]
pub(super) struct Pace {
    /// End of the last look.
    looked_at: Option<Instant>,
    pause: Duration,
}

impl Pace {
    /// Of what was not looked at yet.
    pub(super) const fn new() -> Self {
        Self { looked_at: None, pause: SHORTEST }
    }

    /// When to look at a change that is told of at `now`.
    pub(super) fn earliest(&self, now: Instant) -> Instant {
        self.looked_at.map_or(now, |at| now.max(at + self.pause))
    }

    /// A look began at `start`, and took so long.
    pub(super) fn looked(&mut self, start: Instant, took: Duration) {
        let again = self.looked_at.is_some_and(|before| start < before + 2 * self.pause);
        let pause = if again { 2 * self.pause } else { SHORTEST };
        self.pause = pause.max(REST * took).clamp(SHORTEST, LONGEST);
        self.looked_at = Some(start + took);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Begins of the looks at what changes without end, each of which takes so long, in the first so many seconds.
    fn looks(took: Duration, seconds: u64) -> Vec<Duration> {
        let begin = Instant::now();
        let mut pace = Pace::new();
        let (mut now, mut looks) = (begin, Vec::new());
        loop {
            now = pace.earliest(now);
            if now - begin >= Duration::from_secs(seconds) {
                return looks;
            }
            looks.push(now - begin);
            pace.looked(now, took);
            now += took;
        }
    }

    #[test]
    fn what_changes_without_end_costs_little_and_is_seen_within_a_second_all_the_same() {
        for took in [10, 100, 10_000, 50_000].map(Duration::from_micros) {
            let looks = looks(took, 10);
            assert!(looks.len() <= 30, "{} looks of {took:?}", looks.len());
            assert!(took * looks.len() as u32 <= Duration::from_secs(1), "a tenth of the time: {took:?}");
            let longest = looks.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
            assert!(longest <= LONGEST + took, "{longest:?}");
        }
    }

    #[test]
    fn a_change_after_a_quiet_time_is_seen_at_once() {
        let begin = Instant::now();
        let mut pace = Pace::new();
        assert_eq!(pace.earliest(begin), begin);
        for _ in 0..10 {
            let at = pace.earliest(begin);
            pace.looked(at, Duration::from_micros(100));
        }
        let quiet = pace.earliest(begin) + Duration::from_secs(2);
        assert_eq!(pace.earliest(quiet), quiet);
        pace.looked(quiet, Duration::ZERO);
        assert_eq!(pace.earliest(quiet), quiet + SHORTEST);
    }
}
