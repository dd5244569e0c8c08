//! What the agent makes of an attempt: the event, with its paths resolved in the real root of the process, as long as that lives.

use std::{path::Path, sync::Arc};

use detector::{
    agent::resolve::{
        process::{Subject, look},
        tables::Tables,
    },
    clock::BootClock,
    finding::{
        Event, Sighting, assess,
        event::{Effect, Mount},
        questions,
    },
    identity::model::Container,
    kernel::attempt::Attempt,
};

/// The event of an attempt by a process of `container`.
pub fn event(attempt: &Attempt, container: Option<&Arc<Container>>) -> Event {
    let subject = Subject::of(attempt, container.map(AsRef::as_ref));
    let resolved =
        questions(attempt).map(|question| look(Path::new("/proc"), &Tables::default(), &subject, &question?).ok());
    // The tests look at no times.
    let clock = BootClock { unix_ns_at_boot: 0 };
    assess(&Sighting { attempt, container, cgroup_path: None, resolved, clock })
}

/// The path of a write, the target of a mount attempt.
pub fn path(event: &Event) -> Option<&[u8]> {
    match (&event.file, &event.mount) {
        (Some(file), _) => file.path.as_deref(),
        (None, Some(Mount::Attempt(mount))) => mount.target.as_deref(),
        _ => None,
    }
}

/// The second path of a rename or a link.
pub fn new_path(event: &Event) -> Option<&[u8]> {
    event.file.as_ref()?.new_path.as_deref()
}
/// The effect of a mount attempt.
pub fn effect(event: &Event) -> Option<Effect> {
    match &event.mount {
        Some(Mount::Attempt(mount)) => Some(mount.effect),
        _ => None,
    }
}
