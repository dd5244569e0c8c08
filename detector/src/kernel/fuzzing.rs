//! [`super::decode`] and what is made of its records, for [`crate::fuzzing`].

use detector_common::{
    WIRE_VERSION,
    abi::Abi,
    operation::Operation,
    record::{Base, CgroupRecord, Hook, PATH_MAX, PAYLOAD_MAX, RecordHeader, RecordKind, Section, SyscallRecord},
    syscalls::SYSCALLS,
};
use zerocopy::FromZeros as _;

use super::{attempt::Attempt, decode, stream::Record};
use crate::{
    finding::{Event, Sighting, assess, questions},
    fuzzing::{CLOCK, sealed, tell},
};

/// Reads a record, and tells what it makes; whether it is one.
pub(crate) fn record(bytes: &[u8]) -> bool {
    // The ring gives no more at once; more would make a line that is longer than any may be.
    let bytes = bytes.get(..size_of::<SyscallRecord>() + PAYLOAD_MAX).unwrap_or(bytes);
    let decoded = decode::record(bytes);
    if let Ok(Record::Attempt(attempt)) = &decoded {
        questions(attempt);
        events_of(attempt).iter().for_each(|event| drop(tell(event)));
    }
    decoded.is_ok()
}

/// What the records make.
pub(crate) fn events() -> Vec<Event> {
    let attempts = records().into_iter().filter_map(|bytes| match decode::record(&bytes) {
        Ok(Record::Attempt(attempt)) => Some(attempt),
        Ok(Record::CgroupCreated { .. } | Record::CgroupRemoved { .. }) | Err(_) => None,
    });
    attempts.flat_map(|attempt| events_of(&attempt)).collect()
}

/// What an attempt makes, of a container and of none.
fn events_of(attempt: &Attempt) -> Vec<Event> {
    let sealed = sealed();
    [None, Some(&sealed)]
        .map(|container| {
            let cgroup_path = Some("/kubepods/pod0aa1/d59f");
            assess(&Sighting { attempt, container, cgroup_path, resolved: [None, None], clock: CLOCK })
        })
        .into()
}

/// Records as the kernel side sends them.
pub(crate) fn records() -> Vec<Vec<u8>> {
    let hostile = b"/etc/\xff\x1b[2J\n\"\\\xe2\x80\xae";
    vec![
        syscall("openat", b"../etc/x", b"touch\0x\0"),
        syscall("mkdir", hostile, b"\x1b]0;x\x07\0\xff\0"),
        syscall("mount", b"/", b"mount\0-o\0remount,rw\0/\0"),
        syscall("bind", b"/run/x.sock", b"sh\0"),
        syscall("openat2", &[b'x'; PATH_MAX - 1], b"a\0b"),
        cgroup(RecordKind::CgroupCreated, b"/kubepods/burstable/pod0aa1/d59f"),
        cgroup(RecordKind::CgroupRemoved, b""),
    ]
}

fn header(kind: RecordKind, length: usize) -> RecordHeader {
    let length = length.try_into().expect("a record is short");
    RecordHeader { version: WIRE_VERSION, kind: kind as u16, length, time_ns: 10_000_000_000, cgroup_id: 4711 }
}

fn cgroup(kind: RecordKind, path: &[u8]) -> Vec<u8> {
    let record = CgroupRecord { header: header(kind, size_of::<CgroupRecord>() + path.len()) };
    [bytes_of(&record), path].concat()
}

fn syscall(name: &str, path: &[u8], args: &[u8]) -> Vec<u8> {
    let row = SYSCALLS.iter().find(|row| row.name == name).expect("a syscall of the table");
    let operation = Operation::from_wire(row.call.operation).expect("an operation of the table");
    let mut record = SyscallRecord::new_zeroed();
    let (cwd, exe, point) = (b"usr\0", b"busybox\0bin\0", b"data\0");
    let mut length = size_of::<SyscallRecord>();
    for (section, bytes) in [
        (Section::Path, path),
        (Section::Cwd, cwd),
        (Section::Exe, exe),
        (Section::Args, args),
        (Section::Mount, point),
    ] {
        record.call.lengths[section as usize] = bytes.len().try_into().expect("a section is short");
        length += bytes.len();
    }
    let is_mount = operation.changes_mounts();
    let kind = if is_mount { RecordKind::MountAttempt } else { RecordKind::WriteDenied };
    record.header = header(kind, length);
    record.process.start_time_ns = 9_000_000_000;
    record.process.pid = 100;
    record.process.ancestor_count = 1;
    // Of the kernel's own, NUL-padded; of who fills it up, without any.
    record.process.comm = *b"touch\0\0\0\0\0\0\0\0\0\0\0";
    record.process.ancestors[0].comm = [b'\xff'; 16];
    record.call.syscall = row.x86_64.expect("a syscall of this machine");
    record.call.operation = operation as u8;
    record.call.abi = Abi::X86_64 as u8;
    record.call.hook = Hook::Tracepoint as u8;
    record.call.base = if path.starts_with(b"/") { Base::Root } else { Base::Cwd } as u8;
    record.call.result = if is_mount { -1 } else { -30 };
    record.call.mount.known = 1;
    // In the order of the payload.
    [bytes_of(&record), path, cwd, exe, point, args].concat()
}

fn bytes_of<T>(record: &T) -> &[u8] {
    // SAFETY: a live record of the wire, which has no implicit padding, as its definition asserts.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(record).cast::<u8>(), size_of::<T>()) }
}
