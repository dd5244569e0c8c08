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

use crate::{identity::model::Container, kernel::attempt::Attempt, process_stat::Stat};

/// Processes of the node that are remembered to be no container's.
const REMEMBERED: usize = 1024;

/// Finds the container that a process came from.
pub struct Escaped {
    host_proc: PathBuf,
    /// Mount namespaces by the container's id and the start of its first process.
    namespaces: HashMap<(String, u64), Option<u32>>,
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
        let process = &attempt.process;
        let Some(first) = container.first_process() else { return false };
        let is_first = |pid, start_time_ns| first.is(pid, start_time_ns) == Some(true);
        if is_first(process.pid, process.start_time_ns)
            || process.ancestors.iter().any(|ancestor| is_first(ancestor.pid, ancestor.start_time_ns))
        {
            return true;
        }
        // A mount namespace that is gone leaves its number to the next: who came before the container is not its.
        let Some(start) = first.start_time_ns.filter(|start| *start <= attempt.time_ns) else { return false };
        let host_proc = &self.host_proc;
        let namespace = self.namespaces.entry((container.id.clone(), start));
        let namespace = *namespace.or_insert_with(|| mount_namespace(host_proc, first.pid, start));
        namespace.is_some() && namespace == process.mnt_ns
    }
}

/// Inode number of the mount namespace of the process that has this id and start; none where it has ended, or may not be
/// looked at.
fn mount_namespace(host_proc: &Path, pid: u32, start_time_ns: u64) -> Option<u32> {
    let process = host_proc.join(pid.to_string());
    let namespace = fs::metadata(process.join("ns/mnt")).ok()?;
    // After that: had another process its id, it would have another start.
    Stat::read(&process).filter(|stat| stat.started_at(start_time_ns))?;
    u32::try_from(namespace.ino()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        finding::testing::{attempt, sealed},
        kernel::attempt::Ancestor,
    };

    /// A container whose first process this test is.
    fn ours() -> Container {
        let start = Stat::read(Path::new("/proc/self")).unwrap().start_time_ns();
        Container { init_pid: Some(std::process::id()), init_start_time_ns: Some(start), ..(*sealed()).clone() }
    }

    fn found(attempt: &Attempt, container: Container) -> bool {
        Escaped::new(Path::new("/proc")).container_of(attempt, || vec![Arc::new(container)]).is_some()
    }

    #[test]
    fn a_process_is_known_by_its_mount_namespace_as_the_container_s() {
        let mut stray = attempt("mkdir");
        stray.time_ns = u64::MAX;
        stray.process.mnt_ns = fs::metadata("/proc/self/ns/mnt").unwrap().ino().try_into().ok();
        assert!(found(&stray, ours()));
        let of_other = |start| Container { init_start_time_ns: start, ..ours() };
        assert!(!found(&stray, of_other(Some(1))), "the first process has ended, and its id is another's");
        assert!(!found(&stray, of_other(None)));
        stray.time_ns = 1;
        assert!(
            !found(&stray, ours()),
            "it was done before the container was there: its namespace had the number then"
        );
    }

    #[test]
    fn a_process_is_not_taken_for_a_container_s_by_an_id_that_was_used_again() {
        let container = (*sealed()).clone();
        let (pid, start) = (container.init_pid.unwrap(), container.init_start_time_ns.unwrap());
        let mut stray = attempt("mkdir");
        let above = |start_time_ns| Ancestor { pid, start_time_ns, comm: Vec::new() };
        stray.process.ancestors = vec![above(start)];
        assert!(found(&stray, container.clone()));
        stray.process.ancestors = vec![above(start + 1_000_000_000)];
        assert!(!found(&stray, container.clone()));
        (stray.process.pid, stray.process.start_time_ns) = (pid, start + 1_000_000_000);
        assert!(!found(&stray, container));
    }
}
