//! A segment of a spool: a file of records, each a line with its length and checksum before it.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use crate::export::chain::LINE_MAX;

/// How each segment begins, with the version of its format.
pub const MAGIC: &[u8; 16] = b"rosentry-spool1\n";

/// Length and checksum before each line, both 32 bits, little-endian.
pub const HEADER: usize = 8;

const ENDING: &str = ".spool";

/// Where a segment is.
pub fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:020}{ENDING}"))
}

/// The number of a segment; none of another file.
pub fn number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(ENDING)?;
    (digits.len() == 20).then(|| digits.parse().ok()).flatten()
}

/// Appends a line, without its end, as a record.
pub fn append(line: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(line.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&checksum(length, line).to_le_bytes());
    out.extend_from_slice(line);
}

/// Over the length as well: zeros are no record.
fn checksum(length: u32, line: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(MAGIC);
    hasher.update(&length.to_le_bytes());
    hasher.update(line);
    hasher.finalize()
}

/// Opens a segment to append to it.
pub fn open(path: &Path, is_new: bool) -> io::Result<File> {
    OpenOptions::new().append(true).create_new(is_new).mode(0o600).open(path)
}

/// What was read of a segment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Record {
    /// A line, without its end.
    Line(Vec<u8>),
    /// There are no more.
    End,
    /// What stands here is no record, and where the next begins can't be known.
    Damaged,
}

/// Reads a segment's records, and nothing behind the last whole one: what a write left there that failed is written over.
pub struct Reader {
    file: File,
    /// Where the next record begins.
    pub offset: u64,
}

impl Reader {
    /// From an offset on, which is a record's or 0 for the first.
    ///
    /// # Errors
    /// The system's.
    pub fn open(path: &Path, offset: u64) -> io::Result<Self> {
        Ok(Self { file: File::open(path)?, offset: offset.max(MAGIC.len() as u64) })
    }

    /// The next record, of those before `end`.
    ///
    /// # Errors
    /// The system's; the record can be asked for again then.
    pub fn next(&mut self, end: u64) -> io::Result<Record> {
        if self.offset >= end {
            return Ok(Record::End);
        }
        let mut header = [0; HEADER];
        if !self.fill(&mut header, self.offset, end)? {
            return Ok(Record::Damaged);
        }
        let [l0, l1, l2, l3, c0, c1, c2, c3] = header;
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        let Some(bytes) = usize::try_from(length).ok().filter(|bytes| *bytes <= LINE_MAX) else {
            return Ok(Record::Damaged);
        };
        let mut line = vec![0; bytes];
        let is_whole = self.fill(&mut line, self.offset + HEADER as u64, end)?;
        if !is_whole || checksum(length, &line) != u32::from_le_bytes([c0, c1, c2, c3]) {
            return Ok(Record::Damaged);
        }
        self.offset += (HEADER + line.len()) as u64;
        Ok(Record::Line(line))
    }

    /// Whether there was as much before `end`.
    fn fill(&self, buffer: &mut [u8], from: u64, end: u64) -> io::Result<bool> {
        if from + buffer.len() as u64 > end {
            return Ok(false);
        }
        match self.file.read_exact_at(buffer, from) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }
}
