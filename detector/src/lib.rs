//! rosentry, the read-only sentry: sees every write that a container's read-only root refuses, and names the pod.
//!
//! An event goes one way: [`kernel`] (records) → [`identity`] (container, pod) → [`finding`] (what it means) → [`export`].

pub mod agent;
pub mod cli;
pub mod clock;
#[cfg(test)]
mod counting_allocator;
mod error_chain;
pub mod export;
pub mod finding;
#[cfg(any(test, fuzzing))]
#[expect(clippy::expect_used, reason = "to panic is how a target says no")]
pub mod fuzzing;
pub mod identity;
pub mod kernel;
mod kernel_release;
pub mod posture;
mod process_stat;
pub mod report;
