//! cgroups that come and go: the id of a container's cgroup is known before its first process runs.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use detector_common::{
    WIRE_VERSION,
    counter::Counter,
    record::{CgroupRecord, PATH_MAX, RecordKind},
};

use crate::{hooks::covers, memory, offsets::offset, ring, scratch, scratch::Scratch};

/// `cgroup:cgroup_mkdir`.
#[btf_tracepoint(function = "cgroup_mkdir")]
fn cgroup_mkdir(context: BtfTracePointContext) -> i32 {
    report(&context, RecordKind::CgroupCreated, Counter::CgroupCreated);
    0
}

/// `cgroup:cgroup_rmdir`.
#[btf_tracepoint(function = "cgroup_rmdir")]
fn cgroup_rmdir(context: BtfTracePointContext) -> i32 {
    report(&context, RecordKind::CgroupRemoved, Counter::CgroupRemoved);
    0
}

#[inline(always)]
fn report(context: &BtfTracePointContext, kind: RecordKind, counter: Counter) {
    let cgroup: *const u8 = context.arg(0);
    let path: *const u8 = context.arg(1);
    let cgroup = cgroup as u64;
    // Ids are unique within a hierarchy only, and only cgroup2's are what the records carry.
    let root = memory::kernel_at(cgroup, offset!(cgroup_root));
    let hierarchy: u32 = memory::kernel_at(root, offset!(cgroup_root_hierarchy_id));
    if hierarchy != 0 || !covers::is_armed() {
        return;
    }
    ring::count(counter);
    scratch::with(None, |scratch| {
        let header = &mut scratch.record.header;
        header.version = WIRE_VERSION;
        header.kind = kind as u16;
        header.time_ns = ring::now_ns();
        header.cgroup_id = memory::kernel_at(memory::kernel_at(cgroup, offset!(cgroup_kn)), offset!(kernfs_node_id));
        const FIXED: usize = size_of::<CgroupRecord>();
        const _: () = assert!(FIXED + PATH_MAX <= core::mem::offset_of!(Scratch, used));
        // SAFETY: the scratch is longer than the fixed part and PATH_MAX together, as asserted.
        let length = unsafe {
            let to = core::ptr::from_mut(scratch).cast::<u8>().add(FIXED);
            memory::kernel_string(to, PATH_MAX as u32, path as u64)
        };
        // Without a path the record would say nothing.
        if length > 1 {
            ring::send_cgroup(scratch, FIXED + (length - 1) as usize);
        }
    });
}
