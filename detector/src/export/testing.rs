//! Events for the tests of this room.

use std::sync::Arc;

use detector_common::record::RecordKind;

use crate::{
    clock::BootClock,
    finding::{
        Event, Sighting, assess,
        event::{AgentNote, AgentValue, AgentWhat, Severity},
        testing::{attempt, judged, sealed, unsealed, walk},
    },
    identity::model::Container,
    kernel::attempt::{Ancestor, Attempt},
};

/// 2026-01-02T03:04:05.123456789Z less the ten seconds after boot at which attempts are made.
const CLOCK: BootClock = BootClock { unix_ns_at_boot: 1_767_323_035_123_456_789 };

pub(crate) fn event_in(attempt: &Attempt, container: Option<&Arc<Container>>) -> Event {
    judged(assess(&Sighting { attempt, container, cgroup_path: Some("/a/b"), resolved: [None, None], clock: CLOCK }))
}

/// A `touch ../etc/x` in /usr of the sealed container.
pub(crate) fn touch() -> Event {
    let mut touch = attempt("openat").arg(2, 0o101).arg(3, 0o644).path("../etc/x");
    touch.process.cwd = Some(walk("/usr"));
    touch.process.ancestors = vec![Ancestor { pid: 90, start_time_ns: 1, comm: b"sh".to_vec() }];
    event_in(&touch, Some(&sealed()))
}

/// The same `touch` in learning mode, where the root is writable.
pub(crate) fn observed() -> Event {
    let mut touch = attempt("openat").arg(2, 0o101).arg(3, 0o644).path("/var/log/x").result(3);
    touch.kind = RecordKind::WriteObserved;
    event_in(&touch, Some(&Arc::new(unsealed())))
}

/// A refused `mount -o remount,rw /` in the sealed container.
pub(crate) fn remount() -> Event {
    event_in(&attempt("mount").arg(3, 0x20).path("/").source("overlay").result(-1), Some(&sealed()))
}

/// The start of the agent.
pub(crate) fn start() -> Event {
    let details = vec![
        ("version", AgentValue::Text("0.1.0".to_owned())),
        ("hooks", AgentValue::List(vec!["tracepoint".to_owned()])),
        ("lost", AgentValue::Counts(vec![("ring".to_owned(), 3)])),
        ("full", AgentValue::Flag(true)),
        ("containers", AgentValue::Number(7)),
    ];
    Event::agent(AgentNote { what: AgentWhat::Start, details }, 0, Severity::Info)
}
