//! The reading side of a spool: batches of lines, and what is confirmed of them.

use std::{fs, io, sync::Arc};

use tracing::warn;

use super::{
    Shared,
    cursor::{Cursor, Position},
    segment::{self, Record},
};

/// Lines that are sent at once.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// The lines, without their ends.
    pub lines: Vec<Vec<u8>>,
    /// Behind the last of them.
    pub end: Position,
    /// How many of them were read before, and so may have been sent.
    pub repeated: u64,
}

/// Reads what is not confirmed.
pub struct SpoolReader {
    shared: Arc<Shared>,
    cursor: Cursor,
    /// What is read next.
    next: Position,
    open: Option<(u64, segment::Reader)>,
    /// Lines that were read, those read again not counted.
    furthest: u64,
}

impl SpoolReader {
    pub(super) fn new(shared: Arc<Shared>, cursor: Cursor) -> Self {
        let next = cursor.position;
        Self { shared, cursor, next, open: None, furthest: 0 }
    }

    /// Goes back to what is not confirmed.
    pub fn rewind(&mut self) {
        self.next = self.cursor.position;
        self.open = None;
    }

    /// Lines up to about so many bytes; none where there are no more.
    ///
    /// # Errors
    /// The system's.
    pub fn read(&mut self, lines_max: usize, bytes_max: usize) -> io::Result<Option<Batch>> {
        let mut batch = Batch::default();
        let mut bytes = 0;
        while batch.lines.len() < lines_max && bytes < bytes_max {
            let Some(line) = self.line()? else { break };
            bytes += line.len();
            batch.repeated += u64::from(self.next.lines < self.furthest);
            self.next.lines += 1;
            self.furthest = self.furthest.max(self.next.lines);
            batch.lines.push(line);
        }
        batch.end = self.next;
        Ok((!batch.lines.is_empty()).then_some(batch))
    }

    /// Waits until something was written since the last wait.
    pub async fn written(&self) {
        self.shared.written.notified().await;
    }

    /// Notes that everything before this place is delivered; how many lines are so anew.
    pub fn confirm(&mut self, position: Position) -> u64 {
        let before = self.cursor.position;
        if position <= before {
            return 0;
        }
        if let Err(error) = self.cursor.set(position) {
            warn!(spool = %self.shared.folder.display(), %error, "can't note what is delivered; it will be sent again after a restart");
        }
        let delivered = {
            let mut segments = self.shared.segments();
            let left = segments.split_off(&position.segment);
            std::mem::replace(&mut *segments, left)
        };
        // The writer does not wait for the disk meanwhile.
        for segment in delivered.into_keys() {
            if let Err(error) = fs::remove_file(segment::path(&self.shared.folder, segment)) {
                warn!(spool = %self.shared.folder.display(), %error, "a delivered segment can't be removed");
            }
        }
        position.lines.saturating_sub(before.lines)
    }

    /// Up to where it is delivered.
    pub const fn confirmed(&self) -> Position {
        self.cursor.position
    }

    /// Bytes that are not delivered yet.
    pub fn waiting_bytes(&self) -> u64 {
        let Position { segment, offset, .. } = self.cursor.position;
        let of_segment = |(&number, &size): (&u64, &u64)| match number {
            _ if number < segment => 0,
            _ if number == segment => size.saturating_sub(offset),
            _ => size.saturating_sub(segment::MAGIC.len() as u64),
        };
        self.shared.segments().iter().map(of_segment).sum()
    }

    /// The next line; none where there is none yet.
    fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let (number, end, is_last) = {
                let segments = self.shared.segments();
                let Some((&number, &end)) = segments.range(self.next.segment..).next() else { return Ok(None) };
                (number, end, segments.keys().next_back() == Some(&number))
            };
            if number != self.next.segment {
                self.next = Position { segment: number, offset: 0, ..self.next };
            }
            let reader = match &mut self.open {
                Some((open, reader)) if *open == number => reader,
                open => {
                    let path = segment::path(&self.shared.folder, number);
                    &mut open.insert((number, segment::Reader::open(&path, self.next.offset)?)).1
                }
            };
            match reader.next(end)? {
                Record::Line(line) => {
                    self.next.offset = reader.offset;
                    return Ok(Some(line));
                }
                Record::End if is_last => return Ok(None),
                Record::End => self.next = Position { segment: number + 1, offset: 0, ..self.next },
                Record::Damaged => {
                    let bytes = end.saturating_sub(reader.offset);
                    let path = segment::path(&self.shared.folder, number);
                    warn!(segment = %path.display(), bytes, "a part of the spool is damaged and can't be delivered");
                    self.next.offset = end;
                    self.open = None;
                }
            }
        }
    }
}
