//! Losses, told in the stream itself: whoever reads only the events must know that some are missing.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use detector_common::counter::Counter;

use super::{notes, pipeline::Pipeline};
use crate::kernel::{counters::Counters, stream::Stream};

/// How often they are looked for while records come.
const INTERVAL: Duration = Duration::from_secs(1);

/// Remembers what has been told.
pub struct Losses {
    counters: Arc<Counters>,
    looked_at: Instant,
    told_writes: u64,
    told_urgent: u64,
    told_undecodable: u64,
}

impl Losses {
    /// Nothing told yet.
    pub fn new(counters: Arc<Counters>) -> Self {
        Self { counters, looked_at: Instant::now(), told_writes: 0, told_urgent: 0, told_undecodable: 0 }
    }

    /// Tells of new losses, if it has not looked just before.
    pub fn report(&mut self, pipeline: &Pipeline, stream: &Stream) {
        if self.looked_at.elapsed() >= INTERVAL {
            self.report_now(pipeline, stream);
        }
    }

    /// Tells of new losses.
    pub fn report_now(&mut self, pipeline: &Pipeline, stream: &Stream) {
        self.looked_at = Instant::now();
        let read = |counter, told| self.counters.read(counter).unwrap_or(told);
        let writes = read(Counter::WriteRingFull, self.told_writes);
        let urgent = read(Counter::UrgentRingFull, self.told_urgent);
        let undecodable = stream.undecodable();
        let stages = [
            ("ring_writes", writes - self.told_writes),
            ("ring_urgent", urgent - self.told_urgent),
            ("decode", undecodable - self.told_undecodable),
        ];
        pipeline.metrics.lost("decode", undecodable - self.told_undecodable);
        (self.told_writes, self.told_urgent, self.told_undecodable) = (writes, urgent, undecodable);
        if stages.iter().any(|&(_, lost)| lost > 0) {
            pipeline.outbox.send(notes::lost(&stages));
        }
    }
}
