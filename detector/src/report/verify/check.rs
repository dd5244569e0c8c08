//! The state between one line and the next.

use std::{
    collections::{HashMap, hash_map::Entry},
    rc::Rc,
};

use super::verdict::{Demand, Problem, Verdict, Whole};
use crate::export::chain::{End, Link, START};

/// Starts and rotated files that a record may have, all of which are remembered.
const BEGINNINGS_MAX: usize = 1 << 18;

/// Where a stream stood at the end of a file.
struct Open {
    node: String,
    end: End,
    /// Whether its last line is a stop record.
    stopped: bool,
}

/// Looks at one line after the other. What it keeps grows with the files, not with their lines.
pub struct Check {
    demand: Demand,
    whole: Whole,
    file: Rc<str>,
    number: u64,
    at: Option<Open>,
    /// Streams that may go on in another file.
    open: Vec<Open>,
    /// The lines that say what they follow and the first ones of files, by half of their chain: file and line. Their numbers
    /// alone don't show that one was put in a second time.
    beginnings: HashMap<u128, (Rc<str>, u64)>,
}

impl Check {
    /// Nothing looked at.
    pub fn new(demand: Demand) -> Self {
        Self {
            demand,
            whole: Whole::default(),
            file: Rc::from(""),
            number: 0,
            at: None,
            open: Vec::new(),
            beginnings: HashMap::new(),
        }
    }

    /// What comes is in this file.
    pub fn begin_file(&mut self, name: &str) {
        self.file = Rc::from(name);
        self.number = 0;
        self.whole.files += 1;
    }

    /// The file has no more lines.
    pub fn end_file(&mut self) {
        self.open.extend(self.at.take());
    }

    /// Looks at the next line.
    pub fn line(&mut self, link: &Link<'_>) -> Result<(), Problem> {
        self.number += 1;
        let before = match self.at.take() {
            Some(at) => self.after(at, link)?,
            None => self.first_of_file(link)?,
        };
        if before.is_some_and(|before| !link.follows(&before)) {
            return Err(Problem::Chain);
        }
        self.whole.lines += 1;
        self.whole.runs += u64::from(link.is_agent("start"));
        let lost = link.agent.as_ref().map_or(0, |agent| agent.lost());
        self.whole.lost = self.whole.lost.saturating_add(lost);
        self.at = Some(Open { node: link.node.to_string(), end: link.end(), stopped: link.is_agent("stop") });
        Ok(())
    }

    /// The line that was looked at last is carried by one of another format.
    pub const fn was_carried(&mut self) {
        self.whole.carried += 1;
    }

    /// What there is to say, all lines having been looked at.
    pub fn finish(mut self) -> Verdict {
        if self.whole.lines == 0 {
            return Verdict::Lacking("there is no line in what was given: a record has at least its start".to_owned());
        }
        self.whole.open += self.open.iter().filter(|open| !open.stopped).count() as u64;
        if self.demand == Demand::All {
            if let Some((file, seq)) = self.whole.before.first() {
                return Verdict::Lacking(format!(
                    "the beginning of the record is missing: {file} goes on after line {seq}, which is in none of the files"
                ));
            }
            if self.whole.open > 0 {
                return Verdict::Lacking("the record does not end with a stop record".to_owned());
            }
        }
        Verdict::Whole(self.whole)
    }

    /// The chain that the line must follow, where another stands before it in the file.
    fn after(&mut self, at: Open, link: &Link<'_>) -> Result<Option<String>, Problem> {
        match &link.previous {
            // A stream that knows of none before it, in the same file.
            Some(None) => {
                self.whole.open += u64::from(!at.stopped);
                self.beginning(link)?;
                self.begin_stream(link).map(Some)
            }
            Some(Some(previous)) => {
                own_previous(previous, link)?;
                self.beginning(link)?;
                if previous.seq == at.end.seq && previous.chain != at.end.chain {
                    return Err(Problem::OtherPrevious { before: at.end.seq });
                }
                next(at.end.seq, link.seq)?;
                self.killed(&at, link);
                Ok(Some(at.end.chain))
            }
            None => next(at.end.seq, link.seq).map(|()| Some(at.end.chain)),
        }
    }

    /// The chain that the first line of a file must follow, where that is known.
    fn first_of_file(&mut self, link: &Link<'_>) -> Result<Option<String>, Problem> {
        self.beginning(link)?;
        let node = link.node.as_ref();
        match &link.previous {
            Some(None) => self.begin_stream(link).map(Some),
            Some(Some(previous)) => {
                own_previous(previous, link)?;
                if let Some(found) = self.open.iter().position(|open| open.end == *previous) {
                    let at = self.open.swap_remove(found);
                    self.killed(&at, link);
                } else if let Some(open) = self.nearest(node, link.seq) {
                    // Sorted as the files are, the one that ends nearest before is the one to go on from.
                    return Err(match open.end.seq {
                        before if before == previous.seq => Problem::OtherPrevious { before },
                        before => Problem::Missing { before, found: link.seq },
                    });
                } else {
                    self.whole.streams += 1;
                    self.whole.before.push((self.file.to_string(), previous.seq));
                }
                Ok(Some(previous.chain.clone()))
            }
            None => {
                let fits = |open: &&Open| open.node == node && open.end.seq.checked_add(1) == Some(link.seq);
                let before = self.open.iter().filter(fits).find(|open| link.follows(&open.end.chain));
                if let Some(found) = before.and_then(|before| self.open.iter().position(|open| open.end == before.end))
                {
                    return Ok(Some(self.open.swap_remove(found).end.chain));
                }
                if link.seq == 1 {
                    return self.begin_stream(link).map(Some);
                }
                if self.demand == Demand::Part {
                    self.whole.streams += 1;
                    self.whole.parts += 1;
                    return Ok(None);
                }
                match self.nearest(node, link.seq) {
                    Some(open) => next(open.end.seq, link.seq).map(|()| Some(open.end.chain.clone())),
                    None => Err(Problem::NoBeginning { seq: link.seq }),
                }
            }
        }
    }

    /// The stream of this node that ended nearest before this number.
    fn nearest(&self, node: &str, seq: u64) -> Option<&Open> {
        self.open.iter().filter(|open| open.node == node && open.end.seq < seq).max_by_key(|open| open.end.seq)
    }

    fn begin_stream(&mut self, link: &Link<'_>) -> Result<String, Problem> {
        self.whole.streams += 1;
        if link.seq == 1 { Ok(START.to_owned()) } else { Err(Problem::OwnPrevious { says: 0, found: link.seq }) }
    }

    /// Notes a line that begins something, once.
    fn beginning(&mut self, link: &Link<'_>) -> Result<(), Problem> {
        let digits = link.chain.get(..32).and_then(|half| u128::from_str_radix(half, 16).ok());
        let full = self.beginnings.len() >= BEGINNINGS_MAX;
        match self.beginnings.entry(digits.unwrap_or_default()) {
            Entry::Occupied(other) => {
                let (other, line) = other.get();
                Err(Problem::Twice { other: other.to_string(), line: *line })
            }
            Entry::Vacant(_) if full => Err(Problem::Beginnings { most: BEGINNINGS_MAX }),
            Entry::Vacant(place) => {
                place.insert((Rc::clone(&self.file), self.number));
                Ok(())
            }
        }
    }

    /// Notes a run that ended without a stop record, where this line begins the next.
    fn killed(&mut self, at: &Open, link: &Link<'_>) {
        self.whole.killed += u64::from(link.is_agent("start") && !at.stopped);
    }
}

/// Whether the first line of a file is unchanged, as far as it shows that by itself: where it says what it follows.
pub fn alone(link: &Link<'_>) -> Result<(), Problem> {
    let before = match &link.previous {
        None => return Ok(()),
        Some(None) => START,
        Some(Some(previous)) => {
            own_previous(previous, link)?;
            &previous.chain
        }
    };
    if link.follows(before) { Ok(()) } else { Err(Problem::Chain) }
}

/// Whether a line says of itself that it follows one that stands right before it.
fn own_previous(previous: &End, link: &Link<'_>) -> Result<(), Problem> {
    if previous.seq.checked_add(1) == Some(link.seq) {
        return Ok(());
    }
    Err(Problem::OwnPrevious { says: previous.seq, found: link.seq })
}

fn next(before: u64, found: u64) -> Result<(), Problem> {
    match found.checked_sub(before) {
        Some(1) => Ok(()),
        Some(more) if more > 1 => Err(Problem::Missing { before, found }),
        _ => Err(Problem::Order { before, found }),
    }
}
