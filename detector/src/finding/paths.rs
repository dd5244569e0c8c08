//! From the path that a program passed to the absolute path in its container's root.
//!
//! The kernel side gives where a path starts (a folder, read from directory entries) and the text that was passed. Their
//! sum by text alone is [`locate`]; it is exact where no symbolic link can have been on the way. [`Question`] is what
//! somebody who may do I/O needs to follow the links in the real root.

use super::{event::Resolution, mount_flags::MountFlags};
use crate::kernel::attempt::{PassedPath, PathBase, Process, Walk};

/// Where a path starts.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Anchor {
    /// The process's root, absolute in the mount namespace: `/`, but for a process that was chrooted.
    pub root: Vec<u8>,
    /// The folder (of a call on an open file: that file), absolute in the process's root. Without symbolic links.
    pub start: Vec<u8>,
    /// Whether `start` lies outside of the process's root, and is absolute in the mount namespace instead.
    pub outside: bool,
    /// Whether `start` is the root for this path, as `RESOLVE_IN_ROOT` of openat2 has it: neither `/` nor `..` leads out.
    pub is_root: bool,
}

/// How a call follows a path.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Manner {
    /// Whether the last component is followed where it is a symbolic link.
    pub follow_last: bool,
    /// Whether what the path is relative to is its root as well.
    pub in_root: bool,
}

/// What to resolve in a real root: the text of a path, from where, and how far.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Question {
    /// Where the path starts.
    pub anchor: Anchor,
    /// As passed; empty for the start itself.
    pub requested: Vec<u8>,
    /// Whether the last component is followed where it is a symbolic link.
    pub follow_last: bool,
    /// Whether the mount asked for is that of the folder which holds the last component, not that of what it stands for.
    pub mount_of_folder: bool,
}

/// The answer to a [`Question`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Resolved {
    /// Absolute in the mount namespace's root, hence in the container's; all symbolic links followed that the call follows.
    pub path: Vec<u8>,
    /// The mount it is on, where it could be told.
    pub mount: Option<MountPoint>,
}

/// A mount, as `/proc/<pid>/mountinfo` or the kernel side tells it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MountPoint {
    /// Absolute in the mount namespace's root.
    pub point: Vec<u8>,
    /// Type of the filesystem.
    pub fstype: Vec<u8>,
    /// Which mount it is, and how it stands.
    pub facts: MountFacts,
    /// Whether it shows the filesystem that the root of the mount namespace shows, or a part of it.
    pub of_root: bool,
}

/// What is known of a mount besides its place.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MountFacts {
    /// Its id, as mountinfo has it; used again once the mount is gone.
    pub id: u64,
    /// Its flags and those of its superblock.
    pub flags: MountFlags,
    /// Who told: the kernel at the time of the call, or a look into the root shortly after.
    pub told_by: Resolution,
}

/// An absolute path, and how it was come by.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Located {
    /// Absolute, without `.` and `..`; none where a part of it is missing.
    pub path: Option<Vec<u8>>,
    /// How; none without a path.
    pub resolved: Option<Resolution>,
}

/// Whose root a path is told in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RootOf {
    /// The container's: that of the mount namespace.
    Container,
    /// The process's, where there is no container.
    Process,
}

/// Where a passed path starts; none where that is not known.
pub fn anchor(passed: &PassedPath, process: &Process, in_root: bool) -> Option<Anchor> {
    let anchor = match &passed.base {
        PathBase::None => None,
        PathBase::Root(root) if root.truncated => None,
        PathBase::Root(root) => {
            let root = normal(&root.in_namespace);
            Some(Anchor { root, start: b"/".to_vec(), outside: false, is_root: false })
        }
        PathBase::Cwd => process.cwd.as_ref().and_then(anchor_at),
        PathBase::Dirfd(walk) | PathBase::File(walk) => anchor_at(walk),
    };
    anchor.map(|anchor| Anchor { is_root: in_root, ..anchor })
}

fn anchor_at(walk: &Walk) -> Option<Anchor> {
    if walk.truncated || walk.unreachable {
        return None;
    }
    let whole = normal(&walk.in_namespace);
    let Some(in_root) = &walk.in_root else {
        return Some(Anchor { root: b"/".to_vec(), start: whole, outside: true, is_root: false });
    };
    let in_root = normal(in_root);
    let root = if in_root == b"/" { whole } else { whole.strip_suffix(in_root.as_slice())?.to_vec() };
    Some(Anchor { root: normal(&root), start: in_root, outside: false, is_root: false })
}

/// The absolute path by its text alone.
pub fn locate(passed: &PassedPath, process: &Process, manner: Manner, root_of: RootOf) -> Located {
    let Some(anchor) = anchor(passed, process, manner.in_root) else { return Located::default() };
    let requested: &[u8] = match (&passed.requested, &passed.base) {
        (_, PathBase::File(_)) => b"",
        (Some(requested), _) if !passed.truncated => requested,
        _ => return Located::default(),
    };
    if anchor.outside && root_of == RootOf::Process {
        return Located::default();
    }
    let in_root =
        if anchor.is_root { below(&anchor.start, &normal(requested)) } else { join(&anchor.start, requested) };
    let path = match root_of {
        RootOf::Container => below(&anchor.root, &in_root),
        RootOf::Process => in_root,
    };
    let resolved = if is_exact(requested, manner.follow_last) { Resolution::Kernel } else { Resolution::Lexical };
    Located { path: Some(path), resolved: Some(resolved) }
}

/// What to ask of somebody who may do I/O; none where the start or the text is not known.
pub fn question(passed: &PassedPath, process: &Process, manner: Manner, mount_of_folder: bool) -> Option<Question> {
    let anchor = anchor(passed, process, manner.in_root)?;
    let (requested, mount_of_folder) = match (&passed.requested, &passed.base) {
        (_, PathBase::File(_)) => (Vec::new(), false),
        (Some(requested), _) if !passed.truncated => (requested.clone(), mount_of_folder),
        _ => return None,
    };
    Some(Question { anchor, requested, follow_last: manner.follow_last, mount_of_folder })
}

/// The path of a walk, told in the root that events tell paths in; none where its first folders are missing, or that root does
/// not lead there.
pub fn of_walk(walk: &Walk, root_of: RootOf) -> Option<Vec<u8>> {
    let anchor = anchor_at(walk)?;
    match root_of {
        RootOf::Container => Some(normal(&walk.in_namespace)),
        RootOf::Process if anchor.outside => None,
        RootOf::Process => Some(anchor.start),
    }
}

/// Whether no symbolic link can stand between the start, which is real, and what is meant: at most the last component is a
/// name, and it is not followed.
fn is_exact(requested: &[u8], follow_last: bool) -> bool {
    let mut names = components(requested).filter(|component| !matches!(*component, b"." | b".."));
    match (names.next(), names.next()) {
        (None, _) => true,
        (Some(_), Some(_)) => false,
        (Some(name), None) => !follow_last && components(requested).last() == Some(name),
    }
}

/// The components of a path, without empty ones.
pub fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|component| !component.is_empty())
}

/// Joins as the kernel does where no symbolic links are: an absolute path starts anew, `..` stops at `/`.
pub fn join(start: &[u8], requested: &[u8]) -> Vec<u8> {
    let start: &[u8] = if requested.first() == Some(&b'/') { b"" } else { start };
    let mut stack: Vec<&[u8]> = Vec::new();
    for component in components(start).chain(components(requested)) {
        match component {
            b"." => {}
            b".." => {
                stack.pop();
            }
            name => stack.push(name),
        }
    }
    let mut path = Vec::with_capacity(start.len() + requested.len() + 2);
    for name in stack {
        path.push(b'/');
        path.extend_from_slice(name);
    }
    if path.is_empty() {
        path.push(b'/');
    }
    path
}

fn normal(path: &[u8]) -> Vec<u8> {
    join(b"/", path)
}

/// The absolute `path` of a root that stands at `root`.
pub fn below(root: &[u8], path: &[u8]) -> Vec<u8> {
    if root == b"/" {
        path.to_vec()
    } else if path == b"/" {
        root.to_vec()
    } else {
        [root, path].concat()
    }
}

/// Whether `path` is `folder` or lies in it; both absolute and without `..`.
pub fn is_at_or_below(path: &[u8], folder: &[u8]) -> bool {
    folder == b"/" || path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.first() == Some(&b'/'))
}

/// The folder that holds `path`; `/` of `/`.
pub fn parent(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(0) | None => b"/",
        Some(slash) => &path[..slash],
    }
}

/// The last component; empty of `/`.
pub fn name(path: &[u8]) -> &[u8] {
    components(path).last().unwrap_or_default()
}

#[cfg(test)]
#[path = "paths_tests.rs"]
mod tests;
