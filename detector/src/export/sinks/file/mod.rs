//! A file: rotated by size and age, synchronised as asked, and gone on with after a restart.
//!
//! `events.json` is written to; `events.json.1` is the one before it, and so on up to the number that is kept.

mod rotate;
mod tail;

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use tracing::{info, warn};

pub use self::tail::Tail;
use super::{recorder::Store, writer::LineWriter};
use crate::export::chain::End;

/// After how long a rotation that did not work is tried again.
const ROTATE_AGAIN: Duration = Duration::from_secs(60);

/// When what was written is put where a power failure can't reach it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fsync {
    /// When the system does.
    Never,
    /// This long after it was written, at most.
    Interval(Duration),
    /// Before more is written.
    Always,
}

/// A file, and how it is kept.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FileConfig {
    /// The file that is written to.
    pub path: PathBuf,
    /// It is rotated before it has more bytes; none: never for that.
    pub max_bytes: Option<u64>,
    /// It is rotated when it is this old; none: never for that.
    pub max_age: Option<Duration>,
    /// How many rotated files are kept.
    pub keep: u32,
    /// When it is synchronised.
    pub fsync: Fsync,
}

/// The file.
pub struct FileStore {
    config: FileConfig,
    writer: LineWriter<File>,
    /// Whether it is a regular file; a pipe or device has no size, no end and no rotation.
    is_regular: bool,
    size: u64,
    since: SystemTime,
    /// Since when something is written and not synchronised.
    dirty_since: Option<Instant>,
    /// Until when no rotation is tried, the last one having failed.
    no_rotation_until: Option<Instant>,
    sync_failed: bool,
    reopen: Arc<AtomicBool>,
}

impl FileStore {
    /// Opens the file, which is made where it is missing, and says where its stream ends. It is opened anew, as by the tools
    /// that rotate logs, when `reopen` is set.
    ///
    /// # Errors
    /// The system's.
    pub fn open(config: FileConfig, reopen: Arc<AtomicBool>) -> io::Result<(Self, Option<End>)> {
        let (file, tail) = open(&config.path)?;
        let meta = file.metadata()?;
        if tail.cut > 0 {
            info!(to = %config.path.display(), bytes = tail.cut, "took away a line that a killed agent left unfinished");
        }
        let end = tail.end.or_else(|| {
            // Killed between the rotation and the first line after it.
            let before = File::open(rotate::numbered(&config.path, 1)).ok().filter(|_| meta.len() == 0)?;
            tail::mend(&before).ok()?.end
        });
        let store = Self {
            config,
            is_regular: meta.is_file(),
            size: meta.len(),
            since: meta.created().unwrap_or_else(|_| SystemTime::now()),
            writer: LineWriter::new(file),
            dirty_since: None,
            no_rotation_until: None,
            sync_failed: false,
            reopen,
        };
        Ok((store, end))
    }

    fn is_old(&self) -> bool {
        self.age_left().is_some_and(|left| left.is_zero())
    }

    /// How long until the file is to be rotated for its age.
    fn age_left(&self) -> Option<Duration> {
        let max_age = self.config.max_age.filter(|_| self.is_regular && self.size > 0)?;
        // A clock that was set back makes it young.
        Some(max_age.saturating_sub(self.since.elapsed().unwrap_or_default()))
    }

    /// Whether there is a new file now.
    fn rotate(&mut self) -> bool {
        let now = Instant::now();
        if self.no_rotation_until.is_some_and(|until| now < until) || self.writer.is_within_line() {
            return false;
        }
        self.sync();
        let is_durable = self.config.fsync != Fsync::Never;
        match rotate::rotate(&self.config.path, self.config.keep, is_durable) {
            Ok(file) => {
                self.take(file);
                true
            }
            Err(error) => {
                warn!(to = %self.config.path.display(), %error, "the file can't be rotated; it is written to all the same");
                self.no_rotation_until = Some(now + ROTATE_AGAIN);
                false
            }
        }
    }

    fn take(&mut self, file: File) {
        let meta = file.metadata().ok();
        self.size = meta.as_ref().map_or(0, |meta| meta.len());
        self.is_regular = meta.as_ref().is_none_or(|meta| meta.is_file());
        self.since = meta.and_then(|meta| meta.created().ok()).unwrap_or_else(SystemTime::now);
        self.writer = LineWriter::new(file);
        self.no_rotation_until = None;
    }

    /// Opens the file of this name anew; whether that is another one.
    fn open_anew(&mut self) -> bool {
        self.sync();
        let identity = |file: &File| file.metadata().map(|meta| (meta.dev(), meta.ino())).ok();
        match open(&self.config.path) {
            Ok((file, _)) if identity(&file) == identity(&self.writer.inner) => false,
            Ok((file, _)) => {
                info!(to = %self.config.path.display(), "opened the file anew");
                self.take(file);
                true
            }
            Err(error) => {
                warn!(to = %self.config.path.display(), %error, "can't open the file anew; going on with the one before");
                false
            }
        }
    }

    fn sync(&mut self) {
        if self.config.fsync == Fsync::Never || self.dirty_since.take().is_none() || !self.is_regular {
            return;
        }
        let failed = self.writer.inner.sync_data().err();
        if let Some(error) = failed.as_ref().filter(|_| !self.sync_failed) {
            warn!(to = %self.config.path.display(), %error, "the file can't be synchronised; a power failure may cost lines");
        }
        self.sync_failed = failed.is_some();
    }
}

impl Store for FileStore {
    fn write(&mut self, lines: &[u8]) -> (usize, io::Result<()>) {
        let is_regular = self.is_regular;
        let written = self.writer.write(lines, |file, bytes| {
            let shorten = |file: &File| file.set_len(file.metadata()?.len().saturating_sub(bytes as u64));
            is_regular && shorten(file).is_ok()
        });
        self.dirty_since.get_or_insert_with(Instant::now);
        if is_regular {
            // Asked, not counted: others may have cut it, as `copytruncate` of logrotate does.
            self.size = self.writer.inner.metadata().map_or(self.size + written.0 as u64, |meta| meta.len());
        }
        if self.config.fsync == Fsync::Always {
            self.sync();
        }
        written
    }

    fn make_room(&mut self, bytes: usize) -> (bool, usize) {
        let Some(max) = self.config.max_bytes.filter(|_| self.is_regular) else {
            return (false, usize::MAX);
        };
        let is_full = self.size > 0 && self.size.saturating_add(bytes as u64) > max;
        let is_new = is_full && self.rotate();
        let room = if is_full && !is_new { u64::MAX } else { max.saturating_sub(self.size) };
        (is_new, usize::try_from(room).unwrap_or(usize::MAX))
    }

    fn tick(&mut self) -> bool {
        let is_another = self.reopen.swap(false, Ordering::Relaxed) && self.open_anew();
        if let Fsync::Interval(interval) = self.config.fsync
            && self.dirty_since.is_some_and(|since| since.elapsed() >= interval)
        {
            self.sync();
        }
        (self.is_old() && self.rotate()) || is_another
    }

    fn due(&self) -> Option<Instant> {
        let now = Instant::now();
        let sync = match self.config.fsync {
            Fsync::Interval(interval) => self.dirty_since.map(|since| since + interval),
            Fsync::Never | Fsync::Always => None,
        };
        let age = self.age_left().map(|left| (now + left).max(self.no_rotation_until.unwrap_or(now)));
        sync.into_iter().chain(age).min()
    }

    fn finish(&mut self) {
        self.sync();
    }
}

/// Opens the file to append to it, and mends its end.
fn open(path: &Path) -> io::Result<(File, Tail)> {
    // Read as well, for its end. A pipe can be opened so too, and then waits for no reader.
    let file = OpenOptions::new().read(true).append(true).create(true).mode(rotate::MODE).open(path)?;
    let tail = if file.metadata()?.is_file() { tail::mend(&file)? } else { Tail::default() };
    Ok((file, tail))
}

#[cfg(test)]
mod tests;
