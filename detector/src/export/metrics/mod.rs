//! The metrics of contract.md that exist yet, in Prometheus' text format.
//!
//! What an attacker chooses (paths, names of processes) is never a label.

mod containers;
pub mod family;
pub mod series;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use detector_common::operation::Operation;
use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use self::{
    family::{Family, Sample},
    series::{Owner, PodCounters},
};
use crate::{
    finding::{
        Event,
        event::{Kind, Mount},
    },
    identity::model::Container,
    kernel::serving::Serving,
    posture::Seen,
};

/// The label that says whether a rule calls it expected: what is not belongs into alerts.
const EXPECTED: &str = "expected";

/// The value of the label `mount` where nothing but the count is known.
const UNKNOWN: &str = "unknown";

/// Series by pod that one family may have.
const SERIES_MAX: usize = 10_000;

/// From the kernel to the output, seconds: without a fold well under one, with one up to its window.
const DELAY_BUCKETS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Numbers by a name, asked for at a scrape.
pub type Counts = Box<dyn Fn() -> Vec<(&'static str, u64)> + Send + Sync>;

/// A yes or no about the container with this id, asked for at a scrape; none where nobody can say.
pub type FlagById = Box<dyn Fn(&str) -> Option<bool> + Send + Sync>;

/// The containers that are there, asked for at a scrape.
pub type Containers = Box<dyn Fn() -> Vec<Arc<Container>> + Send + Sync>;

/// What is seen of containers, by their ids, asked for at a scrape.
pub type SeenById = Box<dyn Fn() -> Arc<HashMap<String, Seen>> + Send + Sync>;

/// Calls with the events of which repeats are counted and not told yet, and how many; none is told meanwhile.
pub type WithUntold = Box<dyn Fn(&dyn Fn(&[(&Event, u64)]) -> Vec<Sample>) -> Vec<Sample> + Send + Sync>;

/// The values of the labels of an event besides its owner's.
type Labels = fn(&Event) -> Vec<&'static str>;

/// What others know and a scrape asks for. Asked under no lock of ours, but at each scrape: answer quickly.
pub struct Sources {
    /// The containers that are there.
    pub containers: Containers,
    /// Whether containerd answers.
    pub containerd_up: Box<dyn Fn() -> bool + Send + Sync>,
    /// Whether the seal of a container is broken.
    pub seal_broken: FlagById,
    /// What is seen of the containers, by their ids; without those at which nobody could look.
    pub seen: SeenById,
    /// Repeats that are not told yet.
    pub with_untold: WithUntold,
    /// The same of writes that succeeded.
    pub with_untold_observed: WithUntold,
    /// The kernel's own exact counts of what it saw, by kind.
    pub kernel_events: Counts,
    /// Records that the kernel side lost, by stage.
    pub kernel_lost: Counts,
    /// Parts of records that the kernel side could not send whole, by reason.
    pub incomplete_sections: Counts,
    /// What became of looks into containers' real roots, by result.
    pub path_resolutions: Counts,
    /// What the identity room did and what it had to give up, by name.
    pub identity: Counts,
}

/// What runs.
#[derive(Clone, Debug)]
pub struct Build {
    /// Version of rosentry.
    pub version: String,
    /// Release of the kernel.
    pub kernel: String,
    /// The kind of hooks that are attached.
    pub hooks: String,
}

/// All metrics.
pub struct Metrics {
    registry: Registry,
    write_denied: Arc<PodCounters>,
    write_observed: Arc<PodCounters>,
    mount_attempts: Arc<PodCounters>,
    lost: Arc<Mutex<BTreeMap<&'static str, u64>>>,
    unattributed: IntCounterVec,
    ignored: IntCounterVec,
    delay: HistogramVec,
    coverage: IntGaugeVec,
    hook_info: IntGaugeVec,
    sink_events: IntCounterVec,
    spool_bytes: IntGaugeVec,
}

impl Metrics {
    /// The metrics, with what they ask at each scrape.
    ///
    /// # Errors
    /// None that depends on the arguments: a name that Prometheus does not take.
    pub fn new(build: &Build, sources: Sources) -> prometheus::Result<Self> {
        let Sources {
            containers,
            containerd_up,
            seal_broken,
            seen,
            with_untold,
            with_untold_observed,
            kernel_events,
            kernel_lost,
            incomplete_sections,
            path_resolutions,
            identity,
        } = sources;
        let registry = Registry::new();

        let by_pod = |name: &str, help: &str, labels: &[&str]| {
            let counters = Arc::new(PodCounters::new(SERIES_MAX));
            let asked = Arc::clone(&counters);
            let family = Family::counter(name, help, labels, Box::new(move || asked.samples()))?;
            registry.register(Box::new(family)).map(|()| counters)
        };
        let write_labels = ["namespace", "pod", "container", "operation", "mount", EXPECTED];
        let mount_labels = ["namespace", "pod", "container", "operation", "effect", "outcome", EXPECTED];
        let with_repeats = |name: &str, help: &str, labels: &[&str], of: Labels, with_untold: WithUntold| {
            let counters = Arc::new(PodCounters::new(SERIES_MAX));
            let asked = Arc::clone(&counters);
            // Both while no repeat is told, or one that is told just now would be counted twice or not at all.
            let ask = Box::new(move || {
                with_untold(&|untold| {
                    let owner = |event: &Event| Owner::of(event.container.as_deref());
                    asked.samples_with(untold.iter().map(|&(event, count)| ((owner(event), of(event)), count)))
                })
            });
            registry.register(Box::new(Family::counter(name, help, labels, ask)?)).map(|()| counters)
        };
        let write_denied = with_repeats(
            "rosentry_write_denied_total",
            "Writes that ended with EROFS, repeats and those that no event tells of included.",
            &write_labels,
            of_write,
            with_untold,
        )?;
        let write_observed = with_repeats(
            "rosentry_write_observed_total",
            "Learning mode: writes to a root filesystem that succeeded, repeats included.",
            &["namespace", "pod", "container", "operation"],
            |event| vec![operation_of(event)],
            with_untold_observed,
        )?;

        let mount_attempts =
            by_pod("rosentry_mount_attempts_total", "Tries to change mounts, whatever their result.", &mount_labels)?;

        registry.register(Box::new(Family::gauge(
            "rosentry_containerd_up",
            "Whether containerd answers and its events flow.",
            &[],
            Box::new(move || vec![(Vec::new(), f64::from(u8::from(containerd_up())))]),
        )?))?;

        let swept = [&write_denied, &write_observed, &mount_attempts].map(Arc::clone);
        let live = move |containers: &[Arc<Container>]| {
            let live: HashSet<_> = containers.iter().map(|container| Owner::of(Some(container))).collect();
            for counters in &swept {
                counters.sweep(&live, Instant::now());
            }
        };
        containers::register(&registry, containers::Asked { containers, seal_broken, seen, live: Box::new(live) })?;

        for (name, help, label, counts) in [
            (
                "rosentry_kernel_events_total",
                "What the kernel side saw, counted there and exact.",
                "kind",
                kernel_events,
            ),
            (
                "rosentry_incomplete_sections_total",
                "Parts of records (a path, a text) that the kernel side could not send whole, by the reason.",
                "reason",
                incomplete_sections,
            ),
            (
                "rosentry_path_resolutions_total",
                "Looks into a container's real root for symbolic links and mounts, by what became of them.",
                "result",
                path_resolutions,
            ),
            (
                "rosentry_identity_total",
                "What was done to learn whose a cgroup is, and what failed or was given up for room.",
                "what",
                identity,
            ),
        ] {
            let ask = Box::new(move || named_samples(counts()));
            registry.register(Box::new(Family::counter(name, help, &[label], ask)?))?;
        }

        let lost = Arc::new(Mutex::new(BTreeMap::new()));
        let lost_here = Arc::clone(&lost);
        registry.register(Box::new(Family::counter(
            "rosentry_events_lost_total",
            "Events that were lost, by the stage that lost them.",
            &["stage"],
            Box::new(move || {
                let mut all: BTreeMap<_, u64> = lost_here.lock().unwrap_or_else(PoisonError::into_inner).clone();
                for (stage, count) in kernel_lost() {
                    *all.entry(stage).or_default() += count;
                }
                named_samples(all)
            }),
        )?))?;

        let build_info = Opts::new("rosentry_build_info", "What runs; always 1.").const_labels(HashMap::from([
            ("version".to_owned(), build.version.clone()),
            ("kernel".to_owned(), build.kernel.clone()),
            ("hooks".to_owned(), build.hooks.clone()),
        ]));
        register(&registry, IntGauge::with_opts(build_info)?)?.set(1);

        let counter = |name: &str, help: &str, labels: &[&str]| {
            register(&registry, IntCounterVec::new(Opts::new(name, help), labels)?)
        };
        Ok(Self {
            write_denied,
            write_observed,
            mount_attempts,
            lost,
            unattributed: counter(
                "rosentry_events_unattributed_total",
                "Events whose container is not known, by the reason.",
                &["reason"],
            )?,
            ignored: counter(
                "rosentry_events_ignored_total",
                "What was seen and is no event by choice, by what it was and the reason.",
                &["kind", "reason"],
            )?,
            sink_events: counter(
                "rosentry_sink_events_total",
                "Events by the sink and what became of them there.",
                &["sink", "result"],
            )?,
            spool_bytes: register(
                &registry,
                IntGaugeVec::new(
                    Opts::new(
                        "rosentry_sink_spool_bytes",
                        "What waits in the spool of a network sink to be delivered.",
                    ),
                    &["sink"],
                )?,
            )?,
            delay: register(
                &registry,
                HistogramVec::new(
                    HistogramOpts::new("rosentry_event_delay_seconds", "From the kernel to the output.")
                        .buckets(DELAY_BUCKETS.to_vec()),
                    &["kind"],
                )?,
            )?,
            coverage: register(
                &registry,
                IntGaugeVec::new(
                    Opts::new("rosentry_coverage", "Whether this surface is watched on this node."),
                    &["surface"],
                )?,
            )?,
            hook_info: register(
                &registry,
                IntGaugeVec::new(
                    Opts::new(
                        "rosentry_hook_info",
                        "What serves an operation on this node: a kernel function or a tracepoint; always 1.",
                    ),
                    &["surface", "operation", "hook", "point"],
                )?,
            )?,
            registry,
        })
    }

    /// Counts an event that is about to go out, with all that are folded into it.
    pub fn count(&self, event: &Event) {
        let owner = Owner::of(event.container.as_deref());
        let (counters, labels) = match (event.kind, &event.mount) {
            (Kind::WriteObserved, _) => (&self.write_observed, vec![operation_of(event)]),
            (Kind::WriteDenied, _) => (&self.write_denied, of_write(event)),
            (Kind::MountAttempt, Some(Mount::Attempt(mount))) => {
                let outcome = event.outcome.map_or("", |outcome| outcome.name());
                let labels = vec![operation_of(event), mount.effect.name(), outcome, truth(event.expected)];
                (&self.mount_attempts, labels)
            }
            _ => return,
        };
        counters.add(owner, labels, event.count);
    }

    /// Counts refused writes that no event tells of: where they hit is not known.
    pub fn write_denied_unknown(&self, owner: Owner, operation: Operation, count: u64) {
        self.write_denied.add(owner, vec![operation.name(), UNKNOWN, truth(false)], count);
    }

    /// Notes how long an event took from the kernel to the output.
    pub fn delay(&self, kind: Kind, delay: Duration) {
        self.delay.with_label_values(&[kind.name()]).observe(delay.as_secs_f64());
    }

    /// Counts events that were lost at a stage in user space.
    pub fn lost(&self, stage: &'static str, count: u64) {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        *lost.entry(stage).or_default() += count;
    }

    /// What was lost at a stage in user space so far.
    pub fn lost_so_far(&self, stage: &'static str) -> u64 {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).get(stage).copied().unwrap_or_default()
    }

    /// Counts an event whose container is not known.
    pub fn unattributed(&self, reason: &'static str) {
        self.unattributed.with_label_values(&[reason]).inc();
    }

    /// Counts what was seen and is no event by choice.
    pub fn ignored(&self, kind: Kind, reason: &'static str, count: u64) {
        self.ignored.with_label_values(&[kind.name(), reason]).inc_by(count);
    }

    /// Says whether a surface is watched.
    pub fn coverage(&self, surface: &'static str, watched: bool) {
        self.coverage.with_label_values(&[surface]).set(i64::from(watched));
    }

    /// Says what serves an operation.
    pub fn serving(&self, serving: &Serving) {
        let &Serving { surface, operation, hook, point } = serving;
        self.hook_info.with_label_values(&[surface, operation, hook, point]).set(1);
    }

    /// Counts events by what became of them at a sink.
    pub fn sink(&self, sink: &'static str, result: &'static str, count: u64) {
        self.sink_events.with_label_values(&[sink, result]).inc_by(count);
    }

    /// Says what waits in the spool of a sink.
    pub fn spool_bytes(&self, sink: &'static str, bytes: u64) {
        self.spool_bytes.with_label_values(&[sink]).set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// All of them as text.
    ///
    /// # Errors
    /// Where a family can't be told in the format.
    pub fn render(&self) -> prometheus::Result<String> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        String::from_utf8(text).map_err(|error| prometheus::Error::Msg(error.to_string()))
    }
}

/// The labels of a refused write besides its owner's.
fn of_write(event: &Event) -> Vec<&'static str> {
    let mount = if let Some(Mount::Place(place)) = &event.mount { place.kind.name() } else { "" };
    vec![operation_of(event), mount, truth(event.expected)]
}

/// The value of a label that is a yes or no.
const fn truth(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}

fn operation_of(event: &Event) -> &'static str {
    event.operation.map_or("", |operation| operation.name())
}

fn register<C: prometheus::core::Collector + Clone + 'static>(registry: &Registry, metric: C) -> prometheus::Result<C> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn named_samples(counts: impl IntoIterator<Item = (&'static str, u64)>) -> Vec<Sample> {
    counts.into_iter().map(|(name, count)| (vec![name.to_owned()], count as f64)).collect()
}

#[cfg(test)]
#[path = "tests.rs"]
pub(crate) mod tests;
