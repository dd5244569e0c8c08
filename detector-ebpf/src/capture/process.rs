//! The process that did it, and those above it.

use detector_common::{offsets::UPID_SIZE, record::AncestorRecord};

use crate::{capture::path, memory, offsets::offset, scratch::Scratch};

/// A thread that the kernel made to work for a process's io_uring (`include/linux/sched.h`, 6.18).
const PF_IO_WORKER: u32 = 0x10;

/// Fills the cgroup of the header and the process of the record for the task at `task`, which need not be the running one.
#[inline(always)]
pub fn fill(scratch: &mut Scratch, task: u64) {
    // What `bpf_get_current_cgroup_id` does, for any task.
    let cgroup = memory::kernel_at(memory::kernel_at(task, offset!(task_cgroups)), offset!(css_set_dfl_cgrp));
    scratch.record.header.cgroup_id =
        memory::kernel_at(memory::kernel_at(cgroup, offset!(cgroup_kn)), offset!(kernfs_node_id));
    let process = &mut scratch.record.process;
    process.pid = memory::kernel_at(task, offset!(task_tgid));
    let leader = memory::kernel_at(task, offset!(task_group_leader));
    // A thread that the kernel made for the process (the poller of an io_uring) has no name of the program's: its process's
    // first thread speaks for it.
    let thread = if is_io_worker(task) { leader } else { task };
    process.tid = memory::kernel_at(thread, offset!(task_pid));
    process.comm = memory::kernel_at(thread, offset!(task_comm));
    process.container_pid = pid_in_namespace(memory::kernel_at(leader, offset!(task_thread_pid)));
    // The leader's: a new thread has PF_FORKNOEXEC, whatever its process has executed.
    process.flags = memory::kernel_at(leader, offset!(task_flags));
    process.start_time_ns = memory::kernel_at(leader, offset!(task_start_boottime));

    let cred = memory::kernel_at(task, offset!(task_cred));
    process.uid = memory::kernel_at(cred, offset!(cred_uid));
    process.gid = memory::kernel_at(cred, offset!(cred_gid));
    process.cap_effective = memory::kernel_at(cred, offset!(cred_cap_effective));
    process.user_ns_level = memory::kernel_at(memory::kernel_at(cred, offset!(cred_user_ns)), offset!(user_ns_level));
    let nsproxy = memory::kernel_at(task, offset!(task_nsproxy));
    process.mnt_ns = memory::kernel_at(memory::kernel_at(nsproxy, offset!(nsproxy_mnt_ns)), offset!(mnt_ns_inum));

    fill_ancestors(scratch, task);
}

/// Whether the kernel made the thread to work for its process's io_uring.
#[inline(always)]
pub fn is_io_worker(task: u64) -> bool {
    memory::kernel_at::<u32>(task, offset!(task_flags)) & PF_IO_WORKER != 0
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
