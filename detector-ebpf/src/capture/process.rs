//! The process that did it, and those above it.

use aya_ebpf::{
    cty::c_void,
    helpers::{bpf_get_current_cgroup_id, generated::bpf_loop},
};
use detector_common::{
    offsets::{UNAVAILABLE, UPID_SIZE},
    record::{AncestorRecord, COMM_LEN, MAX_ANCESTORS, ProcessRecord},
};

use crate::{
    memory::{self, Readable, Structure, Untyped},
    offsets::{member, offset},
    scratch::Scratch,
};

/// A thread that the kernel made to work for a process's io_uring (`include/linux/sched.h`, 6.18).
const PF_IO_WORKER: u32 = 0x10;

/// Fills the process of the record for `task`, which need not be the running one.
#[inline(always)]
pub fn fill(scratch: &mut Scratch, task: Untyped) {
    describe(&mut scratch.record.process, task);
}

/// Fills the process of the record for the running task, at a third of the cost.
#[inline(always)]
pub fn fill_current(scratch: &mut Scratch) {
    describe_current(&mut scratch.record.process);
}

/// Id of the running task's cgroup in the cgroup2 hierarchy.
#[inline(always)]
pub fn current_cgroup_id() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_get_current_cgroup_id() }
}

/// Describes the running task.
///
/// A global function (kernel 5.12): the verifier goes through it once and by itself, not once for each way to a call of it. That
/// counts, because for each pointer that it sees followed from a task it looks for a type among all of the kernel's, by name and
/// four times (`btf_nested_type_is_trusted`, 6.4 and later): a millisecond. Global functions have to return a number.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn describe_current(process: *mut ProcessRecord) -> u32 {
    // SAFETY: null, or a live record of the caller's; the verifier knows its size from the type.
    let Some(process) = (unsafe { process.as_mut() }) else { return 0 };
    let Some(task) = Structure::current_task() else { return 0 };
    describe(process, task);
    1
}

#[inline(always)]
fn describe<S: Readable>(process: &mut ProcessRecord, task: S) {
    process.pid = task.load(offset!(task_tgid));
    process.tid = task.load(offset!(task_pid));
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
    let mut namespace = 0;
    if let Some(mnt_ns) = mount_namespace(task) {
        process.mnt_ns = mnt_ns.load(offset!(mnt_ns_inum));
        namespace = mnt_ns.address();
    }
    process.parent_cgroup_id = 0;
    process.same_program_as_parent = 0;

    let of_node = fill_ancestors(process, task);
    process.in_node_mount_namespace = u32::from(namespace != 0 && namespace == of_node);
}

/// Whether the kernel made the thread to work for its process's io_uring.
#[inline(always)]
pub fn is_io_worker<S: Readable>(task: S) -> bool {
    task.load::<u32>(offset!(task_flags)) & PF_IO_WORKER != 0
}

/// The same of the running thread.
#[inline(always)]
pub fn is_current_io_worker(task: Structure) -> bool {
    member!(task, "u32", task_flags) as u32 & PF_IO_WORKER != 0
}

/// Lets a thread of the program's speak for a worker, which the kernel made: the one that submitted, or where that is the
/// kernel's, too, the process's first.
#[inline(always)]
pub fn fill_submitter(scratch: &mut Scratch, worker: Untyped) {
    let submitter = pool_owner(worker);
    let speaker = if submitter.0 == 0 || is_io_worker(submitter) {
        Untyped(worker.load(offset!(task_group_leader)))
    } else {
        submitter
    };
    scratch.record.process.tid = speaker.load(offset!(task_pid));
    scratch.record.process.comm = comm(speaker);
}

/// The thread that the worker's pool belongs to; 0 where this kernel's pools are not known, and of a polling thread.
#[inline(always)]
fn pool_owner(worker: Untyped) -> Untyped {
    if offset!(task_worker_private) == UNAVAILABLE || offset!(io_wq_task) == UNAVAILABLE {
        return Untyped(0);
    }
    let private = worker.load(offset!(task_worker_private));
    let pool = if offset!(io_worker_wq) != UNAVAILABLE {
        memory::kernel_at(private, offset!(io_worker_wq))
    } else if offset!(io_worker_wqe) != UNAVAILABLE && offset!(io_wqe_wq) != UNAVAILABLE {
        memory::kernel_at(memory::kernel_at(private, offset!(io_worker_wqe)), offset!(io_wqe_wq))
    } else {
        0
    };
    // From 0 nothing can be read, and what can't be read is 0.
    Untyped(memory::kernel_at(pool, offset!(io_wq_task)))
}

/// Fills what tells the container runtime from the container: the parent's cgroup, and whether it runs the same executable
/// file in the same mount namespace.
#[inline(always)]
pub fn fill_parent(scratch: &mut Scratch, task: Untyped) {
    let process = &mut scratch.record.process;
    let Some(parent) = task.follow(offset!(task_real_parent)) else { return };
    process.parent_cgroup_id = cgroup_id(parent);
    let file = executable_dentry(task);
    let namespace = |task| mount_namespace(task).map_or(0, Readable::address);
    let same = file != 0 && file == executable_dentry(parent) && namespace(task) == namespace(parent);
    process.same_program_as_parent = u32::from(same);
}

/// Id of the task's cgroup in the cgroup2 hierarchy; 0 where it can't be read.
#[inline(always)]
pub fn cgroup_id(task: Untyped) -> u64 {
    if let Some(cgroups) = task.follow(offset!(task_cgroups))
        && let Some(cgroup) = cgroups.follow(offset!(css_set_cgroup))
        && let Some(node) = cgroup.follow(offset!(cgroup_kn))
    {
        node.load(offset!(kernfs_node_id))
    } else {
        0
    }
}

/// Address of the dentry of the task's executable, which stands for the file; 0 of a thread of the kernel.
#[inline(always)]
fn executable_dentry(task: Untyped) -> u64 {
    if let Some(mm) = task.follow(offset!(task_mm))
        && let Some(file) = mm.follow(offset!(mm_exe_file))
    {
        file.load(offset!(file_dentry))
    } else {
        0
    }
}

#[inline(always)]
fn mount_namespace<S: Readable>(task: S) -> Option<S> {
    task.follow(offset!(task_nsproxy))?.follow(offset!(nsproxy_mnt_ns))
}

#[inline(always)]
fn fill_credentials<S: Readable>(process: &mut ProcessRecord, task: S) {
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
fn comm<S: Readable>(task: S) -> [u8; COMM_LEN] {
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
    /// What tells the executable from others: address of the dentry; and from others that had that address before: number and
    /// generation of the inode.
    pub identity: [u64; 3],
}

impl Executed {
    /// Notes what the task executes.
    #[inline(always)]
    pub fn note<S: Readable>(&mut self, task: S) {
        // A number that the compiler does not know, or it would make a `memset` of this.
        let unknown = memory::opaque(0);
        *self = Self { file: unknown, args: unknown, args_length: unknown, identity: [unknown; 3] };
        let Some(mm) = task.follow(offset!(task_mm)) else { return };
        self.args = mm.load(offset!(mm_arg_start));
        self.args_length = mm.load::<u64>(offset!(mm_arg_end)).wrapping_sub(self.args);
        let Some(file) = mm.follow(offset!(mm_exe_file)) else { return };
        self.file = file.address().wrapping_add(u64::from(offset!(file_path)));
        self.identity[0] = file.load(offset!(file_dentry));
        let Some(inode) = file.follow(offset!(file_inode)) else { return };
        self.identity[1] = inode.load(offset!(inode_number));
        self.identity[2] = inode.load::<u32>(offset!(inode_generation)).into();
    }
}

/// The number of the `struct pid` in its innermost namespace.
#[inline(always)]
fn pid_in_namespace<S: Readable>(pid: S) -> u32 {
    let level: u32 = pid.load(offset!(pid_level));
    let numbers = pid.address().wrapping_add(u64::from(offset!(pid_numbers)));
    memory::kernel_at(numbers.wrapping_add(u64::from(level) * u64::from(UPID_SIZE)), 0)
}

/// What the steps up need; on the stack, because that is what `bpf_loop` hands on.
struct Ascent<'a, S> {
    process: &'a mut ProcessRecord,
    /// A thread of the next process above.
    parent: S,
    /// Address of the mount namespace of pid 1; 0 before it is met.
    of_node: u64,
}

/// Fills the processes above; the address of the mount namespace of pid 1, or 0 where the record has no room to get there.
#[inline(always)]
fn fill_ancestors<S: Readable>(process: &mut ProcessRecord, task: S) -> u64 {
    process.ppid = 0;
    process.ancestor_count = 0;
    let Some(parent) = task.follow(offset!(task_real_parent)) else { return 0 };
    process.ppid = parent.load(offset!(task_tgid));
    let mut ascent = Ascent { process, parent, of_node: 0 };
    let step = append_ancestor::<S> as *const () as *mut c_void;
    // SAFETY: `append_ancestor` has the signature that the helper calls, and `ascent` outlives the call.
    unsafe { bpf_loop(MAX_ANCESTORS as u32, step, (&raw mut ascent).cast(), 0) };
    ascent.of_node
}

extern "C" fn append_ancestor<S: Readable>(index: u64, ascent: *mut c_void) -> i64 {
    const CONTINUE: i64 = 0;
    const STOP: i64 = 1;
    const _: () = assert!(MAX_ANCESTORS.is_power_of_two(), "the index is masked");
    // SAFETY: `fill_ancestors` handed on its own live `Ascent`, and touches it again only after the loop.
    let ascent = unsafe { &mut *ascent.cast::<Ascent<'_, S>>() };
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
    if pid == 1 {
        ascent.of_node = mount_namespace(leader).map_or(0, Readable::address);
        return STOP;
    }
    let Some(parent) = leader.follow(offset!(task_real_parent)) else { return STOP };
    ascent.parent = parent;
    CONTINUE
}
