//! The way out of the pipeline: an event is told once, and handed to each sink's queue. Nothing here waits.
//!
//! What finds a queue full is counted, and told in that sink's own stream when it takes events again. It has no number yet, so
//! that `seq` stays without holes.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::watch;
use tracing::warn;

use super::{losses, notes};
use crate::{
    export::{
        Metrics,
        native::Body,
        sinks::{Reopen, Running, Sink, SinkError, Sinks},
    },
    finding::Event,
    kernel::kept::{Kept, Mark},
};

/// Puts events in the sinks' queues.
pub struct Outbox {
    node: String,
    sinks: Running,
    /// Of each sink, what it was not told of.
    untold: Vec<Untold>,
    metrics: Arc<Metrics>,
    kept: Option<Arc<Kept>>,
}

/// What a sink had no room for since it was last told so.
#[derive(Debug, Default)]
struct Untold {
    events: AtomicU64,
    /// What was folded into them.
    attempts: AtomicU64,
}

impl Outbox {
    /// Starts the sinks, of the node of this name.
    ///
    /// # Errors
    /// Where no thread can be made.
    pub fn start(sinks: Sinks, node: &str, metrics: Arc<Metrics>, kept: Option<Arc<Kept>>) -> io::Result<Self> {
        let sinks = sinks.start(&metrics, kept.clone())?;
        let untold = sinks.sinks().iter().map(|_| Untold::default()).collect();
        Ok(Self { node: node.to_owned(), sinks, untold, metrics, kept })
    }

    /// Changes to true when nobody takes lines any more.
    pub fn has_ended(&self) -> watch::Receiver<bool> {
        self.sinks.has_ended()
    }

    /// To ask for the file to be opened anew.
    pub fn reopen(&self) -> Reopen {
        self.sinks.reopen()
    }

    /// Hands an event to the sinks, or counts it as lost.
    pub fn send(&self, event: &Event) {
        self.put(event, None);
        self.flush();
    }

    /// The same of an event that counts so much once it is written, which may wait for [`flush`](Self::flush).
    pub fn put(&self, event: &Event, mark: Option<Mark>) {
        let count = event.count;
        match Body::of(event, &self.node) {
            Ok(body) => {
                let body = Arc::new(body.with(mark));
                for (number, (sink, untold)) in self.sinks.sinks().iter().zip(&self.untold).enumerate() {
                    if !sink.put(&body) {
                        self.lose(sink, untold, count);
                        if number == 0 {
                            self.settle(mark);
                        }
                    }
                }
            }
            Err(error) => {
                warn!(%error, "an event is given up");
                self.metrics.lost(losses::WRITER, 1);
                self.settle(mark);
            }
        }
    }

    /// Lets the sinks write what they were handed.
    pub fn flush(&self) {
        self.sinks.sinks().iter().for_each(Sink::flush);
    }

    /// Notes that what this counts is told otherwise.
    fn settle(&self, mark: Option<Mark>) {
        if let (Some(kept), Some(mark)) = (&self.kept, mark) {
            kept.settle(mark);
        }
    }

    /// Tells each sink, in its own stream, what it had no room for since it was last told; says whether all know now. Not with
    /// each event, for the notes would take what little room there is.
    pub fn tell_losses(&self) -> bool {
        self.sinks.sinks().iter().zip(&self.untold).fold(true, |all, (sink, untold)| self.told(sink, untold) && all)
    }

    /// Closes the queues and waits until they are written, `patience` at most.
    ///
    /// # Errors
    /// [`SinkError::Closed`] where the other end of standard output has gone.
    pub fn close(self, patience: Duration) -> Result<(), SinkError> {
        self.tell_losses();
        self.sinks.close(Instant::now() + patience)
    }

    fn lose(&self, sink: &Sink, untold: &Untold, attempts: u64) {
        untold.events.fetch_add(1, Ordering::Relaxed);
        untold.attempts.fetch_add(attempts, Ordering::Relaxed);
        self.metrics.sink(sink.name, "dropped", 1);
        self.metrics.lost(losses::SINK, 1);
    }

    /// Whether the sink knows of all that it had no room for.
    fn told(&self, sink: &Sink, untold: &Untold) -> bool {
        let events = untold.events.load(Ordering::Relaxed);
        if events == 0 {
            return true;
        }
        let attempts = untold.attempts.load(Ordering::Relaxed);
        let Ok(note) = Body::of(&notes::dropped(losses::SINK, events, attempts), &self.node) else { return true };
        let has_room = sink.put(&Arc::new(note));
        if has_room {
            untold.events.fetch_sub(events, Ordering::Relaxed);
            untold.attempts.fetch_sub(attempts, Ordering::Relaxed);
            sink.flush();
        }
        has_room
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{File, OpenOptions},
        io::{BufRead, BufReader},
    };

    use rustix::fs::{CWD, FileType, mknodat};
    use tempfile::TempDir;

    use super::*;
    use crate::export::{
        chain::{Link, START},
        format::Format,
        metrics::tests::metrics,
        sinks::{
            JsonConfig, SinksConfig,
            file::{FileConfig, Fsync},
            spool::SpoolConfig,
        },
        testing::touch,
    };

    /// An outbox to a pipe, and the pipe, of which nothing is read yet.
    fn to_pipe() -> (Outbox, BufReader<File>, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        mknodat(CWD, &path, FileType::Fifo, 0o600.into(), 0).unwrap();
        let pipe = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let file = FileConfig { path, max_bytes: None, max_age: None, keep: 0, fsync: Fsync::Never };
        let sinks = Sinks::open(SinksConfig {
            format: Format::Native,
            json: JsonConfig::File(file),
            syslog: None,
            otlp: None,
            spool: SpoolConfig { folder: folder.path().to_owned(), max_bytes: 0, fsync: Fsync::Never },
        });
        let outbox = Outbox::start(sinks.unwrap(), "n1", Arc::new(metrics()), None).unwrap();
        (outbox, BufReader::new(pipe), folder)
    }

    fn with_path(bytes: usize) -> Event {
        let mut event = touch();
        event.count = 3;
        event.file.as_mut().unwrap().path = Some(vec![b'x'; bytes]);
        event
    }

    fn lost(outbox: &Outbox, stage: &str) -> u64 {
        let text = outbox.metrics.render().unwrap();
        let name = format!("rosentry_events_lost_total{{stage=\"{stage}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&name)).map_or(0, |count| count.parse().unwrap())
    }

    #[test]
    fn what_a_sink_has_no_room_for_is_counted_and_told_in_its_stream_when_it_has() {
        let (outbox, mut pipe, _folder) = to_pipe();
        for _ in 0..100 {
            outbox.send(&with_path(1 << 18));
        }
        let lost_events = lost(&outbox, losses::SINK);
        assert!((60..80).contains(&lost_events), "a quarter of a MiB each, in 8 MiB: {lost_events}");

        let mut lines = Vec::new();
        while lines.len() < 100 - usize::try_from(lost_events).unwrap() {
            let mut line = String::new();
            pipe.read_line(&mut line).unwrap();
            lines.push(line);
        }
        assert!(outbox.tell_losses());
        outbox.send(&touch());
        assert!(outbox.tell_losses(), "there is nothing more to tell");
        for _ in 0..2 {
            let mut line = String::new();
            pipe.read_line(&mut line).unwrap();
            lines.push(line);
        }
        let mut chain = START.to_owned();
        for (number, line) in lines.iter().enumerate() {
            let link = Link::parse(line.trim_end().as_bytes()).unwrap();
            assert_eq!(link.seq, number as u64 + 1);
            assert!(link.follows(&chain));
            chain = link.chain.to_owned();
        }
        let note: serde_json::Value = serde_json::from_str(&lines[lines.len() - 2]).unwrap();
        assert_eq!(note["agent"]["events"]["sink"], lost_events);
        assert_eq!(note["agent"]["attempts"], lost_events * 3);
        outbox.close(Duration::from_secs(20)).unwrap();
    }

    #[test]
    fn an_event_that_is_longer_than_a_line_may_be_is_counted() {
        let (outbox, _pipe, _folder) = to_pipe();
        outbox.send(&with_path(1 << 21));
        assert_eq!(lost(&outbox, losses::WRITER), 1);
        outbox.close(Duration::from_secs(20)).unwrap();
    }
}
