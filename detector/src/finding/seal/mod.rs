//! The state of a seal: whether a root that was declared read-only is in truth writable. Attempts are judged elsewhere; here
//! it counts only what the mount table of the container says, read by whoever may do I/O.
//!
//! A seal is broken in two ways. The root's filesystem is writable (`unseal`): at `/`, by a remount or because the runtime
//! never heeded the declaration, or by another mount of it, wherever that stands. Or a writable mount that the specification
//! does not name stands over a part of the root, over `/` itself too, which hides the sealed one from every process that
//! enters the container later (`shadow`).

mod event;

use std::collections::{BTreeMap, BTreeSet};

use detector_common::operation::Operation;

pub use self::event::event;
use super::{
    event::Effect,
    flags,
    mount::{governing, is_mounted_at, specified},
    mount_flags::MountFlags,
    operation,
    paths::{is_at_or_below, name},
};
use crate::{
    identity::model::{Container, SpecMount},
    kernel::attempt::Attempt,
};

/// Breaches of one container that are told at most: a container can make as many mounts as the kernel allows.
const BREACHES_MAX: usize = 16;
/// Read-only mounts of the root's filesystem, besides `/`, that are remembered at most.
const COPIES_MAX: usize = 64;

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

impl MountInfo {
    /// Whether it shows the filesystem that `root` shows, or a part of that.
    pub fn is_within(&self, root: &Self) -> bool {
        self.device == root.device && is_at_or_below(&self.root, &root.root)
    }

    /// What is mounted there, whatever the mount is called: the filesystem's device, and what of it.
    pub fn shown(&self) -> (Vec<u8>, Vec<u8>) {
        (self.device.clone(), self.root.clone())
    }

    fn identity(&self) -> MountIdentity {
        let Self { id, device, root, point, .. } = self;
        MountIdentity { id: *id, device: device.clone(), root: root.clone(), point: point.clone() }
    }
}

/// A mount, told from the next that has its id: what takes its place with the same id, filesystem and folder is no other for
/// a seal.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct MountIdentity {
    id: u64,
    device: Vec<u8>,
    root: Vec<u8>,
    point: Vec<u8>,
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
    /// The mount at `/` at the last look, and whether it was read-only.
    root: Option<(MountIdentity, bool)>,
    /// Further mounts of the root's filesystem that were read-only at the last look.
    sealed_copies: BTreeSet<MountIdentity>,
    /// Unspecified mounts that are the runtime's own: a hook's, which were there before the container's program ran, and
    /// specified ones that are elsewhere by a link. Not asked later: the container could make a mount look like one.
    of_runtime: BTreeSet<MountIdentity>,
    /// The breaches that are there, as far as they were told.
    open: BTreeMap<(Effect, Vec<u8>), Change>,
}

impl Seal {
    /// Judges the mounts that were read at `now_unix_ns`. `stage` was asked after they were read, so that in the stage of
    /// set-up none of them is the container's own.
    pub fn look(&mut self, container: &Container, mounts: &[MountInfo], stage: Stage, now_unix_ns: i128) -> Looked {
        let Some(root) = root_mount(mounts) else { return Looked::default() };
        let before = self.root.replace((root.identity(), root.flags.readonly()));
        let sealed_copies = sealed_copies(mounts, root);
        let sealed_copies_before = std::mem::replace(&mut self.sealed_copies, sealed_copies);
        let undeclared = || undeclared(container, mounts, root);
        if stage == Stage::SetUp {
            self.of_runtime = undeclared().map(|(_, mount)| mount.identity()).collect();
            return Looked { broken: root.flags.readonly().then_some(false), changes: Vec::new() };
        }
        if before.is_none() {
            let missing = missing(container, mounts);
            let is_declared = |(effect, mount): &(Effect, &MountInfo)| match effect {
                Effect::Shadow => missing.iter().any(|spec| is_behind_link(container, spec, mount)),
                _ => came_with_volume(container, mount, root),
            };
            self.of_runtime = undeclared().filter(is_declared).map(|(_, mount)| mount.identity()).collect();
        }
        let cause = |effect: Effect, mount: &MountInfo| match (effect, &before) {
            (_, None) => None,
            (Effect::Unseal, Some((former, readonly))) if mount.id == root.id => Some(match readonly {
                true if *former == root.identity() => Cause::Remount,
                true => Cause::Mount,
                // Had the program run then, the breach would be known.
                false => Cause::Runtime,
            }),
            (Effect::Unseal, _) if sealed_copies_before.contains(&mount.identity()) => Some(Cause::Remount),
            _ => Some(Cause::Mount),
        };
        let unseal = (!root.flags.readonly()).then_some((Effect::Unseal, root));
        let others = undeclared().filter(|(_, mount)| !self.of_runtime.contains(&mount.identity()));
        // By effect, so that a root that is writable comes first, and by place.
        let found: BTreeMap<(Effect, &[u8]), &MountInfo> =
            others.chain(unseal).map(|(effect, mount)| ((effect, mount.point.as_slice()), mount)).collect();
        let broken = !found.is_empty();

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
            let is_root = mount.id == root.id;
            if self.open.contains_key(&key) || (self.open.len() >= BREACHES_MAX && !is_root) {
                continue;
            }
            let breach =
                Breach { point: point.to_vec(), fstype: mount.fstype.clone(), effect, cause: cause(effect, mount) };
            let change = Change { breach, since_unix_ns: now_unix_ns, mended_unix_ns: None };
            changes.push(change.clone());
            self.open.insert(key, change);
        }
        Looked { broken: Some(broken), changes }
    }
}

/// The mount that is the root of the process whose table it is, below all that stands on top of it; none where the root of
/// the process is a folder of a mount (chroot).
pub fn root_mount(mounts: &[MountInfo]) -> Option<&MountInfo> {
    let at_root = || mounts.iter().filter(|mount| mount.point == b"/");
    at_root().find(|mount| at_root().all(|other| other.id != mount.parent || other.id == mount.id))
}

/// The writable mounts besides `/` that the specification does not account for, with what they do to the seal.
fn undeclared<'a>(
    container: &'a Container,
    mounts: &'a [MountInfo],
    root: &'a MountInfo,
) -> impl Iterator<Item = (Effect, &'a MountInfo)> {
    mounts.iter().filter(move |mount| !mount.flags.readonly() && mount.id != root.id).filter_map(move |mount| {
        if shows_root(container, mount, root) {
            Some((Effect::Unseal, mount))
        } else {
            governing(container, &mount.point).is_none().then_some((Effect::Shadow, mount))
        }
    })
}

/// Whether the root's files can be reached by the mount: it shows the root's filesystem, or a part or a whole of what of that
/// the root is. Where a volume of the node holds the container's root among other things, that was declared.
fn shows_root(container: &Container, mount: &MountInfo, root: &MountInfo) -> bool {
    let is_whole = mount.device == root.device && is_at_or_below(&root.root, &mount.root);
    mount.is_within(root) || (is_whole && !container.mounts.iter().any(|spec| is_mounted_at(spec, &mount.point)))
}

fn sealed_copies(mounts: &[MountInfo], root: &MountInfo) -> BTreeSet<MountIdentity> {
    let copies = mounts.iter().filter(|mount| mount.flags.readonly() && mount.id != root.id && mount.is_within(root));
    copies.take(COPIES_MAX).map(MountInfo::identity).collect()
}

/// Whether the mount came with a volume of the node's that has mounts below it, as monitoring agents have the whole node: it is
/// the container's root at the place where the runtime has put that together, or the filesystem that holds all containers'.
fn came_with_volume(container: &Container, mount: &MountInfo, root: &MountInfo) -> bool {
    let is_below_volume = governing(container, &mount.point)
        .is_some_and(|spec| spec.volume.is_some() && !is_mounted_at(spec, &mount.point));
    let is_at_runtime = mount.root == b"/" && mount.point.ends_with(format!("/{}/rootfs", container.id).as_bytes());
    is_below_volume && (is_at_runtime || !mount.is_within(root))
}

/// The specified mounts at whose destination nothing stands. Without the read-only paths, which a runtime leaves out where
/// the path does not exist: they have no source.
fn missing<'a>(container: &'a Container, mounts: &[MountInfo]) -> Vec<&'a SpecMount> {
    let is_there = |spec: &SpecMount| mounts.iter().any(|mount| is_mounted_at(spec, &mount.point));
    let is_path = |spec: &SpecMount| spec.source.is_none() && spec.fstype.as_deref() == Some("bind");
    specified(container).filter(|spec| !is_path(spec) && !is_there(spec)).collect()
}

/// Whether the mount is a specified one whose destination leads elsewhere by a symbolic link of the image (`/lib/x` is at
/// `/usr/lib/x`): either its name or what is mounted is the same.
fn is_behind_link(container: &Container, spec: &SpecMount, mount: &MountInfo) -> bool {
    let destination = spec.destination.trim_end_matches('/').as_bytes();
    let same_source = mount.root != b"/"
        && container.source_of(spec).is_some_and(|source| source.as_bytes().ends_with(mount.root.as_slice()));
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

#[cfg(test)]
mod tests;
