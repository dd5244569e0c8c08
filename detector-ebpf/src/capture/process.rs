//! The process that did it, and those above it.

use aya_ebpf::helpers::{
    bpf_get_current_cgroup_id, bpf_get_current_pid_tgid, bpf_get_current_uid_gid, generated::bpf_get_current_comm,
};
use detector_common::{
    offsets::UPID_SIZE,
    record::{AncestorRecord, COMM_LEN},
};

use crate::{capture::path, memory, offsets::offset, scratch::Scratch};

/// Fills header and process of the record for the running task at `task`.
#[inline(always)]
pub fn fill(scratch: &mut Scratch, task: u64) {
    // SAFETY: the helper has no preconditions.
    scratch.record.header.cgroup_id = unsafe { bpf_get_current_cgroup_id() };
    let process = &mut scratch.record.process;
    let pid_tgid = bpf_get_current_pid_tgid();
    let uid_gid = bpf_get_current_uid_gid();
    process.pid = (pid_tgid >> 32) as u32;
    process.tid = pid_tgid as u32;
    process.uid = uid_gid as u32;
    process.gid = (uid_gid >> 32) as u32;
    // SAFETY: `comm` is writable for its length.
    unsafe { bpf_get_current_comm(process.comm.as_mut_ptr().cast(), COMM_LEN as u32) };
    let leader = memory::kernel_at(task, offset!(task_group_leader));
    process.container_pid = pid_in_namespace(memory::kernel_at(leader, offset!(task_thread_pid)));
    // The leader's: a new thread has PF_FORKNOEXEC, whatever its process has executed.
    process.flags = memory::kernel_at(leader, offset!(task_flags));
    process.start_time_ns = memory::kernel_at(leader, offset!(task_start_boottime));

    let cred = memory::kernel_at(task, offset!(task_cred));
    process.cap_effective = memory::kernel_at(cred, offset!(cred_cap_effective));
    process.user_ns_level = memory::kernel_at(memory::kernel_at(cred, offset!(cred_user_ns)), offset!(user_ns_level));
    let nsproxy = memory::kernel_at(task, offset!(task_nsproxy));
    process.mnt_ns = memory::kernel_at(memory::kernel_at(nsproxy, offset!(nsproxy_mnt_ns)), offset!(mnt_ns_inum));

    process.parent_cgroup_id = 0;
    process.same_program_as_parent = 0;
    process.padding = 0;

    fill_ancestors(scratch, task);
}

/// Fills what tells the container runtime from the container: the parent's cgroup, and whether it runs the same executable
/// file in the same mount namespace.
#[inline(always)]
pub fn fill_parent(scratch: &mut Scratch, task: u64) {
    let parent: u64 = memory::kernel_at(task, offset!(task_real_parent));
    let cgroup = memory::kernel_at(memory::kernel_at(parent, offset!(task_cgroups)), offset!(css_set_cgroup));
    let node = memory::kernel_at(cgroup, offset!(cgroup_kn));
    scratch.record.process.parent_cgroup_id = memory::kernel_at(node, offset!(kernfs_node_id));
    let (file, of_parent) = (executable_dentry(task), executable_dentry(parent));
    let same = file != 0 && file == of_parent && mount_namespace(task) == mount_namespace(parent);
    scratch.record.process.same_program_as_parent = u32::from(same);
}

/// Address of the dentry of the task's executable, which stands for the file.
#[inline(always)]
fn executable_dentry(task: u64) -> u64 {
    executable(mm(task)).map_or(0, |path| memory::kernel_at(path, offset!(path_dentry)))
}

/// Address of the task's mount namespace.
#[inline(always)]
fn mount_namespace(task: u64) -> u64 {
    memory::kernel_at(memory::kernel_at(task, offset!(task_nsproxy)), offset!(nsproxy_mnt_ns))
}

/// The `mm_struct` of the task; 0 for a thread of the kernel.
#[inline(always)]
pub fn mm(task: u64) -> u64 {
    memory::kernel_at(task, offset!(task_mm))
}

/// Address of the `struct path` of the executable.
#[inline(always)]
pub fn executable(mm: u64) -> Option<u64> {
    path::of_file(memory::kernel_at(mm, offset!(mm_exe_file)))
}

/// The number of the `struct pid` at `pid` in its innermost namespace.
#[inline(always)]
fn pid_in_namespace(pid: u64) -> u32 {
    let level: u32 = memory::kernel_at(pid, offset!(pid_level));
    let upid = pid.wrapping_add(u64::from(offset!(pid_numbers))).wrapping_add(u64::from(level) * u64::from(UPID_SIZE));
    memory::kernel_at(upid, 0)
}

#[inline(always)]
fn fill_ancestors(scratch: &mut Scratch, task: u64) {
    let process = &mut scratch.record.process;
    let mut parent = memory::kernel_at(task, offset!(task_real_parent));
    process.ppid = memory::kernel_at(parent, offset!(task_tgid));
    let mut count = 0;
    for ancestor in &mut process.ancestors {
        let leader = memory::kernel_at(parent, offset!(task_group_leader));
        let pid: u32 = memory::kernel_at(leader, offset!(task_tgid));
        if pid == 0 {
            break;
        }
        *ancestor = AncestorRecord {
            start_time_ns: memory::kernel_at(leader, offset!(task_start_boottime)),
            pid,
            padding: 0,
            comm: memory::kernel_at(leader, offset!(task_comm)),
        };
        count += 1;
        parent = memory::kernel_at(leader, offset!(task_real_parent));
    }
    process.ancestor_count = count;
}
