//! Where a container may write, as it was declared and in truth: what its root is, which mounts are writable, how full those in
//! memory are, and what would let it undo the seal.
//!
//! One source for the agent's metrics and for `rosentry posture`. The judgement is a pure function of the mount table
//! ([`Seen::of`]); [`Looker`] does the looking.

mod look;

use std::collections::{HashMap, HashSet};

pub use self::look::{Looker, Unseen};
use crate::{
    finding::{
        mount::is_mounted_at,
        seal::{Breach, MountInfo, Seal, Stage, root_mount},
    },
    identity::model::{Container, Role, Volume},
};

/// Writable mounts of one container that are told at most: one that may mount can make as many as the kernel allows.
const WRITABLE_MAX: usize = 256;

/// Mounts that stand one on another, of which the lowest is looked for.
const DEPTH_MAX: usize = 256;

/// Filesystems in which the kernel answers and nothing is stored.
const OF_KERNEL: &[&[u8]] = &[
    b"proc",
    b"sysfs",
    b"cgroup",
    b"cgroup2",
    b"devpts",
    b"mqueue",
    b"securityfs",
    b"debugfs",
    b"tracefs",
    b"bpf",
    b"configfs",
    b"fusectl",
    b"pstore",
    b"efivarfs",
    b"binfmt_misc",
    b"nsfs",
];

/// Filesystems that answer by themselves. A path across any other may lead to a server, or to a process of the container, that
/// does not.
const LOCAL: &[&[u8]] = &[
    b"overlay",
    b"tmpfs",
    b"devtmpfs",
    b"ramfs",
    b"ext2",
    b"ext3",
    b"ext4",
    b"xfs",
    b"btrfs",
    b"f2fs",
    b"zfs",
    b"squashfs",
    b"erofs",
];

/// What a look at a container showed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Seen {
    /// Whether the mount of its root is read-only.
    pub root_readonly: bool,
    /// Type of the root's filesystem.
    pub root_fstype: Vec<u8>,
    /// Where its seal is broken; nothing where none was declared, or nobody has [judged](Self::judge).
    pub breaches: Vec<Breach>,
    /// Its writable mounts besides the root, in order of their points.
    pub writable: Vec<Writable>,
    /// Writable mounts beyond those that are told.
    pub beyond: usize,
    /// Whether a process of it can have CAP_SYS_ADMIN (it is in the bounding set of its first process).
    pub cap_sys_admin: Option<bool>,
}

/// A writable mount.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Writable {
    /// Where, absolute in the container's root.
    pub point: Vec<u8>,
    /// Type of its filesystem.
    pub fstype: Vec<u8>,
    /// Where its specification names the mount: the destination there.
    pub declared: Option<String>,
    /// The volume.
    pub volume: Option<Volume>,
    /// Its id, for the one who looks how full it is.
    id: u64,
    /// Whether it shows its filesystem as a whole.
    whole: bool,
    /// Whether the way to it crosses nothing but [`LOCAL`] filesystems.
    near: bool,
    /// Of a tmpfs: how full; none where nobody may ask.
    memory: Option<Memory>,
}

/// A filesystem in memory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Memory {
    /// Its limit in bytes; 0: none.
    pub size_bytes: u64,
    /// Bytes in use; none where there is no limit, because the kernel does not count them then.
    pub used_bytes: Option<u64>,
}

impl Writable {
    /// Whether it lies in memory.
    pub fn is_tmpfs(&self) -> bool {
        self.fstype == b"tmpfs"
    }

    /// How full a tmpfs is that is the container's own, and not merely the node's filesystem behind a folder or a file of the
    /// node.
    pub fn own_memory(&self) -> Option<Memory> {
        let of_node = self.volume.as_ref().is_some_and(|volume| match volume.kind.as_str() {
            "host_path" => !self.whole,
            "runtime" => volume.name != "shm",
            kind => matches!(kind, "etc_hosts" | "termination_log" | "image_declared"),
        });
        self.memory.filter(|_| !of_node)
    }

    /// The same of one that the specification names, with its destination there.
    pub fn declared_memory(&self) -> Option<(&str, Memory)> {
        Some((self.declared.as_deref()?, self.own_memory()?))
    }

    /// Whether it is of those that the runtime gives every container, unasked.
    pub fn is_of_runtime(&self) -> bool {
        match &self.volume {
            Some(volume) => matches!(volume.kind.as_str(), "runtime" | "etc_hosts" | "termination_log"),
            None => {
                self.declared.as_deref().is_some_and(|point| matches!(point, "/dev" | "/dev/shm" | "/sys/fs/cgroup"))
            }
        }
    }
}

impl Seen {
    /// The same for one who keeps it and tells no names: of its writable mounts, without those that are no
    /// [declared memory](Writable::declared_memory), which count as [`beyond`](Self::beyond).
    #[must_use]
    pub fn counted(mut self) -> Self {
        let all = self.writable.len();
        self.writable.retain(|mount| mount.declared_memory().is_some());
        self.writable.shrink_to_fit();
        self.beyond += all - self.writable.len();
        self
    }

    /// From the mount table of a container whose program runs, without `breaches`; none where its root is no mount of it.
    /// Takes time in proportion to the table, however a container has made it.
    pub fn of(container: &Container, mounts: &[MountInfo], cap_sys_admin: Option<bool>) -> Option<Self> {
        let root = root_mount(mounts)?;
        let by_id: HashMap<u64, &MountInfo> = mounts.iter().map(|mount| (mount.id, mount)).collect();
        // No path leads to a mount on whose very point another one stands.
        let covers = |mount: &MountInfo| by_id.get(&mount.parent).is_some_and(|below| below.point == mount.point);
        let covered: HashSet<u64> =
            mounts.iter().filter(|mount| mount.parent != mount.id && covers(mount)).map(|mount| mount.parent).collect();
        let found: Vec<&MountInfo> = mounts
            .iter()
            .filter(|mount| mount.id != root.id && !mount.flags.readonly() && !covered.contains(&mount.id))
            .filter(|mount| !OF_KERNEL.contains(&mount.fstype.as_slice()))
            .collect();
        let specified =
            |mount: &MountInfo| container.mounts.iter().rev().find(|spec| is_mounted_at(spec, &mount.point));
        let mut found: Vec<_> = found.into_iter().map(|mount| (mount, specified(mount))).collect();
        // Those of the specification first, so that none is left out for what the container makes itself.
        found.sort_by_key(|(mount, spec)| (spec.is_none(), &mount.point));
        let beyond = found.len().saturating_sub(WRITABLE_MAX);
        found.truncate(WRITABLE_MAX);
        found.sort_by_key(|(mount, _)| &mount.point);
        let writable = found.into_iter().map(|(mount, spec)| Writable {
            point: mount.point.clone(),
            fstype: mount.fstype.clone(),
            declared: spec.map(|spec| spec.destination.clone()),
            volume: spec.and_then(|spec| spec.volume.clone()),
            id: mount.id,
            whole: mount.root == b"/",
            near: is_near(mount, &by_id),
            memory: None,
        });
        Some(Self {
            root_readonly: root.flags.readonly(),
            root_fstype: root.fstype.clone(),
            breaches: Vec::new(),
            writable: writable.collect(),
            beyond,
            cap_sys_admin,
        })
    }

    /// Looks for breaches of the container's seal, if it was declared to have one.
    pub fn judge(&mut self, container: &Container, mounts: &[MountInfo]) {
        if container.readonly_rootfs == Some(true) {
            let changes = Seal::default().look(container, mounts, Stage::Program, 0).changes;
            self.breaches = changes.into_iter().map(|change| change.breach).collect();
        }
    }

    /// Whether the root is read-only as a whole: its mount, and no way around it.
    pub fn is_sealed(&self) -> bool {
        self.root_readonly && self.breaches.is_empty()
    }
}

/// Whether the container is one of a pod's own, or of no pod: the sandbox has no program of anybody's.
pub fn is_of_interest(container: &Container) -> bool {
    container.role != Role::Sandbox
}

/// Whether all that it stands on answers by itself.
fn is_near(mount: &MountInfo, by_id: &HashMap<u64, &MountInfo>) -> bool {
    let mut here = mount;
    // A table that was read while it changed may lead round in a circle.
    for _ in 0..DEPTH_MAX {
        if !LOCAL.contains(&here.fstype.as_slice()) {
            return false;
        }
        match by_id.get(&here.parent).filter(|below| below.id != here.id) {
            Some(below) => here = below,
            None => return true,
        }
    }
    false
}

#[cfg(test)]
pub(crate) mod tests;
