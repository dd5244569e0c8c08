//! What the pipeline's side and the watcher's side of the identity room share. No lock is held while anything waits.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::{Instant, SystemTime},
};

use tokio::sync::{Notify, mpsc, watch};
use tracing::{info, warn};

use super::{
    Lookup,
    cgroups::{Cgroups, Miss},
    hierarchy::Hierarchy,
    images::Images,
    looks::Looks,
    model::Container,
    mounts::Mounts,
    node,
    registry::{Former, Owner, Paths, Registry},
    runtime::{Namespace, Version},
    status::{Counters, Status, count},
};

/// See the module.
#[derive(Debug)]
pub(super) struct Shared {
    /// containerd's socket.
    pub socket: PathBuf,
    /// The namespaces of containerd that are watched.
    pub namespaces: Vec<Namespace>,
    /// The node's proc file system.
    pub host_proc: PathBuf,
    /// The cgroup2 hierarchy.
    pub hierarchy: Hierarchy,
    /// All capabilities that a process can have on this node.
    pub node_capabilities: u64,
    /// What is known of images.
    pub images: Images,
    /// The mounts that the containers have.
    pub mounts: Mutex<Mounts>,
    /// Looks at the node's disks.
    pub looks: Looks,
    /// Counters.
    pub counters: Counters,
    /// Wakes the scanner of the hierarchy.
    pub scan_wanted: Notify,
    /// Goes up with everything that becomes known.
    pub changed: watch::Sender<u64>,
    /// To the watcher.
    pub requests: mpsc::Sender<Request>,
    /// The tables.
    pub tables: Mutex<Tables>,
    /// The connection.
    pub link: Mutex<Link>,
}

/// The tables.
#[derive(Debug)]
pub(super) struct Tables {
    /// Containers.
    pub registry: Registry,
    /// Cgroups.
    pub cgroups: Cgroups,
}

/// A container whose record is wanted now.
#[derive(Clone, Debug)]
pub(super) struct Request {
    /// Its id.
    pub id: Arc<str>,
    /// Its namespace; none where only the id is known.
    pub namespace: Option<Arc<str>>,
}

/// The state of the connection to containerd.
#[derive(Debug)]
pub(super) struct Link {
    up: bool,
    synced: bool,
    down_since: SystemTime,
    version: Option<Version>,
    /// What the last line of log about the connection said; none before the first.
    said_up: Option<bool>,
}

impl Link {
    /// Before the first connection.
    pub(super) fn new() -> Self {
        Self { up: false, synced: false, down_since: SystemTime::now(), version: None, said_up: None }
    }
}

impl Shared {
    /// The tables. What is done with them is short and can't fail in between, so a poisoned lock is as good as any.
    pub(super) fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a container have what others have, too, together with them.
    pub(super) fn share_mounts(&self, container: &mut Container) {
        self.mounts.lock().unwrap_or_else(PoisonError::into_inner).share(&mut container.mounts);
    }

    fn link(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells everyone who waits that something became known.
    pub(super) fn notify(&self) {
        self.changed.send_modify(|version| *version = version.wrapping_add(1));
    }

    /// Whose a cgroup is. Asks for what is missing.
    pub(super) fn lookup(&self, cgroup_id: u64) -> Lookup {
        let now = Instant::now();
        let mut tables = self.tables();
        let Tables { registry, cgroups } = &mut *tables;
        let Some(cgroup) = cgroups.get(cgroup_id) else {
            return match cgroups.miss(cgroup_id, now) {
                Miss::NotFound => Lookup::Unknown,
                Miss::Scan => {
                    self.scan_wanted.notify_one();
                    Lookup::Pending { container_id: None, cgroup_path: None }
                }
            };
        };
        let cgroup_path = Arc::clone(&cgroup.path);
        if let Some(container) = &cgroup.former_owner {
            return Lookup::Container { container: Arc::clone(container), cgroup_path };
        }
        match registry.owner(&cgroup_path, now) {
            Owner::Container(container) => Lookup::Container { container, cgroup_path },
            Owner::Pending { id, namespace, ask } => {
                if ask {
                    self.request(registry, Request { id: Arc::clone(&id), namespace });
                }
                Lookup::Pending { container_id: Some(id), cgroup_path: Some(cgroup_path) }
            }
            Owner::Foreign { id, first } => Lookup::Foreign { container_id: id, cgroup_path, first },
            Owner::Host => Lookup::Host { cgroup_path },
        }
    }

    /// The kernel has made a cgroup: asks for its container, which exists by now and may not for long.
    pub(super) fn cgroup_created(&self, cgroup_id: u64, path: &str) {
        let mut tables = self.tables();
        tables.cgroups.created(cgroup_id, path);
        if let Owner::Pending { id, namespace, ask: true } = tables.registry.owner(path, Instant::now()) {
            self.request(&mut tables.registry, Request { id, namespace });
        }
    }

    /// The kernel has removed a cgroup.
    pub(super) fn cgroup_removed(&self, cgroup_id: u64) {
        self.tables().cgroups.removed(cgroup_id, Instant::now());
    }

    fn request(&self, registry: &mut Registry, request: Request) {
        if let Err(error) = self.requests.try_send(request) {
            count(&self.counters.requests_dropped);
            let Request { id, namespace } = error.into_inner();
            registry.not_loaded(&id, namespace.as_ref(), false, Instant::now());
        }
    }

    /// Containers gave way to others of their names: their cgroups stay theirs.
    pub(super) fn keep_owners(tables: &mut Tables, former: impl IntoIterator<Item = Former>) {
        for former in former {
            tables.cgroups.keep_owner(&former.container, |path| former.was_in(path));
        }
    }

    /// containerd is this process, by its id in our pid namespace: learns whether it sees the whole hierarchy of cgroups.
    pub(super) fn set_paths(&self, listener: Option<i32>) {
        let is_nested = listener.is_some_and(|pid| node::in_node_cgroup_namespace(pid) == Some(false));
        let paths = if self.hierarchy.is_whole() && !is_nested { Paths::Whole } else { Paths::Below };
        self.tables().registry.set_paths(paths);
    }

    /// containerd has answered.
    pub(super) fn connected(&self, version: Version) {
        count(&self.counters.connections);
        let mut link = self.link();
        link.up = true;
        link.version = Some(version);
        drop(link);
        self.notify();
    }

    /// All containers are known.
    pub(super) fn synced(&self) {
        let mut link = self.link();
        link.synced = true;
        let again = link.said_up.replace(true) == Some(false);
        let version = link.version.as_ref().map(|version| version.version.clone()).unwrap_or_default();
        drop(link);
        let containers = self.tables().registry.len();
        let socket = self.socket.display();
        let again = if again { "again " } else { "" };
        info!(containers, version, "containerd answers {again}at {socket}; its containers are known");
        self.notify();
    }

    /// containerd does not answer, or no longer. Says so once, however often it is tried again.
    pub(super) fn disconnected(&self, error: &dyn std::error::Error) {
        let mut link = self.link();
        let was_up = link.up;
        if was_up {
            link.down_since = SystemTime::now();
        }
        link.up = false;
        link.synced = false;
        let said_before = link.said_up.replace(false) == Some(false);
        drop(link);
        self.tables().registry.abandon_loads();
        if said_before {
            tracing::debug!("containerd does not answer: {error}");
        } else {
            warn!("containerd does not answer, so containers stay unknown until it does; trying on: {error}");
        }
        // Every second another try fails, and each of those who are told looks through all that it has.
        if was_up || !said_before {
            self.notify();
        }
    }

    /// How things are.
    pub(super) fn status(&self) -> Status {
        let mut counts = self.counters.read();
        let tables = self.tables();
        counts.cgroups = tables.cgroups.len() as u64;
        counts.cgroups_evicted = tables.cgroups.evicted();
        counts.containers = tables.registry.len() as u64;
        counts.containers_refused = tables.registry.refused();
        counts.lookups_deferred = tables.registry.deferred();
        drop(tables);
        let Link { up, synced, down_since, ref version, said_up: _ } = *self.link();
        Status {
            up,
            synced,
            down_since: (!up).then_some(down_since),
            version: version.clone(),
            hierarchy_whole: self.hierarchy.is_whole(),
            counts,
        }
    }

    /// Adds to a counter what went wrong with a call.
    pub(super) fn count_failed_call(&self) {
        self.counters.calls_failed.fetch_add(1, Ordering::Relaxed);
    }
}
