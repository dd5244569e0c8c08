//! The process that did it, and those above it.

use aya_ebpf::{
    cty::c_void,
    helpers::{bpf_get_current_cgroup_id, bpf_get_current_pid_tgid, generated::bpf_loop},
};
use detector_common::{
    offsets::UPID_SIZE,
    record::{AncestorRecord, COMM_LEN, MAX_ANCESTORS, ProcessRecord},
};

use crate::{
    memory::{self, Structure},
    offsets::offset,
    scratch::{self, Scratch},
};

/// Fills header and process of this CPU's record for the running task, and notes what it executes in the scratch.
///
/// A global function (kernel 5.6): the verifier goes through it once and by itself, not once for each way to its call. That
/// counts, because at each pointer that is followed the verifier looks for a type through all the kernel's types
/// (`btf_nested_type_is_trusted`, 6.4 and later): a millisecond. What it returns is of no use, but it has to return a number.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn fill_process() -> u32 {
    if let Some(scratch) = scratch::get()
        && let Some(task) = Structure::current_task()
    {
        fill(scratch, task);
    }
    0
}

#[inline(always)]
fn fill(scratch: &mut Scratch, task: Structure) {
    // SAFETY: the helper has no preconditions.
    scratch.record.header.cgroup_id = unsafe { bpf_get_current_cgroup_id() };
    let process = &mut scratch.record.process;
    let pid_tgid = bpf_get_current_pid_tgid();
    process.pid = (pid_tgid >> 32) as u32;
    process.tid = pid_tgid as u32;
    process.comm = comm(task);
    fill_credentials(process, task);

    process.container_pid = 0;
    // The leader's flags: a new thread has PF_FORKNOEXEC, whatever its process has executed.
    process.flags = 0;
    process.start_time_ns = 0;
    if let Some(leader) = task.follow(offset!(task_group_leader)) {
        process.flags = leader.load(offset!(task_flags));
        process.start_time_ns = leader.load(offset!(task_start_boottime));
        if let Some(pid) = leader.follow(offset!(task_thread_pid)) {
            process.container_pid = pid_in_namespace(pid);
        }
    }
    process.mnt_ns = 0;
    if let Some(nsproxy) = task.follow(offset!(task_nsproxy))
        && let Some(mnt_ns) = nsproxy.follow(offset!(nsproxy_mnt_ns))
    {
        process.mnt_ns = mnt_ns.load(offset!(mnt_ns_inum));
    }

    fill_ancestors(process, task);
    note_executed(&mut scratch.executed, task);
}

#[inline(always)]
fn fill_credentials(process: &mut ProcessRecord, task: Structure) {
    process.uid = 0;
    process.gid = 0;
    process.cap_effective = 0;
    process.user_ns_level = 0;
    if let Some(cred) = task.follow(offset!(task_cred)) {
        process.uid = cred.load(offset!(cred_uid));
        process.gid = cred.load(offset!(cred_gid));
        process.cap_effective = cred.load(offset!(cred_cap_effective));
        if let Some(user_ns) = cred.follow(offset!(cred_user_ns)) {
            process.user_ns_level = user_ns.load(offset!(user_ns_level));
        }
    }
}

/// The name of a thread.
#[inline(always)]
fn comm(task: Structure) -> [u8; COMM_LEN] {
    // Two loads, since one has eight bytes at most.
    let offset = offset!(task_comm);
    let halves: [u64; 2] = [task.load(offset), task.load(offset + 8)];
    // SAFETY: of the same size, and any bytes are a value of both types.
    unsafe { core::mem::transmute(halves) }
}

/// What a process executes.
#[repr(C)]
pub struct Executed {
    /// Address of the `struct path` of the executable; 0 for a thread of the kernel.
    pub file: u64,
    /// Address of the arguments in the process's memory; 0 where there are none.
    pub args: u64,
    /// Their length, bytes.
    pub args_length: u64,
}

#[inline(always)]
fn note_executed(executed: &mut Executed, task: Structure) {
    executed.file = 0;
    executed.args = 0;
    executed.args_length = 0;
    if let Some(mm) = task.follow(offset!(task_mm)) {
        executed.args = mm.load(offset!(mm_arg_start));
        executed.args_length = mm.load::<u64>(offset!(mm_arg_end)).wrapping_sub(executed.args);
        if let Some(file) = mm.follow(offset!(mm_exe_file)) {
            executed.file = file.address().wrapping_add(u64::from(offset!(file_path)));
        }
    }
}

/// The number of the `struct pid` in its innermost namespace.
#[inline(always)]
fn pid_in_namespace(pid: Structure) -> u32 {
    let level: u32 = pid.load(offset!(pid_level));
    let numbers = pid.address().wrapping_add(u64::from(offset!(pid_numbers)));
    memory::kernel_at(numbers.wrapping_add(u64::from(level) * u64::from(UPID_SIZE)), 0)
}

/// What the steps up need; on the stack, because that is what `bpf_loop` hands on.
struct Ascent<'a> {
    process: &'a mut ProcessRecord,
    /// A thread of the next process above.
    parent: Structure,
}

#[inline(always)]
fn fill_ancestors(process: &mut ProcessRecord, task: Structure) {
    process.ppid = 0;
    process.ancestor_count = 0;
    if let Some(parent) = task.follow(offset!(task_real_parent)) {
        process.ppid = parent.load(offset!(task_tgid));
        let mut ascent = Ascent { process, parent };
        // SAFETY: `append_ancestor` has the signature that the helper calls, and `ascent` outlives the call.
        unsafe {
            bpf_loop(MAX_ANCESTORS as u32, append_ancestor as *const () as *mut c_void, (&raw mut ascent).cast(), 0)
        };
    }
}

extern "C" fn append_ancestor(index: u64, ascent: *mut c_void) -> i64 {
    const CONTINUE: i64 = 0;
    const STOP: i64 = 1;
    // SAFETY: `fill_ancestors` handed on its own live `Ascent`, and touches it again only after the loop.
    let ascent = unsafe { &mut *ascent.cast::<Ascent<'_>>() };
    let Some(leader) = ascent.parent.follow(offset!(task_group_leader)) else { return STOP };
    let pid: u32 = leader.load(offset!(task_tgid));
    if pid == 0 {
        return STOP;
    }
    ascent.process.ancestors[index as usize & (MAX_ANCESTORS - 1)] = AncestorRecord {
        start_time_ns: leader.load(offset!(task_start_boottime)),
        pid,
        padding: 0,
        comm: comm(leader),
    };
    ascent.process.ancestor_count = index as u32 + 1;
    let Some(parent) = leader.follow(offset!(task_real_parent)) else { return STOP };
    ascent.parent = parent;
    CONTINUE
}
const _: () = assert!(MAX_ANCESTORS.is_power_of_two(), "the index is masked");
