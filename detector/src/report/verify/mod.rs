//! `verify`: whether a record is as it was written.
//!
//! The files may be given in any order: they are sorted by their first lines' node and number, and each is tied to the one
//! that it goes on from. What is looked at: each line's number, its chain, and what the first lines of runs and files say of
//! the line before them. Lines are read one at a time, so that memory does not grow with the record.

mod check;
mod verdict;

use std::io;

use self::check::{Check, alone};
pub use self::verdict::{Bad, Demand, Problem, Verdict, Whole};
use super::lines::{Input, Line, Lines};
use crate::export::chain::Link;

/// Why an input could not be read.
#[derive(Debug, thiserror::Error)]
#[error("{input} can't be read: {source}")]
pub struct ReadError {
    /// Its name.
    pub input: String,
    /// Why not.
    pub source: io::Error,
}

/// An input, and what its first line says of its place among the others.
struct Head {
    place: usize,
    node: String,
    seq: u64,
    /// Pipes can't be opened a second time; files are, so that not all are open at once.
    opened: Option<Lines>,
}

/// Says whether the inputs, together, are a record as it was written.
///
/// # Errors
/// Where one of them can't be read.
pub fn verify(inputs: &[Input], demand: Demand) -> Result<Verdict, ReadError> {
    let mut heads = Vec::new();
    for (place, input) in inputs.iter().enumerate() {
        match head(place, input).map_err(|source| ReadError { input: input.name(), source })? {
            First::Nothing => {}
            First::Bad(problem) => return Ok(Verdict::Bad(Bad { input: input.name(), line: 1, problem })),
            First::Link(head) => heads.push(head),
        }
    }
    heads.sort_by(|one, other| (&one.node, one.seq).cmp(&(&other.node, other.seq)));
    let mut check = Check::new(demand);
    for Head { place, opened, .. } in heads {
        let input = &inputs[place];
        let unreadable = |source| ReadError { input: input.name(), source };
        let mut lines = match opened {
            Some(lines) => lines,
            None => input.open().map_err(unreadable)?,
        };
        if let Err(bad) = file(&mut check, input, &mut lines).map_err(unreadable)? {
            return Ok(Verdict::Bad(bad));
        }
    }
    Ok(check.finish())
}

/// What stands first in an input.
enum First {
    Nothing,
    Bad(Problem),
    Link(Head),
}

fn head(place: usize, input: &Input) -> io::Result<First> {
    let mut lines = input.open()?;
    let (node, seq) = match lines.read()? {
        None => return Ok(First::Nothing),
        // Looked at before it decides on the file's place among the others.
        Some(line) => match link(line).and_then(|link| alone(&link).map(|()| link)) {
            Ok(link) => (link.node.into_owned(), link.seq),
            Err(problem) => return Ok(First::Bad(problem)),
        },
    };
    let opened = (!input.can_be_read_again()).then(|| lines.again());
    Ok(First::Link(Head { place, node, seq, opened }))
}

fn link(line: Line<'_>) -> Result<Link<'_>, Problem> {
    match line {
        Line::Whole(line) => Link::parse(line).ok_or(Problem::NoEvent),
        Line::Cut(_) => Err(Problem::Cut),
        Line::Long => Err(Problem::Long),
    }
}

fn file(check: &mut Check, input: &Input, lines: &mut Lines) -> io::Result<Result<(), Bad>> {
    check.begin_file(&input.name());
    while let Some(line) = lines.read()? {
        if let Err(problem) = link(line).and_then(|link| check.line(&link)) {
            return Ok(Err(Bad { input: input.name(), line: lines.number(), problem }));
        }
        if lines.is_carried() {
            check.was_carried();
        }
    }
    check.end_file();
    Ok(Ok(()))
}

#[cfg(test)]
mod tests;
