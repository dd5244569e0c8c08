//! The way to watch the kernel: chosen where that is left open, refused where it can't be, and by operation where a kernel lacks
//! a function.

use std::collections::BTreeSet;

use detector::kernel::{KernelError, Sensor, plan::Hooks, points::POINTS};
use detector_common::record::Hook;

use super::{
    sealed::Sealed,
    sensor::{Attached, begin, hooks_under_test},
};

#[tokio::test]
async fn left_open_it_is_kernel_functions_where_the_kernel_has_them_and_the_tracepoints_elsewhere() {
    let by_functions = Sensor::attach(Hooks::Fexit);
    let allowed = by_functions.is_ok();
    if let Err(error) = by_functions {
        assert!(matches!(error, KernelError::NoFunctions(_)), "{error:?}");
        let sentence = error.to_string();
        assert!(sentence.contains("--hooks auto"), "it says what to do: {sentence}");
        println!("{sentence}");
    }
    let (sensor, _stream, _counters) = Sensor::attach(Hooks::Auto).unwrap();
    assert_eq!(sensor.mode(), if allowed { "fexit" } else { "tracepoint" });
    let surfaces: Vec<_> = ["kernel_paths", "kernel_mounts"]
        .map(|surface| sensor.coverage().iter().find(|(name, _)| *name == surface).unwrap().1)
        .into();
    assert_eq!(surfaces, [allowed; 2], "the limits of the tracepoints are told");
}

#[tokio::test]
async fn an_operation_without_its_function_falls_back_alone_and_is_seen_once() {
    if hooks_under_test() != Hooks::Fexit {
        println!("skipped: about kernel functions");
        return;
    }
    let mut attached = Attached::without(&["exit_mkdir", "x64_umount"]);
    let seen = attached.watch(|| {
        let sealed = Sealed::new();
        begin();
        std::fs::create_dir(sealed.root.join("etc/new")).unwrap_err();
        std::fs::remove_file(sealed.root.join("etc/passwd")).unwrap_err();
        // SAFETY: a NUL-terminated path.
        unsafe { libc::umount2(c"/mnt/nowhere".as_ptr(), 0) };
    });
    let saw: Vec<_> = seen.attempts.iter().map(|attempt| (attempt.syscall.name, attempt.hook)).collect();
    assert_eq!(saw, [("mkdir", Hook::Tracepoint), ("unlink", Hook::Fexit), ("umount2", Hook::Tracepoint)]);
    let hook_of = |operation: &str, surface: &str| {
        let serves = |row: &&detector::kernel::serving::Serving| (row.operation, row.surface) == (operation, surface);
        attached.sensor.serving().iter().filter(serves).map(|row| row.hook).collect::<BTreeSet<_>>()
    };
    assert_eq!(hook_of("mkdir", "writes_x86_64"), BTreeSet::from(["tracepoint"]));
    assert_eq!(hook_of("mkdir", "writes_io_uring"), BTreeSet::from(["tracepoint"]));
    assert_eq!(hook_of("unlink", "writes_x86_64"), BTreeSet::from(["fexit"]));
    let coverage = attached.sensor.coverage();
    assert!(coverage.contains(&("kernel_paths", false)), "of a mkdir the path is read after the call: {coverage:?}");
    assert!(coverage.contains(&("writes_x86_64", true)), "{coverage:?}");
}

#[tokio::test]
async fn every_function_of_the_plan_is_there_or_nothing_would_end_there() {
    if hooks_under_test() != Hooks::Fexit {
        println!("skipped: about kernel functions");
        return;
    }
    let attached = Attached::new();
    let tracepoints: BTreeSet<_> = attached
        .sensor
        .serving()
        .iter()
        .filter(|row| row.hook == "tracepoint")
        .map(|row| (row.surface, row.operation))
        .collect();
    // The one operation of io_uring that has no function yet; nothing on a kernel that is tested falls back otherwise.
    assert_eq!(tracepoints, BTreeSet::from([("writes_io_uring", "setxattr")]), "of {} points", POINTS.len());
}
