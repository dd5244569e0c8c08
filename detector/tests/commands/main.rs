//! `rosentry demo`, `rosentry doctor` and `rosentry run` as a user meets them: their output, their exit codes, and what they leave behind.
//!
//! Needs root and a kernel with BTF; the tests with containerd start one in a folder of their own.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test stops at the first thing that is not as it should be"
)]

mod containerd;
mod demo;
mod doctor;
#[path = "../shared/kernel_objects.rs"]
mod kernel_objects;
mod killed;
mod leftovers;
#[path = "../shared/mortal.rs"]
mod mortal;
mod remembered;
mod restart;
mod run;
mod stage;
