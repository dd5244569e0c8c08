//! The exit of every syscall, 64-bit and 32-bit, in one program.
//!
//! The arguments still stand in the registers at the exit, so no program at the entry is needed and no map between the two.
//! Every syscall of every process pays for the first few instructions here, and only for these.

use aya_ebpf::{
    EbpfContext as _, bindings::pt_regs, cty::c_void, macros::btf_tracepoint, programs::BtfTracePointContext,
};
use aya_log_ebpf::debug;
use detector_common::{
    abi::Abi,
    counter::Counter,
    record::{FoldRecord, Hook, RecordKind},
    syscalls::{self, Call, CallTable, Form, Report, TABLE_LEN},
    takeover::Kind,
};

use crate::{
    budget,
    capture::{call, process, text},
    fold,
    hooks::covers,
    memory::{self, Structure},
    offsets::member,
    quick, ring,
    scratch::{self, Scratch},
};

static X86_64: CallTable = syscalls::X86_64;
static IA32: CallTable = syscalls::IA32;
static ALWAYS_REPORTED: [bool; TABLE_LEN] = syscalls::always_reported(&[&syscalls::X86_64, &syscalls::IA32]);

pub(super) const EROFS: i64 = 30;
/// A 32-bit call is under way (`arch/x86/include/asm/thread_info.h`, 6.18).
const TS_COMPAT: u32 = 0x2;
/// Set in the number of a call of the x32 ABI, which uses the 64-bit numbers (`__X32_SYSCALL_BIT`).
pub const X32_BIT: u64 = 0x4000_0000;
const AF_UNIX: u16 = 1;
pub(super) const SYS_BIND: u64 = 2;
const FS_IOC_SETFLAGS: u32 = 0x4008_6602;
const FS_IOC32_SETFLAGS: u32 = 0x4004_6602;
const FS_IOC_FSSETXATTR: u32 = 0x401c_5820;

/// `raw_syscalls:sys_exit`.
#[btf_tracepoint(function = "sys_exit")]
fn sys_exit(context: BtfTracePointContext) -> i32 {
    let registers: *const pt_regs = context.arg(0);
    let result: i64 = context.arg(1);
    // SAFETY: the kernel hands valid registers to this tracepoint, and the verifier checks the load.
    let number = || unsafe { (*registers).orig_rax };
    if result == -EROFS {
        refused(context.as_ptr());
    // Masked rather than compared: numbers beyond the table hardly ever come, and are sorted out where there is time.
    } else if ALWAYS_REPORTED[number() as usize & (TABLE_LEN - 1)] {
        report_new(context.as_ptr(), quick::UNASKED);
    }
    0
}

/// Reports the call, if it is a watched one. A function of its own that reads the context anew, so that the exit of every syscall
/// saves no registers and moves nothing for it; and no more than that, so that a repeat does not either.
#[inline(never)]
fn refused(context: *mut c_void) {
    let answer = ask(context);
    if answer != quick::DONE {
        report_new(context, answer);
    }
}

/// See [`quick`]. A function of its own, whose stack is free again when a record is made.
#[inline(never)]
fn ask(context: *mut c_void) -> u32 {
    let registers: *const pt_regs = BtfTracePointContext::new(context).arg(0);
    // SAFETY: as in `sys_exit`: valid registers, loads checked by the verifier.
    quick::ask_at_exit(unsafe { &*registers })
}

/// Reports a call of which `answer` is known: see [`quick`].
#[inline(never)]
fn report_new(context: *mut c_void, answer: u32) {
    let claimed = answer.checked_sub(quick::NEW);
    describe(&BtfTracePointContext::new(context), answer == quick::UNASKED, claimed);
    if let Some(place) = claimed {
        scratch::release(place);
    }
}

/// Puts the record together, in the scratch that is `claimed` already, if one is, and sends it. `is_unasked`: nobody has asked yet
/// whether it is these programs' to report.
#[inline(always)]
fn describe(context: &BtfTracePointContext, is_unasked: bool, claimed: Option<u32>) {
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
    let compat = is_compat(task);
    let call = row(compat, number);
    let is_always_reported = call.report == Report::Always as u8;
    if call.operation == 0 || (result != -EROFS && !is_always_reported) {
        return;
    }
    let kind = if is_always_reported { Kind::Mount } else { Kind::Refused };
    if is_unasked && covers::syscalls(call.operation, kind) {
        return;
    }
    scratch::with(claimed, |scratch| {
        note_call(scratch, registers, number, compat, result);
        scratch.record.call.hook = Hook::Tracepoint as u8;
        if !prepare(scratch, call) {
            return;
        }
        note_strings(scratch, call);
        if !capture(scratch, call) {
            return;
        }
        let record = &scratch.record;
        if record.call.unreadable != 0 {
            debug!(
                context,
                "syscall {} of process {}: unreadable sections {:x}",
                number,
                record.process.pid,
                record.call.unreadable
            );
        }
        send(scratch, call, task);
    });
}

/// Whether the task is in a 32-bit call.
#[inline(always)]
pub fn is_compat(task: Structure) -> bool {
    member!(task, "u32", task_status) as u32 & TS_COMPAT != 0
}

/// The row of the table for a syscall; `number` must be less than [`TABLE_LEN`].
#[inline(always)]
pub fn row(compat: bool, number: usize) -> &'static Call {
    if compat { &IA32[number] } else { &X86_64[number] }
}

/// Notes arguments, door, number and result of a syscall in the record.
#[inline(always)]
pub(super) fn note_call(scratch: &mut Scratch, registers: &pt_regs, number: usize, compat: bool, result: i64) {
    let record = &mut scratch.record.call;
    let args = if compat {
        [registers.rbx, registers.rcx, registers.rdx, registers.rsi, registers.rdi, registers.rbp]
            .map(|arg| arg as u32 as u64)
    } else {
        [registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8, registers.r9]
    };
    for (to, arg) in record.args.iter_mut().zip(args) {
        *to = arg;
    }
    memory::fill(&mut record.extra, 0);
    record.extra_unreadable = 0;
    record.abi = if compat { Abi::Ia32 as u8 } else { Abi::X86_64 as u8 };
    record.syscall = number as u16;
    record.result = result;
}

/// Counts a call whose strings and bases are in the scratch; whether a record of it has to be made.
#[inline(always)]
pub(super) fn admit(scratch: &mut Scratch, call: &Call) -> bool {
    if call.report == Report::Always as u8 {
        ring::count(Counter::MountAttempt);
        scratch.record.call.fold = FoldRecord::NONE;
        scratch.cgroup_row = budget::row_of(scratch.record.header.cgroup_id);
        budget::admits_mount(scratch.cgroup_row, scratch.record.header.time_ns)
    } else {
        fold::admit(scratch, call)
    }
}

/// Sends the record of a call.
#[inline(always)]
pub(super) fn send(scratch: &mut Scratch, call: &Call, task: Structure) {
    if call.report == Report::Always as u8 {
        process::fill_parent(scratch, task.untyped());
        scratch.record.header.kind = RecordKind::MountAttempt as u16;
        ring::send_mount_attempt(scratch);
    } else {
        scratch.record.header.kind = RecordKind::WriteDenied as u16;
        fold::send(scratch, call);
    }
}

/// Reads what is peculiar about the call's arguments; false where it is none of the watched kind after all.
#[inline(always)]
pub(super) fn prepare(scratch: &mut Scratch, call: &Call) -> bool {
    let record = &mut scratch.record.call;
    if call.form == Form::OpenHow as u8 {
        match memory::user::<[u64; 3]>(record.args[2]) {
            Some([flags, mode, resolve]) => record.extra = [flags, mode, resolve, 0],
            None => record.extra_unreadable = 1,
        }
    } else if call.form == Form::MountAttr as u8 {
        match memory::user(record.args[3]) {
            Some(attributes) => record.extra = attributes,
            None => record.extra_unreadable = 1,
        }
    } else if call.form == Form::Ioctl as u8 {
        return sets_flags(record.args[1]);
    } else if call.form == Form::SocketCall as u8 {
        if record.args[0] != SYS_BIND {
            return false;
        }
        let [descriptor, address, length]: [u32; 3] = memory::user(record.args[1]).unwrap_or([0; 3]);
        record.args[0] = u64::from(descriptor);
        record.args[1] = u64::from(address);
        record.args[2] = u64::from(length);
        return record.result == -EROFS || is_unix(record.args[1]);
    } else if call.form == Form::SockAddr as u8 {
        // What is refused with EROFS is a unix socket's; its address may have been written over by now.
        return record.result == -EROFS || is_unix(record.args[1]);
    }
    true
}

/// Whether the address of a socket is a unix socket's, or can't be read any more.
#[inline(always)]
fn is_unix(address: u64) -> bool {
    memory::user::<u16>(address).is_none_or(|family| family == AF_UNIX)
}

/// Whether this command of an ioctl changes the flags of an inode.
#[inline(always)]
pub(super) fn sets_flags(command: u64) -> bool {
    matches!(command as u32, FS_IOC_SETFLAGS | FS_IOC32_SETFLAGS | FS_IOC_FSSETXATTR)
}

/// Fills the whole record but its kind; false where none has to be made.
#[inline(always)]
fn capture(scratch: &mut Scratch, call: &Call) -> bool {
    call::begin_header(scratch);
    scratch.record.header.cgroup_id = process::current_cgroup_id();
    call::begin(scratch, call);
    scratch.used = 0;

    // First what is cheap, and tells whether the rest is needed. The payload is in the order of the sections.
    text::append_strings(scratch, call::strings_of(call));
    scratch.actor.note_current();
    call::find_bases(scratch, call, 0);
    if !admit(scratch, call) {
        return false;
    }

    process::fill_current(scratch);
    call::append_walks(scratch, 0);
    text::append_args(scratch);
    true
}

/// Notes where the strings of the call are: the program's, or the one that was read before.
#[inline(always)]
pub(super) fn note_strings(scratch: &mut Scratch, call: &Call) {
    scratch.strings = strings(scratch, call);
    scratch.of_kernel = 0;
    if scratch.is_new != 0 {
        scratch.strings[0] = (&raw const scratch.text) as u64;
        scratch.of_kernel = 1;
    }
}

/// Addresses of the strings of the program, by section.
#[inline(always)]
pub(super) fn strings(scratch: &Scratch, call: &Call) -> [u64; text::STRINGS] {
    [
        path_argument(scratch, call),
        call::argument(scratch, call.path2),
        call::argument(scratch, call.source),
        call::argument(scratch, call.fstype),
        call::argument(scratch, call.data),
    ]
}

/// Address of the path.
#[inline(always)]
fn path_argument(scratch: &Scratch, call: &Call) -> u64 {
    if call.form == Form::SockAddr as u8 || call.form == Form::SocketCall as u8 {
        // Behind the family of the address.
        return scratch.record.call.args[1].wrapping_add(2);
    }
    call::argument(scratch, call.path)
}
