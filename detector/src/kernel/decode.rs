//! From the bytes on the wire to a checked record. Never trusts a length, a number or a string.

use detector_common::{
    WIRE_VERSION,
    abi::Abi,
    operation::Operation,
    record::{
        AncestorRecord, Base, CallRecord, CgroupRecord, Hook, ProcessRecord, ROOT_NOT_MET, RecordHeader, RecordKind,
        Section, SyscallRecord,
    },
    syscalls,
};
use zerocopy::FromBytes;

use super::{
    attempt::{Ancestor, Attempt, PassedPath, PathBase, Process, Walk},
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
    } else if is(RecordKind::CgroupCreated) || is(RecordKind::CgroupRemoved) {
        let (CgroupRecord { header }, path) = CgroupRecord::read_from_prefix(bytes).map_err(|_| too_short)?;
        let (id, time_ns) = (header.cgroup_id, header.time_ns);
        Ok(if is(RecordKind::CgroupCreated) {
            Record::CgroupCreated { id, path: String::from_utf8_lossy(path).into_owned(), time_ns }
        } else {
            Record::CgroupRemoved { id, time_ns }
        })
    } else {
        Err(DecodeError::Unknown("kind", header.kind))
    }
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
    Ok(Record::Attempt(Box::new(Attempt {
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
        result: call.result,
        path: passed_path(&sections, Section::Path, Section::Base, call.base, call.root_at[0])?,
        path2: passed_path(&sections, Section::Path2, Section::Base2, call.base2, call.root_at[1])?,
        source: sections.string(Section::Source),
        fstype: sections.string(Section::Fstype),
        data: sections.string(Section::Data),
        fold: FoldId::from_wire(call.fold),
    })))
}

/// The payload, cut into its sections.
struct Sections<'a> {
    parts: [&'a [u8]; Section::COUNT],
    truncated: u16,
    unreadable: u16,
    root_at: [u16; 4],
}

impl<'a> Sections<'a> {
    /// None where the lengths exceed the payload.
    fn new(call: &CallRecord, mut payload: &'a [u8]) -> Option<Self> {
        let mut parts: [&[u8]; Section::COUNT] = [&[]; Section::COUNT];
        for (part, length) in parts.iter_mut().zip(call.lengths) {
            (*part, payload) = payload.split_at_checked(length.into())?;
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
        Some(Walk { in_namespace: join(&components), in_root, truncated })
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
mod tests {
    use detector_common::record::{COMM_LEN, FoldRecord, MAX_ANCESTORS};

    use super::*;

    /// A record as the kernel side sends it of an io_uring's mkdirat("/mnt", "new").
    fn of_io_uring(opcode: u16) -> Vec<u8> {
        let path = b"new";
        let base = b"mnt\0";
        let mut lengths = [0; Section::COUNT];
        lengths[Section::Path as usize] = 3;
        lengths[Section::Base as usize] = 4;
        let length = u32::try_from(size_of::<SyscallRecord>() + path.len() + base.len()).unwrap();
        let ancestor = AncestorRecord { start_time_ns: 0, pid: 0, padding: 0, comm: [0; COMM_LEN] };
        let record = SyscallRecord {
            header: RecordHeader {
                version: WIRE_VERSION,
                kind: RecordKind::WriteDenied as u16,
                length,
                time_ns: 1,
                cgroup_id: 2,
            },
            process: ProcessRecord {
                start_time_ns: 0,
                cap_effective: 0,
                parent_cgroup_id: 0,
                pid: 100,
                tid: 101,
                ppid: 1,
                container_pid: 7,
                uid: 0,
                gid: 0,
                mnt_ns: 0,
                user_ns_level: 0,
                flags: 0,
                same_program_as_parent: 0,
                in_node_mount_namespace: 0,
                ancestor_count: 0,
                comm: [0; COMM_LEN],
                ancestors: [ancestor; MAX_ANCESTORS],
            },
            call: CallRecord {
                args: [5, 0, 0o755, 0, 0, 0, 0, 0],
                extra: [0; 4],
                result: -30,
                syscall: opcode,
                operation: Operation::Mkdir as u8,
                abi: Abi::IoUring as u8,
                hook: Hook::Tracepoint as u8,
                base: Base::Dirfd as u8,
                base2: Base::None as u8,
                padding: 0,
                truncated: 0,
                unreadable: 0,
                root_at: [1, ROOT_NOT_MET, ROOT_NOT_MET, ROOT_NOT_MET],
                lengths,
                fold: FoldRecord { slot: 7, generation: 3 },
            },
        };
        // SAFETY: a live record without implicit padding, as its definition asserts.
        let fixed = unsafe { std::slice::from_raw_parts((&raw const record).cast::<u8>(), size_of::<SyscallRecord>()) };
        [fixed, path, base].concat()
    }

    #[test]
    fn an_operation_of_an_io_uring_is_told_as_the_syscall_of_the_same_meaning() {
        let Ok(Record::Attempt(attempt)) = record(&of_io_uring(37)) else { panic!("an attempt") };
        assert_eq!((attempt.abi, attempt.syscall.name), (Abi::IoUring, "mkdirat"));
        assert_eq!(attempt.args[usize::from(attempt.syscall.call.mode)], 0o755);
        assert_eq!(attempt.path.requested.as_deref(), Some(&b"new"[..]));
        let PathBase::Dirfd(folder) = attempt.path.base else { panic!("based on a folder") };
        assert_eq!((folder.in_namespace, folder.in_root), (b"/mnt".to_vec(), Some(b"/mnt".to_vec())));
    }

    #[test]
    fn an_operation_of_an_io_uring_that_is_not_watched_is_unknown() {
        // IORING_OP_READ; as a syscall 22 is pipe.
        assert_eq!(record(&of_io_uring(22)).err(), Some(DecodeError::Unknown("syscall", 22)));
    }
}
