//! The thread behind [`super::Seals`]: one descriptor for each container's mount namespace and one for the end of its first
//! process, all awaited at once.

use std::{
    collections::{HashMap, HashSet},
    io,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
};
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::{Shared, descriptors, pace::Pace};
use crate::{
    agent::{mountinfo, notes, target::Target},
    clock,
    finding::{
        Event,
        seal::{self, MountInfo, Seal, Stage, root_mount},
    },
    identity::{
        Identity,
        model::{Container, Role, TaskState},
    },
};

/// Containers that are watched at most, with two descriptors each. A node runs some hundreds.
const WATCHED_MAX: usize = 4096;
/// When to look again at a first process that is to execute the container's program.
const UNTIL_EXECUTED: Duration = Duration::from_millis(50);
/// After how long a first process that was to execute something counts as the container's program though it has not: there
/// are runtimes that run the program themselves.
const NEVER_EXECUTES: Duration = Duration::from_secs(5);
/// Descriptors that are told of at once.
const READY_MAX: usize = 64;

const WAKE: u64 = 0;

/// See the module.
pub(super) struct Watcher {
    pub(super) shared: Arc<Shared>,
    pub(super) identity: Identity,
    pub(super) host_proc: PathBuf,
    pub(super) found: mpsc::Sender<Event>,
    epoll: OwnedFd,
    /// By a number that is never used again; in epoll's data, twice that for the mount table, and one more for the exit.
    /// Apart from the table: half of that is room for more.
    watched: HashMap<u64, Box<Watched>>,
    last: u64,
    /// The node's own root: a process that stands in it is not in its container.
    node_root: Option<(Vec<u8>, Vec<u8>)>,
    /// Of the looks at all containers.
    all: Pace,
    /// When to look at all.
    all_due: Option<Instant>,
    /// Until when nothing is looked at, however many containers change: as long as the last looks took together.
    resting_until: Option<Instant>,
    /// Whether it was said that not all can be watched.
    complained: bool,
}

struct Watched {
    container: Arc<Container>,
    target: Target,
    seal: Seal,
    /// Whether it was said that the table can't be read as a whole.
    told_blind: bool,
    /// Since when its program is known to run, or to be about to.
    running_since: Option<Instant>,
    pace: Pace,
    looked: bool,
    /// When to look; none as long as nothing changes.
    due: Option<Instant>,
}

/// Nobody takes what is found any more.
struct Deaf;

/// Whose descriptor is ready.
enum Ready {
    Wake,
    Changed(u64),
    Ended(u64),
}

impl Watcher {
    /// Makes ready what the thread needs.
    pub(super) fn new(
        shared: Arc<Shared>,
        identity: Identity,
        host_proc: PathBuf,
        found: mpsc::Sender<Event>,
    ) -> io::Result<Self> {
        descriptors::allow(2 * WATCHED_MAX as u64);
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &shared.wake, epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN)?;
        let node_root = mountinfo::read(&host_proc.join("1/mountinfo")).ok();
        let node_root = node_root.as_deref().and_then(root_mount).map(MountInfo::shown);
        Ok(Self {
            shared,
            identity,
            host_proc,
            found,
            epoll,
            watched: HashMap::new(),
            last: 0,
            node_root,
            all: Pace::new(),
            all_due: None,
            resting_until: None,
            complained: false,
        })
    }

    /// Watches until it is told to stop, or nobody takes what it finds.
    pub(super) fn run(mut self) {
        loop {
            let ready = match self.wait() {
                Ok(ready) => ready,
                Err(error) => {
                    warn!(%error, "the seals of containers are no longer watched; please report it");
                    return;
                }
            };
            if self.shared.stopped.load(Ordering::Acquire) {
                return;
            }
            let now = Instant::now();
            for ready in ready {
                match ready {
                    Ready::Wake => {}
                    Ready::Changed(number) => self.look_soon(number, now),
                    Ready::Ended(number) => self.forget(number),
                }
            }
            if self.shared.containers_changed.swap(false, Ordering::AcqRel) {
                self.follow_containers(now);
            }
            if self.shared.look_at_all.swap(false, Ordering::AcqRel) {
                self.all_due.get_or_insert(self.all.earliest(now));
            }
            if self.resting_until.is_none_or(|until| until <= now) && self.look_at_due(now).is_err() {
                return;
            }
        }
    }

    /// Looks at the containers whose time has come.
    fn look_at_due(&mut self, now: Instant) -> Result<(), Deaf> {
        let round = self.all_due.take_if(|due| *due <= now).is_some();
        if round {
            let all: Vec<u64> = self.watched.keys().copied().collect();
            all.into_iter().for_each(|number| self.look_soon(number, now));
        }
        let due = self.watched.iter().filter_map(|(number, watched)| Some((watched.due?, *number)));
        let mut due: Vec<(Instant, u64)> = due.filter(|(due, _)| *due <= now).collect();
        if due.is_empty() {
            return Ok(());
        }
        // Who waits longest comes first, whatever the others do.
        due.sort_unstable();
        for (_, number) in due {
            match self.look(number) {
                Ok(events) => {
                    for event in events {
                        self.found.blocking_send(event).map_err(|_| Deaf)?;
                    }
                }
                Err(error) => {
                    debug!(%error, "a container has ended, or its mounts can't be read");
                    self.forget(number);
                }
            }
        }
        let took = now.elapsed();
        self.resting_until = Some(now + 2 * took);
        if round {
            self.all.looked(now, took);
        }
        Ok(())
    }

    /// Waits for a descriptor, or until a look is due.
    fn wait(&self) -> io::Result<Vec<Ready>> {
        let due = self.watched.values().filter_map(|watched| watched.due).chain(self.all_due).min();
        let due = due.map(|due| self.resting_until.map_or(due, |until| due.max(until)));
        let timeout = due.map(|due| {
            // A little later rather than a little before.
            let left = due.saturating_duration_since(Instant::now()) + Duration::from_micros(100);
            Timespec { tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() }
        });
        let mut events: Vec<epoll::Event> = Vec::with_capacity(READY_MAX);
        match epoll::wait(&self.epoll, spare_capacity(&mut events), timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready = events.iter().map(|event| match event.data.u64() {
            WAKE => {
                // What it counts means nothing.
                let _ = rustix::io::read(&self.shared.wake, &mut [0; 8]);
                Ready::Wake
            }
            data if data % 2 == 0 => Ready::Changed(data / 2),
            data => Ready::Ended(data / 2),
        });
        Ok(ready.collect())
    }

    fn look_soon(&mut self, number: u64, now: Instant) {
        if let Some(watched) = self.watched.get_mut(&number) {
            let due = watched.pace.earliest(now);
            watched.due = Some(watched.due.map_or(due, |earlier| earlier.min(due)));
        }
    }

    fn forget(&mut self, number: u64) {
        if let Some(watched) = self.watched.remove(&number) {
            self.shared.states.set(&watched.container.id, None);
        }
    }

    /// Brings what is watched in line with the containers that run.
    fn follow_containers(&mut self, now: Instant) {
        let sealed = |container: &Arc<Container>| {
            container.role != Role::Sandbox && container.readonly_rootfs == Some(true) && first(container).is_some()
        };
        let containers: HashMap<(Arc<str>, String), Arc<Container>> = self
            .identity
            .containers()
            .into_iter()
            .filter(sealed)
            .map(|container| (key(&container), container))
            .collect();
        let mut known = HashSet::new();
        let mut gone = Vec::new();
        for (number, watched) in &mut self.watched {
            match containers.get(&key(&watched.container)) {
                Some(container) if first(container) == first(&watched.container) => {
                    if container.task != watched.container.task {
                        watched.due = Some(now);
                    }
                    watched.container = Arc::clone(container);
                    known.insert(key(container));
                }
                _ => gone.push(*number),
            }
        }
        gone.into_iter().for_each(|number| self.forget(number));
        for (key, container) in containers {
            if !known.contains(&key) {
                self.begin(container, now);
            }
        }
    }

    fn begin(&mut self, container: Arc<Container>, now: Instant) {
        let Some((pid, start_time_ns)) = first(&container) else { return };
        if self.watched.len() >= WATCHED_MAX {
            return self.complain("there are too many");
        }
        match Target::open(&self.host_proc, pid, start_time_ns) {
            Ok(Some(target)) => {
                self.last += 1;
                let watched = Box::new(Watched {
                    container,
                    target,
                    seal: Seal::default(),
                    told_blind: false,
                    running_since: None,
                    pace: Pace::new(),
                    looked: false,
                    due: Some(now),
                });
                let number = self.last;
                match descriptors::await_table(&self.epoll, number, &watched.target)
                    .and_then(|()| descriptors::await_exit(&self.epoll, number, &watched.target))
                {
                    Ok(()) => drop(self.watched.insert(number, watched)),
                    Err(error) => self.complain(&error.to_string()),
                }
            }
            Ok(None) => debug!(container = container.id, "its first process has changed its root: not watched"),
            Err(error) if is_gone(&error) => debug!(container = container.id, %error, "it has ended"),
            Err(error) => self.complain(&error.to_string()),
        }
    }

    /// Reads and judges; what is new is an event each.
    fn look(&mut self, number: u64) -> io::Result<Vec<Event>> {
        let Some(watched) = self.watched.get_mut(&number) else { return Ok(Vec::new()) };
        let start = Instant::now();
        watched.due = None;
        // Awaited before it is read, so that no change falls between the two. Closing the former ends its watch.
        if std::mem::replace(&mut watched.looked, true) {
            if watched.target.reopen()? {
                descriptors::await_table(&self.epoll, number, &watched.target)?;
            } else {
                descriptors::await_table_again(&self.epoll, number, &watched.target)?;
            }
        }
        let mounts = watched.target.mounts();
        watched.pace.looked(start, start.elapsed());
        let mounts = match mounts {
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                // What was broken may be so still.
                self.shared.states.set(&watched.container.id, None);
                let first_time = !std::mem::replace(&mut watched.told_blind, true);
                let note = first_time.then(|| notes::blind_to_seal(&watched.container, "mount_table_too_large"));
                return Ok(note.into_iter().collect());
            }
            mounts => mounts?,
        };
        // After the mounts: had the program been executed in between, none of them would be surely the runtime's.
        let executed = watched.target.has_executed()?;
        if watched.running_since.is_none() && watched.container.task == TaskState::Running {
            watched.running_since = Some(start);
        }
        let overdue = watched.running_since.is_some_and(|since| since.elapsed() >= NEVER_EXECUTES);
        let stage = if executed || overdue { Stage::Program } else { Stage::SetUp };
        if root_mount(&mounts).map(MountInfo::shown) == self.node_root && self.node_root.is_some() {
            debug!(
                container = watched.container.id,
                "its first process is outside of it (a virtual machine?): not judged"
            );
            return Ok(Vec::new());
        }
        let now = clock::unix_ns();
        let looked = watched.seal.look(&watched.container, &mounts, stage, now);
        self.shared.states.set(&watched.container.id, looked.broken);
        // The runtime has been told to execute the program, and has left the root writable: a matter of a moment.
        if stage == Stage::SetUp && looked.broken.is_none() && watched.running_since.is_some() {
            watched.due = Some(Instant::now() + UNTIL_EXECUTED);
        }
        Ok(looked.changes.into_iter().map(|change| seal::event(&watched.container, change)).collect())
    }

    fn complain(&mut self, why: &str) {
        if !self.complained {
            self.complained = true;
            warn!("the seals of some containers can't be watched: {why}");
        }
    }
}

/// The container's first process: its id, and when it started.
fn first(container: &Container) -> Option<(u32, u64)> {
    Some((container.init_pid?, container.init_start_time_ns?))
}

fn key(container: &Container) -> (Arc<str>, String) {
    (Arc::clone(&container.runtime_namespace), container.id.clone())
}

fn is_gone(error: &io::Error) -> bool {
    // A process that has ended and was not waited for yet has no mount namespace any more: EINVAL.
    let errno = rustix::io::Errno::from_io_error(error);
    errno.is_some_and(|errno| {
        [rustix::io::Errno::NOENT, rustix::io::Errno::SRCH, rustix::io::Errno::INVAL].contains(&errno)
    })
}
