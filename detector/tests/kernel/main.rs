//! The kernel programs, loaded into the running kernel, with real refused writes and real mounts.
//!
//! Needs root and a kernel with BTF. One process a test (cargo nextest), because each attaches programs of its own.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the exception of clippy.toml reaches test functions only, not what they share"
)]

mod actor;
mod agent;
mod cgroup;
mod door;
mod evasion;
mod every_syscall;
mod fairness;
mod fallback;
mod folding;
mod generator;
mod io_uring;
#[path = "../shared/kernel_objects.rs"]
mod kernel_objects;
mod lifecycle;
#[path = "../shared/mortal.rs"]
mod mortal;
mod mounted;
mod mounts;
mod observe;
mod paths;
mod pinned;
mod racing;
mod refusals;
mod ring;
mod sealed;
mod sensor;
mod takeover;
mod told;
