//! The kernel room: BTF offsets, the attach plan, loading, and the stream of decoded records.
//!
//! Nothing about containers lives here.

pub mod attempt;
