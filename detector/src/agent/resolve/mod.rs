//! Resolving paths in the real root of a container, shortly after the call: which symbolic links were on the way, and on
//! which mount the end lies.
//!
//! It must never hold up the agent. A filesystem can hang (a network mount whose server is gone, a FUSE daemon that means
//! ill), so threads of its own do the looking, and whoever asks waits no longer than [`DEADLINE`]. While a thread hangs,
//! nothing more is asked about the container that it hangs on, and another thread takes its place, up to a limit. A
//! filesystem that is slow uses up what its container is allowed to cost. Paths are then told by their text.
//!
//! What is asked at once about one container goes to a thread and back at once: on a busy machine the way there and back takes
//! longer than the look, and what the first question has opened serves the others.

mod allowance;
mod answers;
pub mod process;
pub mod tables;
pub mod walk;

use std::{
    collections::{HashMap, HashSet},
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
    process::{NoAnswer, Session},
    tables::Tables,
};
use crate::finding::paths::{Question, Resolved};

/// Of a call that is longer ago nothing is looked up: who reads the rings is behind, and a look takes longer than all else that
/// is done for an event. A path that is told by its text is better than one that the ring has no room for.
const LATE: Duration = Duration::from_secs(1);
/// How long whoever asks waits for what it asks at once about one container, at most.
pub const DEADLINE: Duration = Duration::from_millis(100);
/// Threads at most, those that hang among them: so many containers can have a filesystem that never answers, one each,
/// before nothing is resolved any more.
const THREADS_MAX: usize = 64;

type Look = Box<dyn Fn(&mut Session<'_>, &Subject, &Question) -> Result<Resolved, NoAnswer> + Send + Sync>;

/// Who asks what.
pub type Asker = (Subject, [Option<Question>; 2]);

/// The answers to an asker's questions, where there are any.
pub type Answered = [Option<Resolved>; 2];

/// Resolves paths in real roots.
pub struct Resolver {
    jobs: mpsc::Sender<Job>,
    queue: Arc<Mutex<mpsc::Receiver<Job>>>,
    threads_max: usize,
    shared: Arc<Shared>,
}

struct Shared {
    look: Look,
    host_proc: PathBuf,
    tables: Tables,
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

/// A question that has to be looked up.
struct Open {
    subject: Subject,
    question: Question,
    /// Whose it is: which asker's, and which of its two.
    place: (usize, usize),
}

/// What is asked at once about one container.
struct Job {
    key: Key,
    open: Arc<[Open]>,
    found: Arc<Mutex<Found>>,
    done: oneshot::Sender<()>,
}

/// What was found so far: whoever waits no longer takes what there is.
#[derive(Default)]
struct Found {
    /// In the order of the questions.
    answers: Vec<Option<Resolved>>,
    /// What it has cost the container.
    spent: Duration,
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
        Self::with(host_proc, THREADS_MAX, Box::new(|session, subject, question| session.look(subject, question)))
    }

    fn with(host_proc: PathBuf, threads_max: usize, look: Look) -> std::io::Result<Self> {
        let now = Instant::now();
        let shared = Arc::new(Shared {
            look,
            host_proc,
            tables: Tables::default(),
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

    /// The answers to each, in their order, where there are any in time; `lag` is how far whoever asks is behind. To be called
    /// with a few at once.
    pub async fn resolve(&self, askers: Vec<Asker>, lag: Duration) -> Vec<Answered> {
        let mut answered = vec![[None, None]; askers.len()];
        let mut open: HashMap<Key, Vec<Open>> = HashMap::new();
        let now = Instant::now();
        for (number, (subject, questions)) in askers.into_iter().enumerate() {
            for (which, question) in questions.into_iter().enumerate() {
                let Some(question) = question else { continue };
                match self.known(&subject, question, lag, now) {
                    Ok(answer) => put(&mut answered, (number, which), answer),
                    Err(question) => {
                        let asked = Open { subject: subject.clone(), question, place: (number, which) };
                        open.entry(subject.container.clone()).or_default().push(asked);
                    }
                }
            }
        }
        for (key, open) in open {
            let open: Arc<[Open]> = open.into();
            for (open, answer) in open.iter().zip(self.ask(key, &open).await) {
                put(&mut answered, open.place, answer);
            }
        }
        answered
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

    /// The answer that is kept, or none where nothing new is looked at; else the question.
    fn known(
        &self,
        subject: &Subject,
        question: Question,
        lag: Duration,
        now: Instant,
    ) -> Result<Option<Resolved>, Question> {
        let Shared { answers, counts, .. } = &*self.shared;
        let asked = (answers::whose(subject), question);
        if let Some(answer) = lock(answers).get(&asked, now) {
            counts.kept.fetch_add(1, Ordering::Relaxed);
            return Ok(answer);
        }
        if lag > LATE {
            counts.late.fetch_add(1, Ordering::Relaxed);
            return Ok(None);
        }
        Err(asked.1)
    }

    /// Asks what is open about a container; the answers that there are in time, of the first questions.
    async fn ask(&self, key: Key, open: &Arc<[Open]>) -> Vec<Option<Resolved>> {
        let Shared { answers, allowance, counts, .. } = &*self.shared;
        let add = |count: &AtomicU64, times: usize| count.fetch_add(times as u64, Ordering::Relaxed);
        if !lock(allowance).is_left(&key, Instant::now()) {
            add(&counts.too_slow, open.len());
            return Vec::new();
        }
        if !self.begin(&key) {
            add(&counts.hanging, open.len());
            return Vec::new();
        }
        let (done, wait) = oneshot::channel();
        let found = Arc::<Mutex<Found>>::default();
        let job = Job { key: key.clone(), open: Arc::clone(open), found: Arc::clone(&found), done };
        if self.jobs.send(job).is_err() {
            return Vec::new();
        }
        let in_time = matches!(tokio::time::timeout(DEADLINE, wait).await, Ok(Ok(())));
        let Found { answers: found, spent } = std::mem::take(&mut *lock(&found));
        let now = Instant::now();
        // What is waited for in vain has cost all of the time.
        lock(allowance).spend(&key, if in_time { spent } else { DEADLINE });
        add(&counts.timed_out, open.len() - found.len());
        for (open, answer) in open.iter().zip(&found) {
            lock(answers).keep((answers::whose(&open.subject), open.question.clone()), answer.clone(), now);
        }
        found
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
            let Ok(Job { key, open, found, done }) = job else { return };
            // It holds folders open, so it ends before anybody is told.
            let mut session = Session::new(&self.host_proc, &self.tables);
            for Open { subject, question, .. } in &*open {
                // Nobody waits any more where it took too long.
                if done.is_closed() {
                    break;
                }
                let start = Instant::now();
                let result = (self.look)(&mut session, subject, question);
                let count = match &result {
                    Ok(_) => &self.counts.resolved,
                    Err(NoAnswer::Gone) => &self.counts.gone,
                    Err(NoAnswer::Walk(_)) => &self.counts.failed,
                };
                count.fetch_add(1, Ordering::Relaxed);
                let mut found = lock(&found);
                found.spent += allowance::cost(start.elapsed());
                found.answers.push(result.ok());
            }
            drop(session);
            let is_needed = self.finish(&key);
            let _ = done.send(());
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

fn put(answered: &mut [Answered], (number, which): (usize, usize), answer: Option<Resolved>) {
    if let Some(place) = answered.get_mut(number).and_then(|answers| answers.get_mut(which)) {
        *place = answer;
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
