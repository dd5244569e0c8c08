//! Where lines go: standard output or a file.

use std::{
    fs::OpenOptions,
    io::{self, ErrorKind, Read, Seek, SeekFrom, Write},
    os::{fd::AsFd, unix::fs::OpenOptionsExt},
    path::Path,
};

use super::native::NativeEncoder;
use crate::finding::Event;

/// Bytes that wait for a writer that takes none, at most; what comes then is dropped before it gets a number.
const PENDING_MAX: usize = 8 << 20;

/// Writes events as lines, a batch at once.
///
/// A line is never torn: what the writer did not take is kept, and goes first the next time. Writing blocks where the
/// writer does, so give it a thread of its own.
pub struct JsonSink {
    target: String,
    writer: Box<dyn Write + Send>,
    encoder: NativeEncoder,
    pending: Vec<u8>,
    pending_events: u64,
    pending_max: usize,
}

/// What became of a batch.
#[derive(Debug, Default)]
pub struct Progress {
    /// Events whose lines have gone out, those kept from earlier batches among them.
    pub written: u64,
    /// Events that were given up: too much is waiting, or they could not be told.
    pub dropped: u64,
    /// Why lines are waiting, where they are.
    pub stalled: Option<io::Error>,
}

/// Why nothing can be written any more.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The reader went away.
    #[error("whoever read the events from {target} has closed it")]
    Closed {
        /// What was written to.
        target: String,
    },
    /// It could not be opened.
    #[error("the events can't be written to {target}: {source}; name another file with --json, or `-` for stdout")]
    Open {
        /// The file.
        target: String,
        /// Why.
        source: io::Error,
    },
}

impl JsonSink {
    /// To standard output.
    ///
    /// # Errors
    /// Where standard output is closed.
    pub fn stdout(encoder: NativeEncoder) -> Result<Self, SinkError> {
        // The standard library's own handle flushes at each line.
        let stdout = io::stdout()
            .as_fd()
            .try_clone_to_owned()
            .map_err(|source| SinkError::Open { target: "stdout".to_owned(), source })?;
        Ok(Self::new("stdout", Box::new(std::fs::File::from(stdout)), encoder))
    }

    /// To the end of a file, which is made where it is missing, readable by its owner and group.
    ///
    /// # Errors
    /// Where it can't be opened.
    pub fn file(path: &Path, encoder: NativeEncoder) -> Result<Self, SinkError> {
        let target = path.display().to_string();
        let options = OpenOptions::new().append(true).create(true).mode(0o640).clone();
        let opened = options.open(path).and_then(|file| Ok((ends_in_a_line(path)?, file)));
        let (whole, file) = opened.map_err(|source| SinkError::Open { target: target.clone(), source })?;
        let mut sink = Self::new(&target, Box::new(file), encoder);
        if !whole {
            sink.pending.push(b'\n');
        }
        Ok(sink)
    }

    /// To any writer; `target` names it in errors.
    pub fn new(target: &str, writer: Box<dyn Write + Send>, encoder: NativeEncoder) -> Self {
        Self {
            target: target.to_owned(),
            writer,
            encoder,
            pending: Vec::new(),
            pending_events: 0,
            pending_max: PENDING_MAX,
        }
    }

    /// What is written to.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Writes what is kept, then the events. Without events it tries again to write what is kept.
    ///
    /// # Errors
    /// Where the reader has closed the other end. A full disk and the like are no errors but told in [`Progress`]: they pass.
    pub fn write<'a>(&mut self, events: impl IntoIterator<Item = &'a Event>) -> Result<Progress, SinkError> {
        let mut progress = Progress::default();
        for event in events {
            if self.pending.len() > self.pending_max || self.encoder.encode(event, &mut self.pending).is_err() {
                progress.dropped += 1;
            } else {
                self.pending_events += 1;
            }
        }
        match self.drain() {
            Ok(()) => {
                progress.written = self.pending_events;
                self.pending_events = 0;
                Ok(progress)
            }
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                Err(SinkError::Closed { target: self.target.clone() })
            }
            Err(error) => {
                progress.stalled = Some(error);
                Ok(progress)
            }
        }
    }

    fn drain(&mut self) -> io::Result<()> {
        let mut taken = 0;
        let result = loop {
            if taken == self.pending.len() {
                break self.writer.flush();
            }
            match self.writer.write(&self.pending[taken..]) {
                Ok(0) => break Err(ErrorKind::WriteZero.into()),
                Ok(count) => taken += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        self.pending.drain(..taken);
        result
    }
}

/// Whether the file is empty or ends with a line's end: an agent that was killed may have left half a line, and ours must
/// not become its other half.
fn ends_in_a_line(path: &Path) -> io::Result<bool> {
    // A pipe or a device has no end to look at.
    if !std::fs::metadata(path)?.is_file() {
        return Ok(true);
    }
    let mut file = OpenOptions::new().read(true).open(path)?;
    if file.seek(SeekFrom::End(0))? == 0 {
        return Ok(true);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::export::testing::{start, touch};

    /// A writer that takes so many bytes, then fails with an error, as a full disk does.
    #[derive(Clone)]
    struct Narrow(Arc<Mutex<(Vec<u8>, usize)>>);

    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (taken, room) = &mut *self.0.lock().unwrap();
            let count = bytes.len().min(*room);
            if count == 0 {
                return Err(ErrorKind::StorageFull.into());
            }
            taken.extend_from_slice(&bytes[..count]);
            *room -= count;
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn seqs(text: &[u8]) -> Vec<u64> {
        let text = std::str::from_utf8(text).unwrap();
        text.lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["seq"].as_u64().unwrap())
            .collect()
    }

    #[test]
    fn a_batch_becomes_lines() {
        let narrow = Narrow(Arc::new(Mutex::new((Vec::new(), usize::MAX))));
        let mut sink = JsonSink::new("test", Box::new(narrow.clone()), NativeEncoder::new("n1"));
        let progress = sink.write(&[start(), touch()]).unwrap();
        assert_eq!((progress.written, progress.dropped), (2, 0));
        assert_eq!(seqs(&narrow.0.lock().unwrap().0), [1, 2]);
    }

    #[test]
    fn a_full_disk_tears_no_line_and_leaves_no_hole() {
        let narrow = Narrow(Arc::new(Mutex::new((Vec::new(), 100))));
        let mut sink = JsonSink::new("test", Box::new(narrow.clone()), NativeEncoder::new("n1"));
        sink.pending_max = 1;
        let stalled = sink.write(&[start()]).unwrap();
        assert_eq!(stalled.written, 0);
        assert_eq!(stalled.stalled.unwrap().kind(), ErrorKind::StorageFull);
        // Too much is waiting: this one is dropped, and spends no number.
        assert_eq!(sink.write(&[touch()]).unwrap().dropped, 1);

        narrow.0.lock().unwrap().1 = usize::MAX;
        assert_eq!(sink.write(&[]).unwrap().written, 1);
        assert_eq!(sink.write(&[touch()]).unwrap().written, 1);
        assert_eq!(seqs(&narrow.0.lock().unwrap().0), [1, 2]);
    }

    #[test]
    fn a_reader_that_went_away_is_told() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let mut sink = JsonSink::new("stdout", Box::new(writer), NativeEncoder::new("n1"));
        let error = sink.write(&[start()]).unwrap_err();
        assert_eq!(error.to_string(), "whoever read the events from stdout has closed it");
    }

    #[test]
    fn lines_go_through_a_pipe_at_the_end_of_their_batch() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut sink = JsonSink::new("stdout", Box::new(writer), NativeEncoder::new("n1"));
        sink.write(&[start()]).unwrap();
        let mut buffer = [0; 4096];
        let count = reader.read(&mut buffer).unwrap();
        assert_eq!(seqs(&buffer[..count]), [1]);
    }

    #[test]
    fn a_file_is_continued_and_one_that_cannot_be_opened_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.json");
        for _ in 0..2 {
            JsonSink::file(&path, NativeEncoder::new("n1")).unwrap().write(&[start()]).unwrap();
        }
        assert_eq!(seqs(&std::fs::read(&path).unwrap()), [1, 1]);
        let error = JsonSink::file(&folder.path().join("none/x"), NativeEncoder::new("n1")).err().unwrap().to_string();
        assert!(error.contains("none/x") && error.contains("--json"), "{error}");
    }

    #[test]
    fn half_a_line_of_a_killed_agent_stays_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.json");
        std::fs::write(&path, "{\"seq\":1,\"hal").unwrap();
        JsonSink::file(&path, NativeEncoder::new("n1")).unwrap().write(&[start()]).unwrap();
        let text = std::fs::read(&path).unwrap();
        let second = text.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        assert_eq!(seqs(&text[second..]), [1]);
    }
}
