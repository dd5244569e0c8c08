//! The stream of records: awaits the rings, decodes, and gives them in order.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use aya::maps::{MapData, RingBuf};
use aya_log::EbpfLogger;
use detector_common::ring::WAKE_INTERVAL_NS;
use log::Log;
use tokio::io::{Interest, unix::AsyncFd};

use super::{
    attempt::Attempt,
    decode::{self, DecodeError},
    folds::{Folds, Tables},
    kept::Kept,
};

/// A decoded record.
#[derive(Clone, Debug)]
pub enum Record {
    /// A refused write or a mount attempt; in learning mode, a write that succeeded, too.
    Attempt(Box<Attempt>),
    /// A cgroup was made.
    CgroupCreated {
        /// Its id in the cgroup2 hierarchy.
        id: u64,
        /// Its path in the cgroup2 hierarchy, absolute.
        path: String,
        /// When, nanoseconds since boot.
        time_ns: u64,
    },
    /// A cgroup was removed.
    CgroupRemoved {
        /// Its id in the cgroup2 hierarchy.
        id: u64,
        /// When, nanoseconds since boot.
        time_ns: u64,
    },
}

impl Record {
    /// When, nanoseconds since boot.
    pub const fn time_ns(&self) -> u64 {
        match self {
            Self::Attempt(attempt) => attempt.time_ns,
            Self::CgroupCreated { time_ns, .. } | Self::CgroupRemoved { time_ns, .. } => *time_ns,
        }
    }
}

/// Records of each ring that one batch holds at most: bounds the memory, and the time until the other rings are looked at.
const BATCH: usize = 4096;

/// A little more than the time within which the kernel side does not wake the reader again.
const LOOK_AGAIN: Duration = Duration::from_nanos(WAKE_INTERVAL_NS + WAKE_INTERVAL_NS / 4);

/// The reader of the rings.
pub struct Stream {
    writes: AsyncFd<RingBuf<MapData>>,
    urgent: AsyncFd<RingBuf<MapData>>,
    cgroups: AsyncFd<RingBuf<MapData>>,
    tables: Tables,
    kept: Option<Arc<Kept>>,
    /// None where the programs were there before.
    logger: Option<EbpfLogger<&'static dyn Log>>,
    /// When to look again without having been woken.
    look_again: Option<Instant>,
    undecodable: u64,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Stream").field("undecodable", &self.undecodable).finish_non_exhaustive()
    }
}

impl Stream {
    /// `rings`: of writes, of mounts, of cgroups.
    pub(super) fn new(
        rings: [RingBuf<MapData>; 3],
        tables: Tables,
        kept: Option<Arc<Kept>>,
        logger: Option<EbpfLogger<&'static dyn Log>>,
    ) -> io::Result<Self> {
        let [writes, urgent, cgroups] = rings;
        let (writes, urgent, cgroups) = (watch(writes)?, watch(urgent)?, watch(cgroups)?);
        Ok(Self { writes, urgent, cgroups, tables, kept, logger, look_again: None, undecodable: 0 })
    }

    /// Where the repeats of what the records tell are counted.
    pub fn folds(&self) -> Arc<Folds> {
        Arc::clone(&self.tables.refused)
    }

    /// The same of writes that succeeded; none where learning mode is off.
    pub fn observed(&self) -> Option<Arc<Folds>> {
        self.tables.observed.clone()
    }

    /// Awaits records and appends them to `batch`, in the order of their time. May append none. Cancel-safe.
    ///
    /// # Errors
    /// Those of waiting on the rings' descriptors.
    pub async fn next_batch(&mut self, batch: &mut Vec<Record>) -> io::Result<()> {
        let look_again = self.look_again;
        tokio::select! {
            // Readiness is cleared before the ring is drained: a wake-up in between sets it again.
            ready = self.writes.readable_mut() => ready?.clear_ready(),
            ready = self.urgent.readable_mut() => ready?.clear_ready(),
            ready = self.cgroups.readable_mut() => ready?.clear_ready(),
            () = sleep_until(look_again) => {}
        }
        self.drain(batch);
        Ok(())
    }

    /// Appends what is in the rings now, without waiting; whether more may be left.
    pub fn drain(&mut self, batch: &mut Vec<Record>) -> bool {
        let first = batch.len();
        let kept = self.kept.as_deref();
        let writes = take(self.writes.get_mut(), batch, kept, &mut self.undecodable);
        let urgent = take(self.urgent.get_mut(), batch, kept, &mut self.undecodable);
        // Last: a cgroup is older than all that its processes do, so it is there with, or before, the first of that.
        let cgroups = take(self.cgroups.get_mut(), batch, kept, &mut self.undecodable);
        if let Some(new) = batch.get_mut(first..) {
            new.sort_by_key(Record::time_ns);
        }
        let full = [writes, urgent, cgroups].contains(&BATCH);
        // Neither always wakes the reader.
        self.look_again = next_look(writes + urgent, full, self.look_again, Instant::now());
        if let Some(logger) = &mut self.logger {
            logger.flush();
        }
        full
    }

    /// Records that were not as the wire format says; never more than 0 when object and binary belong together.
    pub const fn undecodable(&self) -> u64 {
        self.undecodable
    }
}

fn watch(ring: RingBuf<MapData>) -> io::Result<AsyncFd<RingBuf<MapData>>> {
    // SAFETY: the ring owns its descriptor, and `AsyncFd` owns the ring: it is open and the same as long as it is watched.
    Ok(unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }?)
}

async fn sleep_until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant.into()).await,
        None => std::future::pending().await,
    }
}

/// When to look again without having been woken, after so many refused writes and mount attempts were `found` at `now`.
///
/// A look that is due later stands, even when there was nothing now: it is for those that will come before the kernel side
/// wakes the reader again.
fn next_look(found: usize, full: bool, due: Option<Instant>, now: Instant) -> Option<Instant> {
    match found {
        _ if full => Some(now),
        0 => due.filter(|&due| due > now),
        _ => Some(now + LOOK_AGAIN),
    }
}

fn take(ring: &mut RingBuf<MapData>, batch: &mut Vec<Record>, kept: Option<&Kept>, undecodable: &mut u64) -> usize {
    let mut taken = 0;
    while taken < BATCH {
        let Some(item) = ring.next() else { break };
        taken += 1;
        match decode::record(&item) {
            Ok(mut record) => {
                // Before it leaves the ring.
                if let (Record::Attempt(attempt), Some(kept)) = (&mut record, kept) {
                    attempt.origin = kept.hold(attempt.kind, attempt.fold, &item);
                }
                batch.push(record);
            }
            Err(error) => note_undecodable(&error, undecodable),
        }
    }
    taken
}

fn note_undecodable(error: &DecodeError, undecodable: &mut u64) {
    // Once: whatever makes one record unreadable will make a million so.
    if *undecodable == 0 {
        tracing::error!(%error, "a record from the kernel cannot be read");
    }
    *undecodable += 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_write_the_reader_comes_back_though_another_ring_woke_it_meanwhile() {
        let start = Instant::now();
        let due = next_look(1, false, None, start);
        assert_eq!(due, Some(start + LOOK_AGAIN));
        let meanwhile = start + Duration::from_millis(1);
        assert_eq!(next_look(0, false, due, meanwhile), due, "nothing found by a wake-up of another ring");
    }

    #[test]
    fn when_the_look_that_was_due_finds_nothing_there_is_no_further_one() {
        let start = Instant::now();
        assert_eq!(next_look(0, false, Some(start), start), None);
    }

    #[test]
    fn what_was_left_is_looked_at_at_once() {
        let now = Instant::now();
        assert_eq!(next_look(BATCH, true, None, now), Some(now));
    }
}
