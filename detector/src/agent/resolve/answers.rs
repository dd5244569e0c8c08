//! Answers that are kept for a short while, for a program that is refused writes in a loop.

use std::time::{Duration, Instant};

use quick_cache::{Weighter, unsync::Cache};

use super::process::{Incarnation, Subject};
use crate::finding::paths::{Question, Resolved};

/// How long an answer holds. A container can change its links meanwhile, as it can before the first look.
const KEPT: Duration = Duration::from_secs(1);
/// What the answers take, at most.
const BYTES_MAX: u64 = 2 << 20;
/// What an answer takes besides the paths in it, about.
const FIXED: usize = 384;

type Asked = (Subject, Question);
type Answer = (Instant, Option<Resolved>);

/// Answers by who asked and what.
pub(super) struct Answers {
    cache: Cache<Asked, Answer, ByBytes>,
    swept: Instant,
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<Asked, Answer> for ByBytes {
    fn weight(&self, (subject, question): &Asked, (_, answer): &Answer) -> u64 {
        let Question { anchor, requested, .. } = question;
        let asked = anchor.root.len() + anchor.start.len() + requested.len();
        let told = answer.as_ref().map_or(0, |resolved| {
            resolved.path.len() + resolved.mount.as_ref().map_or(0, |mount| mount.point.len() + mount.fstype.len())
        });
        let bytes = FIXED + subject.container.as_ref().map_or(0, String::len) + asked + told;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}

impl Answers {
    pub(super) fn new(now: Instant) -> Self {
        let items = usize::try_from(BYTES_MAX).unwrap_or(usize::MAX) / (2 * FIXED);
        Self { cache: Cache::with_weighter(items, BYTES_MAX, ByBytes), swept: now }
    }

    /// The answer that still holds at `now`.
    pub(super) fn get(&mut self, asked: &Asked, now: Instant) -> Option<Option<Resolved>> {
        self.sweep(now);
        let (since, answer) = self.cache.get(asked)?;
        holds(*since, now).then(|| answer.clone())
    }

    pub(super) fn keep(&mut self, asked: Asked, answer: Option<Resolved>, now: Instant) {
        self.sweep(now);
        self.cache.insert(asked, (now, answer));
    }

    /// Drops what holds no longer.
    fn sweep(&mut self, now: Instant) {
        if !holds(self.swept, now) {
            self.swept = now;
            self.cache.retain(|_, (since, _)| holds(*since, now));
        }
    }
}

fn holds(since: Instant, now: Instant) -> bool {
    now.saturating_duration_since(since) < KEPT
}

/// Whose answers hold for whom: for all processes of a container in one mount namespace. Without a container for the
/// process alone: a mount namespace's number is soon given to another.
pub(super) fn whose(subject: &Subject) -> Subject {
    let mut whose = subject.clone();
    whose.ancestors.clear();
    if whose.container.is_some() && whose.mnt_ns.is_some() {
        whose.process = Incarnation { pid: 0, start_time_ns: 0 };
    }
    whose
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{
        super::process::tests::{ourselves, question},
        *,
    };

    fn asked(path: &str) -> Asked {
        (ourselves(), question(Path::new(path)))
    }

    #[test]
    fn an_answer_holds_for_a_second_and_takes_no_memory_after() {
        let now = Instant::now();
        let mut answers = Answers::new(now);
        answers.keep(asked("/x"), None, now);
        assert_eq!(answers.get(&asked("/x"), now), Some(None));
        assert_eq!(answers.get(&asked("/y"), now + KEPT), None);
        assert_eq!(answers.cache.len(), 0);
    }

    #[test]
    fn answers_about_long_paths_take_no_more_memory_than_those_about_short_ones() {
        let now = Instant::now();
        let mut answers = Answers::new(now);
        for number in 0..4096 {
            answers.keep(asked(&format!("/{number}/{}", "x".repeat(4000))), None, now);
        }
        assert!(answers.cache.len() > 100, "{}", answers.cache.len());
        assert!(answers.cache.len() * 4000 <= 2 << 20, "{}", answers.cache.len());
    }
}
