//! Attaching programs to kernel functions, and detaching them without waiting for it.
//!
//! The kernel waits for a grace period for each function whose program goes, one after the other: ten seconds for sixty of them
//! in an emulated machine, whether they are detached or their process ends. It waits in whoever closes the last descriptor. So
//! the descriptors are given to an io_uring that is closed at once: the kernel takes it apart in a thread of its own.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
    ptr, thread,
};

use rustix::io_uring::{IoringRegisterOp, io_uring_params, io_uring_register, io_uring_setup};

/// Attaches a loaded program of type BPF_PROG_TYPE_TRACING where it was loaded for; it is detached when the link is closed.
///
/// bpf(2) with BPF_RAW_TRACEPOINT_OPEN, kernel 5.5. What aya does, but it keeps the descriptor to itself.
pub(super) fn attach(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    const BPF_RAW_TRACEPOINT_OPEN: libc::c_int = 17;
    /// The start of `union bpf_attr`.
    #[repr(C)]
    struct Attributes {
        name: u64,
        program: u32,
        padding: u32,
    }
    let attributes = Attributes { name: 0, program: program.as_raw_fd().unsigned_abs(), padding: 0 };
    // SAFETY: the attributes are readable for the size that is told.
    let link = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_RAW_TRACEPOINT_OPEN, &raw const attributes, size_of::<Attributes>())
    };
    match RawFd::try_from(link) {
        // SAFETY: a descriptor that the kernel has just made for us.
        Ok(link) if link >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(link) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Detaches; the kernel may still be at it for some seconds.
pub(super) fn detach(links: Vec<OwnedFd>) {
    if links.is_empty() {
        return;
    }
    match hand_over(&links) {
        // Ours are not the last ones now.
        Ok(ring) => {
            drop(links);
            drop(ring);
        }
        // A seccomp filter may forbid io_uring.
        Err(error) => {
            tracing::debug!(%error, "links are closed one by one");
            close_all(links);
        }
    }
}

/// Registers the descriptors with a ring: it holds them, too, from then on.
fn hand_over(links: &[OwnedFd]) -> io::Result<OwnedFd> {
    let raw: Vec<RawFd> = links.iter().map(|link| link.as_raw_fd()).collect();
    let count = u32::try_from(raw.len()).map_err(io::Error::other)?;
    let mut parameters = io_uring_params::default();
    // SAFETY: the ring's memory is never mapped.
    let ring = unsafe { io_uring_setup(1, &mut parameters) }?;
    // SAFETY: an array of so many descriptors, which the kernel copies.
    unsafe { io_uring_register(&ring, IoringRegisterOp::RegisterFiles, ptr::from_ref(&*raw).cast(), count) }?;
    Ok(ring)
}

/// Closes all at once, so that some of the grace periods are the same.
fn close_all(links: Vec<OwnedFd>) {
    thread::scope(|scope| {
        for link in links {
            // Where no thread can be had, the closure is dropped, and the link in it.
            let _joined_by_the_scope =
                thread::Builder::new().stack_size(64 << 10).spawn_scoped(scope, move || drop(link));
        }
    });
}
