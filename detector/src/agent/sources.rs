//! What a scrape of the metrics asks the rooms, and whether the agent is ready.

use std::sync::Arc;

use detector_common::counter::Counter;

use super::{losses, postures::Postures, repeats::Repeats, resolve::Resolver, seals::Seals};
use crate::{
    export::{
        http::Condition,
        metrics::{Build, Sources, WithUntold},
    },
    finding::event::Kind,
    identity::Identity,
    kernel::counters::Counters,
};

pub(super) fn build(mode: &str) -> Build {
    Build {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        hooks: mode.to_owned(),
    }
}

pub(super) fn sources(
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

pub(super) fn readiness(identity: &Identity, mode: &'static str) -> Box<dyn Fn() -> Vec<Condition> + Send + Sync> {
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
