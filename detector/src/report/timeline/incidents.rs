//! All incidents of a record, in bounded memory: those that are open, those that are over, and a count of what there was no
//! room for.

use std::{
    collections::{HashMap, hash_map::Entry},
    time::Duration,
};

use jiff::SignedDuration;

use super::{
    incident::{Incident, Owner, Place},
    step::Step,
};
use crate::{finding::event::Kind, report::event::Time};

/// An incident is over when nothing has happened for so long.
pub const QUIET: SignedDuration = SignedDuration::from_mins(5);

/// Incidents that are open at a time, of which it is not known yet how bad they become, for each that is kept.
const OPEN_PER_KEPT: usize = 8;

/// What is kept at most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Incidents.
    pub incidents: usize,
    /// Steps of each.
    pub steps: usize,
    /// Bytes of all steps; where they would take more, fewer of each incident are kept.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { incidents: 500, steps: 128, bytes: 48 << 20 }
    }
}

/// Incidents that had no room.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct LeftOut {
    /// Incidents.
    pub incidents: u64,
    /// Their events.
    pub events: u64,
    /// Their attempts.
    pub count: u64,
}

impl LeftOut {
    /// Counts one more.
    fn take(&mut self, incident: &Incident) {
        self.incidents += 1;
        self.events += incident.events;
        self.count = self.count.saturating_add(incident.count);
    }
}

/// Puts steps together to incidents.
#[derive(Debug)]
pub struct Incidents {
    limits: Limits,
    open: HashMap<Owner, Incident>,
    over: Vec<Incident>,
    left_out: LeftOut,
    /// Writes that went through and belong to no incident.
    observed: u64,
    weight: usize,
    swept: Option<Time>,
}

impl Incidents {
    /// None yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            open: HashMap::new(),
            over: Vec::new(),
            left_out: LeftOut::default(),
            observed: 0,
            weight: 0,
            swept: None,
        }
    }

    /// Takes the next step in; they come nearly in order.
    pub fn take(&mut self, owner: Owner, step: Step, place: Place) {
        let now = step.last_time;
        self.sweep(now);
        let begins_none = matches!(step.known_kind, Some(Kind::WriteObserved | Kind::SealMended));
        match self.open.entry(owner) {
            Entry::Occupied(mut open) => {
                let incident = open.get_mut();
                let before = incident.weight();
                if is_quiet(incident, step.first_time) && !begins_none {
                    let owner = incident.owner.clone();
                    let next = Incident::begin(owner, step, place);
                    self.weight += next.weight();
                    let over = std::mem::replace(incident, next);
                    self.end(over);
                } else {
                    incident.take(step, place, self.limits.steps);
                    self.weight = self.weight + incident.weight() - before;
                }
            }
            // What learning mode sees, and a mend of what was broken before the record, are no incidents by themselves.
            Entry::Vacant(_) if begins_none => self.observed = self.observed.saturating_add(step.count),
            Entry::Vacant(place_of) => {
                let incident = Incident::begin(place_of.key().clone(), step, place);
                self.weight += incident.weight();
                place_of.insert(incident);
            }
        }
        if self.open.len() > self.limits.incidents * OPEN_PER_KEPT {
            self.end_longest_quiet();
        }
        while self.weight > self.limits.bytes && self.limits.steps > 2 {
            self.limits.steps /= 2;
            let steps = self.limits.steps;
            self.open.values_mut().chain(&mut self.over).for_each(|incident| incident.keep(steps));
            self.weight = self.open.values().chain(&self.over).map(Incident::weight).sum();
        }
    }

    /// The worst first, of those the first; what had no room; and the writes that are of none.
    pub fn finish(mut self) -> (Vec<Incident>, LeftOut, u64) {
        let open: Vec<_> = self.open.drain().map(|(_, incident)| incident).collect();
        open.into_iter().for_each(|incident| self.end(incident));
        self.prune(0);
        self.over.iter_mut().for_each(Incident::finish);
        (self.over, self.left_out, self.observed)
    }

    /// Ends those that are over. Not at each step: looking at all takes a while.
    fn sweep(&mut self, now: Time) {
        let long_ago = |swept: Time| now.0.duration_since(swept.0) > SignedDuration::from_mins(1);
        if self.swept.is_some_and(|swept| !long_ago(swept)) {
            return;
        }
        self.swept = Some(now);
        let over: Vec<_> = self.open.extract_if(|_, incident| is_quiet(incident, now)).collect();
        over.into_iter().for_each(|(_, incident)| self.end(incident));
    }

    /// Ends a quarter of them: each time one alone would mean to look at all each time.
    fn end_longest_quiet(&mut self) {
        let mut times: Vec<_> = self.open.values().map(|incident| incident.last_time).collect();
        let quarter = times.len() / 4;
        let (_, latest, _) = times.select_nth_unstable(quarter);
        let latest = *latest;
        let quiet: Vec<_> = self.open.extract_if(|_, incident| incident.last_time <= latest).collect();
        quiet.into_iter().for_each(|(_, incident)| self.end(incident));
    }

    fn end(&mut self, incident: Incident) {
        self.over.push(incident);
        self.prune(self.limits.incidents / 4);
    }

    /// Leaves out the least severe ones, and of those the latest, once there are so many more than there is room for.
    fn prune(&mut self, beyond: usize) {
        if beyond > 0 && self.over.len() <= self.limits.incidents + beyond {
            return;
        }
        self.over.sort_by(|one, other| {
            let rank = |incident: &Incident| (std::cmp::Reverse(incident.severity), incident.first_time);
            rank(one).cmp(&rank(other)).then_with(|| one.owner.cmp(&other.owner))
        });
        let kept = self.limits.incidents.min(self.over.len());
        for incident in self.over.drain(kept..) {
            self.weight -= incident.weight();
            self.left_out.take(&incident);
        }
    }
}

fn is_quiet(incident: &Incident, now: Time) -> bool {
    now.0.duration_since(incident.last_time.0) > QUIET
}

/// From the first attempt of an incident to the last.
pub fn duration(incident: &Incident) -> Duration {
    incident.last_time.0.duration_since(incident.first_time.0).try_into().unwrap_or_default()
}
