//! The state of a seal: whether a root that was declared read-only is in truth writable. Attempts are judged elsewhere; here
//! it counts only what the mount table of the container says, read by whoever may do I/O.
//!
//! A seal is broken in two ways. The mount at `/` is writable, by a remount or because the runtime never heeded the
//! declaration (`unseal`); or a writable mount that the specification does not name stands over a part of the root, over `/`
//! itself too, which hides the sealed one from every process that enters the container later (`shadow`).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use detector_common::operation::Operation;

use super::{
    event::{Effect, Event, Kind, Mount, Severity},
    flags,
    mount::{governing, is_mounted_at},
    mount_flags::MountFlags,
    operation,
    paths::name,
};
use crate::{
    identity::model::{Container, SpecMount},
    kernel::attempt::Attempt,
};

/// Breaches of one container that are told at most: a container can make as many mounts as the kernel allows.
const BREACHES_MAX: usize = 16;

/// A mount, as the mount table of a process has it (proc_pid_mountinfo(5)).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MountInfo {
    /// Id, as `STATX_MNT_ID` tells it; used again once the mount is gone.
    pub id: u64,
    /// Id of the mount that it stands on.
    pub parent: u64,
    /// Major and minor number of the filesystem's device.
    pub device: Vec<u8>,
    /// What of the filesystem is mounted, absolute in it.
    pub root: Vec<u8>,
    /// Where, absolute in the root of the process.
    pub point: Vec<u8>,
    /// Type of the filesystem.
    pub fstype: Vec<u8>,
    /// Its flags and those of its superblock.
    pub flags: MountFlags,
}

/// How a seal came to be broken, as far as that was seen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cause {
    /// The same mount was read-only before.
    Remount,
    /// Another mount stands there now.
    Mount,
    /// It was so before the container's program ran.
    Runtime,
}

impl Cause {
    /// The name in events.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Remount => "remount",
            Self::Mount => "mount",
            Self::Runtime => "runtime",
        }
    }
}

/// A place where a seal is broken.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Breach {
    /// Where the writable mount stands, absolute in the container's root.
    pub point: Vec<u8>,
    /// Type of its filesystem.
    pub fstype: Vec<u8>,
    /// [`Effect::Unseal`] or [`Effect::Shadow`].
    pub effect: Effect,
    /// How it came about; none where it was so at the first look, and the container's program ran already.
    pub cause: Option<Cause>,
}

/// A breach that was found, or one that is no more.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Change {
    /// What is, or was, broken.
    pub breach: Breach,
    /// When it was found, nanoseconds since the Unix epoch.
    pub since_unix_ns: i128,
    /// When it was found mended.
    pub mended_unix_ns: Option<i128>,
}

/// How far a container was when its mounts were read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stage {
    /// Its first process is the runtime still, and has set the mounts up.
    SetUp,
    /// The container's program runs, or has run.
    Program,
}

/// What a look showed.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Looked {
    /// Whether the seal is broken; none where that can't be said.
    pub broken: Option<bool>,
    /// What is new.
    pub changes: Vec<Change>,
}

/// What is known of one container's seal.
#[derive(Debug, Default)]
pub struct Seal {
    /// The mount at `/` at the last look: its id, and whether it was read-only.
    root: Option<(u64, bool)>,
    /// Unspecified mounts that are the runtime's own: a hook's, which were there before the container's program ran, and
    /// specified ones that are elsewhere by a link. Not asked later: the container could make a mount look like one.
    of_runtime: BTreeSet<(u64, Vec<u8>)>,
    /// The breaches that are there.
    open: BTreeMap<(Effect, Vec<u8>), Change>,
}

impl Seal {
    /// Judges the mounts that were read at `now_unix_ns`. `stage` was asked after they were read, so that in the stage of
    /// set-up none of them is the container's own.
    pub fn look(&mut self, container: &Container, mounts: &[MountInfo], stage: Stage, now_unix_ns: i128) -> Looked {
        let Some(root) = root_mount(mounts) else { return Looked::default() };
        let before = self.root.replace((root.id, root.flags.readonly()));
        let undeclared = || shadows(container, mounts, root);
        let own = |mount: &MountInfo| (mount.id, mount.point.clone());
        if stage == Stage::SetUp {
            self.of_runtime = undeclared().map(own).collect();
            return Looked { broken: root.flags.readonly().then_some(false), changes: Vec::new() };
        }
        if before.is_none() {
            let missing = missing(container, mounts);
            let behind_links = undeclared().filter(|mount| missing.iter().any(|spec| is_behind_link(spec, mount)));
            self.of_runtime = behind_links.map(own).collect();
        }
        let cause_of_unseal = || match before {
            Some((id, true)) if id == root.id => Some(Cause::Remount),
            Some((_, true)) => Some(Cause::Mount),
            // Had the program run then, the breach would be known.
            Some((_, false)) => Some(Cause::Runtime),
            None => None,
        };
        let unseal = (!root.flags.readonly()).then_some((Effect::Unseal, root));
        let shadows = undeclared().filter(|mount| !self.of_runtime.contains(&own(mount)));
        let all = unseal.into_iter().chain(shadows.map(|mount| (Effect::Shadow, mount)));
        // By effect, so that a root that is writable comes first, and by place.
        let found: BTreeMap<(Effect, &[u8]), &MountInfo> =
            all.map(|(effect, mount)| ((effect, mount.point.as_slice()), mount)).take(BREACHES_MAX).collect();

        let mut changes = Vec::new();
        self.open.retain(|(effect, point), change| {
            let stays = found.contains_key(&(*effect, point.as_slice()));
            if !stays {
                changes.push(Change { mended_unix_ns: Some(now_unix_ns), ..change.clone() });
            }
            stays
        });
        for ((effect, point), mount) in found {
            let key = (effect, point.to_vec());
            if self.open.contains_key(&key) {
                continue;
            }
            let cause = match effect {
                Effect::Unseal => cause_of_unseal(),
                _ => before.map(|_| Cause::Mount),
            };
            let breach = Breach { point: point.to_vec(), fstype: mount.fstype.clone(), effect, cause };
            let change = Change { breach, since_unix_ns: now_unix_ns, mended_unix_ns: None };
            changes.push(change.clone());
            self.open.insert(key, change);
        }
        Looked { broken: Some(!self.open.is_empty()), changes }
    }
}

/// The mount that is the root of the process whose table it is, below all that stands on top of it; none where the root of
/// the process is a folder of a mount (chroot).
pub fn root_mount(mounts: &[MountInfo]) -> Option<&MountInfo> {
    let at_root = || mounts.iter().filter(|mount| mount.point == b"/");
    at_root().find(|mount| at_root().all(|other| other.id != mount.parent || other.id == mount.id))
}

/// The writable mounts over a part of the root that the specification does not name.
fn shadows<'a>(
    container: &'a Container,
    mounts: &'a [MountInfo],
    root: &'a MountInfo,
) -> impl Iterator<Item = &'a MountInfo> {
    mounts.iter().filter(move |mount| {
        !mount.flags.readonly() && mount.id != root.id && governing(container, &mount.point).is_none()
    })
}

/// The specified mounts at whose destination nothing stands.
fn missing<'a>(container: &'a Container, mounts: &[MountInfo]) -> Vec<&'a SpecMount> {
    let is_there = |spec: &SpecMount| mounts.iter().any(|mount| is_mounted_at(spec, &mount.point));
    container.mounts.iter().filter(|spec| !is_there(spec)).collect()
}

/// Whether the mount is a specified one whose destination leads elsewhere by a symbolic link of the image (`/lib/x` is at
/// `/usr/lib/x`): either its name or what is mounted is the same.
fn is_behind_link(spec: &SpecMount, mount: &MountInfo) -> bool {
    let destination = spec.destination.trim_end_matches('/').as_bytes();
    let same_source = mount.root != b"/"
        && spec.source.as_deref().is_some_and(|source| source.as_bytes().ends_with(mount.root.as_slice()));
    name(destination) == name(&mount.point) || same_source
}

/// Whether the call may have changed a superblock, which no mount namespace is told of: a remount that is no change of one
/// mount alone, or the end of a reconfiguration by fsconfig.
pub fn may_change_superblock(attempt: &Attempt) -> bool {
    let call_flags = operation::call_flags(attempt);
    attempt.result == 0
        && match operation::refine(attempt) {
            Operation::Remount => call_flags & flags::MS_BIND == 0,
            Operation::Fsconfig => call_flags == flags::FSCONFIG_CMD_RECONFIGURE,
            _ => false,
        }
}

/// The event that a change makes.
pub fn event(container: &Arc<Container>, change: Change) -> Event {
    let Change { breach, since_unix_ns, mended_unix_ns } = change;
    let mended = mended_unix_ns.is_some();
    Event {
        kind: if mended { Kind::SealMended } else { Kind::SealBroken },
        operation: None,
        outcome: None,
        count: 1,
        first_time_unix_ns: since_unix_ns,
        last_time_unix_ns: mended_unix_ns.unwrap_or(since_unix_ns),
        severity: match (mended, breach.effect, breach.cause) {
            (true, ..) => Severity::Info,
            // It may be a hook's of the runtime: nobody saw what was there before the container's program ran.
            (false, Effect::Shadow, None) => Severity::High,
            (false, ..) => Severity::Critical,
        },
        category: None,
        hint: (!mended).then(|| hint(&breach).to_owned()),
        // Impair Defenses: somebody took the seal off, as the attempt does that is told by itself.
        attack: if !mended && breach.cause == Some(Cause::Remount) { vec!["T1562"] } else { Vec::new() },
        file: None,
        mount: Some(Mount::Seal { breach }),
        process: None,
        container: Some(Arc::clone(container)),
        cgroup: None,
        abi: None,
        hook: None,
        agent: None,
    }
}

const fn hint(breach: &Breach) -> &'static str {
    match (breach.effect, breach.cause) {
        (Effect::Shadow, Some(_)) => {
            "the mount_attempt before this tells who mounted it; replace the container, and take from it what lets it mount"
        }
        (Effect::Shadow, None) => {
            "it was there when rosentry came: look whether a hook of the runtime mounted it, else replace the container"
        }
        (_, Some(Cause::Remount | Cause::Mount)) => {
            "the mount_attempt before this tells who did it; replace the container, and take from it what lets it mount"
        }
        (_, Some(Cause::Runtime)) => {
            "the runtime did not heed readOnlyRootFilesystem: look at its configuration on this node"
        }
        (_, None) => {
            "it was writable when rosentry came: replace the container, and look whether the next one is sealed"
        }
    }
}

#[cfg(test)]
#[path = "seal_tests.rs"]
mod tests;
