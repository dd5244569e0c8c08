//! The identity room alone beside a real containerd: what it knows of containers, when it knows it, and what it makes of
//! outages and hostile records.

#![expect(clippy::unwrap_used, reason = "a test stops at the first thing that is not as it should be")]

mod hostile_records;
mod known;
pub mod node;
mod outage;
mod short_lived;
