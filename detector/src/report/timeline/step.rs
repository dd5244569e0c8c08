//! One step of an incident: an event, without what a story has no use for, and its repeats.

use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash, Hasher},
};

use serde::{Serialize, Serializer};

use super::name::{Name, Names};
use crate::{
    finding::event::{Effect, Kind, Severity},
    report::event::{self, Event, Text, Time},
};

/// Arguments and ancestors that are kept of a process.
const LIST_MAX: usize = 32;

/// A step. Its members are those of the event.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// The first of them.
    #[serde(serialize_with = "time")]
    pub first_time: Time,
    /// The last of them.
    #[serde(rename = "time", serialize_with = "time")]
    pub last_time: Time,
    /// Number of the first event in its stream.
    pub seq: u64,
    /// The node.
    pub node: Name,
    /// What it is about.
    pub kind: Name,
    /// How bad.
    #[serde(serialize_with = "severity")]
    pub severity: Severity,
    /// Attempts.
    pub count: u64,
    /// Events.
    pub events: u64,
    /// What was tried.
    pub operation: Option<Name>,
    /// How it ended.
    pub outcome: Option<Name>,
    /// The errno.
    pub errno: Option<Name>,
    /// The file of a write, the target of a mount attempt, the place of a broken seal.
    pub path: Option<Name>,
    /// The new name of rename and link.
    pub new_path: Option<Name>,
    /// What was to be mounted.
    pub source: Option<Name>,
    /// Type of the filesystem.
    pub fstype: Option<Name>,
    /// What a mount attempt would do, or what happened to the seal.
    #[serde(serialize_with = "effect")]
    pub effect: Option<Effect>,
    /// How a seal came to be broken.
    pub cause: Option<Name>,
    /// The cause of a refused write.
    pub category: Option<Name>,
    /// What mends it.
    pub hint: Option<Name>,
    /// Techniques of MITRE ATT&CK.
    pub attack: Vec<Name>,
    /// Who did it.
    pub process: Option<Actor>,
    /// Name of the pod.
    pub pod: Option<Name>,
    /// The container.
    pub container: Option<Name>,
    /// The known kind of it.
    #[serde(skip)]
    pub known_kind: Option<Kind>,
    /// The same of each repeat.
    #[serde(skip)]
    pub fold: u64,
}

/// Who did it.
#[derive(Clone, Debug, Serialize)]
pub struct Actor {
    /// Process id.
    pub pid: u32,
    /// Name.
    pub comm: Name,
    /// The executable.
    pub exe: Option<Name>,
    /// The arguments.
    pub args: Vec<Name>,
    /// User id on the node.
    pub uid: u32,
    /// Whether CAP_SYS_ADMIN is effective in its own user namespace.
    pub cap_sys_admin: bool,
    /// Depth of the user namespace.
    pub user_ns_level: u32,
    /// The processes above, nearest first.
    pub ancestors: Vec<Ancestor>,
}

/// A process above.
#[derive(Clone, Debug, Serialize)]
pub struct Ancestor {
    /// Process id.
    pub pid: u32,
    /// Name.
    pub comm: Name,
    /// The executable.
    pub exe: Option<Name>,
}

impl Step {
    /// The step that an event is.
    pub fn of(event: &Event<'_>, names: &mut Names) -> Self {
        let mut name = |text: Option<&Text<'_>>| text.map(|text| names.of(text));
        let mount = event.mount.as_ref();
        let known_kind = event.kind();
        let mut step = Self {
            first_time: event.first_time(),
            last_time: event.time,
            seq: event.seq,
            severity: event.severity,
            count: event.count,
            events: 1,
            operation: name(event.operation.as_ref()),
            outcome: name(event.outcome.as_ref()),
            errno: name(event.errno.as_ref()),
            path: name(event.path()),
            new_path: name(event.file.as_ref().and_then(|file| file.new_path.as_ref())),
            source: name(mount.and_then(|mount| mount.source.as_ref())),
            fstype: name(mount.filter(|_| event.file.is_none()).and_then(|mount| mount.fstype.as_ref())),
            effect: mount.and_then(|mount| mount.effect),
            cause: name(mount.and_then(|mount| mount.cause.as_ref())),
            category: name(event.category.as_ref()),
            hint: name(event.hint.as_ref()),
            pod: name(event.pod.as_ref().map(|pod| &pod.name)),
            container: name(event.container.as_ref().map(|container| container.name.as_ref().unwrap_or(&container.id))),
            attack: event.attack.iter().take(LIST_MAX).map(|technique| names.of(technique)).collect(),
            process: event.process.as_ref().map(|process| Actor::of(process, names)),
            node: names.of(&event.node),
            kind: names.of(&event.kind_name),
            known_kind,
            fold: 0,
        };
        step.fold = step.fold_key();
        step
    }

    /// Takes a repeat in.
    pub fn fold(&mut self, repeat: &Self) {
        self.first_time = self.first_time.min(repeat.first_time);
        self.last_time = self.last_time.max(repeat.last_time);
        self.count = self.count.saturating_add(repeat.count);
        self.events += repeat.events;
    }

    /// Bytes that it takes, its shared texts counted as if they were its own.
    pub fn weight(&self) -> usize {
        let texts = [&self.path, &self.new_path, &self.source, &self.hint];
        let own: usize = texts.into_iter().flatten().map(|text| text.len()).sum();
        let of_process = self.process.as_ref().map_or(0, |process| {
            let args: usize = process.args.iter().map(|arg| arg.len() + size_of::<Name>()).sum();
            args + process.exe.as_ref().map_or(0, |exe| exe.len())
                + process.ancestors.len() * (size_of::<Ancestor>() + 32)
        });
        size_of::<Self>() + own + of_process
    }

    /// The same for attempts of the same thing by the same program in the same container, with the same result.
    fn fold_key(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let exe = self.process.as_ref().map(|process| (&process.comm, &process.exe));
        (&self.kind, &self.operation, &self.outcome, &self.errno, &self.path, &self.new_path).hash(&mut hasher);
        (&self.source, &self.fstype, self.severity, &self.pod, &self.container, exe).hash(&mut hasher);
        hasher.finish()
    }
}

impl Actor {
    fn of(process: &event::Process<'_>, names: &mut Names) -> Self {
        Self {
            pid: process.pid,
            comm: names.of(&process.comm),
            exe: process.exe.as_ref().map(|exe| names.of(exe)),
            args: process.args.iter().take(LIST_MAX).map(|arg| names.of(arg)).collect(),
            uid: process.uid,
            cap_sys_admin: process.cap_sys_admin,
            user_ns_level: process.user_ns_level,
            ancestors: process
                .ancestors
                .iter()
                .take(LIST_MAX)
                .map(|ancestor| Ancestor {
                    pid: ancestor.pid,
                    comm: names.of(&ancestor.comm),
                    exe: ancestor.exe.as_ref().map(|exe| names.of(exe)),
                })
                .collect(),
        }
    }
}

/// As events tell it.
pub(super) fn time<S: Serializer>(time: &Time, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}

/// As events tell it, or null.
pub(super) fn time_or_null<S: Serializer>(time: &Option<Time>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => serializer.collect_str(time),
        None => serializer.serialize_none(),
    }
}

/// By its name.
pub(super) fn severity<S: Serializer>(severity: &Severity, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(severity.name())
}

fn effect<S: Serializer>(effect: &Option<Effect>, serializer: S) -> Result<S::Ok, S::Error> {
    effect.map(Effect::name).serialize(serializer)
}
