//! The record and its ways out: `rosentry verify` as a user meets it, and the sinks with real receivers.
//!
//! Nothing here attaches to the kernel. Needs rsyslog, Chromium, and root for a disk that fills.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test stops at the first thing that is not as it should be"
)]

#[path = "../shared/browser.rs"]
mod browser;
mod certificates;
mod disk;
mod feeder;
mod formats;
mod killed;
mod otlp;
mod page;
mod received;
mod rsyslog;
mod syslog;
mod timeline;
mod told;
mod verify;
mod view;
