//! The operations that are queued on an io_uring: they pass no exit of a syscall.
//!
//! Processes that use no io_uring pay nothing here. Of those that do, each request pays for one look at its operation, and at
//! its result.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use detector_common::{
    record::{RecordKind, Section},
    takeover::{Door, Kind},
};

use crate::{
    capture::{call, process, request, text},
    fold,
    hooks::covers,
    memory::{Readable as _, Structure, Untyped},
    offsets::offset,
    scratch,
};

/// `io_uring:io_uring_submit_req` (`io_uring_submit_sqe` before 6.4).
#[btf_tracepoint(function = "io_uring_submit_req")]
fn io_uring_submit(context: BtfTracePointContext) -> i32 {
    let request: *const u8 = context.arg(0);
    let request = request as u64;
    if let Some((opcode, call)) = request::watched(request)
        && !covers::io_uring(call.operation)
    {
        scratch::with(None, |scratch| request::keep(scratch, request, opcode, call));
    }
    0
}

/// `io_uring:io_uring_complete`, which every completion passes that finds room in its ring.
#[btf_tracepoint(function = "io_uring_complete")]
fn io_uring_complete(context: BtfTracePointContext) -> i32 {
    let request: *const u8 = context.arg(1);
    if request::is_refused(request as u64) {
        report(request as u64);
    }
    0
}

/// `io_uring:io_uring_cqe_overflow`, which the others pass.
#[btf_tracepoint(function = "io_uring_cqe_overflow")]
fn io_uring_cqe_overflow(context: BtfTracePointContext) -> i32 {
    const EROFS: i32 = 30;
    let result: i32 = context.arg(2);
    if result == -EROFS {
        let ring: *const u8 = context.arg(0);
        if let Some(request) = request::find_overflowed(ring as u64, context.arg(1)) {
            report(request);
        }
    }
    0
}

#[inline(always)]
fn report(request: u64) {
    let Some((opcode, call)) = request::watched(request) else {
        return;
    };
    if covers::io_uring(call.operation) || !covers::report(Kind::Refused, Door::IoUring, call.operation) {
        return;
    }
    scratch::with(None, |scratch| {
        let task = request::submitter(request);
        request::take(scratch, request, opcode, call, task);
        scratch.record.header.cgroup_id = process::cgroup_id(task);
        scratch.is_new = 0;
        if !fold::admit(scratch, call) {
            return;
        }
        process::fill(scratch, task);
        if process::is_io_worker(task) {
            process::fill_submitter(scratch, task);
        }
        call::append_walks(scratch, 0);
        // Another process may be running, and only the memory of the running one can be read.
        let memory_of = |task: Untyped| task.load::<u64>(offset!(task_mm));
        if Structure::current_task().is_some_and(|running| memory_of(running.untyped()) == memory_of(task)) {
            text::append_args(scratch);
        } else {
            text::mark_unreadable(scratch, Section::Args as u32);
        }
        scratch.record.header.kind = RecordKind::WriteDenied as u16;
        fold::send(scratch, call);
    });
}
