//! Where on the node a mount comes from, kept so that it is the same in each replica: most paths differ in nothing but the pod's
//! uid or the sandbox's id, and the container knows both.

use super::model::{Container, Role, SpecMount};

/// A path on the node without what is the pod's own in it. [`Container::source_of`] puts that back.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Source {
    before: Box<str>,
    own: Option<Own>,
    after: Box<str>,
}

/// What of a pod's own stands in a path.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Own {
    PodUid,
    SandboxId,
}

impl From<&str> for Source {
    /// The whole path, whoever has it.
    fn from(path: &str) -> Self {
        Self { before: path.into(), own: None, after: Box::default() }
    }
}

impl Container {
    /// The path on the node that one of its mounts comes from.
    pub fn source_of(&self, mount: &SpecMount) -> Option<String> {
        let Source { before, own, after } = mount.source.as_ref()?;
        let own = own.and_then(|own| self.own(own)).unwrap_or_default();
        Some([before, own, after].concat())
    }

    /// The path as it is kept. What it leaves out is what the container says now: it has to be kept anew when its pod changes.
    pub(super) fn keep_source(&self, path: &str) -> Source {
        for own in [Own::PodUid, Own::SandboxId] {
            if let Some((before, after)) = self.own(own).and_then(|name| path.split_once(name)) {
                return Source { before: before.into(), own: Some(own), after: after.into() };
            }
        }
        path.into()
    }

    fn own(&self, own: Own) -> Option<&str> {
        let name = match (own, self.role) {
            (Own::PodUid, _) => Some(self.pod.as_ref()?.uid.as_str()),
            (Own::SandboxId, Role::Sandbox) => Some(self.id.as_str()),
            (Own::SandboxId, _) => self.sandbox_id.as_deref(),
        };
        name.filter(|name| !name.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{finding::testing::sealed, identity::model::Pod};

    fn of_pod(uid: &str, sandbox: &str) -> Container {
        let mut container = (*sealed()).clone();
        container.pod = Some(Arc::new(Pod { uid: uid.to_owned(), ..(**container.pod.as_ref().unwrap()).clone() }));
        container.sandbox_id = Some(sandbox.into());
        container
    }

    fn kept(container: &Container, path: &str) -> SpecMount {
        SpecMount { source: Some(container.keep_source(path)), ..(*sealed().mounts[0]).clone() }
    }

    #[test]
    fn replicas_have_the_same_and_each_gets_its_own_path_back() {
        let [one, other] = [of_pod("0aa11122", "dd6b"), of_pod("1bb22233", "d59f")];
        for path in ["/pods/UID/volumes/x", "/sandboxes/SANDBOX/shm", "/srv", "", "UID", "SANDBOX"] {
            let [of_one, of_other] = [("0aa11122", "dd6b"), ("1bb22233", "d59f")]
                .map(|(uid, sandbox)| path.replace("UID", uid).replace("SANDBOX", sandbox));
            let (mount, same) = (kept(&one, &of_one), kept(&other, &of_other));
            assert_eq!(mount, same, "{path}");
            assert_eq!((one.source_of(&mount), other.source_of(&mount)), (Some(of_one), Some(of_other)));
        }
    }

    #[test]
    fn a_path_comes_back_as_it_was_whatever_it_names() {
        let none = Container { pod: None, sandbox_id: None, ..of_pod("", "") };
        for container in [of_pod("u", "s"), of_pod("", ""), none, Container { role: Role::Sandbox, ..of_pod("u", "s") }]
        {
            for path in ["", "u", "s", "/u/s", "/s/u/u", "/ssuu\0", "é/ü"] {
                assert_eq!(container.source_of(&kept(&container, path)).as_deref(), Some(path));
            }
        }
    }
}
