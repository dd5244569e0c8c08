//! Processes of a container that have moved themselves to a cgroup of the node.
//!
//! Whose a process is, is read from its cgroup. A privileged container can write to the cgroup filesystem, and move a shell
//! to where no container is. What it can't shed as easily is the container's first process among its ancestors, and the
//! container's mount namespace. Only processes outside of the node's own mount namespace are looked at: whoever is in that one
//! is the node's, or has taken over the node.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use quick_cache::unsync::Cache;

use crate::{identity::model::Container, kernel::attempt::Attempt};

/// Processes of the node that are remembered to be no container's.
const REMEMBERED: usize = 1024;

/// Finds the container that a process came from.
pub struct Escaped {
    host_proc: PathBuf,
    /// Mount namespaces by the container's id and first process.
    namespaces: HashMap<(String, u32), Option<u32>>,
    /// Processes by pid and start, with their mount namespace.
    no_container: Cache<(u32, u64, Option<u32>), ()>,
}

impl Escaped {
    /// With the node's /proc at `host_proc`.
    pub fn new(host_proc: &Path) -> Self {
        Self { host_proc: host_proc.to_owned(), namespaces: HashMap::new(), no_container: Cache::new(REMEMBERED) }
    }

    /// Which of the `running` containers the process of `attempt` came from, though its cgroup is the node's.
    pub fn container_of(
        &mut self,
        attempt: &Attempt,
        running: impl FnOnce() -> Vec<Arc<Container>>,
    ) -> Option<Arc<Container>> {
        let process = &attempt.process;
        let key = (process.pid, process.start_time_ns, process.mnt_ns);
        if process.in_node_mount_namespace || self.no_container.get(&key).is_some() {
            return None;
        }
        let running = running();
        let found = running.iter().find(|container| self.is_of(attempt, container)).cloned();
        if found.is_none() {
            self.no_container.insert(key, ());
        }
        // What is remembered of containers that have gone.
        if self.namespaces.len() > 2 * running.len() + 16 {
            self.namespaces.retain(|(id, _), _| running.iter().any(|container| container.id == *id));
        }
        found
    }

    fn is_of(&mut self, attempt: &Attempt, container: &Container) -> bool {
        let Some(first) = container.init_pid else { return false };
        let process = &attempt.process;
        if process.pid == first || process.ancestors.iter().any(|ancestor| ancestor.pid == first) {
            return true;
        }
        let host_proc = &self.host_proc;
        let namespace =
            *self.namespaces.entry((container.id.clone(), first)).or_insert_with(|| mount_namespace(host_proc, first));
        namespace.is_some() && namespace == process.mnt_ns
    }
}

/// Inode number of the mount namespace of a process; none where it has ended, or may not be looked at.
fn mount_namespace(host_proc: &Path, pid: u32) -> Option<u32> {
    let namespace = fs::metadata(host_proc.join(pid.to_string()).join("ns/mnt")).ok()?;
    u32::try_from(namespace.ino()).ok()
}
