//! What every front end captures of a call in the same way: the record's fixed part, and what its paths are relative to.

use detector_common::{
    WIRE_VERSION,
    operation::Operation,
    record::{Base, PATH_MAX, ROOT_AT_ROOM, ROOT_NOT_MET, Section},
    syscalls::{Call, NONE},
};

use crate::{
    capture::{
        path,
        process::Executed,
        text::{self, STRINGS},
    },
    memory::{self, Untyped},
    offsets::offset,
    ring,
    scratch::Scratch,
};

const AT_FDCWD: i32 = -100;

/// Where a call's paths begin.
pub struct Origin {
    /// Address of the `struct path` of the process's root.
    pub root: u64,
    /// Address of the `struct path` of its working directory.
    pub pwd: u64,
    /// Its `files_struct`.
    pub files: u64,
}

impl Origin {
    /// That of a task.
    #[inline(always)]
    pub fn of(task: Untyped) -> Self {
        let [fs, files] = memory::kernel_words(task.0, offset!(task_fs), offset!(task_files));
        Self {
            root: fs.wrapping_add(u64::from(offset!(fs_root))),
            pwd: fs.wrapping_add(u64::from(offset!(fs_pwd))),
            files,
        }
    }
}

/// Begins a record that is of now.
#[inline(always)]
pub fn begin_header(scratch: &mut Scratch) {
    let header = &mut scratch.record.header;
    header.version = WIRE_VERSION;
    header.time_ns = ring::now_ns();
}

/// Begins what is told of `call`: nothing read yet. The arguments, what they point to, and the result are not touched.
#[inline(always)]
pub fn begin(scratch: &mut Scratch, call: &Call) {
    let record = &mut scratch.record.call;
    record.operation = call.operation;
    record.base = Base::None as u8;
    record.base2 = Base::None as u8;
    record.truncated = 0;
    record.unreadable = 0;
    record.root_at = [ROOT_NOT_MET; ROOT_AT_ROOM];
    memory::fill(&mut record.lengths, 0);
    record.padding2 = 0;
    record.mount.known = 0;
}

/// The argument at `index`, or 0.
#[inline(always)]
pub fn argument(scratch: &Scratch, index: u8) -> u64 {
    if index == NONE { 0 } else { scratch.record.call.args[index as usize & 7] }
}

/// How many of the strings of a call have to be looked at: up to the last that it has.
#[inline(always)]
pub fn strings_of(call: &Call) -> u32 {
    if call.data != NONE {
        STRINGS as u32
    } else if call.fstype != NONE {
        4
    } else if call.source != NONE {
        3
    } else if call.path2 != NONE {
        2
    } else {
        1
    }
}

/// Finds what both paths are relative to, and notes it for the walks. The strings begin at `start` of the payload.
#[inline(always)]
pub fn find_bases(scratch: &mut Scratch, call: &Call, start: usize, origin: &Origin) {
    let [length, length2, ..] = scratch.record.call.lengths;
    let first = if length == 0 { 0 } else { scratch.payload[start] };
    let first2 = if length2 == 0 { 0 } else { scratch.payload[start + (length as usize & (PATH_MAX - 1))] };
    find_base(scratch, Place { section: Section::Base, path: call.path, dirfd: call.dirfd, first }, origin);
    find_base(scratch, Place { section: Section::Base2, path: call.path2, dirfd: call.dirfd2, first: first2 }, origin);
}

/// Appends the walks: what the paths are relative to, as noted, the working directory, the executable, and the mount whose
/// root is the `struct path` at `mount` (0: none).
#[inline(always)]
pub fn append_walks(scratch: &mut Scratch, origin: &Origin, executed: &Executed, mount: u64) {
    scratch.walk.places[2] = origin.pwd;
    scratch.walk.places[3] = executed.file;
    scratch.walk.places[path::MOUNT] = mount;
    path::append_walks(scratch, origin.root, origin.pwd);
}

/// A path of the call, as far as it matters for what it is relative to.
#[derive(Clone, Copy)]
struct Place {
    section: Section,
    path: u8,
    dirfd: u8,
    /// First byte of the path; 0 where there is none.
    first: u8,
}

#[inline(always)]
fn find_base(scratch: &mut Scratch, place: Place, origin: &Origin) {
    /// `RESOLVE_IN_ROOT` of openat2: an absolute path begins at the descriptor, too.
    const RESOLVE_IN_ROOT: u64 = 0x10;
    let slot = if place.section as u8 == Section::Base as u8 { 0 } else { 1 };
    let path_section = if slot == 0 { Section::Path } else { Section::Path2 };
    let record = &scratch.record.call;
    let in_root = record.extra[2] & RESOLVE_IN_ROOT != 0 && slot == 0 && record.operation == Operation::Open as u8;
    let descriptor = if place.dirfd == NONE { AT_FDCWD } else { argument(scratch, place.dirfd) as i32 };
    let (kind, path) = if record.unreadable & (1 << path_section as u16) != 0 {
        (Base::None, 0)
    } else if place.first == b'/' && !in_root {
        (Base::Root, origin.root)
    } else if descriptor == AT_FDCWD {
        // Without a path there is nothing that it could be relative to, unless it is the working directory itself.
        let nothing = place.first == 0 && (place.dirfd == NONE || place.path == NONE);
        (if nothing { Base::None } else { Base::Cwd }, 0)
    } else {
        let file = path::of_open_file(origin.files, descriptor as u32).unwrap_or(0);
        if file == 0 {
            text::mark_unreadable(scratch, place.section as u32);
            (Base::None, 0)
        } else if place.first == 0 {
            (Base::File, file)
        } else {
            (Base::Dirfd, file)
        }
    };
    scratch.walk.places[slot] = path;
    if slot == 0 {
        scratch.record.call.base = kind as u8;
    } else {
        scratch.record.call.base2 = kind as u8;
    }
}
