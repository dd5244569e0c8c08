//! The export room: formats, sinks, metrics.

pub mod chain;
pub mod escape;
pub mod format;
pub mod http;
pub mod metrics;
pub mod native;
pub mod sinks;
pub mod stream;
#[cfg(test)]
pub(crate) mod testing;

pub use metrics::Metrics;
pub use native::NativeEncoder;
