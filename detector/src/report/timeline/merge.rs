//! Several files as one stream, nearly in the order of time, in bounded memory.
//!
//! Each file is nearly in order by itself: the agent holds an attempt back for seconds at most, until it knows the container. So
//! of each some seconds are read ahead and sorted, and the earliest of all files is next. A file is opened when the others have
//! come to its first event, so that a hundred rotated files of a node are not open at once.

use std::{cmp::Reverse, collections::BinaryHeap, io};

use jiff::SignedDuration;

use super::Wanted;
use crate::report::{
    event::{Event, Time},
    lines::{Input, Line, Lines},
    verify::ReadError,
};

/// How far is read ahead in each file.
const AHEAD: SignedDuration = SignedDuration::from_secs(10);

/// Bytes that are read ahead at most, of all files.
const AHEAD_BYTES: usize = 24 << 20;

/// Lines that are looked at for the first event of a file.
const HEAD_LINES: u64 = 64;

/// What happens to each line.
pub trait Take {
    /// What is kept of a line until it is its turn.
    type Held;

    /// Looks at a line; none where it is no event. Lines of one file come in their order.
    fn line(&mut self, file: usize, number: u64, line: &[u8]) -> Option<Wanted<Self::Held>>;

    /// A line that is no event.
    fn no_event(&mut self, file: usize, number: u64);

    /// A file has no more lines.
    fn end_file(&mut self, file: usize);

    /// It is the turn of what was held.
    fn turn(&mut self, held: Self::Held);
}

/// Reads all files.
///
/// # Errors
/// Where one can't be read.
pub fn merge<T: Take>(inputs: &[Input], take: &mut T) -> Result<(), ReadError> {
    let mut closed = Vec::new();
    for (place, input) in inputs.iter().enumerate() {
        let (begin, lines) = head(input).map_err(|source| ReadError { input: input.name(), source })?;
        closed.push(Source {
            place,
            input,
            begin,
            lines,
            held: BinaryHeap::new(),
            bytes: 0,
            newest: None,
            order: 0,
            ended: false,
        });
    }
    // The earliest last, to be popped.
    closed.sort_by_key(|source| Reverse((source.begin, source.place)));
    let mut open: Vec<Source<'_, T::Held>> = Vec::new();
    loop {
        let next = open.iter().enumerate().filter_map(|(at, source)| Some((source.first()?, at))).min();
        let due = |source: &Source<'_, _>| {
            next.is_none_or(|(first, _)| {
                source.begin.is_none_or(|begin| begin.0 <= first.0.saturating_add(AHEAD).unwrap_or(begin.0))
            })
        };
        if let Some(source) = closed.pop_if(|source| due(source)) {
            open.push(source);
            let room = AHEAD_BYTES / open.len();
            if let Some(source) = open.last_mut() {
                source.fill(room, take)?;
            }
            continue;
        }
        let Some((_, at)) = next else { return Ok(()) };
        let room = AHEAD_BYTES / open.len();
        if let Some(source) = open.get_mut(at) {
            if let Some(held) = source.pop() {
                take.turn(held);
            }
            source.fill(room, take)?;
            if source.held.is_empty() {
                open.swap_remove(at);
            }
        }
    }
}

/// The time of the first event, and the lines where they can't be read a second time.
fn head(input: &Input) -> io::Result<(Option<Time>, Option<Lines>)> {
    let mut lines = input.open()?;
    if !input.can_be_read_again() {
        // Its first line may have to be waited for, and it is there to be read now.
        return Ok((None, Some(lines)));
    }
    while lines.number() < HEAD_LINES {
        match lines.read()? {
            None => break,
            Some(Line::Whole(line) | Line::Cut(line)) => {
                if let Some(event) = Event::parse(line) {
                    return Ok((Some(event.time), None));
                }
            }
            Some(Line::Long) => lines.pass_rest()?,
        }
    }
    Ok((None, None))
}

struct Source<'a, H> {
    place: usize,
    input: &'a Input,
    begin: Option<Time>,
    lines: Option<Lines>,
    held: BinaryHeap<Reverse<Held<H>>>,
    bytes: usize,
    newest: Option<Time>,
    order: u64,
    ended: bool,
}

struct Held<H> {
    time: Time,
    order: u64,
    bytes: usize,
    held: H,
}

impl<H> Source<'_, H> {
    fn first(&self) -> Option<Time> {
        self.held.peek().map(|Reverse(held)| held.time)
    }

    fn pop(&mut self) -> Option<H> {
        let Reverse(held) = self.held.pop()?;
        self.bytes -= held.bytes;
        Some(held.held)
    }

    fn is_far_ahead(&self, room: usize) -> bool {
        let Some((first, newest)) = self.first().zip(self.newest) else { return false };
        self.bytes >= room || newest.0.duration_since(first.0) > AHEAD
    }

    /// Reads ahead; at the end of the file what is held is all there is.
    fn fill<T: Take<Held = H>>(&mut self, room: usize, take: &mut T) -> Result<(), ReadError> {
        self.read_on(room, take).map_err(|source| ReadError { input: self.input.name(), source })
    }

    fn read_on<T: Take<Held = H>>(&mut self, room: usize, take: &mut T) -> io::Result<()> {
        while !self.ended && !self.is_far_ahead(room) {
            let lines = match &mut self.lines {
                Some(lines) => lines,
                None => self.lines.insert(self.input.open()?),
            };
            let number = lines.number() + 1;
            let wanted = match lines.read()? {
                None => {
                    self.ended = true;
                    self.lines = None;
                    take.end_file(self.place);
                    break;
                }
                Some(Line::Whole(line) | Line::Cut(line)) => take.line(self.place, number, line),
                Some(Line::Long) => {
                    lines.pass_rest()?;
                    None
                }
            };
            let Some(Wanted { time, bytes, held }) = wanted else {
                take.no_event(self.place, number);
                continue;
            };
            self.newest = Some(self.newest.map_or(time, |newest| newest.max(time)));
            if let Some(held) = held {
                self.order += 1;
                self.bytes += bytes;
                self.held.push(Reverse(Held { time, order: self.order, bytes, held }));
            }
        }
        Ok(())
    }
}

impl<H> PartialEq for Held<H> {
    fn eq(&self, other: &Self) -> bool {
        (self.time, self.order) == (other.time, other.order)
    }
}

impl<H> Eq for Held<H> {}

impl<H> PartialOrd for Held<H> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<H> Ord for Held<H> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.time, self.order).cmp(&(other.time, other.order))
    }
}
