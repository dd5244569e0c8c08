//! A second thread that rewrites the path while the call runs.

use std::{
    ffi::CStr,
    sync::atomic::{AtomicBool, Ordering},
};

/// What the other thread writes there.
const DECOY: &CStr = c"/tmp/etc/decoys";

/// Asks for `write` of `sealed` until the seal has refused it.
pub fn race(sealed: &CStr, write: fn(*const libc::c_char) -> i32) {
    // So that the text ends at every instant.
    assert_eq!(sealed.count_bytes(), DECOY.count_bytes());
    let mut path = sealed.to_bytes_with_nul().to_vec();
    let shared = path.as_mut_ptr() as usize;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for (index, byte) in DECOY.to_bytes().iter().chain(sealed.to_bytes()).enumerate() {
                    let index = index % sealed.to_bytes().len();
                    // SAFETY: within the path, which outlives the scope; a race on purpose, byte by byte.
                    unsafe { std::ptr::write_volatile((shared + index) as *mut u8, *byte) };
                }
            }
        });
        loop {
            let result = write(shared as *const libc::c_char);
            if result == -1 && std::io::Error::last_os_error().raw_os_error() == Some(libc::EROFS) {
                break;
            }
        }
        done.store(true, Ordering::Relaxed);
    });
}
