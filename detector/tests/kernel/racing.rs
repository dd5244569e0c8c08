//! A second thread rewrites the path while the call runs: at kernel functions, what is reported is what the kernel used.

use std::{
    collections::BTreeMap,
    ffi::CStr,
    sync::atomic::{AtomicBool, Ordering},
};

use detector::kernel::plan::Hooks;

use super::{
    sealed::Sealed,
    sensor::{Attached, begin, hooks_under_test, requested},
};

const TIMES: usize = 2000;
/// Of one length, and that of the two differ in several words, so that the kernel may even copy a mixture.
const SEALED: &CStr = c"/mnt/etc/sealed-sealed-sealed-sealed";
const DECOY: &CStr = c"/tmp/etc/unseal-unseal-unseal-unseal";

/// The arguments of a call on a path.
type Arguments = fn(libc::c_long) -> [libc::c_long; 3];

const CALLS: &[(&str, libc::c_long, Arguments)] = &[
    ("open", libc::SYS_open, |path| [path, (libc::O_CREAT | libc::O_WRONLY).into(), 0o644]),
    ("mkdir", libc::SYS_mkdir, |path| [path, 0o755, 0]),
    ("unlink", libc::SYS_unlink, |path| [path, 0, 0]),
    ("rmdir", libc::SYS_rmdir, |path| [path, 0, 0]),
    ("symlink", libc::SYS_symlink, |path| [c"target".as_ptr() as libc::c_long, path, 0]),
    ("rename", libc::SYS_rename, |path| [path, c"/mnt/etc/new".as_ptr() as libc::c_long, 0]),
    ("mknod", libc::SYS_mknod, |path| [path, (libc::S_IFIFO | 0o644).into(), 0]),
];

/// Does each call many times on a path that another thread rewrites all the while; the names of those that were refused.
fn race() -> Vec<&'static str> {
    let mut path = SEALED.to_bytes_with_nul().to_vec();
    let shared = path.as_mut_ptr() as usize;
    let length = path.len();
    let done = AtomicBool::new(false);
    let mut refused = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for text in [DECOY, SEALED] {
                    let bytes = text.to_bytes_with_nul();
                    for (index, byte) in bytes.iter().enumerate().take(length) {
                        // SAFETY: within the path, which outlives the scope; a race on purpose, byte by byte.
                        unsafe { std::ptr::write_volatile((shared + index) as *mut u8, *byte) };
                    }
                }
            }
        });
        for &(name, number, arguments) in CALLS {
            let [first, second, third] = arguments(shared as libc::c_long);
            for _ in 0..TIMES {
                // SAFETY: the arguments of this very call; the path is NUL-terminated at every instant, as both texts are of
                // one length.
                let result = unsafe { libc::syscall(number, first, second, third) };
                if result == -1 && std::io::Error::last_os_error().raw_os_error() == Some(libc::EROFS) {
                    refused.push(name);
                }
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    refused
}

fn count<T: Ord>(items: impl IntoIterator<Item = T>) -> BTreeMap<T, usize> {
    let mut counts = BTreeMap::new();
    for item in items {
        *counts.entry(item).or_default() += 1;
    }
    counts
}

#[tokio::test]
async fn a_thread_that_rewrites_the_path_does_not_change_what_is_reported() {
    if hooks_under_test() != Hooks::Fexit {
        println!("skipped: the tracepoints read the path after the call, and can't give this guarantee");
        return;
    }
    let mut attached = Attached::new();
    let seen = attached.watch(|| {
        Sealed::new();
        begin();
        race()
    });
    assert!(seen.returned.len() > TIMES, "the race was about something: {}", seen.returned.len());
    let lost = attached.counters.read(detector_common::counter::Counter::WriteRingFull).unwrap();
    for attempt in &seen.attempts {
        let path = requested(attempt);
        // Only a path that begins there is refused: with any other the kernel would have answered something else.
        assert!(path.starts_with("/mnt/"), "{} of {path}, which the kernel can't have refused", attempt.syscall.name);
    }
    let saw = seen.attempts.len() + usize::try_from(lost).unwrap();
    assert_eq!(saw, seen.returned.len(), "each refusal is seen once: {:?}", count(seen.returned.iter()));
}
