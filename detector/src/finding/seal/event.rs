//! The event that a change of a seal makes.

use std::sync::Arc;

use super::Change;
use crate::{
    finding::event::{Event, Kind, Mount, Severity},
    identity::model::Container,
};

/// The event that a change makes, without what the rules have to say of it.
pub fn event(container: &Arc<Container>, change: Change) -> Event {
    let Change { breach, since_unix_ns, mended_unix_ns } = change;
    Event {
        kind: if mended_unix_ns.is_some() { Kind::SealMended } else { Kind::SealBroken },
        operation: None,
        outcome: None,
        count: 1,
        first_time_unix_ns: since_unix_ns,
        last_time_unix_ns: mended_unix_ns.unwrap_or(since_unix_ns),
        severity: Severity::Info,
        category: None,
        hint: None,
        attack: Vec::new(),
        rule: None,
        expected: false,
        file: None,
        mount: Some(Mount::Seal { breach }),
        process: None,
        container: Some(Arc::clone(container)),
        cgroup: None,
        abi: None,
        hook: None,
        agent: None,
    }
}
