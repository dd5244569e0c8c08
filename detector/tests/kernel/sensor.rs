//! The attached programs, as the tests use them: run something on a thread, get what the kernel side saw of that thread.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use detector::kernel::{
    KernelError, Sensor,
    attempt::{Attempt, PathBase},
    counters::{Counters, Tally},
    folds::{Counted, FoldId, Repeats, until_published},
    plan::{Hooks, Observing},
    stream::{Record, Stream},
};
use detector_common::{abi::Abi, operation::Operation, record::RecordKind};

/// How long whatever a test waits for may take, however busy the machine is.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Attached {
    pub sensor: Sensor,
    pub stream: Stream,
    pub counters: Counters,
    /// What [`Attached::records`] has given, and whose repeats are counted.
    told: HashMap<FoldId, Box<Attempt>>,
}

/// What a thread of the tests returned, and what was seen of it.
pub struct Seen<T> {
    pub returned: T,
    /// Each attempt, repeats too: these stand behind the first of their kind.
    pub attempts: Vec<Attempt>,
    /// Each record, with how often its attempt was made.
    pub counted: Vec<(Attempt, u64)>,
}

/// The mode that is tested: that which the environment's `ROSENTRY_TEST_HOOKS` names, else the tracepoints.
pub fn hooks_under_test() -> Hooks {
    match std::env::var("ROSENTRY_TEST_HOOKS").as_deref() {
        Ok("fexit") => Hooks::Fexit,
        _ => Hooks::Tracepoint,
    }
}

/// Whether the tests run in the virtual machine of `cargo xtask test-vm`.
pub fn is_emulated() -> bool {
    std::env::var_os("ROSENTRY_TEST_HOOKS").is_some()
}

impl Attached {
    /// Must be called within a tokio runtime.
    pub fn new() -> Self {
        Self::without(&[])
    }

    /// As if the kernel lacked the functions of some points.
    pub fn without(left_out: &[&str]) -> Self {
        Self::of(Sensor::attach_without(hooks_under_test(), left_out))
    }

    /// In learning mode.
    pub fn observing(observing: Observing) -> Self {
        Self::of(Sensor::attach_observing(hooks_under_test(), Some(observing)))
    }

    fn of(attached: Result<(Sensor, Stream, Counters), KernelError>) -> Self {
        let (sensor, stream, counters) = attached.expect("the programs load into this kernel");
        Self { sensor, stream, counters, told: HashMap::new() }
    }

    /// Nothing from now on is a repeat of what was done before.
    pub fn begin_anew(&mut self) {
        self.stream.folds().release_all(until_published());
        if let Some(observed) = self.stream.observed() {
            observed.release_all();
        }
        self.told.clear();
    }

    /// Runs `act` on a thread of its own in a mount namespace of its own, and gives what was seen of that thread, once
    /// everything it did has come. Each repeat is an attempt of its own there, behind the first of its kind.
    pub fn watch<T: Send>(&mut self, act: impl FnOnce() -> T + Send) -> Seen<T> {
        self.begin_anew();
        let (returned, tid) = std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    super::sealed::enter_own_mount_namespace();
                    let returned = act();
                    // The last record of the thread: nothing can be missing once it has come.
                    refuse_with_a_mark();
                    (returned, rustix::thread::gettid().as_raw_nonzero().get())
                })
                .join()
                .expect("the thread of the test ends well")
        });
        let tid = u32::try_from(tid).expect("thread ids are positive");
        let mut attempts = Vec::new();
        let mut batch = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        let mut ended = false;
        loop {
            // Once more after the mark: the rings are two, and that of the writes is drained first.
            let last = ended;
            while self.stream.drain(&mut batch) {}
            for record in batch.drain(..) {
                if let Record::Attempt(attempt) = record
                    && (attempt.process.tid == tid || attempt.abi == Abi::IoUring && is_of_this_test(&attempt))
                {
                    ended |= attempt.path.requested.as_deref() == Some(MARK);
                    attempts.push(*attempt);
                }
            }
            if last {
                break;
            }
            assert!(Instant::now() < deadline, "the mark of the thread's end did not come within {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
        attempts.retain(|attempt| attempt.path.requested.as_deref() != Some(MARK));
        // What the thread did to make its namespace is not what the tests are about.
        let begun = attempts.iter().position(|attempt| attempt.path.requested.as_deref() == Some(BEGIN));
        let attempts = attempts.split_off(begun.map_or(0, |begun| begun + 1));
        let counted = self.counted(attempts);
        let expanded = counted.iter().flat_map(|(attempt, count)| {
            std::iter::repeat_n(attempt, usize::try_from(*count).expect("a test repeats little")).cloned()
        });
        Seen { returned, attempts: expanded.collect(), counted }
    }

    /// Runs `act` on a thread of its own in a mount namespace of its own, and takes all records meanwhile: what was seen of this
    /// process and its children, with how often.
    pub fn watch_all(&mut self, act: impl FnOnce() + Send) -> Vec<(Attempt, u64)> {
        self.watch_reading(act, true)
    }

    /// The same, but the records are taken only when `act` has ended.
    pub fn watch_undrained(&mut self, act: impl FnOnce() + Send) -> Vec<(Attempt, u64)> {
        self.watch_reading(act, false)
    }

    fn watch_reading(&mut self, act: impl FnOnce() + Send, meanwhile: bool) -> Vec<(Attempt, u64)> {
        self.begin_anew();
        let mut batch = Vec::new();
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                super::sealed::enter_own_mount_namespace();
                act();
            });
            while !thread.is_finished() {
                if meanwhile {
                    self.stream.drain(&mut batch);
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            thread.join().expect("the thread of the test ends well");
        });
        // A system call that has returned has its record in the ring.
        while self.stream.drain(&mut batch) {}
        let attempts = batch.into_iter().filter_map(|record| match record {
            Record::Attempt(attempt) if is_of_this_test(&attempt) => Some(*attempt),
            _ => None,
        });
        self.counted(attempts.collect())
    }

    /// What the kernel side has counted of a cgroup.
    pub fn tally(&self, cgroup_id: u64) -> Tally {
        self.counters.tallies().read().get(&cgroup_id).copied().unwrap_or_default()
    }

    /// How many refused writes of an operation it has counted of a cgroup.
    pub fn denied(&self, cgroup_id: u64, operation: Operation) -> u64 {
        self.tally(cgroup_id).denied[operation as usize]
    }

    /// The attempts, each with how often it was made: as a record, and as the repeats that were counted since.
    pub fn counted(&self, attempts: Vec<Attempt>) -> Vec<(Attempt, u64)> {
        let (folds, observed) = (self.stream.folds(), self.stream.observed());
        let of = |attempt: &Attempt| match &observed {
            Some(observed) if attempt.kind == RecordKind::WriteObserved => observed,
            _ => &folds,
        };
        let count = |attempt: &Attempt| match attempt.fold.map(|id| of(attempt).take(id)) {
            Some(Counted::Some(repeats)) => 1 + repeats.count,
            _ => 1,
        };
        attempts
            .into_iter()
            .map(|attempt| (count(&attempt), attempt))
            .map(|(count, attempt)| (attempt, count))
            .collect()
    }
}

impl Attached {
    /// What has come of the process `pid` and those below it since it was asked before.
    pub fn take(&mut self, pid: u32) -> Vec<Attempt> {
        let is_below = |attempt: &Attempt| attempt.process.ancestors.iter().any(|ancestor| ancestor.pid == pid);
        let attempt = |record| match record {
            Record::Attempt(attempt) if attempt.process.pid == pid || is_below(&attempt) => Some(*attempt),
            _ => None,
        };
        self.records().into_iter().filter_map(attempt).collect()
    }

    /// All that has come since it was asked before; each repeat is a record of its own.
    pub fn records(&mut self) -> Vec<Record> {
        let mut batch = Vec::new();
        while self.stream.drain(&mut batch) {}
        for record in &batch {
            if let Record::Attempt(attempt) = record
                && let Some(id) = attempt.fold
            {
                self.told.insert(id, attempt.clone());
            }
        }
        let folds = self.stream.folds();
        self.told.retain(|&id, attempt| {
            let counted = folds.take(id);
            if let Counted::Some(Repeats { count, .. }) = counted {
                batch.extend((0..count).map(|_| Record::Attempt(attempt.clone())));
            }
            counted != Counted::Gone
        });
        batch
    }

    /// What was seen of a process that has ended, and has done something.
    pub fn of_process(&mut self, pid: u32) -> Vec<Attempt> {
        let deadline = Instant::now() + PATIENCE;
        let (mut batch, mut attempts) = (Vec::new(), Vec::new());
        while attempts.is_empty() {
            assert!(Instant::now() < deadline, "nothing of process {pid} came within {PATIENCE:?}");
            while self.stream.drain(&mut batch) {}
            for record in batch.drain(..) {
                if let Record::Attempt(attempt) = record
                    && attempt.process.pid == pid
                {
                    attempts.push(*attempt);
                }
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        attempts
    }
}

/// Whether this process or a child of it did it: a ring's own threads and a child may work for the thread of a test.
fn is_of_this_test(attempt: &Attempt) -> bool {
    let own = std::process::id();
    attempt.process.pid == own || attempt.process.ppid == own
}

const MARK: &[u8] = b"/mark of the end";
const BEGIN: &[u8] = b"/mark of the beginning";

/// A mount attempt that fails, whatever the file system, and is always reported.
fn refuse_with_a_mark() {
    // SAFETY: a NUL-terminated path.
    unsafe { libc::umount2(c"/mark of the end".as_ptr(), 0) };
}

/// Everything before this call is left out of what [`Attached::watch`] gives.
pub fn begin() {
    // SAFETY: a NUL-terminated path.
    unsafe { libc::umount2(c"/mark of the beginning".as_ptr(), 0) };
}

/// The one attempt that was seen.
pub fn only(attempts: &[Attempt]) -> &Attempt {
    let [attempt] = attempts else { panic!("one attempt, not {attempts:?}") };
    attempt
}

/// The path of `attempt` as a test writes it.
pub fn requested(attempt: &Attempt) -> String {
    String::from_utf8_lossy(attempt.path.requested.as_deref().unwrap_or_default()).into_owned()
}

/// The path of `attempt` as a test writes it; of a call on the file itself, where the file is.
pub fn named(attempt: &Attempt) -> String {
    match &attempt.path.base {
        PathBase::File(file) => String::from_utf8_lossy(&file.in_namespace).into_owned(),
        _ => requested(attempt),
    }
}
