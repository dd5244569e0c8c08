//! The event that a change of a seal makes.

use std::sync::Arc;

use super::{Breach, Cause, Change};
use crate::{
    finding::event::{Effect, Event, Kind, Mount, Severity},
    identity::model::Container,
};

/// The event that a change makes.
pub fn event(container: &Arc<Container>, change: Change) -> Event {
    let Change { breach, since_unix_ns, mended_unix_ns } = change;
    let mended = mended_unix_ns.is_some();
    Event {
        kind: if mended { Kind::SealMended } else { Kind::SealBroken },
        operation: None,
        outcome: None,
        count: 1,
        first_time_unix_ns: since_unix_ns,
        last_time_unix_ns: mended_unix_ns.unwrap_or(since_unix_ns),
        severity: match (mended, breach.effect, breach.cause) {
            (true, ..) => Severity::Info,
            // It may be a hook's of the runtime: nobody saw what was there before the container's program ran.
            (false, _, None) if !is_at_root(&breach) => Severity::High,
            (false, ..) => Severity::Critical,
        },
        category: None,
        hint: (!mended).then(|| hint(&breach).to_owned()),
        // Impair Defenses: somebody took the seal off, as the attempt does that is told by itself.
        attack: if !mended && breach.cause == Some(Cause::Remount) { vec!["T1562"] } else { Vec::new() },
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

/// Whether it is the root itself that is writable.
fn is_at_root(breach: &Breach) -> bool {
    breach.effect == Effect::Unseal && breach.point == b"/"
}

fn hint(breach: &Breach) -> &'static str {
    match (is_at_root(breach), breach.cause) {
        (false, Some(_)) => {
            "the mount_attempt before this tells who mounted it; replace the container, and take from it what lets it mount"
        }
        (false, None) => {
            "it was there when rosentry came: look whether a hook of the runtime mounted it, else replace the container"
        }
        (_, Some(Cause::Remount | Cause::Mount)) => {
            "the mount_attempt before this tells who did it; replace the container, and take from it what lets it mount"
        }
        (_, Some(Cause::Runtime)) => {
            "the runtime did not heed readOnlyRootFilesystem: look at its configuration on this node"
        }
        (_, None) => {
            "it was writable when rosentry came: replace the container, and look whether the next one is sealed"
        }
    }
}
