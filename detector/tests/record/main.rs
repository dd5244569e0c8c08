//! The record and its ways out: `rosentry verify` as a user meets it, and the sinks with real receivers.
//!
//! Nothing here attaches to the kernel.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test stops at the first thing that is not as it should be"
)]

mod verify;
