//! The event that a change of a seal makes.

use std::sync::Arc;

use super::Change;
use crate::{
    finding::event::{Event, Kind, Mount},
    identity::model::Container,
};

/// The event that a change makes, without what the rules have to say of it.
pub fn event(container: &Arc<Container>, change: Change) -> Event {
    let Change { breach, since_unix_ns, mended_unix_ns } = change;
    let kind = if mended_unix_ns.is_some() { Kind::SealMended } else { Kind::SealBroken };
    Event {
        last_time_unix_ns: mended_unix_ns.unwrap_or(since_unix_ns),
        mount: Some(Mount::Seal { breach }),
        container: Some(Arc::clone(container)),
        ..Event::new(kind, since_unix_ns)
    }
}
