//! The spool of a network sink: lines that are not delivered yet, in a folder, up to a number of bytes.
//!
//! Segments are files of records with checksums; a cursor says up to where they are delivered. One thread writes, another
//! reads and confirms. What is delivered goes with its segment, but the last line stays, for the stream goes on from it.
//! Lines leave the agent from here only: what a receiver has, has been in the spool, and goes on being there until it is
//! confirmed.

mod cursor;
mod reader;
mod segment;

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File},
    io::{self, ErrorKind, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use rustix::fs::{FlockOperation, flock};
use tokio::sync::Notify;
use tracing::warn;

use self::{
    cursor::Cursor,
    segment::{HEADER, MAGIC, Record},
};
pub use self::{
    cursor::Position,
    reader::{Batch, SpoolReader},
};
use super::{file::Fsync, recorder::Store};
use crate::export::chain::End;

/// Parts that the bytes of a spool are divided in: one is given back at a time.
const SEGMENTS: u64 = 16;

/// No segment has more.
const SEGMENT_MAX: u64 = 8 << 20;

/// The least that a spool may have: some of the longest lines.
pub const BYTES_MIN: u64 = 4 << 20;

/// Where network sinks have their spools, and how.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SpoolConfig {
    /// Each sink has a folder in it.
    pub folder: PathBuf,
    /// Bytes of one sink's spool at most.
    pub max_bytes: u64,
    /// When it is synchronised.
    pub fsync: Fsync,
}

/// Why a spool can't be had.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// Another process has it.
    #[error("another rosentry uses the spool {0}: end it, or name another folder with --spool-dir")]
    InUse(PathBuf),
    /// The system refuses it.
    #[error("the spool {folder} can't be used: {source}; name a folder that can be written with --spool-dir")]
    System {
        /// The sink's folder.
        folder: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// What the two sides share.
pub(super) struct Shared {
    folder: PathBuf,
    /// Bytes of each segment up to the end of its last whole record.
    segments: Mutex<BTreeMap<u64, u64>>,
    /// Something was written.
    written: Notify,
}

impl Shared {
    fn segments(&self) -> MutexGuard<'_, BTreeMap<u64, u64>> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bytes(&self) -> u64 {
        self.segments().values().sum()
    }
}

/// The writing side.
pub struct SpoolWriter {
    shared: Arc<Shared>,
    active: Option<(u64, File)>,
    /// Whether the active segment has something at its end that could not be taken back.
    is_sealed: bool,
    max_bytes: u64,
    segment_max: u64,
    fsync: Fsync,
    dirty_since: Option<Instant>,
    sync_failed: bool,
    /// Held as long as the spool is in use.
    _lock: File,
}

/// Opens the spool of a sink, which is made where it is missing, and says where its stream ends.
///
/// # Errors
/// See [`SpoolError`].
pub fn open(config: &SpoolConfig, sink: &str) -> Result<(SpoolWriter, SpoolReader, Option<End>), SpoolError> {
    let folder = config.folder.join(sink);
    let system = |source| SpoolError::System { folder: folder.clone(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(system)?;
    let lock = File::create(folder.join("lock")).map_err(system)?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Err(SpoolError::InUse(folder)),
        Err(errno) => return Err(system(errno.into())),
    }
    let (segments, end) = recover(&folder).map_err(system)?;
    let active = match segments.keys().next_back() {
        Some(&last) => Some((last, segment::open(&segment::path(&folder, last), false).map_err(system)?)),
        None => None,
    };
    let mut cursor = Cursor::open(&folder).map_err(system)?;
    let last = segments.iter().next_back().map(|(&segment, &offset)| Position { segment, offset, lines: 0 });
    cursor.set_back(last.unwrap_or_default()).map_err(system)?;
    let shared = Arc::new(Shared { folder, segments: Mutex::new(segments), written: Notify::new() });
    let max_bytes = config.max_bytes.max(BYTES_MIN);
    let writer = SpoolWriter {
        shared: Arc::clone(&shared),
        active,
        is_sealed: false,
        max_bytes,
        segment_max: (max_bytes / SEGMENTS).min(SEGMENT_MAX),
        fsync: config.fsync,
        dirty_since: None,
        sync_failed: false,
        _lock: lock,
    };
    Ok((writer, SpoolReader::new(shared, cursor), end))
}

/// The segments with their sizes, the last of them without what a crash left unfinished, and where the stream ends.
fn recover(folder: &Path) -> io::Result<(BTreeMap<u64, u64>, Option<End>)> {
    let mut segments = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if let Some(number) = entry.file_name().to_str().and_then(segment::number) {
            segments.insert(number, entry.metadata()?.len());
        }
    }
    let mut end = None;
    while end.is_none() {
        let Some((&last, &size)) = segments.iter().next_back() else { break };
        let path = segment::path(folder, last);
        let (sound, last_line) = last_record(&path, size)?;
        match last_line {
            Some(line) => {
                if sound < size {
                    warn!(segment = %path.display(), bytes = size - sound, "took away what a crash left unfinished");
                    segment::open(&path, false)?.set_len(sound)?;
                }
                segments.insert(last, sound);
                end = End::of_line(&line);
                if end.is_none() {
                    break;
                }
            }
            // Without a whole record it is of no use, and its number is free again.
            None => {
                fs::remove_file(&path)?;
                segments.remove(&last);
            }
        }
    }
    Ok((segments, end))
}

/// Up to where the segment is sound, and its last record.
fn last_record(path: &Path, size: u64) -> io::Result<(u64, Option<Vec<u8>>)> {
    let mut reader = segment::Reader::open(path, 0)?;
    let mut last = None;
    while let Record::Line(line) = reader.next(size)? {
        last = Some(line);
    }
    Ok((reader.offset, last))
}

impl SpoolWriter {
    /// Begins another segment where the one there is is full. Its bytes are given with the first record, so that none is empty.
    fn append(&mut self, records: &[u8]) -> io::Result<()> {
        let size = self.active.as_ref().and_then(|(number, _)| self.shared.segments().get(number).copied());
        let is_full = size.is_none_or(|size| size + records.len() as u64 > self.segment_max);
        if is_full || self.is_sealed {
            self.sync();
            let number = self.active.as_ref().map_or(1, |(number, _)| number + 1);
            let path = segment::path(&self.shared.folder, number);
            let mut file = segment::open(&path, true)?;
            if let Err(error) = file.write_all(&[MAGIC.as_slice(), records].concat()) {
                drop(file);
                fs::remove_file(&path)?;
                return Err(error);
            }
            self.shared.segments().insert(number, (MAGIC.len() + records.len()) as u64);
            self.active = Some((number, file));
            self.is_sealed = false;
        } else if let Some((number, file)) = &mut self.active {
            let before = size.unwrap_or_default();
            if let Err(error) = file.write_all(records) {
                // Where that fails, nothing is written behind it.
                self.is_sealed = file.set_len(before).is_err();
                return Err(error);
            }
            self.shared.segments().insert(*number, before + records.len() as u64);
        }
        self.dirty_since.get_or_insert_with(Instant::now);
        Ok(())
    }

    fn sync(&mut self) {
        if self.fsync == Fsync::Never || self.dirty_since.take().is_none() {
            return;
        }
        let Some((_, file)) = &self.active else { return };
        let failed = file.sync_data().err();
        if let Some(error) = failed.as_ref().filter(|_| !self.sync_failed) {
            warn!(spool = %self.shared.folder.display(), %error, "the spool can't be synchronised; a power failure may cost lines");
        }
        self.sync_failed = failed.is_some();
    }
}

impl Store for SpoolWriter {
    fn write(&mut self, lines: &[u8]) -> (usize, io::Result<()>) {
        let mut records = Vec::with_capacity(lines.len() + 512 * HEADER);
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            segment::append(line.strip_suffix(b"\n").unwrap_or(line), &mut records);
        }
        if self.shared.bytes() + records.len() as u64 > self.max_bytes {
            return (0, Err(io::Error::new(ErrorKind::QuotaExceeded, "the spool is full")));
        }
        if let Err(error) = self.append(&records) {
            return (0, Err(error));
        }
        if self.fsync == Fsync::Always {
            self.sync();
        }
        self.shared.written.notify_one();
        (lines.len(), Ok(()))
    }

    fn tick(&mut self) -> bool {
        if let Fsync::Interval(interval) = self.fsync
            && self.dirty_since.is_some_and(|since| since.elapsed() >= interval)
        {
            self.sync();
        }
        false
    }

    fn due(&self) -> Option<Instant> {
        match self.fsync {
            Fsync::Interval(interval) => self.dirty_since.map(|since| since + interval),
            Fsync::Never | Fsync::Always => None,
        }
    }

    fn finish(&mut self) {
        self.sync();
    }
}

#[cfg(test)]
mod tests;
