//! The kernel programs, loaded into the running kernel, with real refused writes and real mounts.
//!
//! Needs root and a kernel with BTF. One process a test (cargo nextest), because each attaches programs of its own.

mod door;
mod every_syscall;
mod io_uring;
mod mounts;
mod paths;
mod refusals;
mod ring;
mod sealed;
mod sensor;
