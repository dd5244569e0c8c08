//! What the agent keeps in the kernel's memory beside the programs' own maps, so that the next agent can go on where a killed one
//! was: `docs/decisions/0010-a-restart-without-a-gap.md`. No program touches it.

use crate::{budget::OPERATIONS, fold::SLOTS};

/// Version of what is here; part of the name of the folder that it is pinned in.
pub const KEPT_VERSION: u16 = 1;

/// Cgroups of which it is kept what was told.
pub const ACCOUNTS: u32 = 2048;

/// What was told of a cgroup.
#[derive(Debug)]
#[repr(C)]
pub struct Account {
    /// Id of the cgroup; 0: nobody's.
    pub owner: u64,
    /// Refused writes that the record tells of, by [`Operation`](crate::operation::Operation).
    pub written: [u64; OPERATIONS],
    /// Those that are no event by choice.
    pub ignored: [u64; OPERATIONS],
    /// Those that are known to be told by no event, and counted so.
    pub unknown: [u64; OPERATIONS],
    /// Those that programs before these have counted, and that are to be told with what these count.
    pub owed: [u64; OPERATIONS],
    /// Refused writes beyond the budget that were told as lost.
    pub cut_writes: u64,
    /// The same of mount attempts.
    pub cut_mounts: u64,
    /// Explicit padding: whole cache lines.
    pub padding: u64,
}

const _: () = assert!(size_of::<Account>() == 576);

/// Lines that are written at once at most.
pub const LINES: usize = 512;

/// A line that is about to be written, and what it counts.
#[derive(Debug)]
#[repr(C)]
pub struct Line {
    /// Number of the [`Account`], and of the operation in the lowest byte; [`NO_ACCOUNT`]: it counts nothing.
    pub account: u64,
    /// What [`Account::written`] is when the line is.
    pub written: u64,
    /// The record that it tells of: its number in the map of records, and its generation in the upper half; [`NO_ACCOUNT`]: none.
    pub origin: u64,
}

/// See [`Line::account`].
pub const NO_ACCOUNT: u64 = u64::MAX;

/// Stages of loss whose counts are kept.
pub const STAGES: usize = 8;

/// Where the agent was.
#[derive(Debug)]
#[repr(C)]
pub struct Record {
    /// When an agent last was at work, nanoseconds since boot.
    pub alive_ns: u64,
    /// `seq` of the last line in the record; 0: none.
    pub seq: u64,
    /// `chain` of that line, as bytes.
    pub chain: [u64; 4],
    /// 1: lines are being written; from `seq` + 1 on.
    pub writing: u64,
    /// How many.
    pub lines: u64,
    /// Losses that were told, by stage.
    pub lost: [u64; STAGES],
    /// By slot, as [`ON_SLOTS`] says: the generation and one, if the first attempt has been told.
    pub told: [u64; ON_SLOTS],
    /// Those lines.
    pub line: [Line; LINES],
}

/// Bytes of a record that are kept. Longer ones are not: their attempts are told without a path. An entry of the map fills a page.
pub const ORIGIN_MAX: usize = 4000;

/// Records of attempts whose repeats a slot counts, by the number of the slot: first those of refused writes, then those of writes
/// that succeeded.
pub const ON_SLOTS: usize = 2 * SLOTS;

/// Records of attempts that no slot counts, and that are on their way to the output; at most.
pub const ON_THE_WAY: usize = 8192;

/// A record as it came from the kernel: of the attempt whose repeats a slot counts, by the slot; from [`ON_SLOTS`] on, of others that
/// are not told yet.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Origin {
    /// Generation of the slot; 0 where there is none.
    pub generation: u32,
    /// Bytes of the record.
    pub length: u32,
    /// The record.
    pub bytes: [u8; ORIGIN_MAX],
}

#[cfg(feature = "user")]
// SAFETY: numbers without padding; any bytes are a value.
unsafe impl aya::Pod for Origin {}
