//! Requests of an io_uring: what one asks for is read when it is submitted, and kept until it is done.
//!
//! When a request is done, its paths are freed, its folder's descriptor may be closed, and whoever works for the ring may be
//! running: a thread of the kernel's, or another process that shares the ring. So what only the submitter has is noted at the
//! submission (the kernel's own copy of each path, and where they begin), and what the request leads to is read at the end.
//! Why so, and what it costs: `docs/decisions/0007-io-uring.md`.

use aya_ebpf::{
    cty::c_void,
    helpers::generated::{bpf_for_each_map_elem, bpf_probe_read_kernel},
    macros::map,
    maps::LruHashMap,
};
use detector_common::{
    abi::Abi,
    counter::Counter,
    offsets::UNAVAILABLE,
    operation::Operation,
    record::{Base, CallRecord, Hook, Section},
    syscalls::{self, Call, Form, NONE},
    uring::{Members, MembersTable, OPCODES},
};

use crate::{
    capture::{
        call, path, process,
        text::{self, STRINGS},
    },
    memory::{self, Readable as _, Structure, Untyped},
    offsets::offset,
    ring,
    scratch::Scratch,
};

/// Set by user space before the programs are loaded; frozen then.
#[unsafe(no_mangle)]
static URING_MEMBERS: MembersTable = MembersTable::UNSET;
static IO_URING: [Call; OPCODES] = syscalls::IO_URING;

/// Room for the strings of a request, all together; what exceeds it is marked as cut.
const NAMES_MAX: usize = 4096;

/// What is kept of a request. It lies in the scratch from `record.call` on, so that it is kept without a further copy.
#[repr(C)]
struct Kept {
    call: CallRecord,
    places: Places,
    names: [u8; NAMES_MAX],
}

/// Copies of `struct path` from when the request was submitted; zeros where there is none.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Places {
    root: [u64; 2],
    pwd: [u64; 2],
    bases: [[u64; 2]; 2],
}

const NAMES_START: usize = size_of::<Places>();
const _: () = assert!(core::mem::offset_of!(Scratch, payload) == size_of::<detector_common::record::SyscallRecord>());
const _: () = assert!(core::mem::offset_of!(Kept, names) == size_of::<CallRecord>() + NAMES_START);

/// By the address of the request. Nothing is taken out when a request succeeds: the next one at that address replaces it, and
/// of the rest the oldest go.
#[map]
static REQUESTS: LruHashMap<u64, Kept> = LruHashMap::with_max_entries(512, 0);

const AF_UNIX: u16 = 1;
/// Without any of these an open can't end with EROFS: the access mode, O_CREAT, O_TRUNC, and O_TMPFILE less O_DIRECTORY.
const OPENS_TO_WRITE: u32 = 0o3 | 0o100 | 0o1000 | 0o20_000_000;
/// Set by the kernel in every open of a 64-bit program, whatever was passed (`__io_openat_prep`).
const O_LARGEFILE: u64 = 0o100_000;
const EROFS: i32 = 30;

/// The operation of the request at `request`, and its row of the table; none where it is not watched.
#[inline(always)]
pub fn watched(request: u64) -> Option<(u8, &'static Call)> {
    let opcode: u8 = memory::kernel_at(request, offset!(kiocb_opcode));
    if opcode as usize >= OPCODES {
        return None;
    }
    let call = &IO_URING[opcode as usize & (OPCODES - 1)];
    (call.operation != 0).then_some((opcode, call))
}

/// Whether the request at `request` has ended with EROFS.
#[inline(always)]
pub fn is_refused(request: u64) -> bool {
    memory::kernel_at::<u32>(request, offset!(kiocb_res)) as i32 == -EROFS
}

/// The task that submitted the request.
#[inline(always)]
pub fn submitter(request: u64) -> Untyped {
    Untyped(if offset!(kiocb_task) == UNAVAILABLE {
        memory::kernel_at(memory::kernel_at(request, offset!(kiocb_tctx)), offset!(uring_task_task))
    } else {
        memory::kernel_at(request, offset!(kiocb_task))
    })
}

/// Keeps what the request at `request`, which the running task submits, asks for.
#[inline(always)]
pub fn keep(scratch: &mut Scratch, request: u64, opcode: u8, call: &Call) {
    let row = &raw const URING_MEMBERS.0[opcode as usize & (OPCODES - 1)];
    // SAFETY: a row of a live static; volatile, because user space writes it before the load of the programs.
    let members: Members = unsafe { core::ptr::read_volatile(row) };
    let flags: u32 = member(request, members.flags);
    if call.operation == Operation::Open as u8 && flags & OPENS_TO_WRITE == 0 {
        return;
    }
    if hides_its_result(request, call) {
        ring::count(Counter::ResultHidden);
    }
    begin(scratch, opcode, call);
    let record = &mut scratch.record.call;
    if call.operation == Operation::Open as u8 {
        // The start of a `struct open_how`.
        let [flags, mode, resolve]: [u64; 3] = member(request, members.flags);
        let flags = flags & !O_LARGEFILE;
        if call.form == Form::OpenHow as u8 {
            record.extra = [flags, mode, resolve, 0];
        }
        set_argument(record, call.flags, flags);
    } else {
        set_argument(record, call.flags, flags.into());
    }
    set_argument(record, call.mode, member::<u16>(request, members.mode).into());
    set_argument(record, call.dirfd, member::<u32>(request, members.dirfd).into());
    set_argument(record, call.dirfd2, member::<u32>(request, members.dirfd2).into());

    let mut path = name(member(request, members.path));
    if call.form == Form::SockAddr as u8 {
        let Some(address) = unix_address(request) else {
            return;
        };
        path = address.wrapping_add(2);
    }
    scratch.strings = [
        path,
        name(member(request, members.path2)),
        name(member(request, members.source)),
        0,
        member(request, members.data),
    ];
    scratch.used = NAMES_START as u32;
    scratch.of_kernel = 1;
    text::append_strings(scratch, call::strings_of(call));
    if call.form == Form::SockAddr as u8 {
        // A name need not end with NUL: the length of the address says where it ends. The family is not part of it.
        let length = member::<u32>(request, members.length).saturating_sub(2) as u16;
        let name = &mut scratch.record.call.lengths[Section::Path as usize];
        *name = length.min(*name);
    }

    scratch.actor.note_current();
    scratch.walk.places = [0; _];
    scratch.bases = [[0; 2]; 2];
    if is_on_file(call) {
        set_argument(&mut scratch.record.call, call.dirfd, memory::kernel_at::<u32>(request, offset!(kiocb_fd)).into());
    } else {
        call::find_bases(scratch, call, NAMES_START);
    }
    cut(scratch);
    let kept = (&raw mut scratch.record.call).cast::<Kept>();
    // SAFETY: the scratch goes on behind the call with the payload, which is longer than the rest of `Kept`, as asserted; the
    // names stand behind `NAMES_START`, and nothing before.
    let kept = unsafe { &mut *kept };
    kept.places =
        Places { root: scratch.actor.origin.root_pair, pwd: scratch.actor.origin.pwd_pair, bases: scratch.bases };
    // Where it does not fit, the request is told without its paths.
    let _ = REQUESTS.insert(request, kept, 0);
}

/// Puts what was kept of the request into the record, and notes the task, and where its paths begin. Without it (there were too
/// many requests at once) the paths are told to be unreadable.
#[inline(always)]
pub fn take(scratch: &mut Scratch, request: u64, opcode: u8, call: &Call, task: Untyped) {
    scratch.actor.note(task);
    // A worker has looked the paths up only now, just before this; everyone else when the request was submitted.
    let is_late = Structure::current_task()
        .is_some_and(|current| current.address() != task.address() && process::is_io_worker(current));
    scratch.walk.places = [0; _];
    scratch.bases = [[0; 2]; 2];
    call::begin_header(scratch);
    if restore(scratch, request, opcode) {
        let (base, base2) = (scratch.record.call.base, scratch.record.call.base2);
        let gone = 1 << Section::Base as u16 | 1 << Section::Base2 as u16;
        if is_late && !is_on_file(call) {
            scratch.record.call.unreadable &= !gone;
            call::find_bases(scratch, call, 0);
        }
        // A folder that is closed by now was open then.
        if !is_late || scratch.record.call.unreadable & gone != 0 {
            scratch.record.call.unreadable &= !gone;
            scratch.actor.origin.root = &raw const scratch.places.root as u64;
            scratch.actor.origin.root_pair = scratch.places.root;
            scratch.actor.origin.pwd = &raw const scratch.places.pwd as u64;
            scratch.actor.origin.pwd_pair = scratch.places.pwd;
            scratch.bases = scratch.places.bases;
            let walks = |base: u8| base != Base::None as u8 && base != Base::Cwd as u8;
            scratch.record.call.base = base;
            scratch.record.call.base2 = base2;
            scratch.walk.places[0] = if walks(base) { &raw const scratch.places.bases as u64 } else { 0 };
            scratch.walk.places[1] = if walks(base2) { &raw const scratch.places.bases as u64 + 16 } else { 0 };
        }
    } else {
        scratch.used = 0;
        begin(scratch, opcode, call);
        if !is_on_file(call) {
            text::mark_unreadable(scratch, Section::Path as u32);
        }
        if call.path2 != NONE {
            text::mark_unreadable(scratch, Section::Path2 as u32);
        }
    }
    if is_on_file(call) {
        // The ring's own number of a file means nothing to the process; the file itself is the request's until it is freed.
        scratch.record.call.base = Base::File as u8;
        let file = path::of_file(memory::kernel_at(request, offset!(kiocb_file))).unwrap_or(0);
        scratch.walk.places[0] = file;
        scratch.bases[0] = path::pair_at(file);
    }
    scratch.record.call.result = -i64::from(EROFS);
    let _ = REQUESTS.remove(request);
}

#[inline(always)]
fn restore(scratch: &mut Scratch, request: u64, opcode: u8) -> bool {
    let Some(kept) = REQUESTS.get_ptr(request) else {
        return false;
    };
    // SAFETY: a live map value.
    let value = unsafe { &*kept };
    scratch.record.call = value.call;
    scratch.places = value.places;
    let [path, path2, source, fstype, data, ..] = value.call.lengths;
    const _: () = assert!(STRINGS == 5);
    let length = u32::from(path) + u32::from(path2) + u32::from(source) + u32::from(fstype) + u32::from(data);
    if length as usize > NAMES_MAX || value.call.syscall != u16::from(opcode) {
        return false;
    }
    let names = value.names.as_ptr().cast::<c_void>();
    // SAFETY: the payload is longer than NAMES_MAX, and so many bytes are readable.
    let error = unsafe { bpf_probe_read_kernel(scratch.payload.as_mut_ptr().cast(), length, names) };
    scratch.used = length;
    // The place may have been given to another request in the meantime.
    error == 0 && REQUESTS.get_ptr(request) == Some(kept)
}

/// The request that overflowed the ring at `ring` with that number of the program's.
///
/// A kernel whose queue of completions is full tells of it without the request (`io_cqe_overflow`). All that match have ended
/// with EROFS, and each is told of once, so any will do.
#[inline(always)]
pub fn find_overflowed(ring: u64, user_data: u64) -> Option<u64> {
    let mut search = Search { ring, user_data, found: 0 };
    let requests = core::ptr::from_ref(&REQUESTS).cast_mut().cast();
    // SAFETY: `consider` has the signature that the helper calls, and `search` outlives the call.
    unsafe { bpf_for_each_map_elem(requests, consider as *const () as *mut c_void, (&raw mut search).cast(), 0) };
    (search.found != 0).then_some(search.found)
}

struct Search {
    ring: u64,
    user_data: u64,
    found: u64,
}

extern "C" fn consider(_map: *mut c_void, key: *const u64, kept: *mut c_void, search: *mut c_void) -> i64 {
    // SAFETY: `find_overflowed` handed on its own live `Search`; key and value are the map's, live.
    let (search, request, kept) = unsafe { (&mut *search.cast::<Search>(), *key, &*kept.cast::<Kept>()) };
    let same = memory::kernel_at::<u64>(request, offset!(kiocb_ctx)) == search.ring
        && memory::kernel_at::<u64>(request, offset!(kiocb_user_data)) == search.user_data
        && u16::from(memory::kernel_at::<u8>(request, offset!(kiocb_opcode))) == kept.call.syscall
        && is_refused(request);
    if same {
        search.found = request;
    }
    same.into()
}

/// Where the kernel's copy of the address of a bind stands; none where it is no unix socket's.
#[inline(always)]
fn unix_address(request: u64) -> Option<u64> {
    let data: u64 = memory::kernel_at(request, offset!(kiocb_async_data));
    // Newer stable kernels (6.18.44 is one) have nothing but the address there, older ones a message's header, which begins
    // with a pointer; their types don't tell.
    if memory::kernel_at::<u16>(data, 0) == AF_UNIX {
        return Some(data);
    }
    let address = data.wrapping_add(u64::from(offset!(async_msghdr_addr)));
    (memory::kernel_at::<u16>(address, 0) == AF_UNIX).then_some(address)
}

/// Begins the record.
#[inline(always)]
fn begin(scratch: &mut Scratch, opcode: u8, call: &Call) {
    call::begin(scratch, call);
    let record = &mut scratch.record.call;
    memory::fill(&mut record.args, 0);
    memory::fill(&mut record.extra, 0);
    record.extra_unreadable = 0;
    record.abi = Abi::IoUring as u8;
    record.hook = Hook::Tracepoint as u8;
    record.syscall = opcode.into();
}

/// Whether the request's end will pass no tracepoint, however it ends.
///
/// With IOSQE_CQE_SKIP_SUCCESS only failures are told of; but the operations on names and attributes don't mark theirs as
/// failures (`io_uring/{fs,xattr}.c`, 6.1 to 6.18: no `req_set_fail`).
#[inline(always)]
fn hides_its_result(request: u64, call: &Call) -> bool {
    // REQ_F_CQE_SKIP is the same bit.
    const IOSQE_CQE_SKIP_SUCCESS: u32 = 1 << 6;
    let marks_failures = call.operation == Operation::Open as u8 || call.operation == Operation::BindSocket as u8;
    !marks_failures && memory::kernel_at::<u32>(request, offset!(kiocb_flags)) & IOSQE_CQE_SKIP_SUCCESS != 0
}

/// Whether the operation is on an open file, without a path.
#[inline(always)]
fn is_on_file(call: &Call) -> bool {
    call.path == NONE && call.form != Form::SockAddr as u8
}

#[inline(always)]
fn set_argument(record: &mut CallRecord, index: u8, value: u64) {
    if index != NONE {
        record.args[index as usize & 7] = value;
    }
}

/// A member of the request; zeros where the operation has none.
#[inline(always)]
fn member<T: memory::Plain>(request: u64, offset: u32) -> T {
    // From 0 nothing can be read, and what can't be read is 0.
    memory::kernel_at(if offset == UNAVAILABLE { 0 } else { request }, offset)
}

/// Address of the string of the `struct filename` at `filename`.
#[inline(always)]
fn name(filename: u64) -> u64 {
    memory::kernel_at(filename, offset!(filename_name))
}

/// Cuts the strings to what is kept of them.
#[inline(always)]
fn cut(scratch: &mut Scratch) {
    let mut room = NAMES_MAX as u16;
    for section in 0..STRINGS {
        let length = scratch.record.call.lengths[section];
        if length > room {
            scratch.record.call.lengths[section] = room;
            text::mark_truncated(scratch, section as u32);
        }
        room -= length.min(room);
    }
}
