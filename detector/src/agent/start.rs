//! Setting the agent up: its rooms, built around programs that are attached.

use std::{convert::Infallible, path::Path, sync::Arc, time::Duration};

use detector_common::record::RecordKind;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::JoinHandle,
};
use tracing::info;

use super::{
    Agent, AgentError,
    ancestry::Ancestry,
    escaped::Escaped,
    held::Held,
    ledger::{self, Ledger},
    losses::Losses,
    memory::{self, Tidy},
    outbox::Outbox,
    pipeline::Pipeline,
    postures::Postures,
    privileges,
    repeats::Repeats,
    resolve::Resolver,
    seals::Seals,
    sources::{build, readiness, sources},
};
use crate::{
    cli::config::{Pin, RunConfig},
    clock,
    export::{
        Metrics,
        http::HttpServer,
        sinks::{Reopen, Sinks},
    },
    finding::rules::RuleSet,
    identity::{Identity, IdentityConfig},
    kernel::{
        KernelError, Restart, Sensor,
        before::Before,
        counters::Counters,
        pins::{self, PinError, Pins},
        stream::Stream,
    },
};

/// Where the node's cgroup hierarchies are mounted.
const DEFAULT_CGROUP: &str = "/sys/fs/cgroup";

/// An agent whose rooms are there.
pub(super) struct Started {
    pub(super) agent: Agent,
    pub(super) http: JoinHandle<Infallible>,
    pub(super) hangups: JoinHandle<()>,
    pub(super) writer_ended: watch::Receiver<bool>,
    /// Looks at containers as long as it is there.
    pub(super) postures: Postures,
    /// What an agent before has left, and the time that nobody was there.
    pub(super) left: Option<([i128; 2], Before)>,
}

/// Builds the rooms around programs that are attached.
pub(super) async fn start(
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

/// The folder for what outlives the agent; none where that is not wanted. Where nobody has asked for it by name, it is done without if
/// there is no bpffs.
pub(super) fn open_pins(pin: &Pin) -> Result<Option<Pins>, KernelError> {
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
