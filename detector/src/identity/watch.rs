//! Follows containerd: connects, lists what there is, follows its events, reads what is asked for, and begins anew when
//! the connection is lost.
//!
//! The subscription is made before the lists, and events are taken after them: nothing falls in between. Reading of
//! records runs beside that, so that a container which lives for milliseconds is read while it exists.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use containerd_client::{events, types::Envelope};
use prost::{DecodeError, Message};
use tokio::{
    sync::mpsc::Receiver,
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep},
};
use tracing::{debug, warn};

use super::{
    event_stream::EventStream,
    load::{Loader, Read},
    model::FirstProcess,
    node,
    probe::{self, Connection},
    registry::{First, Key, Loaded, Task},
    runtime::{CallError, Namespace, Runtime, TASK_CREATED},
    shared::{Request, Shared, Tables},
    status::count,
};

/// Between two tries to connect: from the first growing to the last, with up to as much again by chance, so that the agents
/// of a rack don't knock in step.
const FIRST_DELAY: Duration = Duration::from_millis(50);
const LAST_DELAY: Duration = Duration::from_secs(1);
/// A connection that held so long ended for a reason of its own: the next try is made at once.
const STABLE: Duration = Duration::from_secs(10);
/// How often it is checked that containerd answers: its connection stays open even when it hangs.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// Between two lists of a namespace's tasks when the first has failed: a shim that hangs makes containerd wait for it.
const TASKS_AGAIN: Duration = Duration::from_secs(2);
/// Calls under way at once.
const MAX_JOBS: usize = 16;

/// Follows containerd for ever.
pub(super) async fn watch(shared: Arc<Shared>, mut requests: Receiver<Request>) {
    let backoff = ExponentialBuilder::new()
        .with_min_delay(FIRST_DELAY)
        .with_max_delay(LAST_DELAY)
        .without_max_times()
        .with_jitter();
    let mut delays = backoff.build();
    loop {
        match probe::connect(&shared.socket).await {
            Ok(Connection { runtime, version, listener }) => {
                shared.set_paths(listener);
                let start = Instant::now();
                shared.connected(version);
                let end = match Session::begin(&shared, runtime).await {
                    Ok(session) => session.run(&mut requests).await,
                    Err(error) => error,
                };
                shared.disconnected(&end);
                if start.elapsed() >= STABLE {
                    delays = backoff.build();
                }
            }
            Err(error) => shared.disconnected(&error),
        }
        sleep(delays.next().unwrap_or(LAST_DELAY)).await;
    }
}

/// One connection.
struct Session {
    loader: Loader,
    events: EventStream,
    jobs: JoinSet<Done>,
    /// Namespaces whose containers are being listed.
    listing: usize,
    /// Namespaces whose tasks have not been listed.
    tasks_missing: usize,
    /// Whether a list of tasks has failed.
    tasks_failed: bool,
    /// Whether a heartbeat is under way.
    beating: bool,
}

/// What has been done beside.
enum Done {
    Listed { namespace: Namespace, begun: u64, result: Result<Vec<Loaded>, CallError> },
    Tasks { namespace: Namespace, begun: u64, result: Result<HashMap<Arc<str>, Task>, CallError> },
    Read { id: Arc<str>, namespace: Option<Arc<str>>, begun: u64, result: Result<Read, CallError> },
    Beat(Result<(), CallError>),
}

impl Session {
    async fn begin(shared: &Arc<Shared>, mut runtime: Runtime) -> Result<Self, CallError> {
        shared.images.forget_all();
        let events = runtime.subscribe(&shared.namespaces).await?;
        let mut session = Self {
            loader: Loader { shared: Arc::clone(shared), runtime },
            events,
            jobs: JoinSet::new(),
            listing: shared.namespaces.len(),
            tasks_missing: shared.namespaces.len(),
            tasks_failed: false,
            beating: false,
        };
        let begun = shared.tables().registry.clock();
        for namespace in shared.namespaces.clone() {
            let loader = session.loader.clone();
            session.jobs.spawn(async move {
                let result = loader.all(&namespace).await;
                Done::Listed { namespace, begun, result }
            });
        }
        Ok(session)
    }

    /// Until the connection is lost; returns why.
    async fn run(mut self, requests: &mut Receiver<Request>) -> CallError {
        let mut heartbeat = interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let free = self.jobs.len() < MAX_JOBS;
            let result = tokio::select! {
                event = self.events.message(), if free && self.listing == 0 => match event {
                    Ok(Some(envelope)) => {
                        self.event(envelope);
                        Ok(())
                    }
                    Ok(None) => Err(CallError::Lost("the stream of events has ended".to_owned())),
                    Err(status) => Err(status.into()),
                },
                Some(request) = requests.recv(), if free => {
                    self.request(request);
                    Ok(())
                }
                Some(done) = self.jobs.join_next() => match done {
                    Ok(done) => self.done(done),
                    Err(error) => Err(CallError::Lost(error.to_string())),
                },
                _ = heartbeat.tick(), if !self.beating => {
                    self.beating = true;
                    let mut runtime = self.loader.runtime.clone();
                    self.jobs.spawn(async move { Done::Beat(runtime.version().await.map(drop)) });
                    Ok(())
                }
            };
            if let Err(error) = result {
                return error;
            }
        }
    }

    fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.loader.shared)
    }

    fn done(&mut self, done: Done) -> Result<(), CallError> {
        let shared = self.shared();
        match done {
            Done::Beat(result) => {
                self.beating = false;
                return result;
            }
            Done::Listed { namespace, begun, result } => {
                let loaded = result?;
                let mut tables = shared.tables();
                let former = tables.registry.reconcile(namespace.name(), begun, loaded, Instant::now());
                Shared::keep_owners(&mut tables, former);
                drop(tables);
                self.listing -= 1;
                self.spawn_tasks(namespace, Duration::ZERO);
            }
            Done::Tasks { namespace, begun, result: Ok(listed) } => {
                shared.tables().registry.tasks_listed(namespace.name(), begun, &listed);
                self.tasks_missing -= 1;
                if self.tasks_missing == 0 {
                    shared.synced();
                }
            }
            // The containers are known all the same, but not which of them run: until that is known, not all is well.
            Done::Tasks { namespace, begun: _, result: Err(error) } => {
                shared.count_failed_call();
                let namespace_name = namespace.name();
                if std::mem::replace(&mut self.tasks_failed, true) {
                    debug!("containerd still does not list the tasks of {namespace_name}: {error}");
                } else {
                    warn!(
                        "containerd does not list the tasks of {namespace_name}, asking again until it does: {error}"
                    );
                }
                self.spawn_tasks(namespace, TASKS_AGAIN);
            }
            Done::Read { id, namespace, begun, result } => self.read(id, namespace, begun, result),
        }
        shared.notify();
        Ok(())
    }

    fn read(&mut self, id: Arc<str>, namespace: Option<Arc<str>>, begun: u64, result: Result<Read, CallError>) {
        let shared = self.shared();
        let mut tables = shared.tables();
        let registry = &mut tables.registry;
        match result {
            Ok(Read { loaded, task }) => {
                let mut again = Vec::new();
                for loaded in loaded {
                    let key = loaded.key.clone();
                    if registry.loaded(loaded) && registry.begin_load(&key) {
                        again.push(key);
                    }
                }
                if let Some((key, task)) = task {
                    registry.task_read(&key, task, begun);
                }
                drop(tables);
                again.into_iter().for_each(|key| self.spawn_read(key));
            }
            Err(CallError::NotFound) => registry.not_loaded(&id, namespace.as_ref(), true, Instant::now()),
            // It would be no different the next time.
            Err(CallError::TooLarge | CallError::Refused(_)) => {
                count(&shared.counters.records_refused);
                registry.not_loaded(&id, namespace.as_ref(), true, Instant::now());
            }
            Err(CallError::Timeout | CallError::Lost(_) | CallError::Unimplemented) => {
                shared.count_failed_call();
                registry.not_loaded(&id, namespace.as_ref(), false, Instant::now());
            }
        }
    }

    /// Someone waits for a container.
    fn request(&mut self, request: Request) {
        let Request { id, namespace } = request;
        let namespaces: Vec<Namespace> = self
            .loader
            .shared
            .namespaces
            .iter()
            .filter(|watched| namespace.as_ref().is_none_or(|namespace| namespace == watched.name()))
            .cloned()
            .collect();
        let loader = self.loader.clone();
        let begun = self.loader.shared.tables().registry.clock();
        self.jobs.spawn(async move {
            let result = loader.find(namespaces, Arc::clone(&id)).await;
            Done::Read { id, namespace, begun, result }
        });
    }

    fn spawn_tasks(&mut self, namespace: Namespace, after: Duration) {
        let loader = self.loader.clone();
        self.jobs.spawn(async move {
            sleep(after).await;
            let begun = loader.shared.tables().registry.clock();
            let result = loader.tasks(&namespace).await;
            Done::Tasks { namespace, begun, result }
        });
    }

    fn spawn_read(&mut self, key: Key) {
        let Some(namespace) = self.loader.shared.namespaces.iter().find(|known| *known.name() == key.namespace) else {
            return;
        };
        let (loader, namespace, begun) =
            (self.loader.clone(), namespace.clone(), self.loader.shared.tables().registry.clock());
        self.jobs.spawn(async move {
            let result = loader.one(namespace, Arc::clone(&key.id)).await;
            Done::Read { id: key.id, namespace: Some(key.namespace), begun, result }
        });
    }

    fn event(&mut self, envelope: Envelope) {
        let shared = self.shared();
        count(&shared.counters.events);
        if self.take(&shared, envelope).is_err() {
            count(&shared.counters.events_malformed);
        }
    }

    /// Of namespaces that are not watched, containerd tells of new tasks alone.
    fn take(&mut self, shared: &Shared, envelope: Envelope) -> Result<(), DecodeError> {
        let Envelope { timestamp, namespace, topic, event } = envelope;
        let body = event.unwrap_or_default().value;
        let key = |id: String| Key { namespace: namespace.as_str().into(), id: id.into() };
        let at_unix_ns = timestamp.map(|time| i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos));
        let first = |pid| node::first_process(&shared.host_proc, pid, at_unix_ns);
        if shared.namespaces.iter().all(|watched| **watched.name() != *namespace) {
            if topic == TASK_CREATED {
                let events::TaskCreate { container_id, pid, .. } = events::TaskCreate::decode(&*body)?;
                let First { pid, start_time_ns, .. } = first(pid);
                shared.tables().registry.stranger_created(&container_id, FirstProcess { pid, start_time_ns });
                shared.notify();
            }
            return Ok(());
        }
        let mut tables = shared.tables();
        let Tables { registry, .. } = &mut *tables;
        let to_read = match topic.as_str() {
            "/containers/create" => {
                let key = key(events::ContainerCreate::decode(&*body)?.id);
                let former = registry.created(&key);
                Shared::keep_owners(&mut tables, former);
                Some(key)
            }
            "/containers/update" => Some(key(events::ContainerUpdate::decode(&*body)?.id)),
            "/containers/delete" => {
                registry.deleted(&key(events::ContainerDelete::decode(&*body)?.id), Instant::now());
                None
            }
            TASK_CREATED => {
                let events::TaskCreate { container_id, pid, .. } = events::TaskCreate::decode(&*body)?;
                let key = key(container_id);
                registry.task_created(&key, first(pid)).then_some(key)
            }
            "/tasks/start" => {
                let events::TaskStart { container_id, pid } = events::TaskStart::decode(&*body)?;
                let key = key(container_id);
                let first = first(pid);
                let started_at_unix_ns = first.started_at_unix_ns.or(at_unix_ns);
                registry.task_started(&key, First { started_at_unix_ns, ..first }).then_some(key)
            }
            "/tasks/exit" => {
                // An exec of the container ends with an id of its own.
                let events::TaskExit { container_id, id, .. } = events::TaskExit::decode(&*body)?;
                if id == container_id {
                    registry.task_ended(&key(container_id));
                }
                None
            }
            "/tasks/delete" => {
                let events::TaskDelete { container_id, id, .. } = events::TaskDelete::decode(&*body)?;
                if id.is_empty() || id == container_id {
                    registry.task_ended(&key(container_id));
                }
                None
            }
            topic => {
                if topic.starts_with("/images/") {
                    shared.images.forget(&namespace);
                }
                None
            }
        };
        let to_read = to_read.filter(|key| tables.registry.begin_load(key));
        drop(tables);
        if let Some(key) = to_read {
            self.spawn_read(key);
        }
        shared.notify();
        Ok(())
    }
}

#[cfg(any(test, fuzzing))]
#[path = "watch_harness.rs"]
#[expect(clippy::expect_used, reason = "for tests and for fuzzing, which say no so")]
pub(super) mod harness;
#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
