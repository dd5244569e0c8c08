//! `timeline`: the streams of one or more nodes merged by time, and what happened in each workload as incidents.
//!
//! Memory does not grow with the record: events are read once, and what is kept of them are incidents of a bounded number with
//! a bounded number of steps, which say what was left out.

mod density;
pub mod html;
mod incident;
mod incidents;
mod merge;
mod name;
mod record;
mod step;
mod story;
mod tree;

use std::collections::BTreeMap;

use serde::Serialize;

pub use self::{
    density::Density,
    incident::{Incident, Owner, Place},
    incidents::{LeftOut, Limits, QUIET, duration},
    name::Name,
    record::{Gap, Node, Why},
    step::{Actor, Ancestor, Step},
    story::{Phase, What},
    tree::Branch,
};
use self::{
    incidents::Incidents,
    merge::{Take, merge},
    name::Names,
    record::{FileCheck, Record},
    step::time_or_null,
};
use super::{
    event::{Event, Time},
    filter::Filter,
    lines::Input,
    verify::ReadError,
};
use crate::finding::event::Kind;

/// Name and version of the timeline's own format.
pub const SCHEMA: &str = "rosentry-timeline/v1";

/// Lines that are no events, of which each is told; of the others the number is.
const NO_EVENTS_MAX: usize = 10;

/// What happened.
#[derive(Debug, Serialize)]
pub struct Timeline {
    /// Name and version of this format.
    pub schema: &'static str,
    /// The first event that was asked for.
    #[serde(serialize_with = "time_or_null")]
    pub first_time: Option<Time>,
    /// The last one.
    #[serde(serialize_with = "time_or_null")]
    pub last_time: Option<Time>,
    /// Events that were asked for.
    pub events: u64,
    /// Attempts that are folded into them.
    pub count: u64,
    /// Events by kind.
    pub kinds: BTreeMap<Name, u64>,
    /// Writes that went through and belong to no incident.
    pub observed: u64,
    /// The nodes of the record.
    pub nodes: Vec<Node>,
    /// Where the record can't be relied on.
    pub gaps: Vec<Gap>,
    /// More of those.
    pub gaps_left_out: u64,
    /// Lines that are no events.
    pub lines_left_out: u64,
    /// What happened, the worst first.
    pub incidents: Vec<Incident>,
    /// Incidents that had no room: the least severe ones.
    pub incidents_left_out: LeftOut,
    /// How many events there were when, by severity.
    pub density: Density,
    /// The first lines that are no events, as file and line.
    #[serde(skip)]
    pub no_events: Vec<(String, u64)>,
}

impl Timeline {
    /// Reads the inputs, and keeps what the filter takes.
    ///
    /// # Errors
    /// Where an input can't be read.
    pub fn read(inputs: &[Input], filter: &Filter, limits: Limits) -> Result<Self, ReadError> {
        let mut reading = Reading::new(inputs, filter, limits);
        merge(inputs, &mut reading)?;
        Ok(reading.finish())
    }

    /// Leaves out steps until all incidents together have so many.
    pub fn keep_steps(&mut self, steps_max: usize) {
        let mut most = self.incidents.iter().map(|incident| incident.steps.len()).max().unwrap_or(0);
        while most > 1 && self.incidents.iter().map(|incident| incident.steps.len()).sum::<usize>() > steps_max {
            most /= 2;
            for incident in &mut self.incidents {
                incident.keep(most);
                incident.finish();
            }
        }
    }
}

/// An event that was read.
struct Wanted<H> {
    time: Time,
    /// Bytes that it takes until its turn.
    bytes: usize,
    /// What is kept of it, if it was asked for.
    held: Option<H>,
}

struct Reading<'a> {
    inputs: &'a [Input],
    filter: &'a Filter,
    names: Names,
    checks: Vec<FileCheck>,
    record: Record,
    incidents: Incidents,
    timeline: Timeline,
}

impl<'a> Reading<'a> {
    fn new(inputs: &'a [Input], filter: &'a Filter, limits: Limits) -> Self {
        let mut names = Names::default();
        let checks = inputs.iter().map(|input| FileCheck::of(names.of(&input.name()))).collect();
        let timeline = Timeline {
            schema: SCHEMA,
            first_time: None,
            last_time: None,
            events: 0,
            count: 0,
            kinds: BTreeMap::new(),
            observed: 0,
            nodes: Vec::new(),
            gaps: Vec::new(),
            gaps_left_out: 0,
            lines_left_out: 0,
            incidents: Vec::new(),
            incidents_left_out: LeftOut::default(),
            density: Density::default(),
            no_events: Vec::new(),
        };
        let incidents = Incidents::new(limits);
        Self { inputs, filter, names, checks, record: Record::default(), incidents, timeline }
    }

    fn finish(self) -> Timeline {
        let (nodes, gaps, gaps_left_out) = self.record.finish(self.filter);
        let (incidents, incidents_left_out, observed) = self.incidents.finish();
        Timeline { nodes, gaps, gaps_left_out, incidents, incidents_left_out, observed, ..self.timeline }
    }

    /// Counts an event that was asked for.
    fn count(&mut self, event: &Event<'_>) {
        let timeline = &mut self.timeline;
        let first = event.first_time();
        timeline.first_time = Some(timeline.first_time.map_or(first, |time| time.min(first)));
        timeline.last_time = Some(timeline.last_time.map_or(event.time, |time| time.max(event.time)));
        timeline.events += 1;
        // What the agent says of itself is no attempt.
        let attempts = if event.kind() == Some(Kind::Agent) { 0 } else { event.count };
        timeline.count = timeline.count.saturating_add(attempts);
        timeline.density.add(event.time, event.severity, 1);
        // A kind that is not known is one of few in a true record; in a forged one there may be many.
        let kind = event.kind().map_or("other", Kind::name);
        match timeline.kinds.get_mut(kind) {
            Some(count) => *count += 1,
            None => {
                timeline.kinds.insert(self.names.of(kind), 1);
            }
        }
    }
}

impl Take for Reading<'_> {
    type Held = (Owner, Step, Place);

    fn line(&mut self, file: usize, number: u64, line: &[u8]) -> Option<Wanted<Self::Held>> {
        let event = Event::parse(line)?;
        if let Some(check) = self.checks.get_mut(file) {
            self.record.line(check, line, number, &event, self.filter, &mut self.names);
        }
        let is_wanted = self.filter.takes(&event);
        let held = (is_wanted && event.kind() != Some(Kind::Agent)).then(|| {
            let owner = Owner::of(&event, &mut self.names);
            let place = Place::of(&event, &mut self.names);
            (owner, Step::of(&event, &mut self.names), place)
        });
        if is_wanted {
            self.count(&event);
        }
        let bytes = held.as_ref().map_or(0, |(_, step, _)| step.weight() + size_of::<Place>());
        Some(Wanted { time: event.time, bytes, held })
    }

    fn no_event(&mut self, file: usize, number: u64) {
        self.timeline.lines_left_out += 1;
        if let Some(input) = self.inputs.get(file).filter(|_| self.timeline.no_events.len() < NO_EVENTS_MAX) {
            self.timeline.no_events.push((input.name(), number));
        }
    }

    fn end_file(&mut self, file: usize) {
        if let Some(check) = self.checks.get_mut(file) {
            self.record.end_file(check, self.filter);
        }
    }

    fn turn(&mut self, (owner, step, place): Self::Held) {
        self.incidents.take(owner, step, place);
    }
}

#[cfg(test)]
mod tests;
