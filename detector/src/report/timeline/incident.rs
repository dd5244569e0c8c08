//! An incident: what was attempted in one workload, close in time.

use std::collections::BTreeSet;

use serde::Serialize;

use super::{
    name::{Name, Names},
    step::{Step, severity, time},
    story::{self, Phase},
    tree::{Branch, tree},
};
use crate::{
    finding::event::Severity,
    report::event::{Event, Time},
};

/// The first and the last steps that are kept, whatever their severity.
const ENDS_KEPT: usize = 4;
/// Pods, nodes, techniques, containers that are named.
const LIST_MAX: usize = 32;

/// Whose an incident is.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Owner {
    /// Namespace of the workload; none of what is in no pod.
    pub namespace: Option<Name>,
    /// The workload; else the container's id, the cgroup's path, or the node.
    pub name: Name,
}

impl Owner {
    /// Of an event.
    pub fn of(event: &Event<'_>, names: &mut Names) -> Self {
        if let Some(pod) = &event.pod {
            let name = if pod.workload.is_empty() { &pod.name } else { &pod.workload };
            return Self { namespace: Some(names.of(&pod.namespace)), name: names.of(name) };
        }
        let container = event.container.as_ref().map(|container| &container.id);
        let cgroup = event.cgroup.as_ref().and_then(|cgroup| cgroup.path.as_ref());
        Self { namespace: None, name: names.of(container.or(cgroup).unwrap_or(&event.node)) }
    }
}

/// A container that had a part in it.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Place {
    /// Its node.
    pub node: Name,
    /// Its pod.
    pub pod: Option<Name>,
    /// Its name.
    pub container: Option<Name>,
    /// Its id.
    pub container_id: Option<Name>,
    /// Its image.
    pub image: Option<Name>,
    /// The image's digest.
    pub image_digest: Option<Name>,
    /// Whether its root was declared read-only.
    pub readonly_rootfs: Option<bool>,
    /// Whether it is privileged.
    pub privileged: Option<bool>,
}

impl Place {
    /// Of an event.
    pub fn of(event: &Event<'_>, names: &mut Names) -> Self {
        let container = event.container.as_ref();
        Self {
            node: names.of(&event.node),
            pod: event.pod.as_ref().map(|pod| names.of(&pod.name)),
            container: container.and_then(|it| it.name.as_ref()).map(|name| names.of(name)),
            container_id: container.map(|it| names.of(&it.id)),
            image: container.and_then(|it| it.image.as_ref()).map(|image| names.of(image)),
            image_digest: container.and_then(|it| it.image_digest.as_ref()).map(|digest| names.of(digest)),
            readonly_rootfs: container.and_then(|it| it.readonly_rootfs),
            privileged: container.and_then(|it| it.privileged),
        }
    }
}

/// An incident.
#[derive(Clone, Debug, Serialize)]
pub struct Incident {
    /// Whose it is.
    pub owner: Owner,
    /// The first attempt.
    #[serde(serialize_with = "time")]
    pub first_time: Time,
    /// The last attempt.
    #[serde(serialize_with = "time")]
    pub last_time: Time,
    /// The worst of its events.
    #[serde(serialize_with = "severity")]
    pub severity: Severity,
    /// Attempts.
    pub count: u64,
    /// Events.
    pub events: u64,
    /// What happened, in phases by their beginning.
    pub story: Vec<Phase>,
    /// Techniques of MITRE ATT&CK.
    pub attack: BTreeSet<Name>,
    /// Where, with the images.
    pub places: BTreeSet<Place>,
    /// Places that are not named, in events.
    pub events_in_other_places: u64,
    /// What happened, step by step; repeats of one are one.
    pub steps: Vec<Step>,
    /// Events whose steps are left out.
    pub events_left_out: u64,
    /// The processes of the steps.
    pub processes: Vec<Branch>,
    #[serde(skip)]
    weight: usize,
}

impl Incident {
    /// Begins with a step.
    pub fn begin(owner: Owner, step: Step, place: Place) -> Self {
        let mut incident = Self {
            owner,
            first_time: step.first_time,
            last_time: step.last_time,
            severity: step.severity,
            count: 0,
            events: 0,
            story: Vec::new(),
            attack: BTreeSet::new(),
            places: BTreeSet::new(),
            events_in_other_places: 0,
            steps: Vec::new(),
            events_left_out: 0,
            processes: Vec::new(),
            weight: 0,
        };
        incident.take(step, place, usize::MAX);
        incident
    }

    /// Takes one more step in, of which so many are kept.
    pub fn take(&mut self, step: Step, place: Place, steps_max: usize) {
        self.first_time = self.first_time.min(step.first_time);
        self.last_time = self.last_time.max(step.last_time);
        self.severity = self.severity.max(step.severity);
        self.count = self.count.saturating_add(step.count);
        self.events += step.events;
        story::tell(&mut self.story, &step);
        for technique in &step.attack {
            if self.attack.len() < LIST_MAX && !self.attack.contains(technique) {
                self.attack.insert(technique.clone());
            }
        }
        if !self.places.contains(&place) {
            if self.places.len() < LIST_MAX {
                self.places.insert(place);
            } else {
                self.events_in_other_places += step.events;
            }
        }
        // Late ones, and repeats of late ones, are near the end.
        if let Some(same) = self.steps.iter_mut().rev().find(|kept| kept.fold == step.fold) {
            same.fold(&step);
            return;
        }
        self.weight += step.weight();
        self.steps.push(step);
        self.keep(steps_max);
    }

    /// Leaves out steps until so many are left: the least severe ones that are neither among the first nor the last; of those
    /// the latest, since what comes late is more often a repeat of what was told.
    pub fn keep(&mut self, steps_max: usize) {
        let ends = ENDS_KEPT.min(steps_max / 2);
        while self.steps.len() > steps_max.max(1) {
            let middle = ends..self.steps.len() - ends;
            let least = middle.rev().min_by_key(|at| self.steps.get(*at).map(|step| step.severity));
            let left_out = self.steps.remove(least.unwrap_or(ends));
            self.weight -= left_out.weight();
            self.events_left_out += left_out.events;
        }
    }

    /// Puts the steps in order, and the processes in a tree.
    pub fn finish(&mut self) {
        self.steps.sort_by_key(|step| (step.first_time, step.seq));
        self.processes = tree(&self.steps);
    }

    /// Bytes that its steps take.
    pub const fn weight(&self) -> usize {
        self.weight
    }
}
