//! What every front end captures of a call in the same way: the record's fixed part, and what its paths are relative to.

use core::ptr::write_volatile;

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
    memory::{self, Readable, Structure},
    offsets::offset,
    ring,
    scratch::Scratch,
};

const AT_FDCWD: i32 = -100;

/// Where a call's paths begin.
#[repr(C)]
pub struct Origin {
    /// Address of the `struct path` of the process's root.
    pub root: u64,
    /// What is in it: mount and dentry.
    pub root_pair: [u64; 2],
    /// Address of the `struct path` of its working directory.
    pub pwd: u64,
    /// What is in it.
    pub pwd_pair: [u64; 2],
    /// Its `files_struct`.
    pub files: u64,
}

impl Origin {
    #[inline(always)]
    fn note<S: Readable>(&mut self, task: S) {
        // A number that the compiler does not know, or it would make a `memset` of this.
        let unknown = memory::opaque(0);
        *self = Self { root: unknown, root_pair: [unknown; 2], pwd: unknown, pwd_pair: [unknown; 2], files: unknown };
        if let Some(fs) = task.follow(offset!(task_fs)) {
            self.root = fs.address().wrapping_add(u64::from(offset!(fs_root)));
            self.root_pair[0] = fs.load(offset!(fs_root_mnt));
            self.root_pair[1] = fs.load(offset!(fs_root_dentry));
            self.pwd = fs.address().wrapping_add(u64::from(offset!(fs_pwd)));
            self.pwd_pair[0] = fs.load(offset!(fs_pwd_mnt));
            self.pwd_pair[1] = fs.load(offset!(fs_pwd_dentry));
        }
        if let Some(files) = task.follow(offset!(task_files)) {
            self.files = files.address();
        }
    }
}

/// Who does it: where its paths begin, and what it executes.
#[repr(C)]
pub struct Actor {
    pub origin: Origin,
    pub executed: Executed,
}

impl Actor {
    /// Notes a task.
    #[inline(always)]
    pub fn note<S: Readable>(&mut self, task: S) {
        self.origin.note(task);
        self.executed.note(task);
    }

    /// Notes the running task, by loads that cost next to nothing.
    #[inline(always)]
    pub fn note_current(&mut self) {
        note_current(self);
    }
}

/// A global function for the reason of [`describe_current`](crate::capture::process).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn note_current(actor: *mut Actor) -> u32 {
    // SAFETY: null, or a live value of the caller's; the verifier knows its size from the type.
    let Some(actor) = (unsafe { actor.as_mut() }) else { return 0 };
    let Some(task) = Structure::current_task() else { return 0 };
    actor.note(task);
    1
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
    // One by one: together the compiler would make a `memset` of them.
    for part in [&mut record.truncated, &mut record.unreadable] {
        // SAFETY: a live value.
        unsafe { write_volatile(part, 0) };
    }
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
pub fn find_bases(scratch: &mut Scratch, call: &Call, start: usize) {
    let [length, length2, ..] = scratch.record.call.lengths;
    let first = if length == 0 { 0 } else { scratch.payload[start] };
    let first2 = if length2 == 0 { 0 } else { scratch.payload[start + (length as usize & (PATH_MAX - 1))] };
    find_base(scratch, Place { section: Section::Base, path: call.path, dirfd: call.dirfd, first });
    find_base(scratch, Place { section: Section::Base2, path: call.path2, dirfd: call.dirfd2, first: first2 });
}

/// Appends the walks: what the paths are relative to, as noted, the working directory, the executable, and the mount whose
/// root is the `struct path` at `mount` (0: none).
#[inline(always)]
pub fn append_walks(scratch: &mut Scratch, mount: u64) {
    scratch.walk.places[2] = scratch.actor.origin.pwd;
    scratch.walk.places[3] = scratch.actor.executed.file;
    scratch.walk.places[path::MOUNT] = mount;
    path::append_walks(scratch);
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
fn find_base(scratch: &mut Scratch, place: Place) {
    /// `RESOLVE_IN_ROOT` of openat2: an absolute path begins at the descriptor, too.
    const RESOLVE_IN_ROOT: u64 = 0x10;
    let slot = if place.section as u8 == Section::Base as u8 { 0 } else { 1 };
    let path_section = if slot == 0 { Section::Path } else { Section::Path2 };
    let record = &scratch.record.call;
    let origin = &scratch.actor.origin;
    let in_root = record.extra[2] & RESOLVE_IN_ROOT != 0 && slot == 0 && record.operation == Operation::Open as u8;
    let descriptor = if place.dirfd == NONE { AT_FDCWD } else { argument(scratch, place.dirfd) as i32 };
    let (kind, path, pair) = if record.unreadable & (1 << path_section as u16) != 0 {
        (Base::None, 0, [0; 2])
    } else if place.first == b'/' && !in_root {
        (Base::Root, origin.root, origin.root_pair)
    } else if descriptor == AT_FDCWD {
        // Without a path there is nothing that it could be relative to, unless it is the working directory itself.
        let nothing = place.first == 0 && (place.dirfd == NONE || place.path == NONE);
        if nothing { (Base::None, 0, [0; 2]) } else { (Base::Cwd, 0, origin.pwd_pair) }
    } else {
        let file = path::of_open_file(origin.files, descriptor as u32).unwrap_or(0);
        if file == 0 {
            text::mark_unreadable(scratch, place.section as u32);
            (Base::None, 0, [0; 2])
        } else {
            let kind = if place.first == 0 { Base::File } else { Base::Dirfd };
            (kind, file, path::pair_at(file))
        }
    };
    scratch.walk.places[slot] = path;
    scratch.bases[slot] = pair;
    if slot == 0 {
        scratch.record.call.base = kind as u8;
    } else {
        scratch.record.call.base2 = kind as u8;
    }
}
