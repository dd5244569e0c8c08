//! One program for all that end at kernel functions: it puts the record together.
//!
//! A program is attached to one function, and the verifier follows the making of a record again in each; for fifty programs
//! that takes half a minute in an emulated machine. Programs on different functions may not tail-call each other (since 6.12,
//! `bpf_prog_map_compatible`). But one program may be attached to the entry of the kernel's code of a helper, and the others
//! call that helper: [`report`] passes the address of a [`Request`] on the caller's stack as one of its arguments. The helper
//! itself sees a wrong size and returns. `docs/decisions/0008-kernel-functions.md` has the figures.

use aya_ebpf::{helpers::generated::bpf_get_ns_current_pid_tgid, macros::fentry, programs::FEntryContext};
use detector_common::{
    abi::Abi,
    offsets::UNAVAILABLE,
    operation::Operation,
    record::{Base, Hook, Section},
    syscalls::{self, Call, Form, NONE, Report, TABLE_LEN},
    takeover::{Door, Kind},
    uring::OPCODES,
};

use crate::{
    capture::{call, path, process, text},
    hooks::{
        covers,
        sys_exit::{self, EROFS, SYS_BIND, X32_BIT},
    },
    memory::{self, Plain, Readable as _, Structure},
    offsets::offset,
    quick,
    scratch::{self, Scratch},
};

static IO_URING: [Call; OPCODES] = syscalls::IO_URING;

/// Tells our calls of the helper from those of others, another rosentry's too: user space sets it, each time anew.
#[unsafe(no_mangle)]
static GATE_KEY: u64 = 0;
/// The number of io_uring_enter in either ABI.
const IO_URING_ENTER: u64 = 426;
/// The io_uring operation that does what openat does, and can restrict how the path is followed: only then it is told from that.
const OPENAT2: u32 = 28;
/// io_uring's own first try of any open.
const RESOLVE_CACHED: u32 = 0x20;
/// Set by the kernel in every open of a 64-bit program.
const O_LARGEFILE: u32 = 0o100_000;

/// What a program at a function has found. Without padding, because the verifier lets none be read.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Request {
    /// Addresses of the kernel's strings: the path, the second one, the target of a symbolic link; 0: none.
    pub name: u64,
    pub name2: u64,
    pub source: u64,
    /// Address of the `struct path` of the object itself, where the function has that instead of a name; else 0.
    pub path: u64,
    /// Address of the mount that has refused, as [`Noted`](crate::capture::mount::Noted); 0 where none has.
    pub refused: u64,
    /// What the function returned.
    pub result: i64,
    /// The function's arguments that a request of an io_uring has, too.
    pub dirfd: u32,
    pub dirfd2: u32,
    pub flags: u32,
    pub mode: u32,
    /// The [`Operation`] that the function does.
    pub operation: u32,
    /// The io_uring operation that comes to the function; [`NONE`]: none does.
    pub opcode: u32,
    /// 1: the function has no more than the syscall, whose arguments tell.
    pub by_syscall_alone: u32,
    /// 1: `flags`, `mode` and `resolve` are those of an open as the kernel has understood them.
    pub has_how: u32,
    /// The `RESOLVE_` bits of an open.
    pub resolve: u32,
    /// What is known of a repeat: see [`quick`].
    pub answer: u32,
}
impl Plain for Request {}

impl Request {
    /// A refused write.
    #[inline(always)]
    pub fn of(operation: Operation, opcode: u8) -> Self {
        // A number that the compiler does not know, or it would make a `memset` of this, which goes byte by byte.
        let none = memory::opaque(0);
        Self {
            name: none,
            name2: none,
            source: none,
            path: none,
            refused: none,
            result: -EROFS,
            dirfd: none as u32,
            dirfd2: none as u32,
            flags: none as u32,
            mode: none as u32,
            operation: operation as u32,
            opcode: opcode as u32,
            by_syscall_alone: none as u32,
            has_how: none as u32,
            resolve: none as u32,
            answer: none as u32,
        }
    }

    /// The end of a syscall whose strings are read from the program's memory.
    #[inline(always)]
    pub fn of_syscall(operation: Operation, result: i64) -> Self {
        Self { result, by_syscall_alone: 1, ..Self::of(operation, NONE) }
    }
}

#[inline(always)]
fn key() -> u64 {
    // SAFETY: the address of a live static; volatile, because user space writes it before the load of the programs.
    unsafe { core::ptr::read_volatile(&raw const GATE_KEY) }
}

/// Has the record made and sent.
#[inline(always)]
pub fn report(mut request: Request) {
    // SAFETY: writable for its size, to which the helper adds nothing but zeros.
    unsafe { bpf_get_ns_current_pid_tgid(key(), 0, (&raw mut request).cast(), size_of::<Request>() as u32) };
}

/// The entry of `bpf_get_ns_current_pid_tgid`.
#[fentry]
fn enter_gate(context: FEntryContext) -> i32 {
    let is_ours = context.arg::<u64>(0) == key() && context.arg::<u32>(3) == size_of::<Request>() as u32;
    if is_ours {
        let request: Request = memory::kernel_at(context.arg(2), 0);
        take(&request);
    }
    0
}

#[inline(always)]
fn take(request: &Request) {
    let Some(task) = Structure::current_task() else { return };
    let registers = memory::current_registers();
    let number = registers.orig_rax & !X32_BIT;
    let is_worker = process::is_current_io_worker(task);
    let compat = sys_exit::is_compat(task);
    let index = memory::opaque(number) as usize & (TABLE_LEN - 1);
    let row = sys_exit::row(compat, index);
    let by_syscall = !is_worker && number < TABLE_LEN as u64 && quick::does(request.operation, row);
    let by_io_uring =
        request.opcode != u32::from(NONE) && (is_worker || number == IO_URING_ENTER || has_io_uring(task));
    if !by_syscall && !by_io_uring {
        // The kernel's own doing, such as the file of a core dump.
        return;
    }
    let opcode = if request.resolve & !RESOLVE_CACHED != 0 { OPENAT2 } else { request.opcode };
    let call = if by_syscall { row } else { &IO_URING[opcode as usize & (OPCODES - 1)] };
    let mut answer = request.answer;
    let kind = if call.report == Report::Always as u8 { Kind::Mount } else { Kind::Refused };
    let door = if by_syscall { Door::Syscall } else { Door::IoUring };
    if answer == quick::UNASKED && !covers::report(kind, door, call.operation) {
        return;
    }
    // A path that should have been kept, and was not, is not the one that stands in the program's memory now.
    let has_path = request.name != 0 || request.by_syscall_alone != 0;
    let asks = by_syscall && has_path && answer == quick::UNASKED && request.result == -EROFS;
    if asks {
        answer = quick::ask_at_function(request.name);
        if answer == quick::DONE {
            return;
        }
    }
    let claimed = answer.checked_sub(quick::NEW);
    scratch::with(claimed, |scratch| {
        sys_exit::note_call(scratch, registers, index, compat, request.result);
        // A copy in the map: the verifier takes the two tables for different places, and would follow all that comes behind once
        // for each.
        scratch.row = *call;
        let row = &raw const scratch.row;
        // SAFETY: the row and the rest of the scratch are different members.
        let call = unsafe { &*row };
        scratch.record.call.hook = Hook::Fexit as u8;
        if !by_syscall {
            note_request(scratch, request, opcode, call);
        } else if !is_watched(scratch, request, call) {
            return;
        }
        if request.has_how != 0 {
            note_how(scratch, request, call);
        }
        sys_exit::note_strings(scratch, call);
        if !capture(scratch, request, call) {
            return;
        }
        if is_worker {
            process::fill_submitter(scratch, task.untyped());
        }
        sys_exit::send(scratch, call, task);
    });
    if asks && let Some(place) = claimed {
        scratch::release(place);
    }
}

/// Whether the task has an io_uring: then a request of it may be run at the end of any syscall.
#[inline(always)]
fn has_io_uring(task: Structure) -> bool {
    offset!(task_io_uring) != UNAVAILABLE && task.load::<u64>(offset!(task_io_uring)) != 0
}

/// False where a syscall that does many things was asked for another.
#[inline(always)]
fn is_watched(scratch: &mut Scratch, request: &Request, call: &Call) -> bool {
    if request.by_syscall_alone != 0 {
        return sys_exit::prepare(scratch, call);
    }
    let [first, second, ..] = scratch.record.call.args;
    if call.form == Form::Ioctl as u8 {
        sys_exit::sets_flags(second)
    } else if call.form == Form::SocketCall as u8 {
        first == SYS_BIND
    } else {
        true
    }
}

/// Notes the arguments of a request of an io_uring, which are the function's.
#[inline(always)]
fn note_request(scratch: &mut Scratch, request: &Request, opcode: u32, call: &Call) {
    const AT_REMOVEDIR: u32 = 0x200;
    let record = &mut scratch.record.call;
    record.abi = Abi::IoUring as u8;
    record.syscall = opcode as u16;
    memory::fill(&mut record.args, 0);
    let removes_folder = request.operation == Operation::Rmdir as u32;
    set(scratch, call.dirfd, request.dirfd);
    set(scratch, call.dirfd2, request.dirfd2);
    set(scratch, call.mode, request.mode);
    set(scratch, call.flags, if removes_folder { AT_REMOVEDIR } else { request.flags });
}

#[inline(always)]
fn set(scratch: &mut Scratch, index: u8, value: u32) {
    if index != NONE {
        scratch.record.call.args[index as usize & 7] = u64::from(value);
    }
}

/// Notes flags, mode and `resolve` of an open as the kernel has understood them; openat2's stand in the program's memory otherwise.
#[inline(always)]
fn note_how(scratch: &mut Scratch, request: &Request, call: &Call) {
    let by_io_uring = scratch.record.call.abi == Abi::IoUring as u8;
    let flags = if by_io_uring { request.flags & !O_LARGEFILE } else { request.flags };
    if call.form == Form::OpenHow as u8 {
        let resolve = if by_io_uring { request.resolve & !RESOLVE_CACHED } else { request.resolve };
        scratch.record.call.extra = [flags, request.mode, resolve, 0].map(u64::from);
    } else if by_io_uring {
        set(scratch, call.flags, flags);
        set(scratch, call.mode, request.mode);
    }
}

/// Fills the record but its kind, and what was noted before; false where none has to be made.
#[inline(always)]
fn capture(scratch: &mut Scratch, request: &Request, call: &Call) -> bool {
    call::begin_header(scratch);
    scratch.record.header.cgroup_id = process::current_cgroup_id();
    call::begin(scratch, call);
    scratch.used = 0;
    scratch.actor.note_current();
    scratch.bases = [[0; 2]; 2];
    memory::fill(&mut scratch.walk.places, 0);
    // First what is cheap, and tells whether the rest is needed.
    if request.path != 0 {
        scratch.record.call.base = Base::File as u8;
        scratch.walk.places[0] = request.path;
        scratch.bases[0] = path::pair_at(request.path);
    } else if request.by_syscall_alone != 0 || scratch.is_new != 0 {
        text::append_strings(scratch, call::strings_of(call));
        call::find_bases(scratch, call, 0);
    } else if request.name == 0 {
        text::mark_unreadable(scratch, Section::Path as u32);
    } else {
        scratch.strings = [request.name, request.name2, request.source, 0, 0];
        scratch.of_kernel = 1;
        text::append_strings(scratch, call::strings_of(call));
        call::find_bases(scratch, call, 0);
    }
    if !sys_exit::admit(scratch, call) {
        return false;
    }
    process::fill_current(scratch);
    find_mount(scratch, request, call);
    let mount = scratch.refused.root();
    call::append_walks(scratch, mount);
    text::append_args(scratch);
    true
}

/// Finds the mount that the write hit: that of the object, or the one that has refused. Of an open of what is there already, no
/// function that only such calls come to tells.
#[inline(always)]
fn find_mount(scratch: &mut Scratch, request: &Request, call: &Call) {
    scratch.refused.mount.known = 0;
    if call.report == Report::Always as u8 {
        return;
    }
    if request.refused != 0 {
        scratch.refused.fill(memory::kernel_at(request.refused, 0));
    } else {
        let is_on_file = request.by_syscall_alone != 0 && scratch.record.call.base == Base::File as u8;
        let path = if is_on_file { scratch.walk.places[0] } else { request.path };
        if path != 0 {
            scratch.refused.fill_from_path(path);
        }
    }
    scratch.record.call.mount = scratch.refused.mount;
}
