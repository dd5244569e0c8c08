//! From an attempt and its container to an event.

use std::sync::Arc;

use detector_common::{operation::Operation, record::RecordKind};

use super::{
    effect::{Target, effect},
    event::{Ancestor, Cgroup, Event, File, Kind, Mount, MountAttempt, Outcome, Process, Resolution},
    flags, mount,
    mount_flags::MountFlags,
    operation,
    paths::{self, Located, Manner, MountFacts, MountPoint, Question, Resolved, RootOf, is_at_or_below, parent},
};
use crate::{
    clock::BootClock,
    identity::model::Container,
    kernel::attempt::{self, Attempt, PassedPath, Walk},
};

/// An attempt, and all that is known about it.
#[derive(Clone, Debug)]
pub struct Sighting<'a> {
    /// What the kernel side saw.
    pub attempt: &'a Attempt,
    /// The container of its cgroup.
    pub container: Option<&'a Arc<Container>>,
    /// The cgroup's path in the cgroup2 hierarchy.
    pub cgroup_path: Option<&'a str>,
    /// Answers to [`questions`], in their order.
    pub resolved: [Option<Resolved>; 2],
    /// For its times.
    pub clock: BootClock,
}

/// What to ask, before [`assess`], of somebody who may do I/O: about the path and about the second path.
pub fn questions(attempt: &Attempt) -> [Option<Question>; 2] {
    if attempt.kind == RecordKind::WriteObserved && attempt.mount.is_some() {
        // The open file has told all there is to know.
        return [None, None];
    }
    let process = &attempt.process;
    let of_folder = operation::changes_folder(operation::refine(attempt));
    let [first, second] = manners(attempt);
    [
        paths::question(&attempt.path, process, first, of_folder),
        paths::question(&attempt.path2, process, second, of_folder),
    ]
}

/// How the call follows its path and its second path.
fn manners(attempt: &Attempt) -> [Manner; 2] {
    [
        Manner { follow_last: operation::follows_last(attempt), in_root: operation::resolves_in_root(attempt) },
        Manner { follow_last: operation::follows_last_of_second(attempt), in_root: false },
    ]
}

/// The event that the attempt makes, without what the rules have to say of it.
pub fn assess(sighting: &Sighting<'_>) -> Event {
    let Sighting { attempt, container, cgroup_path, resolved: [first, second], clock } = sighting;
    let root_of = if container.is_some() { RootOf::Container } else { RootOf::Process };
    let operation = operation::refine(attempt);
    let outcome = Outcome::of(attempt.result);
    let process = process(&attempt.process, root_of, *clock);
    let known = container.map(AsRef::as_ref);

    let [manner, manner2] = manners(attempt);
    let path = locate(attempt, &attempt.path, manner, first.as_ref(), root_of);
    let path2 = locate(attempt, &attempt.path2, manner2, second.as_ref(), root_of);

    let (kind, file, mount) = match attempt.kind {
        RecordKind::MountAttempt => {
            let mount = mount_attempt(attempt, operation, &path, path2, known);
            (Kind::MountAttempt, None, Some(Mount::Attempt(mount)))
        }
        // Records of cgroups are no attempts; the stream keeps them apart.
        RecordKind::WriteDenied | RecordKind::WriteObserved | RecordKind::CgroupCreated | RecordKind::CgroupRemoved => {
            // A hard link is refused by the mount of the new name (`do_linkat`, `fs/namei.c`); a rename by that of both.
            let refused = if operation == Operation::Link { &path2 } else { &path };
            let certain = refused.located.resolved != Some(Resolution::Lexical);
            let of_kernel = attempt.mount.as_ref().and_then(|mount| kernel_mount(mount, root_of));
            let hit = of_kernel.as_ref().or(refused.mount.as_ref());
            let refused_path = refused.located.path.as_deref();
            let of_mount = if operation::changes_folder(operation) { refused_path.map(parent) } else { refused_path };
            let place = mount::place(of_mount, hit, certain, known);
            let file = file(attempt, operation, path.located, path2.located);
            let kind = if attempt.kind == RecordKind::WriteObserved { Kind::WriteObserved } else { Kind::WriteDenied };
            (kind, Some(file), place.map(Mount::Place))
        }
    };
    let cgroup = || Cgroup { id: attempt.cgroup_id, path: cgroup_path.map(str::to_owned) };
    Event {
        operation: Some(operation),
        outcome: Some(outcome),
        file,
        mount,
        process: Some(process),
        container: container.cloned(),
        cgroup: container.is_none().then(cgroup),
        abi: Some(attempt.abi),
        hook: Some(attempt.hook),
        ..Event::new(kind, clock.unix_ns(attempt.time_ns))
    }
}

/// The mount that the kernel side saw refuse; none where it is not told in the root that events tell paths in.
fn kernel_mount(mount: &attempt::Mount, root_of: RootOf) -> Option<MountPoint> {
    let &attempt::Mount { id, flags, super_flags, ref fstype, ref point } = mount;
    let flags = MountFlags { mount: flags, superblock: super_flags };
    Some(MountPoint {
        point: paths::of_walk(point.as_ref()?, root_of)?,
        fstype: fstype.clone(),
        facts: MountFacts { id: id.into(), flags, told_by: Resolution::Kernel },
        // Asked of the targets of mount attempts alone.
        of_root: false,
    })
}

/// Where a path leads, and the mount there.
struct Place {
    located: Located,
    mount: Option<MountPoint>,
}

/// The kernel's own path where that is exact, else the one with links followed, else the text.
fn locate(
    attempt: &Attempt,
    passed: &PassedPath,
    manner: Manner,
    resolved: Option<&Resolved>,
    root_of: RootOf,
) -> Place {
    let by_text = paths::locate(passed, &attempt.process, manner, root_of);
    let Some(resolved) = resolved else { return Place { located: by_text, mount: None } };
    let root = match root_of {
        RootOf::Container => b"/".to_vec(),
        RootOf::Process => {
            let anchor = paths::anchor(passed, &attempt.process, manner.in_root);
            anchor.map_or_else(|| b"/".to_vec(), |anchor| anchor.root)
        }
    };
    let located = match (by_text.resolved, within(&resolved.path, &root)) {
        (Some(Resolution::Lexical) | None, Some(path)) => {
            Located { path: Some(path), resolved: Some(Resolution::Root) }
        }
        _ => by_text,
    };
    let mount = resolved.mount.as_ref().and_then(|mount| {
        let point = within(&mount.point, &root)?;
        Some(MountPoint { point, ..mount.clone() })
    });
    Place { located, mount }
}

/// `path` as it is told in a root that stands at `root`; none where it lies outside.
fn within(path: &[u8], root: &[u8]) -> Option<Vec<u8>> {
    if root == b"/" {
        return Some(path.to_vec());
    }
    if !is_at_or_below(path, root) {
        return None;
    }
    let rest = &path[root.len()..];
    Some(if rest.is_empty() { b"/".to_vec() } else { rest.to_vec() })
}

fn file(attempt: &Attempt, operation: Operation, path: Located, path2: Located) -> File {
    let source = attempt.source.clone();
    let truncated = [
        ("path", path.path.is_none() && is_cut(attempt, &attempt.path)),
        ("requested", attempt.path.truncated),
        ("new_path", path2.path.is_none() && is_cut(attempt, &attempt.path2)),
    ];
    File {
        path: path.path,
        requested: attempt.path.requested.clone(),
        flags: operation::flag_names(attempt),
        new_path: path2.path,
        link_target: if operation == Operation::Symlink { source } else { None },
        xattr: match operation {
            Operation::Setxattr | Operation::Removexattr => attempt.data.clone(),
            _ => None,
        },
        mode: operation::mode(attempt),
        resolved: path.resolved,
        truncated: names_of(&truncated),
        unreadable: unreadable(attempt),
    }
}

/// What is not told because its struct could not be read.
fn unreadable(attempt: &Attempt) -> Vec<&'static str> {
    names_of(&[("flags", attempt.extra_unreadable)])
}

fn mount_attempt(
    attempt: &Attempt,
    operation: Operation,
    target: &Place,
    path2: Place,
    container: Option<&Container>,
) -> MountAttempt {
    let path = target.located.path.as_deref();
    let at = Target { path, mount: target.mount.as_ref(), source: path2.located.path.as_deref() };
    let effect = effect(attempt, at, container);
    let source_cut = path2.located.path.is_none() && is_cut(attempt, &attempt.path2);
    let (source, options) = match operation {
        Operation::Fsconfig => fsconfig_source_and_options(attempt),
        Operation::MoveMount | Operation::PivotRoot => (path2.located.path, None),
        _ => (attempt.source.clone(), attempt.data.clone()),
    };
    let truncated = [
        ("target", path.is_none() && is_cut(attempt, &attempt.path)),
        ("requested", attempt.path.truncated),
        ("source", source_cut),
    ];
    MountAttempt {
        target: path.map(<[u8]>::to_vec),
        requested: attempt.path.requested.clone(),
        resolved: target.located.resolved,
        source,
        fstype: attempt.fstype.clone(),
        flags: operation::flag_names(attempt),
        options,
        effect,
        truncated: names_of(&truncated),
        unreadable: unreadable(attempt),
    }
}

/// The key `source` names what is mounted; any other is an option.
fn fsconfig_source_and_options(attempt: &Attempt) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
    let Some(key) = &attempt.source else { return (None, None) };
    // A flag has no value; what stands in its argument is not read as one.
    let value = attempt.data.as_ref().filter(|_| operation::call_flags(attempt) != flags::FSCONFIG_SET_FLAG);
    match value {
        Some(value) if key == b"source" => (Some(value.clone()), None),
        Some(value) => (None, Some([key.as_slice(), b"=", value].concat())),
        None => (None, Some(key.clone())),
    }
}

fn process(process: &attempt::Process, root_of: RootOf, clock: BootClock) -> Process {
    let is_cut = |walk: &Option<Walk>| walk.as_ref().is_some_and(|walk| walk.truncated);
    let truncated = [("exe", is_cut(&process.exe)), ("args", process.args_truncated), ("cwd", is_cut(&process.cwd))];
    Process {
        pid: process.pid,
        tid: process.tid,
        ppid: process.ppid,
        container_pid: process.container_pid,
        uid: process.uid,
        gid: process.gid,
        comm: process.comm.clone(),
        exe: process.exe.as_ref().map(executable),
        args: process.args.clone(),
        cwd: process.cwd.as_ref().and_then(|cwd| paths::of_walk(cwd, root_of)),
        start_time_unix_ns: clock.unix_ns(process.start_time_ns),
        cap_sys_admin: process.cap_sys_admin(),
        user_ns_level: process.user_ns_level,
        ancestors: process
            .ancestors
            .iter()
            .map(|ancestor| Ancestor { pid: ancestor.pid, comm: ancestor.comm.clone(), exe: None })
            .collect(),
        truncated: names_of(&truncated),
    }
}

/// Where the path is none of the process's root's, it is not told as one: the kernel's own word for that is `(unreachable)`
/// (`fs/d_path.c`).
fn executable(walk: &Walk) -> Vec<u8> {
    let path = walk.in_namespace.as_slice();
    let is_memfd = walk.in_root.is_none() && path.starts_with(b"/memfd:");
    match path.strip_prefix(b"/") {
        Some(tail) if walk.truncated || is_memfd => tail.to_vec(),
        _ if walk.unreachable => [b"(unreachable)", path].concat(),
        _ => path.to_vec(),
    }
}

/// Whether a path is unknown because the record had no room for a part of it.
fn is_cut(attempt: &Attempt, passed: &PassedPath) -> bool {
    use attempt::PathBase;
    let base = match &passed.base {
        PathBase::None => None,
        PathBase::Cwd => attempt.process.cwd.as_ref(),
        PathBase::Root(walk) | PathBase::Dirfd(walk) | PathBase::File(walk) => Some(walk),
    };
    passed.truncated || base.is_some_and(|walk| walk.truncated)
}

fn names_of(flags: &[(&'static str, bool)]) -> Vec<&'static str> {
    flags.iter().filter(|(_, set)| *set).map(|(name, _)| *name).collect()
}

#[cfg(test)]
#[path = "assess_tests.rs"]
mod tests;
