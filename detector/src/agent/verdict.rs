//! Whose an attempt is, and whether it is any of rosentry's business.

use std::sync::Arc;

use detector_common::record::RecordKind;

use crate::{
    finding::is_runtime_setup,
    identity::{
        Identity, Lookup,
        model::{Container, TaskState},
    },
    kernel::attempt::Attempt,
};

/// Why nobody can be named: the container is of a namespace or a runtime that is not watched.
pub const FOREIGN: &str = "foreign_container";
/// Why nobody can be named: nobody knows the cgroup.
pub const UNKNOWN: &str = "unknown_cgroup";
/// Why it is none of rosentry's business: no container did it.
pub const HOST: &str = "host_process";
/// Why a write that succeeded is none of rosentry's business: it went to a volume, or to another mount than the root.
pub const NOT_ON_ROOT: &str = "not_on_root";

/// What becomes of an attempt.
pub enum Verdict {
    /// It is an event: of this container, or of none.
    Report {
        /// The container.
        container: Option<Arc<Container>>,
        /// The cgroup's path, where it is known.
        cgroup_path: Option<Arc<str>>,
        /// Why nobody can be named, where it is so.
        unattributed: Option<&'static str>,
    },
    /// It is none of rosentry's business, for this reason.
    Ignore(&'static str),
    /// Nobody can say yet.
    Wait,
}

impl Verdict {
    const fn unattributed(reason: &'static str, cgroup_path: Option<Arc<str>>) -> Self {
        Self::Report { container: None, cgroup_path, unattributed: Some(reason) }
    }

    /// With what is known now.
    pub fn of(identity: &Identity, attempt: &Attempt) -> Self {
        match identity.lookup(attempt.cgroup_id) {
            Lookup::Container { container, cgroup_path } => {
                if attempt.kind != RecordKind::WriteDenied {
                    let is_outside = parent_is_outside(identity, attempt, &container.id);
                    if is_runtime_setup(attempt, container.first_process(), is_outside) {
                        return Self::Ignore("runtime_setup");
                    }
                    if container.task == TaskState::Unseen && attempt.process.has_not_executed() {
                        // The runtime's set-up, as soon as containerd says which process is the container's first.
                        return Self::Wait;
                    }
                }
                Self::Report { container: Some(container), cgroup_path: Some(cgroup_path), unattributed: None }
            }
            Lookup::Pending { .. } => Self::Wait,
            Lookup::Foreign { container_id, cgroup_path, first } => {
                if attempt.kind != RecordKind::WriteDenied {
                    if is_runtime_setup(attempt, first, parent_is_outside(identity, attempt, &container_id)) {
                        return Self::Ignore("runtime_setup");
                    }
                    if first.is_none() && attempt.process.has_not_executed() {
                        // containerd may say so of a container that it has in a namespace which is not watched.
                        return Self::Wait;
                    }
                }
                Self::unattributed(FOREIGN, Some(cgroup_path))
            }
            Lookup::Host { cgroup_path } => {
                Self::Report { container: None, cgroup_path: Some(cgroup_path), unattributed: None }
            }
            Lookup::Unknown => Self::unattributed(UNKNOWN, None),
        }
    }

    /// With what is known now, where it is not waited for any longer.
    pub fn at_last(identity: &Identity, attempt: &Attempt) -> Self {
        match Self::of(identity, attempt) {
            Self::Wait => Self::out_of_patience(identity, attempt),
            verdict => verdict,
        }
    }

    /// The verdict about what nobody could say in time.
    fn out_of_patience(identity: &Identity, attempt: &Attempt) -> Self {
        match identity.lookup(attempt.cgroup_id) {
            // containerd has not spoken of a first process, so the container has run nothing: a start that takes its time.
            Lookup::Container { container, .. }
                if container.task == TaskState::Unseen && attempt.process.has_not_executed() =>
            {
                Self::Ignore("runtime_setup_unconfirmed")
            }
            Lookup::Container { container, cgroup_path } => {
                Self::Report { container: Some(container), cgroup_path: Some(cgroup_path), unattributed: None }
            }
            Lookup::Pending { cgroup_path, .. } => {
                let reason = if identity.status().up { "no_answer" } else { "containerd_down" };
                Self::unattributed(reason, cgroup_path)
            }
            Lookup::Foreign { cgroup_path, .. } => Self::unattributed(FOREIGN, Some(cgroup_path)),
            Lookup::Host { cgroup_path } => {
                Self::Report { container: None, cgroup_path: Some(cgroup_path), unattributed: None }
            }
            Lookup::Unknown => Self::unattributed(UNKNOWN, None),
        }
    }
}

/// Whether the process's parent is known to be in no cgroup of the container.
fn parent_is_outside(identity: &Identity, attempt: &Attempt, container_id: &str) -> bool {
    let Some(cgroup_id) = attempt.process.parent_cgroup_id else { return false };
    match identity.lookup(cgroup_id) {
        Lookup::Host { .. } => true,
        Lookup::Container { container: of_parent, .. } => of_parent.id != container_id,
        Lookup::Pending { .. } | Lookup::Foreign { .. } | Lookup::Unknown => false,
    }
}
