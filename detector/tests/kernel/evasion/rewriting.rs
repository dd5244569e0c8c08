//! A second thread that rewrites the path while the call runs.

use std::{
    ffi::CStr,
    sync::atomic::{AtomicBool, Ordering},
};

/// Of one length, so that the text ends at every instant.
const SEALED: &CStr = c"/mnt/etc/sealed";
const DECOY: &CStr = c"/tmp/etc/decoys";

/// Makes folders there until one was refused by the seal.
pub fn race() {
    let mut path = SEALED.to_bytes_with_nul().to_vec();
    let shared = path.as_mut_ptr() as usize;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for (index, byte) in DECOY.to_bytes().iter().chain(SEALED.to_bytes()).enumerate() {
                    let index = index % SEALED.to_bytes().len();
                    // SAFETY: within the path, which outlives the scope; a race on purpose, byte by byte.
                    unsafe { std::ptr::write_volatile((shared + index) as *mut u8, *byte) };
                }
            }
        });
        loop {
            // SAFETY: a path that is NUL-terminated at every instant.
            let result = unsafe { libc::mkdir(shared as *const libc::c_char, 0o755) };
            if result == -1 && std::io::Error::last_os_error().raw_os_error() == Some(libc::EROFS) {
                break;
            }
        }
        done.store(true, Ordering::Relaxed);
    });
}
