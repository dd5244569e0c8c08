//! The exit of every syscall, 64-bit and 32-bit, in one program.
//!
//! The arguments still stand in the registers at the exit, so no program at the entry is needed and no map between the two.
//! Every syscall of every process pays for the first few instructions here, and only for these.

use aya_ebpf::{
    EbpfContext as _, bindings::pt_regs, cty::c_void, macros::btf_tracepoint, programs::BtfTracePointContext,
};
use aya_log_ebpf::debug;
use detector_common::{
    WIRE_VERSION,
    abi::Abi,
    counter::Counter,
    operation::Operation,
    record::{Base, Hook, PATH_MAX, ROOT_NOT_MET, RecordKind, Section},
    syscalls::{self, Call, CallTable, Form, NONE, Report, TABLE_LEN},
};

use crate::{
    capture::{
        path::{self, WALKS},
        process,
        text::{self, STRINGS},
    },
    memory::{self, Structure},
    offsets::offset,
    ring,
    scratch::{self, Scratch},
};

static X86_64: CallTable = syscalls::X86_64;
static IA32: CallTable = syscalls::IA32;
static ALWAYS_REPORTED: [bool; TABLE_LEN] = syscalls::always_reported(&[&syscalls::X86_64, &syscalls::IA32]);

const EROFS: i64 = 30;
/// A 32-bit call is under way (`arch/x86/include/asm/thread_info.h`, 6.18).
const TS_COMPAT: u32 = 0x2;
/// Set in the number of a call of the x32 ABI, which uses the 64-bit numbers (`__X32_SYSCALL_BIT`).
const X32_BIT: u64 = 0x4000_0000;
const AT_FDCWD: i32 = -100;
const AF_UNIX: u16 = 1;
const SYS_BIND: u64 = 2;
const FS_IOC_SETFLAGS: u32 = 0x4008_6602;
const FS_IOC32_SETFLAGS: u32 = 0x4004_6602;
const FS_IOC_FSSETXATTR: u32 = 0x401c_5820;

/// `raw_syscalls:sys_exit`.
#[btf_tracepoint(function = "sys_exit")]
fn sys_exit(context: BtfTracePointContext) -> i32 {
    let registers: *const pt_regs = context.arg(0);
    let result: i64 = context.arg(1);
    // SAFETY: the kernel hands valid registers to this tracepoint, and the verifier checks the load.
    // Masked rather than compared: numbers beyond the table hardly ever come, and are sorted out where there is time.
    if result == -EROFS || ALWAYS_REPORTED[unsafe { (*registers).orig_rax } as usize & (TABLE_LEN - 1)] {
        report(context.as_ptr());
    }
    0
}

/// Reports the call, if it is a watched one. A function of its own that reads the context anew, so that the exit of every syscall
/// saves no registers and moves nothing for it.
#[inline(never)]
fn report(context: *mut c_void) {
    let context = BtfTracePointContext::new(context);
    let result: i64 = context.arg(1);
    let registers: *const pt_regs = context.arg(0);
    // SAFETY: as in `sys_exit`: valid registers, loads checked by the verifier.
    let registers = unsafe { &*registers };
    let number = registers.orig_rax & !X32_BIT;
    if number >= TABLE_LEN as u64 {
        return;
    }
    // Or the compiler would leave out the mask, which old verifiers need: they don't connect the comparison with this copy.
    let number = memory::opaque(number) as usize & (TABLE_LEN - 1);
    let Some(task) = Structure::current_task() else { return };
    let status: u32 = task.load(offset!(task_status));
    let compat = status & TS_COMPAT != 0;
    let call = if compat { &IA32[number] } else { &X86_64[number] };
    if call.operation == 0 || (result != -EROFS && call.report != Report::Always as u8) {
        return;
    }
    let Some(scratch) = scratch::get() else {
        return;
    };
    let record = &mut scratch.record.call;
    let args = if compat {
        [registers.rbx, registers.rcx, registers.rdx, registers.rsi, registers.rdi, registers.rbp]
            .map(|arg| arg as u32 as u64)
    } else {
        [registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8, registers.r9]
    };
    memory::fill(&mut record.args, 0);
    for (to, arg) in record.args.iter_mut().zip(args) {
        *to = arg;
    }
    record.abi = if compat { Abi::Ia32 as u8 } else { Abi::X86_64 as u8 };
    record.syscall = number as u16;
    record.result = result;
    if !prepare(scratch, call) {
        return;
    }
    capture(scratch, call, task);
    let record = &scratch.record;
    if record.call.unreadable != 0 {
        debug!(
            context,
            "syscall {} of process {}: unreadable sections {:x}", number, record.process.pid, record.call.unreadable
        );
    }
    if call.report == Report::Always as u8 {
        ring::count(Counter::MountAttempt);
        scratch.record.header.kind = RecordKind::MountAttempt as u16;
        let length = size_of_val(&scratch.record) + scratch.used as usize;
        ring::send_urgent(scratch, length);
    } else {
        ring::count(Counter::WriteDenied);
        scratch.record.header.kind = RecordKind::WriteDenied as u16;
        ring::send_write(scratch);
    }
}

/// Reads what is peculiar about the call's arguments; false where it is none of the watched kind after all.
#[inline(always)]
fn prepare(scratch: &mut Scratch, call: &Call) -> bool {
    let record = &mut scratch.record.call;
    memory::fill(&mut record.extra, 0);
    if call.form == Form::OpenHow as u8 {
        if let Some([flags, mode, resolve]) = memory::user::<[u64; 3]>(record.args[2]) {
            record.extra = [flags, mode, resolve, 0];
        }
    } else if call.form == Form::MountAttr as u8 {
        record.extra = memory::user(record.args[3]).unwrap_or([0; 4]);
    } else if call.form == Form::Ioctl as u8 {
        let command = record.args[1] as u32;
        return matches!(command, FS_IOC_SETFLAGS | FS_IOC32_SETFLAGS | FS_IOC_FSSETXATTR);
    } else if call.form == Form::SocketCall as u8 {
        if record.args[0] != SYS_BIND {
            return false;
        }
        let [descriptor, address, length]: [u32; 3] = memory::user(record.args[1]).unwrap_or([0; 3]);
        record.args[0] = u64::from(descriptor);
        record.args[1] = u64::from(address);
        record.args[2] = u64::from(length);
        return memory::user(record.args[1]) == Some(AF_UNIX);
    } else if call.form == Form::SockAddr as u8 {
        return memory::user(record.args[1]) == Some(AF_UNIX);
    }
    true
}

/// Fills the whole record but its kind.
#[inline(always)]
fn capture(scratch: &mut Scratch, call: &Call, task: Structure) {
    let header = &mut scratch.record.header;
    header.version = WIRE_VERSION;
    header.time_ns = ring::now_ns();
    let record = &mut scratch.record.call;
    record.operation = call.operation;
    record.hook = Hook::Tracepoint as u8;
    record.padding = 0;
    record.truncated = 0;
    record.unreadable = 0;
    record.root_at = [ROOT_NOT_MET; WALKS];
    memory::fill(&mut record.lengths, 0);
    scratch.used = 0;

    process::fill_process();

    // The payload, in the order of the sections.
    scratch.strings = [
        path_argument(scratch, call),
        argument(scratch, call.path2),
        argument(scratch, call.source),
        argument(scratch, call.fstype),
        argument(scratch, call.data),
    ];
    text::append_strings(scratch, strings_of(call));

    let task = task.address();
    let fs = memory::kernel_at(task, offset!(task_fs));
    let [length, length2, ..] = scratch.record.call.lengths;
    let first = if length == 0 { 0 } else { scratch.payload[0] };
    let first2 = if length2 == 0 { 0 } else { scratch.payload[length as usize & (PATH_MAX - 1)] };
    base(scratch, Place { section: Section::Base, path: call.path, dirfd: call.dirfd, first }, fs, task);
    base(scratch, Place { section: Section::Base2, path: call.path2, dirfd: call.dirfd2, first: first2 }, fs, task);
    scratch.walk.places[2] = fs.wrapping_add(u64::from(offset!(fs_pwd)));
    scratch.walk.places[3] = scratch.executed.file;
    path::append_walks(scratch, fs);
    text::append_args(scratch);
}

/// How many of the strings of a call have to be looked at: up to the last that it has.
#[inline(always)]
fn strings_of(call: &Call) -> u32 {
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

/// The argument at `index`, or 0.
#[inline(always)]
fn argument(scratch: &Scratch, index: u8) -> u64 {
    if index == NONE { 0 } else { scratch.record.call.args[index as usize & 7] }
}

/// Address of the path.
#[inline(always)]
fn path_argument(scratch: &Scratch, call: &Call) -> u64 {
    if call.form == Form::SockAddr as u8 || call.form == Form::SocketCall as u8 {
        // Behind the family of the address.
        return scratch.record.call.args[1].wrapping_add(2);
    }
    argument(scratch, call.path)
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

/// Finds what a path is relative to, and notes it for the walk.
#[inline(always)]
fn base(scratch: &mut Scratch, place: Place, fs: u64, task: u64) {
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
        (Base::Root, fs.wrapping_add(u64::from(offset!(fs_root))))
    } else if descriptor == AT_FDCWD {
        // Without a path there is nothing that it could be relative to, unless it is the working directory itself.
        let nothing = place.first == 0 && (place.dirfd == NONE || place.path == NONE);
        (if nothing { Base::None } else { Base::Cwd }, 0)
    } else {
        let files = memory::kernel_at(task, offset!(task_files));
        let file = path::of_open_file(files, descriptor as u32).unwrap_or(0);
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
