//! Virtual machines for one program each: one of Debian's kernels in QEMU, with a root filesystem in memory that holds the
//! program, its libraries and busybox.
//!
//! QEMU emulates the processor, so this needs no KVM; a machine is up in three seconds.

pub mod initramfs;
pub mod kernel;
pub mod machine;
pub mod program;
