//! The kernel room: BTF offsets, the attach plan, loading, and the stream of decoded records.
//!
//! Nothing about containers lives here.

pub mod attempt;
mod btf;
pub mod counters;
mod decode;
pub mod folds;
mod functions;
#[cfg(any(test, fuzzing))]
#[expect(clippy::expect_used, reason = "to panic is how a target says no")]
pub(crate) mod fuzzing;
mod layout;
mod links;
mod load;
pub mod plan;
pub mod points;
mod preflight;
pub mod serving;
mod shared;
pub mod stream;

pub use decode::DecodeError;
pub use layout::{BTF_PATH, LayoutError};
pub use load::{KernelError, Sensor, Verified};
pub use preflight::{Capability, REQUIRED, USEFUL, effective_capabilities, missing_capabilities};
