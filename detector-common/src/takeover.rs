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

/// The number in the common map that says whose turn it is, by its lowest bit: that of [`LEAVING`] or [`COMING`]. It counts the turns,
/// so the rest of it tells one take-over from the next.
pub const TURN: u32 = 0;
/// Numbers in the common map: bit sets of the operations of which those that are coming are the first to ask, by [`Door`].
pub const COMING_FIRST: u32 = 1;
/// Numbers in the common map, by thread, of what the first that asked has noted for the call that it is in; a power of two.
pub const AGREED: u32 = 512;
/// The first of those.
pub const FIRST_AGREED: u32 = COMING_FIRST + 2;
/// Numbers in the common map.
pub const NUMBERS: u32 = FIRST_AGREED + AGREED;

/// By which door a call comes.
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Door {
    /// A syscall.
    Syscall,
    /// A request on an io_uring.
    IoUring,
}

/// Kinds of calls, which are agreed on apart: a build may not look at all of them.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub enum Kind {
    /// A refused write.
    Refused,
    /// An attempt to change mounts.
    Mount,
    /// A write that succeeded.
    Observed,
}

/// Stands for the operation of a write that succeeded: it is seen at the exit of its syscall whatever the operation.
pub const AT_EXIT: u8 = 63;

/// A thread's place in the common map. It may be another's, too.
pub trait Place {
    /// What stands there.
    fn get(&self) -> u64;
    /// Puts it there.
    fn put(&self, note: u64);
    /// Takes this note away, if it still stands there.
    fn take(&self, note: u64);
}

/// A call that the programs of two builds see, of which one of them asks whether it is theirs to report.
#[derive(Clone, Copy)]
pub struct Asked {
    /// Who asks: [`LEAVING`] or [`COMING`].
    pub party: u64,
    /// What stands in [`TURN`].
    pub turn: u64,
    /// The bit set of [`COMING_FIRST`].
    pub coming_first: u64,
    /// The call's operation, or [`AT_EXIT`].
    pub operation: u8,
    /// Its kind.
    pub kind: Kind,
    /// The thread that is in it.
    pub thread: u32,
}

impl Asked {
    /// Whether they report it. To be called once for each call.
    ///
    /// The first to ask goes by whose turn it is, and notes that; the second goes by the note, and takes it away. Where there is none
    /// it goes by the turn, but never notes anything: so a note that was lost, or that nobody took, is of this call alone.
    #[inline(always)]
    pub fn is_theirs(&self, place: &impl Place) -> bool {
        let takes = self.turn & 1 == self.party & 1;
        let is_coming_first = self.coming_first >> (self.operation & 63) & 1 != 0;
        if is_coming_first == (self.party == COMING) {
            place.put(self.note(takes));
            return takes;
        }
        let found = place.get();
        let (taken, left) = (self.note(true), self.note(false));
        if found != taken && found != left {
            return takes;
        }
        place.take(found);
        found == left
    }

    /// What the first notes: for this thread, take-over and kind, whether it reports the call.
    #[inline(always)]
    const fn note(&self, takes: bool) -> u64 {
        (self.thread as u64) << 32 | (self.turn >> 1 & 0xff_ffff) << 8 | (self.kind as u64) << 1 | takes as u64
    }
}

#[cfg(all(test, feature = "user"))]
#[path = "takeover_tests.rs"]
mod tests;
