//! The kernel room: BTF offsets, the attach plan, loading, and the stream of decoded records.
//!
//! Nothing about containers lives here.

pub mod attempt;
pub mod before;
mod btf;
pub mod counters;
mod decode;
pub mod folds;
mod functions;
#[cfg(any(test, fuzzing))]
#[expect(clippy::expect_used, reason = "to panic is how a target says no")]
pub(crate) mod fuzzing;
pub mod kept;
mod layout;
mod links;
mod load;
mod maps;
mod members;
pub mod pins;
pub mod plan;
pub mod points;
mod preflight;
mod sensor;
pub mod serving;
mod shared;
pub mod stream;
mod switch;
mod takeover;

pub use decode::DecodeError;
pub use layout::{BTF_PATH, LayoutError};
pub use load::{KernelError, Verified};
pub use preflight::{Capability, REQUIRED, USEFUL, effective_capabilities, missing_capabilities};
pub use sensor::{Sensor, check_capabilities};
pub use takeover::Restart;
