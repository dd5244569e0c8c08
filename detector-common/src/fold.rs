//! The table in which repeats of a refused write are counted instead of being told one by one.
//!
//! The kernel side writes it and user space, which has it mapped into its memory, takes counts out of it. Each slot has one
//! word that both change by compare-and-exchange alone, so that no count is ever lost between them; see [`State`].
//! Why so: `docs/decisions/0009-folding-repeats.md`.

use crate::record::{PATH_MAX, STRING_MAX};

/// Slots that a key can be in.
pub const WAYS: usize = 4;
/// Places of [`WAYS`] slots each; a power of two.
pub const SETS: usize = 2048;
/// Slots in all.
pub const SLOTS: usize = SETS * WAYS;

/// One attempt that was told, and how often it was repeated since user space last asked.
#[derive(Debug)]
#[repr(C)]
pub struct Slot {
    /// [`State`].
    pub state: u64,
    /// Id of the cgroup in the cgroup2 hierarchy.
    pub cgroup_id: u64,
    /// Hash of what makes an attempt the same.
    pub key: [u64; 2],
    /// When the attempt was told, in ticks of the kernel (jiffies).
    pub told_ticks: u64,
    /// When the first of the counted repeats was.
    pub first_ticks: u64,
    /// When the last of them was; before there is one, as `told_ticks`.
    pub last_ticks: u64,
    /// Row of the cgroup in [`crate::budget`].
    pub row: u64,
}

/// The slots that a key can be in.
#[derive(Debug)]
#[repr(C)]
pub struct Set(pub [Slot; WAYS]);

// A cache line.
const _: () = assert!(size_of::<Slot>() == 64);
const _: () = assert!(SETS.is_power_of_two());

/// The word of a slot: what it is used for now, and the count.
///
/// The generation changes whenever the slot is given to another attempt, so that neither side can add to, or take from, an
/// attempt that it does not mean.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct State(pub u64);

impl State {
    const COUNT: u64 = (1 << 40) - 1;
    const LIVE: u64 = 1 << 40;
    const BUSY: u64 = 1 << 41;
    const GENERATION: u32 = 42;

    /// Repeats that were counted and not taken.
    #[inline(always)]
    pub const fn count(self) -> u64 {
        self.0 & Self::COUNT
    }

    /// Whether the key stands, and repeats are counted.
    #[inline(always)]
    pub const fn is_live(self) -> bool {
        self.0 & Self::LIVE != 0
    }

    /// Whether the slot is being given to another attempt.
    #[inline(always)]
    pub const fn is_busy(self) -> bool {
        self.0 & Self::BUSY != 0
    }

    /// Which attempt of those that have had the slot.
    #[inline(always)]
    pub const fn generation(self) -> u32 {
        (self.0 >> Self::GENERATION) as u32
    }

    /// All but the count: another number for each attempt that has the slot, and for each stage of it.
    #[inline(always)]
    pub const fn without_count(self) -> u64 {
        self.0 >> Self::LIVE.trailing_zeros()
    }

    /// One repeat more.
    #[inline(always)]
    pub const fn counted(self) -> Self {
        Self(self.0 + 1)
    }

    /// Without the counted repeats.
    #[inline(always)]
    pub const fn taken(self) -> Self {
        Self(self.0 & !Self::COUNT)
    }

    /// Of the next generation, being written; what it held is gone.
    #[inline(always)]
    pub const fn claimed(self) -> Self {
        Self((((self.0 >> Self::GENERATION) + 1) << Self::GENERATION) | Self::BUSY)
    }

    /// Written: repeats are counted from now on.
    #[inline(always)]
    pub const fn published(self) -> Self {
        Self((self.0 & !Self::BUSY) | Self::LIVE)
    }

    /// Of use to nobody.
    #[inline(always)]
    pub const fn freed(self) -> Self {
        Self(self.0 >> Self::GENERATION << Self::GENERATION)
    }
}

/// Strings of a record that tell attempts apart, bytes at most: two paths and three others.
pub const TEXT_MAX: usize = 2 * PATH_MAX + 3 * STRING_MAX;

/// Words of 8 bytes that are hashed at most: the strings, and what stands before them.
pub const HASHED_WORDS: usize = TEXT_MAX / 8 + FIXED_WORDS;
/// Those before the strings: the call, what the kernel chose, the lengths of the strings.
pub const FIXED_WORDS: usize = 3;

/// The secret of the hash, random at each start: two pairs of numbers for each word.
///
/// To each word, and to its upper half, a number is added, the two are multiplied, and the products summed up, modulo 2^64, in
/// two lanes with numbers of their own (after the pseudo-dot-product of NH: Black et al., “UMAC: Fast and Secure Message
/// Authentication”, 1999). For whoever does not know the numbers, two texts of his choice have the same lane in one of 2^33 cases
/// at most: of two words that differ, the upper halves do, and their difference times the one number has 33 random bits, or the
/// lower ones do, and theirs times the other has.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Secret(pub [[u64; 4]; HASHED_WORDS]);

impl Secret {
    /// Not made yet.
    pub const UNSET: Self = Self([[0; 4]; HASHED_WORDS]);
}

#[cfg(feature = "user")]
// SAFETY: `repr(transparent)` around an array of numbers: no padding and no invalid bit patterns.
unsafe impl aya::Pod for Secret {}

#[cfg(all(test, feature = "user"))]
mod tests {
    use super::*;

    #[test]
    fn a_slot_goes_from_one_attempt_to_the_next() {
        let claimed = State(0).claimed();
        assert!(claimed.is_busy() && !claimed.is_live() && claimed.count() == 0);
        let live = claimed.published();
        assert!(live.is_live() && !live.is_busy());
        let counted = live.counted().counted();
        assert_eq!((counted.count(), counted.generation()), (2, live.generation()));
        assert_eq!(counted.taken(), live);
        assert_eq!(counted.without_count(), live.without_count());
        assert_ne!(counted.claimed().published().without_count(), live.without_count());
        assert!(!counted.freed().is_live() && counted.freed().count() == 0);
        assert_eq!(counted.freed().generation(), live.generation());
        assert_eq!(counted.claimed().generation(), live.generation() + 1);
    }

    #[test]
    fn the_last_generation_is_followed_by_the_first() {
        let last = State(u64::MAX);
        assert_eq!(last.claimed().generation(), 0);
    }
}
