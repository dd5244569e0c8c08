//! How the programs of one build stop and those of another begin, without a call that both count or neither:
//! `docs/decisions/0010-a-restart-without-a-gap.md`. Each build has a map of its own that says what its programs do, and both have one in common in
//! which the two agree while one takes over.

/// What the programs of a build do, the third word of its `COVERED`: nothing.
pub const OFF: u64 = 0;
/// They report.
pub const ON: u64 = 1;
/// They report what the two agree on; they are the ones that are to stop. Its lowest bit is what [`TURN`] is as long as they report.
pub const LEAVING: u64 = 2;
/// The same; they are the ones that are to begin.
pub const COMING: u64 = 3;

/// The bit of the first word of `COVERED` that is no operation's: the third tells.
pub const ASK: u64 = 1 << 63;

/// The number in the common map of whose turn it is: the lowest bit of [`LEAVING`] or [`COMING`].
pub const TURN: u32 = 0;
/// Numbers in the common map, by thread, of what was agreed on for the call that it is in; a power of two.
pub const AGREED: u32 = 512;
/// Numbers in the common map: [`TURN`], then those.
pub const NUMBERS: u32 = 1 + AGREED;

/// Kinds of calls, which are agreed on apart: a build may not look at all of them.
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Kind {
    /// A refused write.
    Refused,
    /// An attempt to change mounts.
    Mount,
    /// A write that succeeded.
    Observed,
}
