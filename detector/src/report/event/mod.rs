//! The native events as a reader of their files gets them: typed, borrowed from the line they stand in.
//!
//! What is read here is material of others, who may have written the file by hand: nothing of it is believed to be escaped.
//! [`printable`](super::printable::printable) stands between a text and a terminal. A member that is not known is passed
//! over, as version 1 of the format may grow; one that is missing is as if it were null.

mod agent;
mod scalar;

use std::collections::BTreeMap;

use serde::Deserialize;

pub use self::{
    agent::AgentNote,
    scalar::{Text, Time},
};
use crate::{
    export::{
        chain::{self, End},
        native::SCHEMA,
    },
    finding::event::{Effect, Kind, PlaceKind, Severity},
};

/// One line of a stream.
#[derive(Clone, Debug, Deserialize)]
pub struct Event<'a> {
    /// Name and version of the format.
    #[serde(borrow)]
    schema: Text<'a>,
    /// Number in its stream, from 1.
    pub seq: u64,
    /// The last that is folded into it.
    pub time: Time,
    /// Name of the node.
    #[serde(borrow)]
    pub node: Text<'a>,
    /// What it is about, by name: see [`Event::kind`].
    #[serde(borrow, rename = "kind")]
    pub kind_name: Text<'a>,
    /// What was tried.
    #[serde(borrow, default)]
    pub operation: Option<Text<'a>>,
    /// `denied`, `failed`, `succeeded`.
    #[serde(borrow, default)]
    pub outcome: Option<Text<'a>>,
    /// Name of the errno.
    #[serde(borrow, default)]
    pub errno: Option<Text<'a>>,
    /// How many attempts are folded into it.
    #[serde(default = "one")]
    pub count: u64,
    /// The first that is folded into it.
    #[serde(default)]
    pub first_time: Option<Time>,
    /// How bad.
    #[serde(deserialize_with = "scalar::severity")]
    pub severity: Severity,
    /// The cause of a refused write.
    #[serde(borrow, default)]
    pub category: Option<Text<'a>>,
    /// What mends it.
    #[serde(borrow, default)]
    pub hint: Option<Text<'a>>,
    /// Whether a rule of the user says that it is expected.
    #[serde(default)]
    pub expected: bool,
    /// Techniques of MITRE ATT&CK.
    #[serde(borrow, default)]
    pub attack: Vec<Text<'a>>,
    /// The file of a write.
    #[serde(borrow, default)]
    pub file: Option<File<'a>>,
    /// Where a write hit, what a mount attempt was about, or where a seal is broken.
    #[serde(borrow, default)]
    pub mount: Option<Mount<'a>>,
    /// Who did it.
    #[serde(borrow, default)]
    pub process: Option<Process<'a>>,
    /// The container.
    #[serde(borrow, default)]
    pub container: Option<Container<'a>>,
    /// The pod.
    #[serde(borrow, default)]
    pub pod: Option<Pod<'a>>,
    /// The door.
    #[serde(borrow, default)]
    pub abi: Option<Text<'a>>,
    /// The cgroup of a process whose container is not known.
    #[serde(borrow, default)]
    pub cgroup: Option<Cgroup<'a>>,
    /// What the agent says of itself.
    #[serde(borrow, default)]
    pub agent: Option<AgentNote<'a>>,
    /// What the first line of a run or a file follows: nothing said, nothing there, or this.
    #[serde(default, deserialize_with = "chain::told")]
    pub previous: Option<Option<End>>,
    /// The link to the line before.
    #[serde(borrow, default)]
    pub chain: Option<Text<'a>>,
}

/// The file of a write; paths are absolute in the container's root.
#[derive(Clone, Debug, Deserialize)]
pub struct File<'a> {
    /// The path.
    #[serde(borrow, default)]
    pub path: Option<Text<'a>>,
    /// As the program passed it.
    #[serde(borrow, default)]
    pub requested: Option<Text<'a>>,
    /// Names of the flags.
    #[serde(borrow, default)]
    pub flags: Vec<Text<'a>>,
    /// The new name of rename and link.
    #[serde(borrow, default)]
    pub new_path: Option<Text<'a>>,
    /// How `path` became absolute.
    #[serde(borrow, default)]
    pub resolved: Option<Text<'a>>,
}

/// A mount: of a write `place` and `point`, of an attempt `target`, `source` and `effect`, of a seal `point`, `effect` and
/// `cause`.
#[derive(Clone, Debug, Deserialize)]
pub struct Mount<'a> {
    /// Of what kind the place is that a write hit.
    #[serde(default, rename = "kind", deserialize_with = "scalar::place")]
    pub place: Option<PlaceKind>,
    /// Where it is mounted.
    #[serde(borrow, default)]
    pub point: Option<Text<'a>>,
    /// Type of the filesystem.
    #[serde(borrow, default)]
    pub fstype: Option<Text<'a>>,
    /// The volume.
    #[serde(borrow, default)]
    pub volume: Option<Volume<'a>>,
    /// Whether it was declared read-only.
    #[serde(default)]
    pub declared_readonly: Option<bool>,
    /// What an attempt was about.
    #[serde(borrow, default)]
    pub target: Option<Text<'a>>,
    /// As the program passed it.
    #[serde(borrow, default)]
    pub requested: Option<Text<'a>>,
    /// What was to be mounted.
    #[serde(borrow, default)]
    pub source: Option<Text<'a>>,
    /// What it would do, or has done, to the seal.
    #[serde(default, deserialize_with = "scalar::effect")]
    pub effect: Option<Effect>,
    /// How a seal came to be broken.
    #[serde(borrow, default)]
    pub cause: Option<Text<'a>>,
}

/// A volume of a pod.
#[derive(Clone, Debug, Deserialize)]
pub struct Volume<'a> {
    /// Its type, in lower case.
    #[serde(borrow, rename = "type")]
    pub kind: Text<'a>,
    /// Its name.
    #[serde(borrow)]
    pub name: Text<'a>,
}

/// Who did it; ids are those of the node.
#[derive(Clone, Debug, Deserialize)]
pub struct Process<'a> {
    /// Process id.
    pub pid: u32,
    /// Process id of the parent.
    #[serde(default)]
    pub ppid: u32,
    /// User id.
    #[serde(default)]
    pub uid: u32,
    /// Group id.
    #[serde(default)]
    pub gid: u32,
    /// Name of the thread.
    #[serde(borrow)]
    pub comm: Text<'a>,
    /// The executable.
    #[serde(borrow, default)]
    pub exe: Option<Text<'a>>,
    /// The arguments.
    #[serde(borrow, default)]
    pub args: Vec<Text<'a>>,
    /// The working directory.
    #[serde(borrow, default)]
    pub cwd: Option<Text<'a>>,
    /// Whether CAP_SYS_ADMIN is effective in its own user namespace.
    #[serde(default)]
    pub cap_sys_admin: bool,
    /// Depth of the user namespace; 0 is the node's own.
    #[serde(default)]
    pub user_ns_level: u32,
    /// The processes above, nearest first.
    #[serde(borrow, default)]
    pub ancestors: Vec<Ancestor<'a>>,
}

/// A process above the one that did it.
#[derive(Clone, Debug, Deserialize)]
pub struct Ancestor<'a> {
    /// Process id.
    pub pid: u32,
    /// Name.
    #[serde(borrow)]
    pub comm: Text<'a>,
    /// The executable.
    #[serde(borrow, default)]
    pub exe: Option<Text<'a>>,
}

/// A container.
#[derive(Clone, Debug, Deserialize)]
pub struct Container<'a> {
    /// 64 hexadecimal digits.
    #[serde(borrow)]
    pub id: Text<'a>,
    /// Its name in the pod.
    #[serde(borrow, default)]
    pub name: Option<Text<'a>>,
    /// Its image.
    #[serde(borrow, default)]
    pub image: Option<Text<'a>>,
    /// The image's digest.
    #[serde(borrow, default)]
    pub image_digest: Option<Text<'a>>,
    /// Whether its root was declared read-only.
    #[serde(default)]
    pub readonly_rootfs: Option<bool>,
    /// Whether it is privileged.
    #[serde(default)]
    pub privileged: Option<bool>,
}

/// A pod.
#[derive(Clone, Debug, Deserialize)]
pub struct Pod<'a> {
    /// Its namespace.
    #[serde(borrow)]
    pub namespace: Text<'a>,
    /// Its name.
    #[serde(borrow)]
    pub name: Text<'a>,
    /// The workload that it belongs to.
    #[serde(borrow)]
    pub workload: Text<'a>,
    /// Its labels.
    #[serde(borrow, default)]
    pub labels: Option<BTreeMap<Text<'a>, Text<'a>>>,
}

/// A cgroup that no known container owns.
#[derive(Clone, Debug, Deserialize)]
pub struct Cgroup<'a> {
    /// Its id.
    #[serde(default)]
    pub id: u64,
    /// Its path.
    #[serde(borrow, default)]
    pub path: Option<Text<'a>>,
}

const fn one() -> u64 {
    1
}

impl<'a> Event<'a> {
    /// Reads a line without its end; none where it is no event of `rosentry/v1`.
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let event: Self = serde_json::from_slice(line).ok()?;
        (*event.schema == *SCHEMA && event.count > 0).then_some(event)
    }

    /// What it is about; none where a later version knows of more kinds than this one.
    pub fn kind(&self) -> Option<Kind> {
        Kind::ALL.iter().copied().find(|kind| kind.name() == &*self.kind_name)
    }

    /// The first that is folded into it.
    pub fn first_time(&self) -> Time {
        self.first_time.unwrap_or(self.time).min(self.time)
    }

    /// The path that it is about: the file of a write, the target of a mount attempt, the place of a broken seal; as it was
    /// requested where it is not known absolutely.
    pub fn path(&self) -> Option<&Text<'a>> {
        let of_file = self.file.as_ref().and_then(|file| file.path.as_ref().or(file.requested.as_ref()));
        let of_mount = self.mount.as_ref().filter(|_| self.file.is_none());
        of_file.or_else(|| of_mount.and_then(|m| m.target.as_ref().or(m.requested.as_ref()).or(m.point.as_ref())))
    }
}

#[cfg(test)]
mod tests;
