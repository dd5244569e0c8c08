//! Resolving paths in the real root of a container, shortly after the call: which symbolic links were on the way, and on
//! which mount the end lies.
//!
//! It must never hold up the agent. A filesystem can hang (a network mount whose server is gone, a FUSE daemon that means
//! ill), so threads of its own do the looking, and whoever asks waits no longer than [`DEADLINE`]. While a thread hangs,
//! nothing more is asked about the subject that it hangs on, and once all hang, nothing at all; paths are then told by their
//! text. Answers are kept for a second, for a program that is refused writes in a loop.

pub mod process;
pub mod walk;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use quick_cache::sync::Cache;
use tokio::sync::oneshot;

use self::process::NoAnswer;
pub use self::process::Subject;
use crate::finding::paths::{Question, Resolved};

/// How long whoever asks waits, at most.
pub const DEADLINE: Duration = Duration::from_millis(100);
/// How long an answer holds. A container can change its links meanwhile, as it can before the first look.
const KEPT: Duration = Duration::from_secs(1);
const ANSWERS_MAX: usize = 4096;
const THREADS: usize = 4;

type Look = Box<dyn Fn(&Subject, &Question) -> Result<Resolved, NoAnswer> + Send + Sync>;

/// Resolves paths in real roots.
pub struct Resolver {
    jobs: mpsc::Sender<Job>,
    shared: Arc<Shared>,
}

struct Shared {
    look: Look,
    answers: Cache<(Subject, Question), (Instant, Option<Resolved>)>,
    /// What the threads are at, by the number of the job.
    running: Mutex<HashMap<u64, (Key, Instant)>>,
    next_job: AtomicU64,
    counts: Counts,
}

/// What can hang as one: a container, or a mount namespace.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Key(Option<String>, Option<u32>);

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
}

impl Resolver {
    /// Looks at processes below `host_proc`.
    ///
    /// # Errors
    /// Where no thread can be had.
    pub fn new(host_proc: PathBuf) -> std::io::Result<Self> {
        Self::with(Box::new(move |subject, question| process::look(&host_proc, subject, question)))
    }

    fn with(look: Look) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            look,
            answers: Cache::new(ANSWERS_MAX),
            running: Mutex::default(),
            next_job: AtomicU64::default(),
            counts: Counts::default(),
        });
        let (jobs, queue) = mpsc::channel();
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..THREADS {
            let (shared, queue) = (Arc::clone(&shared), Arc::clone(&queue));
            // They end with the channel; one that hangs ends with the process.
            std::thread::Builder::new().name("resolve".to_owned()).spawn(move || shared.work(&queue))?;
        }
        Ok(Self { jobs, shared })
    }

    /// The answer to each question, where there is one in time.
    pub async fn resolve(&self, subject: &Subject, questions: [Option<Question>; 2]) -> [Option<Resolved>; 2] {
        let [first, second] = questions;
        let first = self.answer(subject, first).await;
        [first, self.answer(subject, second).await]
    }

    /// What became of the questions so far, by name.
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        let Counts { resolved, kept, gone, failed, timed_out, hanging } = &self.shared.counts;
        [
            ("resolved", resolved),
            ("kept", kept),
            ("gone", gone),
            ("failed", failed),
            ("timed_out", timed_out),
            ("hanging", hanging),
        ]
        .map(|(name, count)| (name, count.load(Ordering::Relaxed)))
        .to_vec()
    }

    async fn answer(&self, subject: &Subject, question: Option<Question>) -> Option<Resolved> {
        let asked = (self.shared.subject_of_answer(subject), question?);
        let counts = &self.shared.counts;
        if let Some((since, answer)) = self.shared.answers.get(&asked)
            && since.elapsed() < KEPT
        {
            counts.kept.fetch_add(1, Ordering::Relaxed);
            return answer;
        }
        if self.shared.hangs(&Key::of(subject)) {
            counts.hanging.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let (answer, wait) = oneshot::channel();
        let job = Job { subject: subject.clone(), question: asked.1.clone(), answer };
        self.jobs.send(job).ok()?;
        match tokio::time::timeout(DEADLINE, wait).await {
            Ok(Ok(answer)) => {
                self.shared.answers.insert(asked, (Instant::now(), answer.clone()));
                answer
            }
            _ => {
                counts.timed_out.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }
}

impl Key {
    fn of(subject: &Subject) -> Self {
        Self(subject.container.clone(), subject.mnt_ns)
    }
}

impl Shared {
    /// Whose answers hold for whom: for all processes of a container in one mount namespace. Without a container for the
    /// process alone: a mount namespace's number is soon given to another.
    fn subject_of_answer(&self, subject: &Subject) -> Subject {
        let mut whose = subject.clone();
        whose.ancestors.clear();
        if whose.container.is_some() && whose.mnt_ns.is_some() {
            whose.process = process::Incarnation { pid: 0, start_time_ns: 0 };
        }
        whose
    }

    /// Whether a thread hangs on this, or all on anything.
    fn hangs(&self, key: &Key) -> bool {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let hanging: Vec<_> = running.values().filter(|(_, since)| since.elapsed() > DEADLINE).collect();
        hanging.len() >= THREADS || hanging.iter().any(|(of, _)| of == key)
    }

    fn work(&self, queue: &Mutex<mpsc::Receiver<Job>>) {
        loop {
            // The lock is held while waiting: the others wait for it instead, which is the same.
            let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(Job { subject, question, answer }) = job else { return };
            if answer.is_closed() {
                continue;
            }
            let number = self.next_job.fetch_add(1, Ordering::Relaxed);
            let running = || self.running.lock().unwrap_or_else(PoisonError::into_inner);
            running().insert(number, (Key::of(&subject), Instant::now()));
            let result = (self.look)(&subject, &question);
            running().remove(&number);
            let count = match &result {
                Ok(_) => &self.counts.resolved,
                Err(NoAnswer::Gone) => &self.counts.gone,
                Err(NoAnswer::Walk(_)) => &self.counts.failed,
            };
            count.fetch_add(1, Ordering::Relaxed);
            // Nobody waits any more where it took too long.
            let _ = answer.send(result.ok());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{
        process::tests::{ourselves, question},
        *,
    };

    fn count(resolver: &Resolver, name: &str) -> u64 {
        resolver.counts().into_iter().find_map(|(of, count)| (of == name).then_some(count)).unwrap()
    }

    /// Hangs on every path that begins with /hang, until the test ends.
    fn hanging() -> Resolver {
        Resolver::with(Box::new(|_, question| {
            if question.requested.starts_with(b"/hang") {
                std::thread::sleep(Duration::from_secs(3600));
            }
            Ok(Resolved { path: question.requested.clone(), mount: None })
        }))
        .unwrap()
    }

    fn in_container(id: &str) -> Subject {
        Subject { container: Some(id.to_owned()), ..ourselves() }
    }

    async fn ask(resolver: &Resolver, subject: &Subject, path: &str) -> Option<Resolved> {
        resolver.resolve(subject, [Some(question(Path::new(path))), None]).await[0].clone()
    }

    #[tokio::test]
    async fn a_path_is_resolved_once_and_the_answer_kept() {
        let resolver = Resolver::new("/proc".into()).unwrap();
        for _ in 0..3 {
            assert_eq!(ask(&resolver, &ourselves(), "/proc/../x").await.unwrap().path, b"/x");
        }
        assert_eq!((count(&resolver, "resolved"), count(&resolver, "kept")), (1, 2));
    }

    #[tokio::test]
    async fn processes_of_one_container_share_answers_and_others_do_not() {
        let resolver = hanging();
        let mut other = in_container("a");
        other.process.pid += 1;
        ask(&resolver, &in_container("a"), "/x").await;
        ask(&resolver, &other, "/x").await;
        assert_eq!(count(&resolver, "kept"), 1);
        ask(&resolver, &in_container("b"), "/x").await;
        assert_eq!(count(&resolver, "kept"), 1);
    }

    #[tokio::test]
    async fn a_filesystem_that_hangs_costs_its_container_the_answers_and_others_nothing() {
        let resolver = hanging();
        let start = Instant::now();
        assert_eq!(ask(&resolver, &in_container("a"), "/hang").await, None);
        assert!(start.elapsed() >= DEADLINE && start.elapsed() < DEADLINE * 10);
        tokio::time::sleep(DEADLINE).await;

        let start = Instant::now();
        for path in ["/hang/x", "/y", "/z"] {
            assert_eq!(ask(&resolver, &in_container("a"), path).await, None);
        }
        assert!(start.elapsed() < DEADLINE, "not asked again");
        assert_eq!((count(&resolver, "timed_out"), count(&resolver, "hanging")), (1, 3));
        assert!(ask(&resolver, &in_container("b"), "/x").await.is_some());
    }

    #[tokio::test]
    async fn when_all_threads_hang_nobody_waits_any_more() {
        let resolver = hanging();
        for id in ["a", "b", "c", "d"] {
            assert_eq!(ask(&resolver, &in_container(id), "/hang").await, None);
        }
        tokio::time::sleep(DEADLINE).await;
        let start = Instant::now();
        assert_eq!(ask(&resolver, &in_container("e"), "/x").await, None);
        assert!(start.elapsed() < DEADLINE / 2);
    }

    #[tokio::test]
    async fn a_process_that_is_gone_is_counted() {
        let resolver = Resolver::new("/proc".into()).unwrap();
        let mut gone = ourselves();
        gone.process.start_time_ns = 0;
        gone.mnt_ns = Some(1);
        assert_eq!(ask(&resolver, &gone, "/x").await, None);
        assert_eq!(count(&resolver, "gone"), 1);
    }
}
