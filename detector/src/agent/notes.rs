//! What the agent says of itself in the stream: events of kind `agent`.

use std::sync::Arc;

use jiff::Timestamp;

use super::{
    ledger::{Cut, Missing},
    losses,
};
use crate::{
    clock,
    finding::{
        Event,
        event::{AgentNote, AgentValue, AgentWhat, Cgroup, Kind, Outcome, Severity},
    },
    identity::{Lookup, model::Container},
    kernel::counters::SHARED,
};

/// The stream begins; `observe_writes`: in learning mode.
pub fn start(mode: &str, observe_writes: bool) -> Event {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    note(
        AgentWhat::Start,
        Severity::Info,
        vec![
            ("version", AgentValue::Text(env!("CARGO_PKG_VERSION").to_owned())),
            ("kernel", AgentValue::Text(release)),
            ("hooks", AgentValue::Text(mode.to_owned())),
            ("observe_writes", AgentValue::Flag(observe_writes)),
        ],
    )
}

/// What is seen on this node, and what is not.
pub fn coverage(coverage: &[(&str, bool)]) -> Event {
    let surfaces = |seen| {
        let of_kind = coverage.iter().filter(|&&(_, is_seen)| is_seen == seen);
        AgentValue::List(of_kind.map(|&(surface, _)| surface.to_owned()).collect())
    };
    note(AgentWhat::Coverage, Severity::Info, vec![("seen", surfaces(true)), ("not_seen", surfaces(false))])
}

/// Records were lost, so many at each stage.
pub fn lost(stages: &[(&str, u64)]) -> Event {
    let counts = stages.iter().map(|&(stage, lost)| (stage.to_owned(), lost)).collect();
    note(AgentWhat::Lost, Severity::Medium, vec![("events", AgentValue::Counts(counts))])
}

/// What a container did was beyond its budget, so that no event tells of it.
pub fn cut(cut: &Cut) -> Event {
    let Cut { container, cgroup_path, cgroup_id, writes, mounts } = cut;
    let count = AgentValue::Counts(vec![(losses::BUDGET.to_owned(), writes + mounts)]);
    let by_kind = [(Kind::WriteDenied, *writes), (Kind::MountAttempt, *mounts)];
    let by_kind =
        by_kind.into_iter().filter(|(_, count)| *count > 0).map(|(kind, count)| (kind.name().to_owned(), count));
    let details = vec![("events", count), ("kinds", AgentValue::Counts(by_kind.collect()))];
    Event {
        container: container.clone(),
        cgroup: (container.is_none() && *cgroup_id != SHARED)
            .then(|| Cgroup { id: *cgroup_id, path: cgroup_path.as_ref().map(|path| path.to_string()) }),
        ..note(AgentWhat::Lost, Severity::Medium, details)
    }
}

/// A sink had no room for so many events, into which so many attempts were folded: told in its own stream.
pub fn dropped(stage: &str, events: u64, attempts: u64) -> Event {
    note(
        AgentWhat::Lost,
        Severity::Medium,
        vec![
            ("events", AgentValue::Counts(vec![(stage.to_owned(), events)])),
            ("attempts", AgentValue::Number(attempts)),
        ],
    )
}

/// Whether this container's seal holds can't be said, for that reason.
pub fn blind_to_seal(container: &Arc<Container>, reason: &'static str) -> Event {
    let details =
        vec![("surface", AgentValue::Text("seal".to_owned())), ("reason", AgentValue::Text(reason.to_owned()))];
    let note = note(AgentWhat::Gap, Severity::High, details);
    Event { container: Some(Arc::clone(container)), ..note }
}

/// Nobody read what the programs saw, from then until then (nanoseconds since the Unix epoch): they went on, and what they saw is told
/// after this. `same`: they go on; else others have taken over.
pub fn gap([from, to]: [i128; 2], same: bool, missing: u64) -> Event {
    let time = |unix_ns: i128| {
        let time = Timestamp::from_nanosecond(unix_ns).unwrap_or_default();
        AgentValue::Text(format!("{time:.9}"))
    };
    let details = vec![
        ("surface", AgentValue::Text("agent".to_owned())),
        ("from", time(from)),
        ("to", time(to)),
        ("programs", AgentValue::Text(if same { "went_on" } else { "replaced" }.to_owned())),
        ("attempts_without_details", AgentValue::Number(missing)),
    ];
    note(AgentWhat::Gap, Severity::Low, details)
}

/// Refused writes of which nothing but their number is left.
pub fn missing(lookup: &Lookup, missing: &Missing) -> Event {
    let &Missing { cgroup_id, operation, count, between: [first, last] } = missing;
    let (container, path) = match lookup {
        Lookup::Container { container, .. } => (Some(Arc::clone(container)), None),
        Lookup::Foreign { cgroup_path, .. } | Lookup::Host { cgroup_path } => (None, Some(cgroup_path.to_string())),
        Lookup::Pending { cgroup_path, .. } => (None, cgroup_path.as_ref().map(ToString::to_string)),
        Lookup::Unknown => (None, None),
    };
    Event {
        kind: Kind::WriteDenied,
        operation: Some(operation),
        outcome: Some(Outcome::Denied),
        count,
        first_time_unix_ns: first,
        last_time_unix_ns: last,
        severity: Severity::Low,
        cgroup: container.is_none().then_some(Cgroup { id: cgroup_id, path }),
        container,
        agent: None,
        ..note(AgentWhat::Gap, Severity::Low, Vec::new())
    }
}

/// The stream ends.
pub fn stop(reason: &str) -> Event {
    note(AgentWhat::Stop, Severity::Info, vec![("reason", AgentValue::Text(reason.to_owned()))])
}

fn note(what: AgentWhat, severity: Severity, details: Vec<(&'static str, AgentValue)>) -> Event {
    Event::agent(AgentNote { what, details }, clock::unix_ns(), severity)
}
