//! The agent: builds the rooms, lets events go through them until it is told to stop, and empties them in order.

mod ancestry;
mod escaped;
#[cfg(any(test, fuzzing))]
#[expect(clippy::expect_used, reason = "to panic is how a target says no")]
pub(crate) mod fuzzing;
mod held;
mod ledger;
mod losses;
pub(crate) mod memory;
pub mod mountinfo;
mod notes;
mod observing;
mod outbox;
mod pipeline;
mod postures;
pub mod privileges;
mod repeats;
pub mod resolve;
mod seals;
mod sources;
mod start;
pub(crate) mod target;
mod telling;
mod verdict;
mod weight;

use std::{
    io,
    time::{Duration, Instant},
};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};
use tracing::info;

use self::{
    losses::Losses,
    memory::Tidy,
    pipeline::Pipeline,
    seals::Seals,
    start::{Started, open_pins, start},
};
use crate::{
    cli::config::RunConfig,
    clock,
    export::{
        http::HttpError,
        sinks::{SinkError, Sinks},
    },
    finding::rules::{RuleSet, RulesError},
    identity::{IdentityError, ProbeError, probe},
    kernel::{
        KernelError, Sensor,
        before::Before,
        check_capabilities,
        stream::{Record, Stream},
    },
};

/// How long the last records may take to become events; what is left then is counted as lost.
const LAST_RECORDS: Duration = Duration::from_millis(500);

/// How long the last events may take to be written when the agent stops.
const LAST_WORDS: Duration = Duration::from_millis(1200);

/// Why the agent can't run, or does so no longer.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The kernel side.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The identity room.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The socket is there and is not containerd's.
    #[error(transparent)]
    Containerd(#[from] ProbeError),
    /// The port.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The sink.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// The rules.
    #[error(transparent)]
    Rules(#[from] RulesError),
    /// The metrics; of no use to a user, but not to be hidden.
    #[error("the metrics can't be set up: {0}; please report it")]
    Metrics(#[from] prometheus::Error),
    /// Threads, signals, descriptors.
    #[error("the system refuses what the agent needs: {0}")]
    System(#[from] io::Error),
}

/// Runs until SIGTERM or SIGINT, or until nobody reads the events any more. Once it has attached, the thread that awaits this
/// has no capability more than watching takes.
///
/// # Errors
/// See [`AgentError`]; nothing stays attached but what an agent before this one has left, for the next one.
pub async fn run(config: RunConfig) -> Result<(), AgentError> {
    let stop = StopSignal::new()?;
    let rules = RuleSet::load(config.rules.as_deref())?;
    let sinks = Sinks::open(config.sinks.clone())?;
    check_capabilities()?;
    let pins = open_pins(&config.pin)?;
    match probe(&config.containerd_socket).await {
        Err(error) if error.is_final() => return Err(error.into()),
        // Absent, or slow: it may come yet, and the identity room waits for it and says so.
        Ok(_) | Err(_) => {}
    }
    let observing = config.observe_writes.then(|| observing::of_node(&config.host_proc));
    let (sensor, stream, counters, restart) = match pins {
        Some(pins) => {
            let (sensor, stream, counters, restart) =
                Sensor::attach_pinned(config.hooks, observing, pins, sinks.end())?;
            (sensor, stream, counters, Some(restart))
        }
        None => {
            let (sensor, stream, counters) = Sensor::attach_observing(config.hooks, observing)?;
            (sensor, stream, counters, None)
        }
    };
    let has_left = restart.as_ref().is_some_and(|restart| restart.before.alive_ns.is_some());
    let keeps = config.keep_pins;
    match start(config, rules, &sensor, (stream, counters, restart), sinks).await {
        Ok(started) => started.serve(sensor, stop, keeps).await,
        Err(error) => {
            if has_left {
                sensor.leave();
            }
            Err(error)
        }
    }
}

impl Started {
    async fn serve(self, sensor: Sensor, stop: StopSignal, keeps: bool) -> Result<(), AgentError> {
        let Self { agent, http, hangups, writer_ended, postures, left } = self;
        let result = agent.serve(sensor, stop, writer_ended, left, keeps).await;
        http.abort();
        hangups.abort();
        drop(postures);
        result
    }
}

/// The rooms in use.
struct Agent {
    stream: Stream,
    pipeline: Pipeline,
    seals: Seals,
    losses: Losses,
    batch: Vec<Record>,
    /// When to tell of repeats next; none where nothing was told that could be repeated.
    sweep_due: Option<Instant>,
    tidy: Tidy,
}

impl Agent {
    async fn serve(
        mut self,
        sensor: Sensor,
        mut stop: StopSignal,
        mut writer_ended: watch::Receiver<bool>,
        left: Option<([i128; 2], Before)>,
        keeps: bool,
    ) -> Result<(), AgentError> {
        if let (Some(kept), Some(_)) = (&self.pipeline.kept, &left) {
            // Those that follow here.
            kept.gap_is_told_with_line(3);
        }
        self.pipeline.outbox.send(&notes::start(sensor.mode(), self.pipeline.observed.is_some()));
        self.pipeline.outbox.send(&notes::coverage(sensor.coverage()));
        if let Some((gap, left)) = left {
            self.take_over(gap, left).await;
        }
        let mut changed = self.pipeline.identity.changed();
        let reason = loop {
            let deadlines = [self.pipeline.held.deadline(), self.losses.due(), self.sweep_due, self.tidy.due()];
            let deadline = deadlines.into_iter().flatten().min();
            tokio::select! {
                biased;
                reason = stop.received() => break reason,
                _ = writer_ended.wait_for(|ended| *ended) => break "the reader of the events has gone",
                result = self.stream.next_batch(&mut self.batch) => if let Err(error) = result {
                    sensor.leave();
                    return Err(error.into());
                },
                // The sender lives as long as the identity room, which the pipeline holds.
                _ = changed.changed() => {}
                () = self.seals.next() => {}
                () = at(deadline) => {}
            }
            if let Some(kept) = &self.pipeline.kept {
                kept.is_alive(clock::boot_ns());
            }
            let now = Instant::now();
            if self.seals.is_due(now) {
                // The attempt that broke the seal goes first.
                self.stream.drain(&mut self.batch);
            }
            self.seals.take_note(&self.batch);
            self.pipeline.take(&mut self.batch).await;
            for event in self.seals.take_due(now) {
                self.pipeline.judge_and_send(event);
            }
            self.sweep(now);
            self.losses.report(&self.pipeline, &self.stream);
            self.pipeline.outbox.flush();
            self.tidy.after_work(now);
        };
        info!(reason, "stopping");
        let keeps = keeps && reason == SIGTERM && self.pipeline.kept.is_some();
        let mut sensor = Some(sensor);
        if !keeps {
            // Detached first: what is in the rings then is all there will be.
            sensor = None;
        }
        let deadline = Instant::now() + LAST_RECORDS;
        self.pipeline.follow_links = false;
        let mut more = true;
        while more {
            if keeps && Instant::now() >= deadline {
                // The next agent tells it.
                break;
            }
            more = self.stream.drain(&mut self.batch);
            if keeps || Instant::now() < deadline {
                self.pipeline.take(&mut self.batch).await;
            } else {
                self.pipeline.metrics.lost(losses::STOP, self.batch.len().try_into().unwrap_or(u64::MAX));
                self.batch.clear();
            }
        }
        self.pipeline.release_all().await;
        if keeps {
            self.pipeline.sweep();
        } else {
            self.pipeline.metrics.lost(losses::STOP, self.pipeline.finish());
        }
        for event in self.seals.stop() {
            self.pipeline.judge_and_send(event);
        }
        if keeps {
            self.losses.report_now(&self.pipeline, &self.stream);
        } else {
            self.losses.report_last(&self.pipeline, &self.stream);
        }
        self.pipeline.outbox.send(&notes::stop(reason));
        if let Some(kept) = &self.pipeline.kept {
            kept.is_alive(clock::boot_ns());
        }
        let result = self.pipeline.outbox.close(LAST_WORDS).map_err(AgentError::from);
        if let Some(sensor) = sensor {
            sensor.leave();
        }
        result
    }

    /// Tells what an agent before has left.
    async fn take_over(&mut self, gap: [i128; 2], left: Before) {
        let Before { same, mut records, missing, .. } = left;
        let count = missing.iter().map(|(_, _, count)| count).sum();
        self.pipeline.outbox.send(&notes::gap(gap, same, count));
        info!(records = records.len(), "going on where an agent before has ended");
        self.pipeline.take(&mut records).await;
        // Those of which nothing but their number is left, the ledger tells, when it is sure of them.
    }

    /// Tells of repeats, if it is time.
    fn sweep(&mut self, now: Instant) {
        if self.sweep_due.is_some_and(|due| now >= due) {
            self.pipeline.sweep();
            self.sweep_due = None;
        }
        if self.sweep_due.is_none() && self.pipeline.has_repeats() {
            self.sweep_due = Some(now + repeats::INTERVAL);
        }
    }
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// The signal by which a supervisor ends the agent, to start another or for good.
const SIGTERM: &str = "SIGTERM";

/// The signals that end the agent.
struct StopSignal {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignal {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn received(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => SIGTERM,
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
