//! What containerd tells, by its lists, its events and its answers, and what it changes in the registry.

use std::{collections::HashMap, sync::Arc, time::Instant};

use super::{First, Former, Key, Load, Loaded, Registry, Sought, Task};
use crate::identity::model::{FirstProcess, TaskState};

impl Registry {
    /// Whether the record has to be read now; it is counted on that [`loaded`](Self::loaded) or
    /// [`not_loaded`](Self::not_loaded) follows.
    pub(in crate::identity) fn begin_load(&mut self, key: &Key) -> bool {
        let Some(slot) = self.slot(key) else {
            return false;
        };
        match slot.load {
            Load::Idle => {
                slot.load = Load::Running;
                true
            }
            Load::Running | Load::Stale => {
                slot.load = Load::Stale;
                false
            }
        }
    }

    /// containerd has made a container. If one of the same name was here and is deleted, that one is returned.
    pub(in crate::identity) fn created(&mut self, key: &Key) -> Option<Former> {
        self.slots.get(key)?.deleted?;
        self.unindex(key);
        let former = self.slots.remove(key);
        let load = former.as_ref().map(|slot| slot.load).unwrap_or_default();
        if let Some(slot) = self.slot(key) {
            slot.load = load;
        }
        let former = former?;
        Some(Former { key: key.clone(), paths: self.paths, container: former.container?, cgroup: former.cgroup })
    }

    /// containerd has deleted a container.
    pub(in crate::identity) fn deleted(&mut self, key: &Key, now: Instant) {
        if let Some(slot) = self.slots.get_mut(key) {
            slot.deleted.get_or_insert(now);
            slot.end_task();
        }
    }

    /// A record was read. Returns whether it has to be read again.
    pub(in crate::identity) fn loaded(&mut self, loaded: Loaded) -> bool {
        let Loaded { key, container, cgroup } = loaded;
        self.sought.remove(&key.id);
        let clock = self.tick();
        let Some(slot) = self.slot(&key) else {
            return false;
        };
        slot.container = Some(Arc::new(container));
        slot.told = clock;
        slot.refresh();
        let again = std::mem::take(&mut slot.load) == Load::Stale;
        if slot.cgroup != cgroup {
            self.unindex(&key);
            if let Some(slot) = self.slots.get_mut(&key) {
                slot.cgroup = cgroup;
            }
            self.index(&key);
        }
        again
    }

    /// A record could not be read: containerd does not know it (`absent`), or did not say.
    pub(in crate::identity) fn not_loaded(
        &mut self,
        id: &Arc<str>,
        namespace: Option<&Arc<str>>,
        absent: bool,
        now: Instant,
    ) {
        let namespaces: Vec<_> = namespace.map_or_else(|| self.namespaces.clone(), |name| vec![Arc::clone(name)]);
        for namespace in namespaces {
            let key = Key { namespace, id: Arc::clone(id) };
            if let Some(slot) = self.slots.get_mut(&key) {
                slot.load = Load::Idle;
                if absent && slot.container.is_none() {
                    // It went before it could be read; what its first process did may come yet.
                    if let Some(pid) = slot.task.pid {
                        let first = FirstProcess { pid, start_time_ns: slot.task.start_time_ns };
                        self.strangers.insert(id, first);
                    }
                    self.remove(&key);
                }
            }
        }
        if absent {
            self.sought.insert(Arc::clone(id), Sought::Absent(now));
        } else {
            self.sought.remove(id);
        }
    }

    /// Nobody reads records any more: what was asked for has to be asked for again.
    pub(in crate::identity) fn abandon_loads(&mut self) {
        self.slots.values_mut().for_each(|slot| slot.load = Load::Idle);
        self.sought.retain(|_, sought| matches!(sought, Sought::Absent(_)));
    }

    /// All containers of a namespace were listed, from `begun` on. Those that are not among them are gone. Returns those
    /// that gave way to another of the same name.
    pub(in crate::identity) fn reconcile(
        &mut self,
        namespace: &Arc<str>,
        begun: u64,
        listed: Vec<Loaded>,
        now: Instant,
    ) -> Vec<Former> {
        let mut former = Vec::new();
        for loaded in listed {
            former.extend(self.created(&loaded.key));
            let key = loaded.key.clone();
            if self.loaded(loaded) {
                // It changed while the list was made; the event that said so brings the rest.
                self.begin_load(&key);
            }
        }
        for (key, slot) in &mut self.slots {
            if key.namespace == *namespace && slot.told <= begun {
                slot.deleted.get_or_insert(now);
                slot.end_task();
            }
        }
        former
    }

    /// What containerd says of a container's task, unless it has said something newer than `begun` by an event.
    pub(in crate::identity) fn task_read(&mut self, key: &Key, task: Task, begun: u64) {
        if let Some(slot) = self.slots.get_mut(key).filter(|slot| slot.task_told <= begun) {
            slot.task = task.after(slot.task);
            slot.refresh();
        }
    }

    /// All tasks of a namespace were listed, from `begun` on. Who is not among them has none.
    pub(in crate::identity) fn tasks_listed(
        &mut self,
        namespace: &Arc<str>,
        begun: u64,
        listed: &HashMap<Arc<str>, Task>,
    ) {
        let keys: Vec<Key> = self.slots.keys().filter(|key| key.namespace == *namespace).cloned().collect();
        for key in keys {
            match listed.get(&key.id) {
                Some(task) => self.task_read(&key, *task, begun),
                None => {
                    if let Some(slot) = self.slots.get_mut(&key).filter(|slot| slot.task_told <= begun) {
                        slot.end_task();
                    }
                }
            }
        }
    }

    /// The first process of a container was made, and is the runtime still. Returns whether its record has to be read.
    pub(in crate::identity) fn task_created(&mut self, key: &Key, first: First) -> bool {
        self.task_event(key, |former| first.task(TaskState::Created).after(former))
    }

    /// The first process was told to execute the container's program. Returns whether its record has to be read.
    pub(in crate::identity) fn task_started(&mut self, key: &Key, first: First) -> bool {
        self.task_event(key, |former| first.task(TaskState::Running).after(former))
    }

    /// A container's task has ended.
    pub(in crate::identity) fn task_ended(&mut self, key: &Key) {
        if self.slots.contains_key(key) {
            self.task_event(key, |task| Task { state: TaskState::Ended, ..task });
        }
    }

    fn task_event(&mut self, key: &Key, change: impl FnOnce(Task) -> Task) -> bool {
        let clock = self.tick();
        let Some(slot) = self.slot(key) else {
            return false;
        };
        slot.task = change(slot.task);
        slot.task_told = clock;
        slot.refresh();
        slot.container.is_none() && slot.load == Load::Idle
    }
}

impl Task {
    /// What is known, given what was before: of the same process the start is told but once.
    fn after(self, former: Self) -> Self {
        let former = Some(former).filter(|former| former.pid == self.pid).unwrap_or_default();
        Self {
            start_time_ns: former.start_time_ns.or(self.start_time_ns),
            started_at_unix_ns: former.started_at_unix_ns.or(self.started_at_unix_ns),
            ..self
        }
    }
}

impl First {
    /// The task that it is the first process of.
    pub(in crate::identity) const fn task(self, state: TaskState) -> Task {
        let Self { pid, start_time_ns, started_at_unix_ns } = self;
        Task { state, pid: Some(pid), start_time_ns, started_at_unix_ns }
    }
}
