//! Losses, told in the stream itself: whoever reads only the events must know that some are missing.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use detector_common::counter::Counter;

use super::{notes, pipeline::Pipeline};
use crate::kernel::{counters::Counters, kept::Kept, stream::Stream};

/// How often they are looked for while events go through.
const INTERVAL: Duration = Duration::from_secs(1);

/// Stages in the kernel, with their counters.
pub const KERNEL_STAGES: &[(&str, Counter)] = &[
    ("ring_writes", Counter::WriteRingFull),
    ("ring_mounts", Counter::UrgentRingFull),
    ("ring_cgroups", Counter::CgroupRingFull),
    ("scratch", Counter::ScratchBusy),
    ("observe_budget", Counter::ObservedCut),
];

/// The stage in the kernel that the kernel counts itself: programs that were not run, because another task was in them.
pub const RECURSION: &str = "recursion";

/// Stages in the agent, counted in the metrics: records that can't be read, events that can't be told in a line, and what the end
/// of the agent left no time for.
pub const DECODE: &str = "decode";
/// See [`DECODE`].
pub const WRITER: &str = "writer";
/// See [`DECODE`].
pub const STOP: &str = "stop";
const AGENT_STAGES: &[&str] = &[DECODE, WRITER, STOP];

/// What a sink had no room for. Others have it, so it is told in that sink's stream alone, by the outbox.
pub const SINK: &str = "sink";

/// The stage in the kernel that is told by container: attempts beyond the budget of their cgroup.
pub const BUDGET: &str = "budget";

/// Remembers what has been told.
pub struct Losses {
    counters: Arc<Counters>,
    looked_at: Instant,
    /// When to look, though no event goes through; none where nothing has since the last look.
    due: Option<Instant>,
    told: Vec<(&'static str, u64)>,
    undecodable: u64,
    kept: Option<Arc<Kept>>,
}

impl Losses {
    /// Nothing told yet but what an agent before has told.
    pub fn new(counters: Arc<Counters>, kept: Option<Arc<Kept>>) -> Self {
        let of_kernel = stages_of_kernel().enumerate();
        let told = kept.iter().flat_map(|kept| of_kernel.clone().map(|(number, stage)| (stage, kept.lost(number))));
        let told = told.collect();
        Self { counters, looked_at: Instant::now(), due: None, told, undecodable: 0, kept }
    }

    /// When [`report`](Self::report) wants to be called though nothing happens.
    pub const fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Tells of new losses; where it has looked just before, it will the next time that is [`due`](Self::due).
    pub fn report(&mut self, pipeline: &Pipeline, stream: &Stream) {
        if self.looked_at.elapsed() >= INTERVAL {
            self.report_now(pipeline, stream);
        } else {
            self.due = Some(self.looked_at + INTERVAL);
        }
    }

    /// Tells of new losses.
    pub fn report_now(&mut self, pipeline: &Pipeline, stream: &Stream) {
        self.tell(pipeline, stream, false);
    }

    /// Tells of all that is lost, for nothing more will come.
    pub fn report_last(&mut self, pipeline: &Pipeline, stream: &Stream) {
        self.tell(pipeline, stream, true);
    }

    fn tell(&mut self, pipeline: &Pipeline, stream: &Stream, is_over: bool) {
        self.looked_at = Instant::now();
        self.due = None;
        pipeline.metrics.lost(DECODE, stream.undecodable() - self.undecodable);
        self.undecodable = stream.undecodable();
        let in_kernel =
            KERNEL_STAGES.iter().filter_map(|&(stage, counter)| Some((stage, self.counters.read(counter).ok()?)));
        let in_agent = AGENT_STAGES.iter().map(|&stage| (stage, pipeline.metrics.lost_so_far(stage)));
        let not_run = (RECURSION, self.counters.recursion_misses());
        let now: Vec<_> = in_kernel.chain([not_run]).chain(in_agent).collect();
        let new = since(&self.told, &now);
        if !new.is_empty() {
            pipeline.outbox.send(&notes::lost(&new));
        }
        if let Some(kept) = &self.kept {
            for (number, stage) in stages_of_kernel().enumerate() {
                kept.set_lost(number, now.iter().find(|(of, _)| *of == stage).map_or(0, |&(_, count)| count));
            }
        }
        self.told = now;
        let (cuts, missing) = pipeline.ledger.settle(&pipeline.metrics, is_over);
        for missing in missing {
            pipeline.tell_missing(&missing);
        }
        for cut in cuts {
            pipeline.metrics.lost(BUDGET, cut.writes + cut.mounts);
            pipeline.outbox.send(&notes::cut(&cut));
        }
        // Both are asked.
        let waits = !pipeline.outbox.tell_losses();
        if waits || pipeline.ledger.is_open() {
            self.due = Some(self.looked_at + INTERVAL);
        }
    }
}

/// The stages whose counts the kernel side keeps.
fn stages_of_kernel() -> impl Iterator<Item = &'static str> + Clone {
    KERNEL_STAGES.iter().map(|&(stage, _)| stage).chain([RECURSION])
}

/// What each stage has lost more than was told.
fn since(told: &[(&'static str, u64)], now: &[(&'static str, u64)]) -> Vec<(&'static str, u64)> {
    let before = |stage| told.iter().find(|&&(of, _)| of == stage).map_or(0, |&(_, count)| count);
    now.iter().map(|&(stage, count)| (stage, count.saturating_sub(before(stage)))).filter(|&(_, new)| new > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_new_is_told_and_by_stage() {
        let told = [(WRITER, 3), (DECODE, 1)];
        assert_eq!(since(&told, &[(WRITER, 5), (DECODE, 1), (STOP, 2)]), [(WRITER, 2), (STOP, 2)]);
        assert_eq!(since(&[], &[(WRITER, 0)]), []);
    }
}
