//! Tests of [`super`], over whole attempts and single paths.

mod attacks;
mod causes;
mod users;

use detector_common::{operation::Operation, syscalls::SYSCALLS};
use proptest::prelude::*;

use super::*;
use crate::{
    clock::BootClock,
    finding::{
        Sighting, assess,
        event::{Effect, Mount},
        testing::{attempt, judged, sealed},
    },
    identity::model::Container,
    kernel::attempt::{Attempt, CAP_SYS_ADMIN},
};

fn unjudged(attempt: &Attempt, container: Option<&Arc<Container>>) -> Event {
    assess(&Sighting {
        attempt,
        container,
        cgroup_path: None,
        resolved: [None, None],
        clock: BootClock { unix_ns_at_boot: 0 },
    })
}

fn event(attempt: &Attempt) -> Event {
    judged(unjudged(attempt, Some(&sealed())))
}

fn hint(event: &Event) -> Option<&str> {
    event.hint.as_deref().map(|hint| std::str::from_utf8(hint).unwrap())
}

fn attack(event: &Event) -> Vec<&str> {
    event.attack.iter().map(AsRef::as_ref).collect()
}

/// A write to this path by this program, in a container of which nothing else is known.
fn write<'a>(path: Option<&'a str>, executable: Option<&'a str>) -> Facts<'a> {
    Facts {
        operation: Some("open"),
        paths: [path.map(str::as_bytes), None],
        executable: executable.map(str::as_bytes),
        in_container: true,
        ..Facts::nothing(Kind::WriteDenied)
    }
}

fn built_in() -> RuleSet {
    RuleSet::load(None).unwrap()
}

fn with(text: &str) -> RuleSet {
    RuleSet::of(Some((Path::new("rules.toml"), text))).unwrap()
}

fn mistake(text: &str) -> String {
    RuleSet::of(Some((Path::new("rules.toml"), text))).unwrap_err().to_string()
}

fn category(rules: &RuleSet, facts: &Facts<'_>) -> Category {
    rules.explain(facts).category.unwrap().0
}
