//! What a mount attempt would do to the seal, did it succeed.
//!
//! Which mount stood at the target before the call nobody saw, and one that a remount has made writable looks like any
//! other afterwards. So in a sealed container every call that takes read-only off is an `unseal`, unless it is known to be
//! about a mount that was declared writable.
//!
//! Where the kernel side could not tell the target, the worst that the call can mean is told: a remount whose target could
//! not be read is an `unseal`. What a filesystem context (the file descriptor of fsconfig) belongs to is not known at all:
//! the option `rw`, as a flag or with any value (`vfs_parse_sb_flag`, `fs/fs_context.c`, looks at the key alone), counts as `unseal` in a sealed container, though it may be meant for a new filesystem.

use detector_common::operation::Operation;

use super::{
    event::Effect,
    flags,
    mount::{governing, is_mounted_at, specified},
    operation,
    paths::{MountPoint, is_at_or_below, join},
};
use crate::{
    identity::model::{Container, FirstProcess, SpecMount},
    kernel::attempt::{Attempt, PathBase, Walk},
};

/// What is known of where a mount attempt points.
#[derive(Clone, Copy, Debug, Default)]
pub struct Target<'a> {
    /// The target, absolute in the container's root.
    pub path: Option<&'a [u8]>,
    /// The mount at the target, where somebody looked: after the call, so that what a remount has made writable is so.
    pub mount: Option<&'a MountPoint>,
    /// The source of move_mount, absolute in the container's root.
    pub source: Option<&'a [u8]>,
}

/// The effect that the attempt would have.
pub fn effect(attempt: &Attempt, target: Target<'_>, container: Option<&Container>) -> Effect {
    let flags = operation::call_flags(attempt);
    match operation::refine(attempt) {
        Operation::Remount if flags & flags::MS_RDONLY == 0 => {
            unseal_if(is_sealed_mount(target, false, attempt.result == 0, container))
        }
        Operation::MountSetattr | Operation::OpenTree if clears_readonly(attempt) => {
            let recursive = flags & flags::AT_RECURSIVE != 0;
            unseal_if(is_sealed_mount(target, recursive, attempt.result >= 0, container))
        }
        Operation::Fsconfig if attempt.source.as_deref() == Some(b"rw") => unseal_if(container.is_some_and(is_sealed)),
        // The flag is heeded for a new filesystem; a bind mount takes over what its source has.
        Operation::Mount if flags & (flags::MS_PROPAGATION | flags::MS_RDONLY) != 0 => Effect::None,
        Operation::Mount => shadow_if(is_in_seal(target.path, container)),
        Operation::BindMount | Operation::Move => {
            let source = attempt.source.as_deref().and_then(|source| absolute_source(attempt, source));
            shadow_if(is_in_seal(target.path, container) && !is_read_only(source.as_deref(), container))
        }
        Operation::MoveMount => {
            // A detached mount comes from nowhere that the declaration could speak of.
            let detached = match &attempt.path2.base {
                PathBase::File(_) | PathBase::None => true,
                PathBase::Dirfd(walk) => is_detached(walk),
                PathBase::Cwd => attempt.process.cwd.as_ref().is_none_or(is_detached),
                PathBase::Root(_) => false,
            };
            let source = if detached { None } else { target.source };
            shadow_if(is_in_seal(target.path, container) && !is_read_only(source, container))
        }
        Operation::PivotRoot => shadow_if(container.is_some_and(is_sealed) && !is_read_only(target.path, container)),
        Operation::Umount => Effect::Detach,
        _ => Effect::None,
    }
}

/// Whether this is the runtime's own work, on its way to becoming the application.
///
/// Either in the container's first process (`first`, as containerd names it), before it executes anything; or in a copy of the runtime that has joined the
/// container's cgroup already, but not yet its namespaces: a child of a process outside of the container's cgroup
/// (`parent_is_outside`), which runs the same file, both in the node's own mount namespace, where no container is.
pub fn is_runtime_setup(attempt: &Attempt, first: Option<FirstProcess>, parent_is_outside: bool) -> bool {
    let process = &attempt.process;
    // Who has the first one's id in the container's cgroup is the first one, as long as nothing speaks against it.
    let is_first = first.is_some_and(|first| first.is(process.pid, process.start_time_ns).unwrap_or(true));
    let is_first = is_first && process.has_not_executed();
    is_first || (parent_is_outside && process.same_program_as_parent && process.in_node_mount_namespace)
}

const fn unseal_if(sealed: bool) -> Effect {
    if sealed { Effect::Unseal } else { Effect::None }
}

const fn shadow_if(sealed: bool) -> Effect {
    if sealed { Effect::Shadow } else { Effect::None }
}

fn is_sealed(container: &Container) -> bool {
    container.readonly_rootfs == Some(true)
}

/// Whether the call takes read-only off; also where its struct could not be read, for it may.
///
/// The kernel clears first and sets then (`mount_setattr_commit`, `fs/namespace.c`): what is in both stays set.
const fn clears_readonly(attempt: &Attempt) -> bool {
    let [set, clear, ..] = attempt.extra;
    attempt.extra_unreadable || (clear & flags::MOUNT_ATTR_RDONLY != 0 && set & flags::MOUNT_ATTR_RDONLY == 0)
}

/// Whether the call takes read-only off a mount that was declared read-only, or is; `recursive`: or off one below it.
fn is_sealed_mount(target: Target<'_>, recursive: bool, succeeded: bool, container: Option<&Container>) -> bool {
    let seen = target.mount.filter(|mount| Some(mount.point.as_slice()) == target.path);
    let seen_readonly = seen.map(|mount| mount.facts.flags.readonly());
    if seen_readonly == Some(true) {
        return true;
    }
    let Some(container) = container else { return false };
    let Some(path) = target.path else { return is_sealed(container) };
    let is_below =
        |spec: &SpecMount| spec.readonly && is_at_or_below(spec.destination.trim_end_matches('/').as_bytes(), path);
    if recursive && specified(container).any(is_below) {
        return true;
    }
    // Of several at one place the last lies on top.
    match specified(container).rfind(|spec| is_mounted_at(spec, path)) {
        Some(spec) if spec.readonly => true,
        Some(spec) if seen.is_some_and(|mount| is_another(spec, mount)) => is_sealed(container),
        // What was refused has changed nothing: as it is seen, it was.
        Some(_) => is_sealed(container) && !succeeded && seen_readonly != Some(false),
        // The root itself, or a mount that somebody has made: of what, nobody knows.
        None => is_sealed(container),
    }
}

/// Whether the mount can't be the specified one, but must lie on top of it: `mount --bind / /data`, for one. What a bind
/// mount has bound is not specified, but no volume shows the root's own files, and none is an overlay.
fn is_another(spec: &SpecMount, seen: &MountPoint) -> bool {
    match spec.fstype.as_deref() {
        _ if seen.of_root => true,
        None | Some("bind") => seen.fstype == b"overlay",
        // A mount that is specified as `cgroup` is a `cgroup2` on most nodes.
        Some(fstype) => !seen.fstype.starts_with(fstype.as_bytes()),
    }
}

/// Whether the path is part of a sealed root: on the root filesystem itself, or on a volume that is read-only as well.
fn is_in_seal(path: Option<&[u8]>, container: Option<&Container>) -> bool {
    let Some(container) = container.filter(|container| is_sealed(container)) else { return false };
    path.is_none_or(|path| match governing(container, path) {
        None => true,
        Some(spec) => spec.readonly && spec.volume.is_some(),
    })
}

/// Whether what lies at the path was declared read-only; not, where the path is not known.
fn is_read_only(path: Option<&[u8]>, container: Option<&Container>) -> bool {
    let (Some(path), Some(container)) = (path, container) else { return false };
    match governing(container, path) {
        None => is_sealed(container),
        Some(spec) => spec.readonly,
    }
}

/// Whether the way up from a folder has not met the process's root: it ends at the root of a detached mount (of fsmount or
/// open_tree), or the folder lies outside of a chroot, which nobody declared either.
const fn is_detached(walk: &Walk) -> bool {
    walk.in_root.is_none()
}

/// The source of a bind mount by its text: relative to the working directory, in the process's root.
fn absolute_source(attempt: &Attempt, source: &[u8]) -> Option<Vec<u8>> {
    if source.first() == Some(&b'/') {
        return Some(join(b"/", source));
    }
    let cwd = attempt.process.cwd.as_ref().filter(|cwd| !cwd.truncated && !is_detached(cwd))?;
    Some(join(&cwd.in_namespace, source))
}

#[cfg(test)]
#[path = "effect_tests.rs"]
mod tests;
