//! Watches the seals of running containers: what is in truth mounted where a read-only root was declared.
//!
//! A thread waits, without a timer, for the mount namespace of each container that was declared read-only to change, reads
//! its mount table then, and lets [`crate::finding::seal`] judge it. What it finds goes to the agent's loop, which lets the
//! mount attempt go first that did it.

mod descriptors;
mod pace;
mod watcher;

use std::{
    collections::{HashMap, VecDeque},
    io,
    os::fd::OwnedFd,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::Builder,
    time::{Duration, Instant},
};

use rustix::event::{EventfdFlags, eventfd};
use tokio::{sync::mpsc, task::JoinHandle};

use self::watcher::Watcher;
use crate::{
    finding::{Event, seal::may_change_superblock},
    identity::Identity,
    kernel::stream::Record,
};

/// Events that wait for the loop at most; the thread waits when there is no more room.
const QUEUE: usize = 1024;

/// How long an event waits for the mount attempt that did it: a namespace tells of its change while the call still runs, and
/// the record comes at the call's end.
const SETTLE: Duration = Duration::from_millis(25);

/// The watch over all seals; it ends when this is dropped.
pub struct Seals {
    shared: Arc<Shared>,
    found: mpsc::Receiver<Event>,
    /// What was found, with the time at which it goes out.
    waiting: VecDeque<(Instant, Event)>,
    teller: JoinHandle<()>,
}

/// What the thread and those who ask share.
struct Shared {
    /// Wakes the thread.
    wake: OwnedFd,
    /// It has to end.
    stopped: AtomicBool,
    /// The containers are others by now.
    containers_changed: AtomicBool,
    /// Something has changed that no namespace tells of.
    look_at_all: AtomicBool,
    states: States,
}

/// By the container's id: whether its seal is broken. Without those of which that can't be said.
#[derive(Debug, Default)]
struct States(Mutex<HashMap<String, bool>>);

impl States {
    fn get(&self, container_id: &str) -> Option<bool> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(container_id).copied()
    }

    fn set(&self, container_id: &str, broken: Option<bool>) {
        let mut states = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match broken {
            Some(broken) => states.insert(container_id.to_owned(), broken),
            None => states.remove(container_id),
        };
    }
}

impl Shared {
    fn wake(&self) {
        // It fails only where so many wake-ups wait already that one more is not needed.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

impl Seals {
    /// Watches the containers that `identity` knows, by the node's proc file system at `host_proc`. Within a runtime.
    ///
    /// Takes no capability; with CAP_SYS_PTRACE, processes that have left their container's root or mount namespace are told
    /// from the others.
    ///
    /// # Errors
    /// Where no thread or descriptor can be had.
    pub fn watch(host_proc: &Path, identity: &Identity) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            stopped: AtomicBool::new(false),
            containers_changed: AtomicBool::new(true),
            look_at_all: AtomicBool::new(false),
            states: States::default(),
        });
        let (sender, found) = mpsc::channel(QUEUE);
        let mut changed = identity.changed();
        let watcher = Watcher::new(Arc::clone(&shared), identity.clone(), host_proc.to_owned(), sender)?;
        Builder::new().name("rosentry-seals".to_owned()).spawn(move || watcher.run())?;
        shared.wake();
        let told = Arc::clone(&shared);
        let teller = tokio::spawn(async move {
            while changed.changed().await.is_ok() {
                told.containers_changed.store(true, Ordering::Release);
                told.wake();
            }
        });
        Ok(Self { shared, found, waiting: VecDeque::new(), teller })
    }

    /// Tells whether the seal of the container with this id is broken; none where that is not known.
    pub fn states(&self) -> impl Fn(&str) -> Option<bool> + Send + Sync + use<> {
        let shared = Arc::clone(&self.shared);
        move |container_id| shared.states.get(container_id)
    }

    /// Looks at all containers anew, if one of these records is of a change that no mount namespace is told of.
    pub fn take_note(&self, records: &[Record]) {
        let concerns = |record: &Record| matches!(record, Record::Attempt(attempt) if may_change_superblock(attempt));
        if records.iter().any(concerns) {
            self.shared.look_at_all.store(true, Ordering::Release);
            self.shared.wake();
        }
    }

    /// Awaits an event that is to go out now. Cancel-safe.
    pub async fn next(&mut self) {
        loop {
            let due = self.waiting.front().map(|&(due, _)| due);
            tokio::select! {
                Some(event) = self.found.recv() => self.waiting.push_back((Instant::now() + SETTLE, event)),
                () = super::at(due) => return,
            }
        }
    }

    /// Whether an event is to go out at `now`.
    pub fn is_due(&self, now: Instant) -> bool {
        self.waiting.front().is_some_and(|&(due, _)| due <= now)
    }

    /// The events that are to go out at `now`, in their order.
    pub fn take_due(&mut self, now: Instant) -> Vec<Event> {
        let due = self.waiting.iter().take_while(|(due, _)| *due <= now).count();
        self.waiting.drain(..due).map(|(_, event)| event).collect()
    }

    /// Ends the watch; returns what was found and has not gone out.
    pub fn stop(mut self) -> Vec<Event> {
        let mut left: Vec<Event> = self.waiting.drain(..).map(|(_, event)| event).collect();
        while let Ok(event) = self.found.try_recv() {
            left.push(event);
        }
        left
    }
}

impl Drop for Seals {
    fn drop(&mut self) {
        self.teller.abort();
        self.shared.stopped.store(true, Ordering::Release);
        self.shared.wake();
    }
}
