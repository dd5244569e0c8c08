//! What the kernel side keeps of each cgroup: how much it may still say, and the exact counts of what it did.
//!
//! A table with open addressing, which both sides have in their memory: the kernel side claims a row by exchanging its owner, user
//! space gives it back when the cgroup has gone.

use crate::operation::Operation;

/// Rows; a power of two.
pub const ROWS: u32 = 1024;
/// The row of all cgroups for which there is none of their own.
pub const OTHERS: u32 = 0;
/// Rows that a cgroup can have, from the one on that its id hashes to.
pub const PROBES: u32 = 8;

/// Numbers of writing operations are below this.
pub const OPERATIONS: usize = 17;
const _: () = assert!((Operation::Setflags as usize) < OPERATIONS && Operation::Mount as usize >= OPERATIONS);

/// One cgroup. How many refused writes it did is counted beside this, per CPU, by row and [`Operation`].
#[derive(Debug)]
#[repr(C)]
pub struct Row {
    /// Id of the cgroup in the cgroup2 hierarchy; 0: nobody's.
    pub owner: u64,
    /// Of records of refused writes: until when its time is used up, nanoseconds since boot.
    pub writes_until_ns: u64,
    /// The same of records of mount attempts.
    pub mounts_until_ns: u64,
    /// When a mount attempt of it last woke the reader, nanoseconds since boot.
    pub woke_ns: u64,
    /// Refused writes whose record did not get out of the kernel, by [`Operation`]: no event counts them.
    pub untold: [u64; OPERATIONS],
    /// Those among them that had no room in the cgroup's budget.
    pub cut_writes: u64,
    /// Mount attempts that had no room in it.
    pub cut_mounts: u64,
    /// Explicit padding: rows are whole cache lines.
    pub padding: u64,
}

const _: () = assert!(size_of::<Row>() == 192 && ROWS.is_power_of_two());

/// Refused writes of a cgroup and CPU, by [`Operation`]: each, whatever becomes of its record.
pub type Denied = [u64; OPERATIONS];

/// What a cgroup may send to a ring.
///
/// A record costs time: [`Self::per_kilobyte_ns`] for each kilobyte that it has begun. The time that is used up may be ahead of
/// the clock by so much, and no more (the generic cell rate algorithm).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Allowance {
    /// What a kilobyte costs: the rate that it may keep up.
    pub per_kilobyte_ns: u64,
    /// How far its time may be ahead while at least half of the ring is free.
    pub ahead_ns: u64,
    /// How far, when there is less: what each can rely on, though others flood.
    pub ahead_when_scarce_ns: u64,
}

/// Refused writes: 500 kilobytes a second, 16 384 at once, 128 of them while the ring is more than half full.
pub const WRITES: Allowance =
    Allowance { per_kilobyte_ns: 2_000_000, ahead_ns: 16_384 * 2_000_000, ahead_when_scarce_ns: 128 * 2_000_000 };

/// Mount attempts: 200 kilobytes a second, 2048 at once, 64 of them while the ring is more than half full.
pub const MOUNTS: Allowance =
    Allowance { per_kilobyte_ns: 5_000_000, ahead_ns: 2048 * 5_000_000, ahead_when_scarce_ns: 64 * 5_000_000 };
