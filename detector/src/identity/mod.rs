//! The identity room: from a cgroup to its container and its pod.
//!
//! Two sources come together here. The kernel tells of each cgroup that is made, before any process runs in it, and its
//! path names the container. containerd tells what that container is: in its list when the connection is made, in its
//! events from then on, and when asked for one container by its id, which is done as soon as the cgroup is made.
//!
//! ```text
//! cgroup_mkdir ─► cgroups ──path──► registry ◄── lists, events, answers ── watch ◄── containerd
//!                     ▲                 │
//!                   scan             lookup(cgroup id) ─► Container, Pending, Foreign, Host, Unknown
//! ```
//!
//! Nothing about findings lives here.

mod cgroup_path;
mod cgroups;
mod cri;
mod event_stream;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod hierarchy;
mod images;
mod load;
mod looks;
pub mod model;
mod mounts;
mod node;
mod probe;
mod record;
mod registry;
mod runtime;
mod scan;
mod shared;
mod source;
mod spec;
mod status;
mod subpaths;
mod volumes;
mod watch;
#[cfg(test)]
mod weight_tests;
mod workload;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
};

use tokio::{
    sync::{Notify, mpsc},
    task::JoinSet,
};

pub(crate) use self::node::bounding_set;
use self::{
    cgroups::Cgroups,
    images::Images,
    looks::Looks,
    model::{Container, FirstProcess},
    registry::{Paths, Registry},
    runtime::Namespace,
    shared::{Link, Shared, Tables},
    status::Counters,
};
pub use self::{
    hierarchy::{Hierarchy, HierarchyError},
    probe::{ProbeError, probe},
    runtime::Version,
    status::{Counts, Status},
};

/// Cgroups held, removed ones included. Each takes some 250 bytes; a node of 250 pods has some thousand.
const MAX_CGROUPS: usize = 16_384;
/// Containers that wait to be asked for.
const MAX_REQUESTS: usize = 1024;

/// Where to look.
#[derive(Clone, Debug)]
pub struct IdentityConfig {
    /// containerd's socket. It need not be there yet.
    pub socket: PathBuf,
    /// The namespaces of containerd to watch.
    pub namespaces: Vec<String>,
    /// The proc file system of the node's initial pid namespace.
    pub host_proc: PathBuf,
    /// Where the node's cgroup hierarchies are mounted.
    pub host_cgroup: PathBuf,
}

/// Why the identity room can't work.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// There is no usable cgroup2 hierarchy.
    #[error(transparent)]
    Hierarchy(#[from] HierarchyError),
    /// containerd has no namespace of such a name.
    #[error(
        "\"{}\" can't be a namespace of containerd: name one of letters, digits, `-`, `.` and `_` with --containerd-namespace",
        .0.escape_debug()
    )]
    Namespace(String),
}

/// Whose a cgroup is.
#[derive(Clone, Debug)]
pub enum Lookup {
    /// A container's, or that of a deleted container. Where containerd has told of its task since it was handed out
    /// before, it is another `Arc` now.
    Container {
        /// The container.
        container: Arc<Container>,
        /// The cgroup's path, absolute in the hierarchy.
        cgroup_path: Arc<str>,
    },
    /// Not known yet, and asked for: look again when [`changed`](Identity::changed) says so. While containerd does not
    /// answer, it stays so.
    Pending {
        /// The id in the path; none where the cgroup itself is looked for.
        container_id: Option<Arc<str>>,
        /// The cgroup's path; none where the cgroup itself is looked for.
        cgroup_path: Option<Arc<str>>,
    },
    /// The path names a container, but containerd knows none of that id in the namespaces that are watched.
    Foreign {
        /// The id in the path.
        container_id: Arc<str>,
        /// The cgroup's path.
        cgroup_path: Arc<str>,
        /// The container's first process, where containerd has told of one in another namespace.
        first: Option<FirstProcess>,
    },
    /// No container is named in the path: the host's. A container that is neither called by an id of 64 hex digits nor in the
    /// cgroup that ctr gives it by default is not known by its path before containerd has told of it, which takes
    /// milliseconds and is done before its first process runs.
    Host {
        /// The cgroup's path.
        cgroup_path: Arc<str>,
    },
    /// There is no cgroup of this id, or no longer, and it was never heard of.
    Unknown,
}

/// The identity room. Clones share one; what runs in the background ends with the last of them.
#[derive(Clone, Debug)]
pub struct Identity {
    shared: Arc<Shared>,
    /// Ends its tasks when it is dropped.
    _background: Arc<JoinSet<()>>,
}

impl Identity {
    /// Reads the cgroup hierarchy, and starts to watch containerd in the background, whether it is there or not. Attach
    /// the kernel programs before: a cgroup that is made between the two is found all the same, but later.
    ///
    /// Needs a tokio runtime with time and I/O. Blocks for the milliseconds that the hierarchy takes to read.
    ///
    /// # Errors
    /// Where there is no cgroup2 hierarchy, or a namespace's name can't be one.
    pub fn start(config: IdentityConfig) -> Result<Self, IdentityError> {
        let IdentityConfig { socket, namespaces, host_proc, host_cgroup } = config;
        let mut watched: Vec<Namespace> = Vec::new();
        for name in namespaces {
            let namespace = Namespace::new(&name).ok_or(IdentityError::Namespace(name))?;
            if watched.iter().all(|other| other.name() != namespace.name()) {
                watched.push(namespace);
            }
        }
        let hierarchy = Hierarchy::find(&host_proc, &host_cgroup)?;
        if !hierarchy.is_whole() {
            tracing::warn!(
                "only a part of the cgroup hierarchy is seen at {}: give the agent the host's, or containers that run \
                 already stay unknown",
                hierarchy.mount().display()
            );
        }
        let (requests, requested) = mpsc::channel(MAX_REQUESTS);
        let shared = Arc::new(Shared {
            tables: Mutex::new(Tables {
                registry: Registry::new(
                    watched.iter().map(|namespace| Arc::clone(namespace.name())).collect(),
                    if hierarchy.is_whole() { Paths::Whole } else { Paths::Below },
                ),
                cgroups: Cgroups::new(MAX_CGROUPS),
            }),
            node_capabilities: node::capabilities(&host_proc),
            socket,
            namespaces: watched,
            host_proc,
            hierarchy,
            images: Images::default(),
            mounts: Mutex::default(),
            looks: Looks::default(),
            counters: Counters::default(),
            scan_wanted: Notify::new(),
            changed: tokio::sync::watch::Sender::new(0),
            requests,
            link: Mutex::new(Link::new()),
        });
        scan::scan(&shared);
        let mut background = JoinSet::new();
        background.spawn(scan::keep(Arc::clone(&shared)));
        background.spawn(watch::watch(Arc::clone(&shared), requested));
        Ok(Self { shared, _background: Arc::new(background) })
    }

    /// The kernel has made a cgroup of the cgroup2 hierarchy. Its container, if the path names one, is asked for at once.
    ///
    /// `path` is absolute in the hierarchy, as the tracepoint `cgroup:cgroup_mkdir` has it.
    pub fn cgroup_created(&self, cgroup_id: u64, path: &str) {
        self.shared.cgroup_created(cgroup_id, path);
    }

    /// The kernel has removed a cgroup. It stays known for a minute.
    pub fn cgroup_removed(&self, cgroup_id: u64) {
        self.shared.cgroup_removed(cgroup_id);
    }

    /// Whose the cgroup is. Cheap, never waits, and asks for what is missing.
    pub fn lookup(&self, cgroup_id: u64) -> Lookup {
        self.shared.lookup(cgroup_id)
    }

    /// Changes with everything that becomes known, and with the state of the connection. Its value means nothing.
    pub fn changed(&self) -> tokio::sync::watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    /// How it fares.
    pub fn status(&self) -> Status {
        self.shared.status()
    }

    /// The containers that run now, sandboxes included, in no order.
    pub fn containers(&self) -> Vec<Arc<Container>> {
        self.shared.tables().registry.running()
    }
}
