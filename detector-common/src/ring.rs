//! What the writer and the reader of the rings agree on.

/// Refused writes wake the reader at most once in this time and CPU, nanoseconds. Having been woken, the reader looks again
/// after a little more than this, until it finds nothing: a record never waits for the next one.
pub const WAKE_INTERVAL_NS: u64 = 10_000_000;
