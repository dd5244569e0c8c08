//! The event: what rosentry has to say, in the words of its domain. `export` gives it a number, a node and a format.

mod names;

use std::sync::Arc;

use detector_common::{abi::Abi, operation::Operation, record::Hook};

pub use self::names::{AgentWhat, Category, Effect, Kind, Named, PlaceKind, Resolution, Severity};
use super::{errno::Errno, paths::MountFacts, seal::Breach};
use crate::identity::model::{Container, Volume};

/// One thing that happened, or several of the same kind folded into one.
///
/// Byte strings are as the kernel or the program wrote them, hostile until `export` escapes them.
#[derive(Clone, Debug)]
pub struct Event {
    /// What happened.
    pub kind: Kind,
    /// What was tried; none of what nobody tried (`seal_broken`, `agent`).
    pub operation: Option<Operation>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// How many attempts are folded into this event; at least 1.
    pub count: u64,
    /// The first of them, nanoseconds since the Unix epoch.
    pub first_time_unix_ns: i128,
    /// The last of them, nanoseconds since the Unix epoch.
    pub last_time_unix_ns: i128,
    /// How bad.
    pub severity: Severity,
    /// The cause of a refused write, as far as its path tells.
    pub category: Option<Category>,
    /// What mends it, in half a sentence.
    pub hint: Option<Vec<u8>>,
    /// Techniques of MITRE ATT&CK for Enterprise that the attempt fits.
    pub attack: Vec<Arc<str>>,
    /// The rule that says how bad it is, or that it is expected.
    pub rule: Option<Arc<str>>,
    /// Whether a rule says that it is expected: it is counted, and nothing to look at.
    pub expected: bool,
    /// The file of a write.
    pub file: Option<File>,
    /// Where a write hit, what a mount attempt was about, or where a seal is broken.
    pub mount: Option<Mount>,
    /// Who did it.
    pub process: Option<Process>,
    /// The container, with its pod.
    pub container: Option<Arc<Container>>,
    /// The cgroup of a process whose container is not known.
    pub cgroup: Option<Cgroup>,
    /// The door.
    pub abi: Option<Abi>,
    /// The kind of program that saw it.
    pub hook: Option<Hook>,
    /// What rosentry says of itself.
    pub agent: Option<AgentNote>,
}

impl Event {
    /// An event at a moment, of which nothing more is known yet: bad for nobody.
    pub const fn new(kind: Kind, time_unix_ns: i128) -> Self {
        Self {
            kind,
            operation: None,
            outcome: None,
            count: 1,
            first_time_unix_ns: time_unix_ns,
            last_time_unix_ns: time_unix_ns,
            severity: Severity::Info,
            category: None,
            hint: None,
            attack: Vec::new(),
            rule: None,
            expected: false,
            file: None,
            mount: None,
            process: None,
            container: None,
            cgroup: None,
            abi: None,
            hook: None,
            agent: None,
        }
    }

    /// An event about rosentry itself.
    pub fn agent(note: AgentNote, time_unix_ns: i128, severity: Severity) -> Self {
        Self { severity, agent: Some(note), ..Self::new(Kind::Agent, time_unix_ns) }
    }
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// With EROFS.
    Denied,
    /// With another errno.
    Failed(Errno),
    /// It worked.
    Succeeded,
}

impl Outcome {
    /// The outcome that the result of a call tells: 0 or more, or a negated errno.
    pub const fn of(result: i64) -> Self {
        match Errno::of_result(result) {
            None => Self::Succeeded,
            Some(Errno::EROFS) => Self::Denied,
            Some(errno) => Self::Failed(errno),
        }
    }

    /// The name in events and labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Failed(_) => "failed",
            Self::Succeeded => "succeeded",
        }
    }

    /// The errno; none where it succeeded.
    pub const fn errno(self) -> Option<Errno> {
        match self {
            Self::Denied => Some(Errno::EROFS),
            Self::Failed(errno) => Some(errno),
            Self::Succeeded => None,
        }
    }
}

/// The file of a write.
#[derive(Clone, Debug, Default)]
pub struct File {
    /// Absolute in the container's (else the process's) root; none where it is not known.
    pub path: Option<Vec<u8>>,
    /// As the program passed it; none of a call on an open file.
    pub requested: Option<Vec<u8>>,
    /// Names of the flags, the access mode first.
    pub flags: Vec<String>,
    /// The new name of rename and link, absolute as `path` is.
    pub new_path: Option<Vec<u8>>,
    /// What a new symbolic link would point at, as passed.
    pub link_target: Option<Vec<u8>>,
    /// The extended attribute's name.
    pub xattr: Option<Vec<u8>>,
    /// The mode that was asked for, as in `struct stat`.
    pub mode: Option<u32>,
    /// How `path` became absolute; none where it is not known.
    pub resolved: Option<Resolution>,
    /// Which of `path`, `requested`, `new_path` the record had no room for.
    pub truncated: Vec<&'static str>,
    /// `flags`, where they, and `mode`, could not be read.
    pub unreadable: Vec<&'static str>,
}

/// Where a write hit, what a mount attempt was about, or where a seal is broken.
#[derive(Clone, Debug)]
pub enum Mount {
    /// Of a write.
    Place(Place),
    /// Of a mount attempt.
    Attempt(MountAttempt),
    /// Of a seal: where it is broken, or was until it was mended.
    Seal {
        /// The place.
        breach: Breach,
    },
}

/// The mount that a write hit.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Place {
    /// Of what kind.
    pub kind: PlaceKind,
    /// Where it is mounted, absolute in the container's (else the process's) root.
    pub point: Option<Vec<u8>>,
    /// Type of the filesystem.
    pub fstype: Option<Vec<u8>>,
    /// The volume.
    pub volume: Option<Volume>,
    /// Whether it was declared read-only; none where nothing says so.
    pub declared_readonly: Option<bool>,
    /// Which mount it is, where somebody saw it.
    pub facts: Option<MountFacts>,
}

/// What a mount attempt was about.
#[derive(Clone, Debug)]
pub struct MountAttempt {
    /// Where, absolute in the container's (else the process's) root.
    pub target: Option<Vec<u8>>,
    /// As the program passed it.
    pub requested: Option<Vec<u8>>,
    /// How `target` became absolute.
    pub resolved: Option<Resolution>,
    /// What was to be mounted: a device, or a path (absolute where move_mount names it); `put_old` of pivot_root.
    pub source: Option<Vec<u8>>,
    /// Type of the filesystem, as passed.
    pub fstype: Option<Vec<u8>>,
    /// Names of the flags and attributes.
    pub flags: Vec<String>,
    /// Options for the filesystem, as passed; of fsconfig `key` or `key=value`.
    pub options: Option<Vec<u8>>,
    /// What it would do to the seal.
    pub effect: Effect,
    /// Which of `target`, `requested`, `source` the record had no room for.
    pub truncated: Vec<&'static str>,
    /// `flags`, where the attributes among them could not be read.
    pub unreadable: Vec<&'static str>,
}

/// Who did it. Process ids are those of the initial pid namespace unless said otherwise.
#[derive(Clone, Debug)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// Process id of the parent.
    pub ppid: u32,
    /// Process id in the process's own pid namespace.
    pub container_pid: u32,
    /// User id in the initial user namespace.
    pub uid: u32,
    /// Group id in the initial user namespace.
    pub gid: u32,
    /// Name of the thread.
    pub comm: Vec<u8>,
    /// The executable, absolute in the mount namespace's root; without a leading `/` where its first folders are missing, or where
    /// it has none (`memfd:…`); after `(unreachable)` where the process's root does not lead there.
    pub exe: Option<Vec<u8>>,
    /// The arguments.
    pub args: Vec<Vec<u8>>,
    /// Working directory, absolute as the file's path is.
    pub cwd: Option<Vec<u8>>,
    /// Start, nanoseconds since the Unix epoch.
    pub start_time_unix_ns: i128,
    /// Whether CAP_SYS_ADMIN is effective in the process's own user namespace.
    pub cap_sys_admin: bool,
    /// Depth of the user namespace; 0 is the initial one.
    pub user_ns_level: u32,
    /// The processes above, nearest first.
    pub ancestors: Vec<Ancestor>,
    /// Which of `exe`, `args`, `cwd` the record had no room for.
    pub truncated: Vec<&'static str>,
}

/// A process above the one that did it.
#[derive(Clone, Debug)]
pub struct Ancestor {
    /// Process id.
    pub pid: u32,
    /// Name.
    pub comm: Vec<u8>,
    /// The executable, where it is known.
    pub exe: Option<Vec<u8>>,
}

/// A cgroup that no known container owns.
#[derive(Clone, Debug)]
pub struct Cgroup {
    /// Id in the cgroup2 hierarchy.
    pub id: u64,
    /// Path in the cgroup2 hierarchy, where it is known.
    pub path: Option<String>,
}

/// What rosentry says of itself.
#[derive(Clone, Debug)]
pub struct AgentNote {
    /// What.
    pub what: AgentWhat,
    /// More about it, by name.
    pub details: Vec<(&'static str, AgentValue)>,
}

/// A detail of an [`AgentNote`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AgentValue {
    /// Text.
    Text(String),
    /// A number.
    Number(u64),
    /// Yes or no.
    Flag(bool),
    /// Several texts.
    List(Vec<String>),
    /// Numbers by name.
    Counts(Vec<(String, u64)>),
}
