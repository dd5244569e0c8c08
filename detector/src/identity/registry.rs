//! The containers that containerd has told of, those it was asked for, and — for some minutes — those that are gone.
//!
//! No I/O happens here: the watcher brings what it learns, the pipeline asks whose a cgroup is.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

pub(super) use self::place::Paths;
use self::{place::is_at, strangers::Strangers};
use super::{
    cgroup_path::{self, Ancestor, ancestors},
    model::{Container, FirstProcess, Pod, TaskState},
};

mod place;
mod strangers;
mod told;

/// How long a deleted container is known: longer than any record is under way, or held back until it can be attributed.
const KEEP_DELETED: Duration = Duration::from_secs(300);
/// How long it is believed that containerd does not know an id.
const KEEP_ABSENT: Duration = Duration::from_secs(60);
/// Containers, deleted ones included. A node runs some hundreds.
const MAX_CONTAINERS: usize = 8192;
/// Ids read from cgroup paths of which containerd has not told.
const MAX_SOUGHT: usize = 1024;

/// Names a container on this node.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct Key {
    /// The containerd namespace.
    pub namespace: Arc<str>,
    /// The id within it.
    pub id: Arc<str>,
}

/// A container that was read from containerd.
#[derive(Debug)]
pub(super) struct Loaded {
    /// Its key.
    pub key: Key,
    /// The container; its task is filled in here.
    pub container: Container,
    /// Its cgroup's path in the hierarchy, as the runtime sees that, as far as the spec says.
    pub cgroup: Option<Arc<str>>,
}

/// What is known of a container's task.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Task {
    /// How far it has come.
    pub state: TaskState,
    /// Its first process.
    pub pid: Option<u32>,
    /// Of that; see [`First`].
    pub start_time_ns: Option<u64>,
    /// Of that; see [`First`].
    pub started_at_unix_ns: Option<i128>,
}

/// The first process of a container.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct First {
    /// Its id in the initial pid namespace.
    pub pid: u32,
    /// Its start in nanoseconds since boot, to the clock tick; none where it has ended.
    pub start_time_ns: Option<u64>,
    /// Its start in nanoseconds since the Unix epoch.
    pub started_at_unix_ns: Option<i128>,
}

/// A deleted container whose name another one has now.
#[derive(Debug)]
pub(super) struct Former {
    key: Key,
    paths: Paths,
    /// The container.
    pub container: Arc<Container>,
    cgroup: Option<Arc<str>>,
}

impl Former {
    /// Whether a cgroup of this path was its own, or below it.
    pub(super) fn was_in(&self, path: &str) -> bool {
        ancestors(path).any(|ancestor| is_at(&self.key, self.cgroup.as_deref(), ancestor.path, self.paths))
    }
}

/// Whose a cgroup is.
#[derive(Clone, Debug)]
pub(super) enum Owner {
    /// A container's.
    Container(Arc<Container>),
    /// That of the container with this id, of which containerd has not told yet. If `ask`, someone has to ask for it now.
    Pending {
        /// The id in the path.
        id: Arc<str>,
        /// The namespace, if known.
        namespace: Option<Arc<str>>,
        /// Whether no one has asked yet.
        ask: bool,
    },
    /// That of a container which containerd does not know in the namespaces that are watched.
    Foreign {
        /// The id in the path.
        id: Arc<str>,
        /// Its first process, where containerd has told of one in another namespace.
        first: Option<FirstProcess>,
    },
    /// No container's.
    Host,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Registry {
    namespaces: Vec<Arc<str>>,
    /// Apart from the table: half of that is room for more.
    slots: HashMap<Key, Box<Slot>>,
    /// From the name of a cgroup (the last component of its path) to the containers that may be in it.
    by_name: HashMap<Arc<str>, Vec<Key>>,
    sought: HashMap<Arc<str>, Sought>,
    /// First processes of containers in namespaces that are not watched.
    strangers: Strangers,
    /// How cgroups' paths compare with what specs say.
    paths: Paths,
    /// Counts up with every word of containerd; tells what is newer than a list.
    clock: u64,
    /// Containers that found no room.
    refused: u64,
    /// Lookups of an id that nobody was asked for, since too many are sought.
    deferred: u64,
}

#[derive(Debug, Default)]
struct Slot {
    container: Option<Arc<Container>>,
    cgroup: Option<Arc<str>>,
    task: Task,
    load: Load,
    deleted: Option<Instant>,
    told: u64,
    task_told: u64,
}

/// Whether the container's record is being read.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Load {
    #[default]
    Idle,
    Running,
    /// It has changed since the reading began.
    Stale,
}

#[derive(Clone, Copy, Debug)]
enum Sought {
    Asked,
    Absent(Instant),
}

impl Registry {
    pub(super) fn new(namespaces: Vec<Arc<str>>, paths: Paths) -> Self {
        Self {
            namespaces,
            paths,
            strangers: Strangers::default(),
            slots: HashMap::new(),
            by_name: HashMap::new(),
            sought: HashMap::new(),
            clock: 0,
            refused: 0,
            deferred: 0,
        }
    }

    /// Whose the cgroup of this path is: the innermost container's that is known in it.
    ///
    /// Who can write to cgroupfs names cgroups as they like. So a container is believed to be where its spec puts it, and
    /// below another one's cgroup only if its spec says that too; what has the name of a container below a known one is that
    /// one's, and nobody is asked about it.
    pub(super) fn owner(&mut self, path: &str, now: Instant) -> Owner {
        let mut outermost_first: Vec<Ancestor<'_>> = ancestors(path).collect();
        outermost_first.reverse();
        if let Some(key) = self.innermost_known(&outermost_first) {
            return self.owner_of(key);
        }
        let mut foreign = None;
        for ancestor in outermost_first {
            let Some(id) = cgroup_path::id_in(ancestor.name)
                .or_else(|| cgroup_path::name_below_namespace(ancestor, &self.namespaces))
            else {
                continue;
            };
            if self.is_elsewhere(id) {
                foreign = Some(id);
                continue;
            }
            match self.sought.get_key_value(id) {
                Some((id, Sought::Asked)) => {
                    return Owner::Pending { id: Arc::clone(id), namespace: None, ask: false };
                }
                Some((_, Sought::Absent(since))) if now.saturating_duration_since(*since) < KEEP_ABSENT => {}
                // Who fills the table must not make a stranger of a container that comes after.
                None if self.sought.len() >= MAX_SOUGHT => {
                    self.deferred += 1;
                    return Owner::Pending { id: id.into(), namespace: None, ask: false };
                }
                Some((_, Sought::Absent(_))) | None => {
                    let id: Arc<str> = id.into();
                    self.sought.insert(Arc::clone(&id), Sought::Asked);
                    return Owner::Pending { id, namespace: None, ask: true };
                }
            }
            foreign = Some(id);
        }
        foreign.map_or(Owner::Host, |id| Owner::Foreign { id: id.into(), first: self.strangers.get(id) })
    }

    /// The innermost container that is in the registry and whose cgroup is one of these.
    fn innermost_known(&self, outermost_first: &[Ancestor<'_>]) -> Option<Key> {
        let mut found: Option<(Ancestor<'_>, &Key)> = None;
        for ancestor in outermost_first {
            let id = cgroup_path::id_in(ancestor.name);
            let by_name = self.by_name.get(ancestor.name).into_iter().flatten();
            let by_id = id.filter(|id| *id != ancestor.name).and_then(|id| self.by_name.get(id)).into_iter().flatten();
            let innermost = by_name
                .chain(by_id)
                .filter_map(|key| Some((key, self.slots.get(key)?)))
                .filter(|(key, slot)| is_at(key, slot.cgroup.as_deref(), ancestor.path, self.paths))
                .filter(|(_, slot)| found.is_none_or(|(outer, _)| slot.may_be_below(outer, ancestor.path)))
                // One that was deleted gives way to one that lives.
                .min_by_key(|(_, slot)| slot.deleted.is_some());
            if let Some((key, _)) = innermost {
                found = Some((*ancestor, key));
            }
        }
        found.map(|(_, key)| key.clone())
    }

    /// The container of this key, which is in the registry.
    fn owner_of(&mut self, key: Key) -> Owner {
        let slot = self.slots.get_mut(&key);
        if let Some(container) = slot.as_ref().and_then(|slot| slot.container.as_ref()) {
            return Owner::Container(Arc::clone(container));
        }
        let load = slot.map(|slot| std::mem::replace(&mut slot.load, Load::Running));
        Owner::Pending { id: key.id, namespace: Some(key.namespace), ask: load == Some(Load::Idle) }
    }

    /// Whether a container of this id is known, and has its cgroup somewhere else.
    fn is_elsewhere(&self, id: &str) -> bool {
        let key = |namespace| Key { namespace: Arc::clone(namespace), id: id.into() };
        self.namespaces.iter().any(|namespace| self.slots.contains_key(&key(namespace)))
    }

    /// The pod of a sandbox.
    pub(super) fn pod_of_sandbox(&self, sandbox: &Key) -> Option<Arc<Pod>> {
        self.slots.get(sandbox)?.container.as_ref()?.pod.clone()
    }

    /// The containers that have a task.
    pub(super) fn running(&self) -> Vec<Arc<Container>> {
        let running = self.slots.values().filter(|slot| slot.deleted.is_none() && slot.task.is_alive());
        running.filter_map(|slot| slot.container.clone()).collect()
    }

    /// How many containers are known, deleted ones included.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// How many containers found no room.
    pub(super) const fn refused(&self) -> u64 {
        self.refused
    }

    /// How many lookups of an id came while too many were sought to ask for it.
    pub(super) const fn deferred(&self) -> u64 {
        self.deferred
    }

    /// Learns how cgroups' paths compare with what specs say.
    pub(super) const fn set_paths(&mut self, paths: Paths) {
        self.paths = paths;
    }

    /// containerd has made the first process of a container in a namespace that is not watched.
    pub(super) fn stranger_created(&mut self, id: &str, first: FirstProcess) {
        self.strangers.insert(id, first);
    }

    /// A point in time for [`reconcile`](Self::reconcile) and [`tasks_listed`](Self::tasks_listed).
    pub(super) const fn clock(&self) -> u64 {
        self.clock
    }

    /// Forgets what went long ago.
    pub(super) fn expire(&mut self, now: Instant) {
        let is_over = |slot: &Slot| slot.deleted.is_some_and(|at| now.saturating_duration_since(at) >= KEEP_DELETED);
        let over: Vec<Key> = self.slots.iter().filter(|(_, slot)| is_over(slot)).map(|(key, _)| key.clone()).collect();
        over.iter().for_each(|key| self.remove(key));
        self.sought.retain(|_, sought| match sought {
            Sought::Asked => true,
            Sought::Absent(since) => now.saturating_duration_since(*since) < KEEP_ABSENT,
        });
    }

    /// The slot of a container, made if there is room.
    fn slot(&mut self, key: &Key) -> Option<&mut Slot> {
        if !self.slots.contains_key(key) {
            if self.slots.len() >= MAX_CONTAINERS && !self.make_room() {
                self.refused += 1;
                return None;
            }
            let told = self.tick();
            self.slots.insert(key.clone(), Box::new(Slot { told, ..Slot::default() }));
            self.index(key);
        }
        self.slots.get_mut(key).map(AsMut::as_mut)
    }

    /// Gives up the container that was deleted first.
    fn make_room(&mut self) -> bool {
        let deleted = self.slots.iter().filter_map(|(key, slot)| Some((slot.deleted?, key)));
        let oldest = deleted.min_by_key(|(at, _)| *at).map(|(_, key)| key.clone());
        oldest.is_some_and(|key| {
            self.remove(&key);
            true
        })
    }

    fn remove(&mut self, key: &Key) {
        self.unindex(key);
        self.slots.remove(key);
    }

    fn index(&mut self, key: &Key) {
        let name = self.index_name(key);
        // Most often there is but one, and a list that grows by itself makes room for four.
        self.by_name.entry(name).or_insert_with(|| Vec::with_capacity(1)).push(key.clone());
    }

    fn unindex(&mut self, key: &Key) {
        let name = self.index_name(key);
        if let Some(keys) = self.by_name.get_mut(&name) {
            keys.retain(|known| known != key);
            if keys.is_empty() {
                self.by_name.remove(&name);
            }
        }
    }

    /// The name of the container's cgroup; the id where that tells itself in the name, or the spec does not say.
    fn index_name(&self, key: &Key) -> Arc<str> {
        let cgroup = self.slots.get(key).and_then(|slot| slot.cgroup.as_deref());
        match cgroup.and_then(|path| path.rsplit('/').next()) {
            Some(name) if cgroup_path::id_in(name) != Some(&*key.id) => name.into(),
            _ => Arc::clone(&key.id),
        }
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }
}

impl Slot {
    /// Whether this container may have a cgroup at `path`, which is below the known container's at `outer`: its spec has to
    /// name that one's cgroup. One whose record is not read yet may be.
    fn may_be_below(&self, outer: Ancestor<'_>, path: &str) -> bool {
        let Some(end) = &self.cgroup else { return self.container.is_none() };
        // Where the end of the path begins that the spec names.
        let begin = path.len().saturating_sub(end.trim_start_matches('/').len() + 1);
        begin + outer.name.len() < outer.path.len()
    }

    fn end_task(&mut self) {
        if self.task.is_alive() {
            self.task.state = TaskState::Ended;
            self.refresh();
        }
    }

    /// Writes what is known of the task into the container. Who holds the former one keeps it as it was.
    fn refresh(&mut self) {
        let Task { state, pid, start_time_ns, started_at_unix_ns } = self.task;
        if let Some(container) = &mut self.container {
            let container = Arc::make_mut(container);
            container.task = state;
            container.init_pid = pid;
            container.init_start_time_ns = start_time_ns;
            container.started_at_unix_ns = started_at_unix_ns;
        }
    }
}

impl Task {
    const fn is_alive(&self) -> bool {
        matches!(self.state, TaskState::Created | TaskState::Running)
    }
}

#[cfg(test)]
mod tests;
