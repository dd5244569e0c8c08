//! rosentry, the read-only sentry: sees every write that a container's read-only root refuses, and names the pod.
//!
//! An event goes one way: [`kernel`] (records) → [`identity`] (container, pod) → [`finding`] (what it means) → [`export`].

pub mod agent;
pub mod cli;
pub mod clock;
mod error_chain;
pub mod export;
pub mod finding;
pub mod identity;
pub mod kernel;
mod process_stat;
pub mod report;
