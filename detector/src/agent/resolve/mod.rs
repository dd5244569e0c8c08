//! Resolving paths in the real root of a container, shortly after the call: which symbolic links were on the way, and on
//! which mount the end lies.
//!
//! It must never hold up the agent. A filesystem can hang (a network mount whose server is gone, a FUSE daemon that means
//! ill), so threads of its own do the looking, and whoever asks waits no longer than [`DEADLINE`]. While a thread hangs,
//! nothing more is asked about the container that it hangs on, and another thread takes its place, up to a limit. A
//! filesystem that is slow uses up what its container is allowed to cost. Paths are then told by their text.

mod allowance;
mod answers;
pub mod process;
pub mod tables;
pub mod walk;

use std::{
    collections::HashSet,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

pub use self::process::Subject;
use self::{
    allowance::{Allowance, Key},
    answers::Answers,
    process::NoAnswer,
    tables::Tables,
};
use crate::finding::paths::{Question, Resolved};

/// Of a call that is longer ago nothing is looked up: who reads the rings is behind, and a look takes longer than all else that
/// is done for an event. A path that is told by its text is better than one that the ring has no room for.
const LATE: Duration = Duration::from_secs(1);
/// How long whoever asks waits, at most.
pub const DEADLINE: Duration = Duration::from_millis(100);
/// Threads at most, those that hang among them: so many containers can have a filesystem that never answers, one each,
/// before nothing is resolved any more.
const THREADS_MAX: usize = 64;

type Look = Box<dyn Fn(&Subject, &Question) -> Result<Resolved, NoAnswer> + Send + Sync>;

/// Resolves paths in real roots.
pub struct Resolver {
    jobs: mpsc::Sender<Job>,
    queue: Arc<Mutex<mpsc::Receiver<Job>>>,
    threads_max: usize,
    shared: Arc<Shared>,
}

struct Shared {
    look: Look,
    answers: Mutex<Answers>,
    allowance: Mutex<Allowance>,
    at_work: Mutex<AtWork>,
    counts: Counts,
}

/// Questions that are out, and who looks.
#[derive(Default)]
struct AtWork {
    /// About whom; one question at a time.
    about: HashSet<Key>,
    threads: usize,
}

struct Job {
    subject: Subject,
    question: Question,
    answer: oneshot::Sender<Option<Resolved>>,
}

#[derive(Default)]
struct Counts {
    resolved: AtomicU64,
    kept: AtomicU64,
    gone: AtomicU64,
    failed: AtomicU64,
    timed_out: AtomicU64,
    hanging: AtomicU64,
    too_slow: AtomicU64,
    late: AtomicU64,
}

impl Resolver {
    /// Looks at processes below `host_proc`.
    ///
    /// # Errors
    /// Where no thread can be had.
    pub fn new(host_proc: PathBuf) -> std::io::Result<Self> {
        let tables = Tables::default();
        let look = move |subject: &Subject, question: &Question| process::look(&host_proc, &tables, subject, question);
        Self::with(THREADS_MAX, Box::new(look))
    }

    fn with(threads_max: usize, look: Look) -> std::io::Result<Self> {
        let now = Instant::now();
        let shared = Arc::new(Shared {
            look,
            answers: Mutex::new(Answers::new(now)),
            allowance: Mutex::new(Allowance::new(now)),
            at_work: Mutex::default(),
            counts: Counts::default(),
        });
        let (jobs, queue) = mpsc::channel();
        let resolver = Self { jobs, queue: Arc::new(Mutex::new(queue)), threads_max, shared };
        resolver.add_thread(&mut lock(&resolver.shared.at_work))?;
        Ok(resolver)
    }

    /// The answer to each question, where there is one in time; `lag` is how far whoever asks is behind.
    pub async fn resolve(
        &self,
        subject: &Subject,
        questions: [Option<Question>; 2],
        lag: Duration,
    ) -> [Option<Resolved>; 2] {
        let [first, second] = questions;
        let first = self.answer(subject, first, lag).await;
        [first, self.answer(subject, second, lag).await]
    }

    /// What became of the questions so far, by name.
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        let Counts { resolved, kept, gone, failed, timed_out, hanging, too_slow, late } = &self.shared.counts;
        [
            ("resolved", resolved),
            ("kept", kept),
            ("gone", gone),
            ("failed", failed),
            ("timed_out", timed_out),
            ("hanging", hanging),
            ("too_slow", too_slow),
            ("late", late),
        ]
        .map(|(name, count)| (name, count.load(Ordering::Relaxed)))
        .to_vec()
    }

    async fn answer(&self, subject: &Subject, question: Option<Question>, lag: Duration) -> Option<Resolved> {
        let Shared { answers, allowance, counts, .. } = &*self.shared;
        let asked = (answers::whose(subject), question?);
        let start = Instant::now();
        if let Some(answer) = lock(answers).get(&asked, start) {
            counts.kept.fetch_add(1, Ordering::Relaxed);
            return answer;
        }
        if lag > LATE {
            counts.late.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let key = &subject.container;
        if !lock(allowance).is_left(key, start) {
            counts.too_slow.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        if !self.begin(key) {
            counts.hanging.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let (answer, wait) = oneshot::channel();
        let job = Job { subject: subject.clone(), question: asked.1.clone(), answer };
        self.jobs.send(job).ok()?;
        let answer = tokio::time::timeout(DEADLINE, wait).await;
        let now = Instant::now();
        lock(allowance).spend(key, now.duration_since(start));
        match answer {
            Ok(Ok(answer)) => {
                lock(answers).keep(asked, answer.clone(), now);
                answer
            }
            _ => {
                counts.timed_out.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }

    /// Whether a question about `key` can go out now: none is out yet, and there is a thread for it.
    fn begin(&self, key: &Key) -> bool {
        let mut at_work = lock(&self.shared.at_work);
        if at_work.about.contains(key) {
            return false;
        }
        if at_work.about.len() >= at_work.threads && self.add_thread(&mut at_work).is_err() {
            return false;
        }
        at_work.about.insert(key.clone())
    }

    /// # Errors
    /// Where there are too many, or the system has no more.
    fn add_thread(&self, at_work: &mut AtWork) -> std::io::Result<()> {
        if at_work.threads >= self.threads_max {
            return Err(std::io::ErrorKind::QuotaExceeded.into());
        }
        let (shared, queue) = (Arc::clone(&self.shared), Arc::clone(&self.queue));
        // It ends with the channel; one that hangs ends with the process.
        std::thread::Builder::new().name("resolve".to_owned()).spawn(move || shared.work(&queue))?;
        at_work.threads += 1;
        Ok(())
    }
}

impl Shared {
    fn work(&self, queue: &Mutex<mpsc::Receiver<Job>>) {
        loop {
            // The lock is held while waiting: the others wait for it instead, which is the same.
            let job = lock(queue).recv();
            let Ok(Job { subject, question, answer }) = job else { return };
            let result = (!answer.is_closed()).then(|| (self.look)(&subject, &question));
            let is_needed = self.finish(&subject.container);
            let count = match &result {
                Some(Ok(_)) => Some(&self.counts.resolved),
                Some(Err(NoAnswer::Gone)) => Some(&self.counts.gone),
                Some(Err(NoAnswer::Walk(_))) => Some(&self.counts.failed),
                None => None,
            };
            if let Some(count) = count {
                count.fetch_add(1, Ordering::Relaxed);
            }
            // Nobody waits any more where it took too long.
            let _ = answer.send(result.and_then(Result::ok));
            if !is_needed {
                return;
            }
        }
    }

    /// Notes that the question about `key` is out no longer. Returns whether the thread is still needed: it is not where
    /// another took its place while it hung.
    fn finish(&self, key: &Key) -> bool {
        let mut at_work = lock(&self.at_work);
        at_work.about.remove(key);
        let is_needed = at_work.threads <= at_work.about.len() + 1;
        if !is_needed {
            at_work.threads -= 1;
        }
        is_needed
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
