//! From the bytes on the wire to a checked record. Never trusts a length, a number or a string.

use detector_common::{
    WIRE_VERSION,
    abi::Abi,
    operation::Operation,
    record::{
        AncestorRecord, Base, CallRecord, CgroupRecord, Hook, MountRecord, ProcessRecord, ROOT_AT_ROOM, ROOT_NOT_MET,
        RecordHeader, RecordKind, Section, SyscallRecord,
    },
    syscalls,
};
use zerocopy::FromBytes;

use super::{
    attempt::{Ancestor, Attempt, Mount, PassedPath, PathBase, Process, Standing, Walk},
    folds::FoldId,
    stream::Record,
};

/// Why a record could not be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// Shorter than its fixed part, or than its sections together.
    #[error("the record ends early ({0} bytes)")]
    TooShort(usize),
    /// Another version of the wire format.
    #[error("the record is of version {0}, this binary reads version {WIRE_VERSION}")]
    Version(u16),
    /// A number that names nothing.
    #[error("the record's {0} has the unknown number {1}")]
    Unknown(&'static str, u16),
}

/// Reads one record.
///
/// # Errors
/// See [`DecodeError`].
pub(super) fn record(bytes: &[u8]) -> Result<Record, DecodeError> {
    let too_short = DecodeError::TooShort(bytes.len());
    let (header, _) = RecordHeader::read_from_prefix(bytes).map_err(|_| too_short)?;
    if header.version != WIRE_VERSION {
        return Err(DecodeError::Version(header.version));
    }
    let bytes = usize::try_from(header.length).ok().and_then(|length| bytes.get(..length)).ok_or(too_short)?;
    let is = |kind: RecordKind| header.kind == kind as u16;
    if is(RecordKind::WriteDenied) {
        attempt(bytes, RecordKind::WriteDenied)
    } else if is(RecordKind::MountAttempt) {
        attempt(bytes, RecordKind::MountAttempt)
    } else if is(RecordKind::WriteObserved) {
        attempt(bytes, RecordKind::WriteObserved)
    } else if is(RecordKind::CgroupCreated) || is(RecordKind::CgroupRemoved) {
        let (CgroupRecord { header }, path) = CgroupRecord::read_from_prefix(bytes).map_err(|_| too_short)?;
        let (id, time_ns) = (header.cgroup_id, header.time_ns);
        Ok(if is(RecordKind::CgroupCreated) {
            Record::CgroupCreated { id, path: cgroup_path(path), time_ns }
        } else {
            Record::CgroupRemoved { id, time_ns }
        })
    } else {
        Err(DecodeError::Unknown("kind", header.kind))
    }
}

/// The tracepoint has room for so many bytes of a path and its NUL (`TRACE_CGROUP_PATH_LEN`,
/// `kernel/cgroup/cgroup-internal.h`, 6.18), and cuts a longer one without a word.
const CGROUP_PATH_ROOM: usize = 1024;

/// The path of a cgroup. Of one that may be cut the last name is left out, as a part of it could be another's name, and so could
/// those that are missing be: `…` stands for them, which names no container.
fn cgroup_path(path: &[u8]) -> String {
    let whole = match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) if path.len() + 1 >= CGROUP_PATH_ROOM => &path[..slash],
        _ => return String::from_utf8_lossy(path).into_owned(),
    };
    format!("{}/…", String::from_utf8_lossy(whole))
}

fn attempt(bytes: &[u8], kind: RecordKind) -> Result<Record, DecodeError> {
    let (SyscallRecord { header, process, call }, payload) =
        SyscallRecord::read_from_prefix(bytes).map_err(|_| DecodeError::TooShort(bytes.len()))?;
    let sections = Sections::new(&call, payload).ok_or(DecodeError::TooShort(bytes.len()))?;
    let unknown = |what, number: u8| DecodeError::Unknown(what, number.into());
    let abi = Abi::from_wire(call.abi).ok_or(unknown("abi", call.abi))?;
    let hook = match call.hook {
        hook if hook == Hook::Tracepoint as u8 => Hook::Tracepoint,
        hook if hook == Hook::Fexit as u8 => Hook::Fexit,
        hook => return Err(unknown("hook", hook)),
    };
    let [a, b, c, d, e, f, _, _] = call.args;
    let mut attempt = Attempt {
        kind,
        time_ns: header.time_ns,
        cgroup_id: header.cgroup_id,
        process: decode_process(&process, &sections),
        operation: Operation::from_wire(call.operation).ok_or(unknown("operation", call.operation))?,
        abi,
        hook,
        syscall: syscalls::find(abi, call.syscall).ok_or(DecodeError::Unknown("syscall", call.syscall))?,
        args: [a, b, c, d, e, f],
        extra: call.extra,
        extra_unreadable: call.extra_unreadable != 0,
        result: call.result,
        path: passed_path(&sections, Section::Path, Section::Base, call.base, call.root_at[0])?,
        path2: passed_path(&sections, Section::Path2, Section::Base2, call.base2, call.root_at[1])?,
        source: sections.string(Section::Source),
        fstype: sections.string(Section::Fstype),
        data: sections.string(Section::Data),
        mount: mount(&call.mount, &sections),
        fold: FoldId::from_wire(call.fold),
        origin: None,
        standing: Standing::New,
    };
    mark_unreachable(&mut attempt);
    cut_socket_name(&mut attempt);
    find_new_root(&mut attempt);
    Ok(Record::Attempt(Box::new(attempt)))
}

/// Finds the walks that end elsewhere than at the process's root, if that is known to be a mount namespace's own. If it is not,
/// the process was chrooted, and they may well be in the same tree.
fn mark_unreachable(attempt: &mut Attempt) {
    let Attempt { process: Process { cwd, exe, .. }, path, path2, .. } = attempt;
    let bases = [&mut path.base, &mut path2.base].into_iter().filter_map(PathBase::walk);
    let mut walks: Vec<&mut Walk> = cwd.iter_mut().chain(exe.iter_mut()).chain(bases).collect();
    let is_whole = |walk: &&mut Walk| !walk.truncated;
    if walks.iter().filter(|walk| is_whole(walk)).any(|walk| walk.in_root.as_ref() == Some(&walk.in_namespace)) {
        walks.iter_mut().filter(|walk| is_whole(walk)).for_each(|walk| walk.unreachable = walk.in_root.is_none());
    }
}

/// Once a chroot has worked, the process's root is no longer what the path begins at, but what it led to.
fn find_new_root(attempt: &mut Attempt) {
    if attempt.operation == Operation::Chroot && attempt.result == 0 {
        let base = std::mem::take(&mut attempt.path.base);
        attempt.path.base = if let PathBase::Root(root) = base { PathBase::File(root) } else { base };
    }
}

/// The name of a unix socket need not end with NUL: the length of the address, which the family is a part of, says where it does.
/// (Where the kernel's own copy was read, it does.)
fn cut_socket_name(attempt: &mut Attempt) {
    const FAMILY: i32 = size_of::<u16>() as i32;
    let of_program = attempt.hook == Hook::Tracepoint && attempt.abi != Abi::IoUring;
    if attempt.operation != Operation::BindSocket || !of_program {
        return;
    }
    let length = usize::try_from(attempt.args[2] as i32 - FAMILY).unwrap_or(0);
    if let Some(name) = &mut attempt.path.requested {
        name.truncate(length);
    }
    attempt.path.requested.take_if(|name| name.is_empty());
}

fn mount(record: &MountRecord, sections: &Sections<'_>) -> Option<Mount> {
    let &MountRecord { known, id, flags, super_flags, ref fstype } = record;
    (known == 1).then(|| Mount {
        id,
        flags,
        super_flags,
        fstype: name(fstype),
        point: sections.walk(Section::Mount, sections.root_at[4]),
    })
}

/// The payload, cut into its sections.
struct Sections<'a> {
    parts: [&'a [u8]; Section::COUNT],
    truncated: u16,
    unreadable: u16,
    root_at: [u16; ROOT_AT_ROOM],
}

impl<'a> Sections<'a> {
    /// None where the lengths exceed the payload.
    fn new(call: &CallRecord, mut payload: &'a [u8]) -> Option<Self> {
        let mut parts: [&[u8]; Section::COUNT] = [&[]; Section::COUNT];
        for section in Section::ORDER {
            let length = call.lengths[section as usize];
            (parts[section as usize], payload) = payload.split_at_checked(length.into())?;
        }
        Some(Self { parts, truncated: call.truncated, unreadable: call.unreadable, root_at: call.root_at })
    }

    const fn bytes(&self, section: Section) -> &'a [u8] {
        self.parts[section as usize]
    }

    const fn truncated(&self, section: Section) -> bool {
        self.truncated & (1 << section as u16) != 0
    }

    const fn unreadable(&self, section: Section) -> bool {
        self.unreadable & (1 << section as u16) != 0
    }

    fn string(&self, section: Section) -> Option<Vec<u8>> {
        let bytes = self.bytes(section);
        (!bytes.is_empty()).then(|| bytes.to_vec())
    }

    fn walk(&self, section: Section, root_at: u16) -> Option<Walk> {
        if self.unreadable(section) {
            return None;
        }
        let bytes = self.bytes(section);
        let mut components: Vec<&[u8]> = bytes.split(|&byte| byte == 0).collect();
        // Each component ends with NUL, so the last part is empty.
        components.pop();
        let truncated = self.truncated(section);
        let in_root = (root_at != ROOT_NOT_MET).then(|| join(components.get(..root_at.into()).unwrap_or(&components)));
        Some(Walk { in_namespace: join(&components), in_root, truncated, unreachable: false })
    }
}

/// Turns components from the last to the first into an absolute path.
fn join(components: &[&[u8]]) -> Vec<u8> {
    if components.is_empty() {
        return b"/".to_vec();
    }
    let mut path = Vec::with_capacity(components.iter().map(|component| component.len() + 1).sum());
    for component in components.iter().rev() {
        path.push(b'/');
        path.extend_from_slice(component);
    }
    path
}

fn passed_path(
    sections: &Sections<'_>,
    path: Section,
    base_section: Section,
    base: u8,
    root_at: u16,
) -> Result<PassedPath, DecodeError> {
    let walk = || sections.walk(base_section, root_at);
    let base = match base {
        base if base == Base::None as u8 => None,
        base if base == Base::Root as u8 => walk().map(PathBase::Root),
        base if base == Base::Cwd as u8 => Some(PathBase::Cwd),
        base if base == Base::Dirfd as u8 => walk().map(PathBase::Dirfd),
        base if base == Base::File as u8 => walk().map(PathBase::File),
        base => return Err(DecodeError::Unknown("base", base.into())),
    };
    Ok(PassedPath {
        requested: sections.string(path),
        truncated: sections.truncated(path),
        base: base.unwrap_or_default(),
    })
}

fn decode_process(process: &ProcessRecord, sections: &Sections<'_>) -> Process {
    let &ProcessRecord {
        start_time_ns,
        cap_effective,
        parent_cgroup_id,
        pid,
        tid,
        ppid,
        container_pid,
        uid,
        gid,
        mnt_ns,
        user_ns_level,
        flags,
        same_program_as_parent,
        in_node_mount_namespace,
        ancestor_count,
        comm,
        ancestors,
    } = process;
    let mut args: Vec<Vec<u8>> = sections.bytes(Section::Args).split(|&byte| byte == 0).map(<[u8]>::to_vec).collect();
    let args_truncated = sections.truncated(Section::Args);
    // Ended by NUL, the last part is empty; cut, it is the part of an argument that did fit.
    if args.last().is_some_and(Vec::is_empty) {
        args.pop();
    }
    let ancestors = ancestors.iter().take(ancestor_count.try_into().unwrap_or(0)).map(
        |&AncestorRecord { start_time_ns, pid, padding: _, comm }| Ancestor { pid, start_time_ns, comm: name(&comm) },
    );
    Process {
        pid,
        tid,
        ppid,
        container_pid,
        uid,
        gid,
        comm: name(&comm),
        // A thread of the kernel has no executable: then the section is empty, and readable.
        exe: sections.walk(Section::Exe, sections.root_at[3]).filter(|exe| exe.in_namespace != b"/"),
        args,
        args_truncated,
        cwd: sections.walk(Section::Cwd, sections.root_at[2]),
        start_time_ns,
        cap_effective,
        mnt_ns: (mnt_ns != 0).then_some(mnt_ns),
        user_ns_level,
        flags,
        parent_cgroup_id: (parent_cgroup_id != 0).then_some(parent_cgroup_id),
        same_program_as_parent: same_program_as_parent == 1,
        in_node_mount_namespace: in_node_mount_namespace == 1,
        ancestors: ancestors.collect(),
    }
}

/// The bytes before the first NUL.
fn name(comm: &[u8]) -> Vec<u8> {
    comm.split(|&byte| byte == 0).next().unwrap_or_default().to_vec()
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
