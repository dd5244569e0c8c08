//! Where a container's cgroup is, by what its spec says.

use super::Key;
use crate::identity::cgroup_path;

/// How the path of a cgroup in the hierarchy compares with the one that a container's spec names.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::identity) enum Paths {
    /// They are the same: the runtime and rosentry see the whole hierarchy.
    Whole,
    /// The one ends with the other, as far as that can be told: the runtime, or rosentry, sees a part of the hierarchy, and
    /// takes it for the whole.
    Below,
}

impl Paths {
    fn fit(self, path: &str, spec: &str) -> bool {
        match self {
            Self::Whole => cgroup_path::is_named(path, spec),
            Self::Below => cgroup_path::is_named_at_end(path, spec),
        }
    }
}

/// Whether the own cgroup of a container is at this path, given its path as far as the spec says.
pub(super) fn is_at(key: &Key, cgroup: Option<&str>, path: &str, paths: Paths) -> bool {
    match cgroup {
        Some(spec) => paths.fit(path, spec),
        // Such an id tells itself, wherever the runtime puts it.
        None if cgroup_path::is_id(&key.id) => {
            path.rsplit('/').next().and_then(cgroup_path::id_in).is_some_and(|id| id == &*key.id)
        }
        None => paths.fit(path, &format!("/{}/{}", key.namespace, key.id)),
    }
}
