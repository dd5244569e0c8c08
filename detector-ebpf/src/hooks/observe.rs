//! Learning mode: writes that succeed on the root filesystem of a container, at the exit of every syscall. A program of its own,
//! which is loaded and attached in this mode alone.
//!
//! Of a call that gives or takes a descriptor the open file says exactly where it is; where that is not the mount of the process's
//! root, or the process is in the node's own mount namespace, it is left at that. What is told by a path goes on to user space,
//! which finds out on what mount the path lies. Each folder is told once by executable and operation, and counted from then on.

use core::ptr::read_volatile;

use aya_ebpf::{
    EbpfContext as _,
    bindings::{BPF_F_MMAPABLE, pt_regs},
    cty::c_void,
    macros::{btf_tracepoint, map},
    maps::Array,
    programs::BtfTracePointContext,
};
use detector_common::{
    counter::Counter,
    fold::{SETS, Set},
    operation::Operation,
    record::{Base, FoldRecord, Hook, RecordKind},
    syscalls::{self, Call, Form, NONE, Report, TABLE_LEN},
};

use crate::{
    budget,
    capture::{call, path, process, text},
    fold, folders,
    hooks::{
        covers,
        sys_exit::{self, X32_BIT},
    },
    memory::{self, Readable as _, Structure},
    offsets::offset,
    ring,
    scratch::{self, Scratch},
};

/// The slots that count; user space makes it one set where the mode is off.
#[map]
static OBSERVED: Array<Set> = Array::with_max_entries(SETS as u32, BPF_F_MMAPABLE);

/// Inode number of the mount namespace of pid 1, in which no container is; 0: not known. Set by user space before the programs are
/// loaded; frozen then.
#[unsafe(no_mangle)]
static NODE_MOUNT_NAMESPACE: u32 = 0;

static WRITING: [bool; TABLE_LEN] = syscalls::writing(&[&syscalls::X86_64, &syscalls::IA32]);

// `include/uapi/asm-generic/fcntl.h`, 6.18; the same for 32-bit calls.
const O_ACCMODE: u64 = 0o3;
const O_CREAT: u64 = 0o100;
const O_TRUNC: u64 = 0o1000;
const O_PATH: u64 = 0o10_000_000;
// `include/linux/fs.h`, 6.18. The second since 4.19.
const FMODE_WRITE: u32 = 1 << 1;
const FMODE_CREATED: u32 = 1 << 20;

/// `raw_syscalls:sys_exit`.
#[btf_tracepoint(function = "sys_exit")]
fn observe_exit(context: BtfTracePointContext) -> i32 {
    let registers: *const pt_regs = context.arg(0);
    let result: i64 = context.arg(1);
    // SAFETY: the kernel hands valid registers to this tracepoint, and the verifier checks the load.
    if result >= 0 && WRITING[unsafe { (*registers).orig_rax } as usize & (TABLE_LEN - 1)] {
        observe(context.as_ptr());
    }
    0
}

/// Tells the call, if it is a write. A function of its own for the reason of [`sys_exit`].
#[inline(never)]
fn observe(context: *mut c_void) {
    if !covers::report_observed() {
        return;
    }
    let context = BtfTracePointContext::new(context);
    let result: i64 = context.arg(1);
    let registers: *const pt_regs = context.arg(0);
    // SAFETY: as in `observe_exit`: valid registers, loads checked by the verifier.
    let registers = unsafe { &*registers };
    let number = registers.orig_rax & !X32_BIT;
    if number >= TABLE_LEN as u64 {
        return;
    }
    // For the reason of `sys_exit`.
    let number = memory::opaque(number) as usize & (TABLE_LEN - 1);
    let Some(task) = Structure::current_task() else { return };
    let compat = sys_exit::is_compat(task);
    let call = sys_exit::row(compat, number);
    if call.operation == 0 || call.report == Report::Always as u8 {
        return;
    }
    let is_open = call.operation == Operation::Open as u8;
    let mut truncates = false;
    if is_open {
        let flags = open_flags(registers, compat, call);
        if flags & O_PATH != 0 || flags & (O_ACCMODE | O_CREAT | O_TRUNC) == 0 {
            return;
        }
        truncates = flags & O_TRUNC != 0;
    } else if call.form == Form::Ioctl as u8 && !sys_exit::sets_flags(argument(registers, compat, 1)) {
        return;
    }
    if is_of_node(task) {
        return;
    }
    let mut seen = Seen { registers, number, compat, result, call, path: 0, key: [0; 2] };
    let is_on_file = call.path == NONE && call.dirfd != NONE;
    if is_open || is_on_file {
        let descriptor = if is_open { result as u64 } else { argument(registers, compat, call.dirfd) };
        let file = folders::open_file(task, descriptor as u32);
        let Some(at) = path::of_file(file) else { return };
        let pair = path::pair_at(at);
        let Some(fs) = task.follow(offset!(task_fs)) else { return };
        if memory::kernel_at::<u64>(fs.address(), offset!(fs_root_mnt)) != pair[0] {
            return;
        }
        // Without an access mode that writes, it is a write if it truncates, or if it has made the file.
        let mode: u32 = memory::kernel_at(file, offset!(file_mode));
        if is_open && !truncates && mode & (FMODE_WRITE | FMODE_CREATED) == 0 {
            return;
        }
        let Some(executable) = folders::executable(task) else { return };
        seen.path = at;
        seen.key = folders::key(call.operation, folders::of_file(pair), executable);
        if is_repeat(seen.key) {
            return;
        }
    }
    scratch::with(None, |scratch| tell(scratch, &seen));
}

/// A write that succeeded.
struct Seen<'a> {
    registers: &'a pt_regs,
    number: usize,
    compat: bool,
    result: i64,
    call: &'a Call,
    /// Address of the `struct path` of the open file; 0 where there is none.
    path: u64,
    /// Where there is, its key.
    key: [u64; 2],
}

/// Puts the record together and sends it, unless it is a repeat.
#[inline(always)]
fn tell(scratch: &mut Scratch, seen: &Seen<'_>) {
    let &Seen { registers, number, compat, result, call, path, key } = seen;
    sys_exit::note_call(scratch, registers, number, compat, result);
    scratch.record.call.hook = Hook::Tracepoint as u8;
    if !sys_exit::prepare(scratch, call) {
        return;
    }
    sys_exit::note_strings(scratch, call);
    call::begin_header(scratch);
    scratch.record.header.kind = RecordKind::WriteObserved as u16;
    scratch.record.header.cgroup_id = process::current_cgroup_id();
    call::begin(scratch, call);
    scratch.used = 0;
    text::append_strings(scratch, call::strings_of(call));
    scratch.actor.note_current();
    scratch.bases = [[0; 2]; 2];
    memory::fill(&mut scratch.walk.places, 0);
    if path != 0 {
        scratch.record.call.base = Base::File as u8;
        scratch.walk.places[0] = path;
        scratch.key = key;
    } else {
        call::find_bases(scratch, call, 0);
        // Without a path there is no folder to be learnt; a socket of another kind has none.
        if scratch.record.call.base == Base::None as u8 {
            return;
        }
        let operation = fold::operation(call, call::argument(scratch, call.flags));
        let [dentry, inode, generation] = scratch.actor.executed.identity;
        let executable = fold::mix(fold::mix(dentry, inode), generation);
        scratch.key = folders::key(operation, folders::of_paths(scratch), executable);
        if is_repeat(scratch.key) {
            return;
        }
    }
    ring::count(Counter::WriteObserved);
    scratch.record.call.fold = FoldRecord::NONE;
    scratch.cgroup_row = budget::row_of(scratch.record.header.cgroup_id);
    if !budget::admits_write(scratch.cgroup_row, scratch.record.header.time_ns) {
        ring::count(Counter::ObservedCut);
        return;
    }
    fold::claim_in(&OBSERVED, scratch);
    process::fill_current(scratch);
    scratch.refused.mount.known = 0;
    if path != 0 {
        scratch.refused.fill_from_path(path);
    }
    scratch.record.call.mount = scratch.refused.mount;
    let mount = scratch.refused.root();
    call::append_walks(scratch, mount);
    text::append_args(scratch);
    let sent = ring::send_write(scratch);
    fold::conclude_in(&OBSERVED, scratch, sent);
}

/// Counts the write, if its like was told.
#[inline(always)]
fn is_repeat(key: [u64; 2]) -> bool {
    let is_repeat = fold::count_in(&OBSERVED, key, process::current_cgroup_id()).is_some();
    if is_repeat {
        ring::count(Counter::WriteObserved);
    }
    is_repeat
}

/// Whether the task is in the node's own mount namespace.
#[inline(always)]
fn is_of_node(task: Structure) -> bool {
    // SAFETY: of a live static; volatile, because user space writes it before the load of the programs.
    let of_node = unsafe { read_volatile(&raw const NODE_MOUNT_NAMESPACE) };
    let namespace = task.follow(offset!(task_nsproxy)).and_then(|nsproxy| nsproxy.follow(offset!(nsproxy_mnt_ns)));
    namespace.is_none_or(|namespace| namespace.load::<u32>(offset!(mnt_ns_inum)) == of_node)
}

/// The flags of an open.
#[inline(always)]
fn open_flags(registers: &pt_regs, compat: bool, call: &Call) -> u64 {
    if call.form == Form::OpenHow as u8 {
        // Where they can't be read, what the open file may be used for tells.
        memory::user::<u64>(argument(registers, compat, 2)).unwrap_or(O_ACCMODE)
    } else if call.flags == NONE {
        // creat
        O_ACCMODE | O_TRUNC
    } else {
        argument(registers, compat, call.flags)
    }
}

/// An argument of the call, of the first four.
#[inline(always)]
fn argument(registers: &pt_regs, compat: bool, index: u8) -> u64 {
    let value = match (index, compat) {
        (0, false) => registers.rdi,
        (1, false) => registers.rsi,
        (2, false) => registers.rdx,
        (_, false) => registers.r10,
        (0, true) => registers.rbx,
        (1, true) => registers.rcx,
        (2, true) => registers.rdx,
        (_, true) => registers.rsi,
    };
    if compat { value & 0xffff_ffff } else { value }
}
