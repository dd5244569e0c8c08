//! The agent: builds the rooms, lets events go through them until it is told to stop, and empties them in order.

mod ancestry;
mod escaped;
mod held;
mod ledger;
mod losses;
mod memory;
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
pub(crate) mod target;
mod telling;
mod verdict;
mod weight;

use std::{
    convert::Infallible,
    io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use detector_common::{counter::Counter, record::RecordKind};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::JoinHandle,
};
use tracing::info;

use self::{
    ancestry::Ancestry, escaped::Escaped, held::Held, ledger::Ledger, losses::Losses, memory::Tidy, outbox::Outbox,
    pipeline::Pipeline, postures::Postures, repeats::Repeats, resolve::Resolver, seals::Seals,
};
use crate::{
    cli::config::{Pin, RunConfig},
    clock,
    export::{
        Metrics,
        http::{Condition, HttpError, HttpServer},
        metrics::{Build, Sources, WithUntold},
        sinks::{Reopen, SinkError, Sinks},
    },
    finding::{
        event::Kind,
        rules::{RuleSet, RulesError},
    },
    identity::{Identity, IdentityConfig, IdentityError, ProbeError, probe},
    kernel::{
        KernelError, Restart, Sensor,
        before::Before,
        check_capabilities,
        counters::Counters,
        pins::{self, PinError, Pins},
        stream::{Record, Stream},
    },
};

/// How long the last records may take to become events; what is left then is counted as lost.
const LAST_RECORDS: Duration = Duration::from_millis(500);

/// How long the last events may take to be written when the agent stops.
const LAST_WORDS: Duration = Duration::from_millis(1200);

/// Where the node's cgroup hierarchies are mounted.
const DEFAULT_CGROUP: &str = "/sys/fs/cgroup";

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

/// An agent whose rooms are there.
struct Started {
    agent: Agent,
    http: JoinHandle<Infallible>,
    hangups: JoinHandle<()>,
    writer_ended: watch::Receiver<bool>,
    /// Looks at containers as long as it is there.
    postures: Postures,
    /// What an agent before has left, and the time that nobody was there.
    left: Option<([i128; 2], Before)>,
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

/// Builds the rooms around programs that are attached.
async fn start(
    config: RunConfig,
    rules: RuleSet,
    sensor: &Sensor,
    (stream, counters, restart): (Stream, Counters, Option<Restart>),
    mut sinks: Sinks,
) -> Result<Started, AgentError> {
    memory::give_back();
    privileges::keep_for(privileges::Stage::Watching)?;
    let (kept, left) = match restart {
        Some(Restart { kept, before }) => (Some(kept), before),
        None => (None, Before::default()),
    };
    sinks.go_on_after(left.end.clone());
    let now = clock::now();
    let gap = left.alive_ns.map(|alive_ns| [now.unix_ns(alive_ns), clock::unix_ns()]);
    let identity = Identity::start(IdentityConfig {
        socket: config.containerd_socket,
        namespaces: config.containerd_namespaces,
        host_proc: config.host_proc.clone(),
        host_cgroup: config.host_cgroup.unwrap_or_else(|| DEFAULT_CGROUP.into()),
    })?;
    let counters = Arc::new(counters);
    let resolver = Arc::new(Resolver::new(config.host_proc.clone())?);
    let seals = Seals::watch(&config.host_proc, &identity)?;
    let repeats = Repeats::new(RecordKind::WriteDenied, stream.folds(), kept.clone());
    let observed = stream.observed().map(|folds| Repeats::new(RecordKind::WriteObserved, folds, kept.clone()));
    let before = kept.clone().map(|kept| ledger::Before { kept, gap });
    let ledger = Ledger::new(Arc::clone(&counters), identity.clone(), config.scope, before);
    let postures = Postures::start(&config.host_proc, &identity)?;
    let repeats_of = [Some(&repeats), observed.as_ref()];
    let sources = sources(&identity, &counters, &resolver, &seals, &postures, repeats_of);
    let metrics = Arc::new(Metrics::new(&build(sensor.mode()), sources)?);
    for &(surface, seen) in sensor.coverage() {
        metrics.coverage(surface, seen);
    }
    for serving in sensor.serving() {
        metrics.serving(serving);
    }
    let http =
        HttpServer::bind(config.metrics_listen, Arc::clone(&metrics), readiness(&identity, sensor.mode())).await?;
    info!(
        metrics = %http.local_addr()?,
        hooks = sensor.mode(),
        "attached; events go to {}",
        sinks.targets()
    );
    let http = tokio::spawn(http.serve());
    let outbox = Outbox::start(sinks, &config.node_name, Arc::clone(&metrics), kept.clone())?;
    let hangups = tokio::spawn(reopen_at_each(signal(SignalKind::hangup())?, outbox.reopen()));
    let writer_ended = outbox.has_ended();
    let pipeline = Pipeline {
        resolver,
        ancestry: Ancestry::new(&config.host_proc),
        escaped: Escaped::new(&config.host_proc),
        identity,
        outbox,
        metrics,
        rules,
        scope: config.scope,
        held: Held::default(),
        repeats,
        observed,
        ledger,
        kept: kept.clone(),
        follow_links: true,
        lag: Duration::ZERO,
    };
    let losses = Losses::new(counters, kept);
    let agent = Agent { stream, pipeline, seals, losses, batch: Vec::new(), sweep_due: None, tidy: Tidy::default() };
    Ok(Started { agent, http, hangups, writer_ended, postures, left: gap.map(|gap| (gap, left)) })
}

/// SIGHUP is how the tools that rotate logs say that the file was moved.
async fn reopen_at_each(mut hangup: Signal, reopen: Reopen) {
    while hangup.recv().await.is_some() {
        reopen.ask();
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

/// The folder for what outlives the agent; none where that is not wanted. Where nobody has asked for it by name, it is done without if
/// there is no bpffs.
fn open_pins(pin: &Pin) -> Result<Option<Pins>, KernelError> {
    match pin {
        Pin::Off => Ok(None),
        Pin::Asked(path) => Ok(Some(Pins::open(path)?)),
        Pin::Default => match Pins::open(Path::new(pins::DEFAULT)) {
            Ok(pins) => Ok(Some(pins)),
            Err(error @ PinError::NoBpffs(_)) => {
                info!("what happens while rosentry is not running will not be seen: {error}");
                Ok(None)
            }
            Err(error) => Err(error.into()),
        },
    }
}

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

fn build(mode: &str) -> Build {
    Build {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        hooks: mode.to_owned(),
    }
}

fn sources(
    identity: &Identity,
    counters: &Arc<Counters>,
    resolver: &Arc<Resolver>,
    seals: &Seals,
    postures: &Postures,
    repeats: [Option<&Repeats>; 2],
) -> Sources {
    let with_untold = |repeats: Option<&Repeats>| -> WithUntold {
        let repeats = repeats.cloned();
        Box::new(move |read| match &repeats {
            Some(repeats) => repeats.with_untold(read),
            None => read(&[]),
        })
    };
    let [with_untold, with_untold_observed] = repeats.map(with_untold);
    let resolver = Arc::clone(resolver);
    let [identity, identity_link, identity_counts] = [(); 3].map(|()| identity.clone());
    let [events, lost, incomplete] = [(); 3].map(|()| Arc::clone(counters));
    let read = |counters: &Counters, wanted: &[(&'static str, Counter)]| {
        wanted.iter().filter_map(|&(name, counter)| Some((name, counters.read(counter).ok()?))).collect::<Vec<_>>()
    };
    Sources {
        containers: Box::new(move || identity.containers()),
        // Asked as readiness does, so that no two answers of one moment contradict each other.
        containerd_up: Box::new(move || identity_link.status().up),
        seal_broken: Box::new(seals.states()),
        seen: Box::new(postures.ask()),
        with_untold,
        with_untold_observed,
        kernel_events: Box::new(move || {
            let mut kinds = read(&events, KERNEL_EVENTS);
            kinds.push((Kind::WriteDenied.name(), events.tallies().write_denied()));
            kinds
        }),
        kernel_lost: Box::new(move || {
            let mut stages = read(&lost, losses::KERNEL_STAGES);
            stages.push((losses::RECURSION, lost.recursion_misses()));
            stages
        }),
        incomplete_sections: Box::new(move || read(&incomplete, INCOMPLETE_SECTIONS)),
        path_resolutions: Box::new(move || resolver.counts()),
        identity: Box::new(move || identity_counts.status().counts.by_name()),
    }
}

/// Counters of `rosentry_kernel_events_total`, by kind; refused writes are counted by cgroup.
const KERNEL_EVENTS: &[(&str, Counter)] = &[
    ("mount_attempt", Counter::MountAttempt),
    ("cgroup_created", Counter::CgroupCreated),
    ("cgroup_removed", Counter::CgroupRemoved),
    ("result_hidden", Counter::ResultHidden),
    ("write_observed", Counter::WriteObserved),
];

/// Counters of `rosentry_incomplete_sections_total`, by reason. They count parts of records, so they are no kind of event.
const INCOMPLETE_SECTIONS: &[(&str, Counter)] =
    &[("unreadable", Counter::SectionUnreadable), ("truncated", Counter::SectionTruncated)];

fn readiness(identity: &Identity, mode: &'static str) -> Box<dyn Fn() -> Vec<Condition> + Send + Sync> {
    let identity = identity.clone();
    Box::new(move || {
        let status = identity.status();
        vec![
            // There is no port before the hooks are attached.
            Condition { name: "hooks", met: true, detail: mode.to_owned() },
            Condition {
                name: "containerd",
                met: status.up,
                detail: if status.up { "answers".to_owned() } else { "does not answer".to_owned() },
            },
            Condition {
                name: "containers",
                met: status.up && status.synced,
                detail: if status.synced { "known".to_owned() } else { "not all known yet".to_owned() },
            },
        ]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_of_the_kernel_side_is_in_one_metric() {
        let exported = [KERNEL_EVENTS, INCOMPLETE_SECTIONS, losses::KERNEL_STAGES].concat();
        for counter in Counter::ALL {
            let times = exported.iter().filter(|(_, exported)| *exported == counter).count();
            assert_eq!(times, 1, "{counter:?}");
        }
    }
}
