//! How far the record can be trusted: its nodes, and the times at which nobody watched or lines are missing.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    name::{Name, Names},
    step::time_or_null,
};
use crate::{
    export::chain::{End, Link},
    report::{
        event::{Event, Time},
        filter::Filter,
    },
};

/// Gaps that are told; of the others the number is.
const GAPS_MAX: usize = 256;
/// Nodes that are told. More would be no cluster.
const NODES_MAX: usize = 16_384;

/// Why a part of the record can't be relied on.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// Numbers of lines are missing.
    LinesMissing,
    /// A line is not as it was written, or not where.
    Changed,
    /// The agent did not run.
    NotWatching,
    /// Events were lost before they were written, as the agent says itself.
    Lost,
    /// The agent says that it could not see something.
    Blind,
}

/// A part of the record that can't be relied on.
#[derive(Clone, Debug, Serialize)]
pub struct Gap {
    /// Why.
    pub why: Why,
    /// The node.
    pub node: Name,
    /// The last line before it; none where none is known.
    #[serde(serialize_with = "time_or_null")]
    pub after: Option<Time>,
    /// The first line behind it.
    #[serde(serialize_with = "time_or_null")]
    pub before: Option<Time>,
    /// Lines that are missing, events that are lost, lines that were changed.
    pub count: Option<u64>,
    /// What is known besides.
    pub detail: Option<Name>,
    /// Where it was noticed.
    pub file: Name,
    /// The line, from 1.
    pub line: u64,
}

/// A node of the record.
#[derive(Clone, Debug, Serialize)]
pub struct Node {
    /// Its name.
    pub name: Name,
    /// Its first event.
    #[serde(serialize_with = "time_or_null")]
    pub first_time: Option<Time>,
    /// Its last event.
    #[serde(serialize_with = "time_or_null")]
    pub last_time: Option<Time>,
    /// Its events.
    pub events: u64,
}

/// What is known of the record.
#[derive(Debug, Default)]
pub struct Record {
    nodes: BTreeMap<Name, Node>,
    gaps: Vec<Gap>,
    gaps_left_out: u64,
    /// First lines of files that say nothing, or not enough, of what they follow, and last lines.
    heads: Vec<Head>,
    tails: Vec<Tail>,
}

/// The first line of a file.
#[derive(Debug)]
struct Head {
    node: Name,
    seq: u64,
    time: Time,
    is_start: bool,
    /// What it says it follows; none where it does not say.
    previous: Option<End>,
    /// The line, where it does not say.
    line: Vec<u8>,
    file: Name,
}

#[derive(Debug)]
struct Tail {
    node: Name,
    end: End,
    time: Time,
}

/// What one file is read with.
#[derive(Debug)]
pub struct FileCheck {
    file: Name,
    last: Option<Tail>,
    /// The first changed line, with its time and the time of the line before, and how many there are.
    changed: Option<(Gap, u64)>,
}

impl FileCheck {
    /// Nothing read.
    pub const fn of(file: Name) -> Self {
        Self { file, last: None, changed: None }
    }
}

impl Record {
    /// Looks at the next line of a file.
    pub fn line(
        &mut self,
        check: &mut FileCheck,
        line: &[u8],
        number: u64,
        event: &Event<'_>,
        filter: &Filter,
        names: &mut Names,
    ) {
        let node = names.of(&event.node);
        let is_start = event.agent.as_ref().is_some_and(|note| &*note.what == "start");
        let gap = |why, after, count| Gap {
            why,
            node: node.clone(),
            after,
            before: Some(event.time),
            count,
            detail: None,
            file: check.file.clone(),
            line: number,
        };
        match &check.last {
            None if event.previous == Some(None) => {}
            None => self.heads.push(Head {
                node: node.clone(),
                seq: event.seq,
                time: event.time,
                is_start,
                previous: event.previous.clone().flatten(),
                line: if event.previous.is_none() { line.to_vec() } else { Vec::new() },
                file: check.file.clone(),
            }),
            Some(last) => {
                let begins = event.previous == Some(None);
                let next = last.end.seq.checked_add(1);
                if is_start {
                    self.note(filter, gap(Why::NotWatching, Some(last.time), None));
                }
                if last.node != node || begins {
                    // Another stream: what lies between is told by its start.
                } else if next.is_some_and(|next| event.seq > next) {
                    let missing = event.seq - last.end.seq - 1;
                    self.note(filter, gap(Why::LinesMissing, Some(last.time), Some(missing)));
                } else if next != Some(event.seq) || !follows(line, &last.end.chain) {
                    match &mut check.changed {
                        Some((_, count)) => *count += 1,
                        None => check.changed = Some((gap(Why::Changed, Some(last.time), None), 1)),
                    }
                }
            }
        }
        if let Some(note) = &event.agent {
            let of = event.pod.as_ref().map(|pod| format!("of {}/{}", &*pod.namespace, &*pod.name));
            let lost = note.lost();
            if lost > 0 {
                let detail = of.map(|of| names.of(&of));
                let after = check.last.as_ref().map(|last| last.time);
                self.note(filter, Gap { detail, ..gap(Why::Lost, after, Some(lost)) });
            } else if &*note.what == "gap" {
                let (surface, reason) = (note.text("surface").unwrap_or("?"), note.text("reason").unwrap_or("?"));
                let detail = names.of(&format!("{surface} {}: {reason}", of.unwrap_or_default()).replace(" :", ":"));
                self.note(filter, Gap { detail: Some(detail), ..gap(Why::Blind, None, None) });
            }
        }
        if filter.takes_time_and_node(event) && (self.nodes.len() < NODES_MAX || self.nodes.contains_key(&node)) {
            let none = Node { name: node.clone(), first_time: None, last_time: None, events: 0 };
            let of_node = self.nodes.entry(node.clone()).or_insert(none);
            of_node.first_time = Some(of_node.first_time.map_or(event.time, |first| first.min(event.time)));
            of_node.last_time = Some(of_node.last_time.map_or(event.time, |last| last.max(event.time)));
            of_node.events += 1;
        }
        let chain = event.chain.as_deref().unwrap_or_default().to_owned();
        check.last = Some(Tail { node, end: End { seq: event.seq, chain }, time: event.time });
    }

    /// The file has no more lines.
    pub fn end_file(&mut self, check: &mut FileCheck, filter: &Filter) {
        self.tails.extend(check.last.take());
        if let Some((gap, count)) = check.changed.take() {
            self.note(filter, Gap { count: Some(count), ..gap });
        }
    }

    /// Nodes, gaps by time, and how many more gaps there are.
    pub fn finish(mut self, filter: &Filter) -> (Vec<Node>, Vec<Gap>, u64) {
        for head in std::mem::take(&mut self.heads) {
            self.tie(head, filter);
        }
        self.gaps.sort_by_key(|gap| (gap.before, gap.after));
        (self.nodes.into_values().collect(), self.gaps, self.gaps_left_out)
    }

    /// Ties the first line of a file to the last one of another.
    fn tie(&mut self, head: Head, filter: &Filter) {
        let of_node = |tail: &&Tail| tail.node == head.node;
        let before = match &head.previous {
            Some(previous) => self.tails.iter().filter(of_node).find(|tail| tail.end == *previous),
            None => self
                .tails
                .iter()
                .filter(of_node)
                .find(|tail| tail.end.seq.checked_add(1) == Some(head.seq) && follows(&head.line, &tail.end.chain)),
        };
        let gap = |why, after, count| Gap {
            why,
            node: head.node.clone(),
            after,
            before: Some(head.time),
            count,
            detail: None,
            file: head.file.clone(),
            line: 1,
        };
        let found = match before {
            Some(tail) => head.is_start.then(|| gap(Why::NotWatching, Some(tail.time), None)),
            None if head.seq <= 1 => None,
            None => {
                let nearest = self.tails.iter().filter(of_node).filter(|tail| tail.end.seq < head.seq);
                let nearest = nearest.max_by_key(|tail| tail.end.seq);
                let before = nearest.map_or(0, |tail| tail.end.seq);
                let missing = head.seq.saturating_sub(before + 1);
                Some(gap(Why::LinesMissing, nearest.map(|tail| tail.time), Some(missing)))
            }
        };
        if let Some(gap) = found {
            self.note(filter, gap);
        }
    }

    fn note(&mut self, filter: &Filter, gap: Gap) {
        let begins_late =
            filter.until.is_some_and(|until| gap.after.or(gap.before).is_some_and(|after| after >= until));
        let ends_early = filter.since.is_some_and(|since| gap.before.is_some_and(|before| before < since));
        if begins_late || ends_early || !filter.takes_node(&gap.node) {
            return;
        }
        if self.gaps.len() < GAPS_MAX {
            self.gaps.push(gap);
        } else {
            self.gaps_left_out += 1;
        }
    }
}

fn follows(line: &[u8], previous: &str) -> bool {
    Link::split(line).is_some_and(|(open, chain)| Link::is_chained(open, chain, previous))
}
