//! The way out of the pipeline: a thread that writes, behind a queue that never waits.
//!
//! A reader of standard output that takes nothing holds up this thread and nothing else. What finds the queue full is counted
//! as lost; it has no number yet, so that `seq` stays without holes.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::{Builder, JoinHandle},
    time::{Duration, Instant},
};

use tokio::sync::watch;
use tracing::{error, info, warn};

use super::{losses, weight};
use crate::{
    clock,
    export::{
        Metrics,
        sink::{JsonSink, Progress, SinkError},
    },
    finding::Event,
};

/// Events that wait for the writer at most.
const QUEUE: usize = 4096;

/// What they take at most, those among them that are being written.
const QUEUE_BYTES: usize = 16 << 20;

/// Events that are written at once.
const BATCH: usize = 512;

/// After how long a writer that took nothing is tried again, where no new event comes.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// Puts events in the queue.
pub struct Outbox {
    queue: SyncSender<Event>,
    /// What the events take that are not written yet.
    bytes: Arc<AtomicUsize>,
    writer: JoinHandle<Result<(), SinkError>>,
    metrics: Arc<Metrics>,
}

impl Outbox {
    /// Starts the writer. What is given back changes to true when the writer has ended, be it that the sink's other end
    /// has gone.
    ///
    /// # Errors
    /// Where no thread can be made.
    pub fn start(sink: JsonSink, metrics: Arc<Metrics>) -> io::Result<(Self, watch::Receiver<bool>)> {
        let (queue, events) = sync_channel(QUEUE);
        let (ended, has_ended) = watch::channel(false);
        let of_writer = Arc::clone(&metrics);
        let bytes = Arc::new(AtomicUsize::new(0));
        let taken = Arc::clone(&bytes);
        let writer = Builder::new().name("rosentry-writer".to_owned()).spawn(move || {
            let result = write_all(sink, &events, &taken, &of_writer);
            ended.send_replace(true);
            result
        })?;
        Ok((Self { queue, bytes, writer, metrics }, has_ended))
    }

    /// Hands an event to the writer, or counts it as lost.
    pub fn send(&self, event: Event) {
        let bytes = weight::of_event(&event);
        // Before it is sent: the writer subtracts.
        let waiting = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let has_room = waiting.saturating_add(bytes) <= QUEUE_BYTES;
        if !has_room || self.queue.try_send(event).is_err() {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.metrics.lost(losses::WRITER, 1);
        }
    }

    /// Closes the queue and waits until it is written, `patience` at most.
    ///
    /// # Errors
    /// [`SinkError::Closed`] where the other end has gone.
    pub fn close(self, patience: Duration) -> Result<(), SinkError> {
        drop(self.queue);
        let deadline = Instant::now() + patience;
        while !self.writer.is_finished() {
            if Instant::now() >= deadline {
                warn!("the reader of the events takes nothing; ending without it");
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.writer.join().unwrap_or_else(|_| {
            error!("the writer of the events ended by itself; please report it");
            Ok(())
        })
    }
}

fn write_all(
    mut sink: JsonSink,
    events: &Receiver<Event>,
    bytes: &AtomicUsize,
    metrics: &Metrics,
) -> Result<(), SinkError> {
    let mut batch = Vec::with_capacity(BATCH);
    let mut waiting = false;
    loop {
        let next = if waiting {
            events.recv_timeout(TRY_AGAIN)
        } else {
            events.recv().map_err(|_| RecvTimeoutError::Disconnected)
        };
        let ended = matches!(next, Err(RecvTimeoutError::Disconnected));
        if let Ok(event) = next {
            batch.push(event);
            batch.extend(events.try_iter().take(BATCH - 1));
        }
        let Progress { written, dropped, stalled } = sink.write(&batch)?;
        metrics.sink("json", "written", written);
        metrics.sink("json", "dropped", dropped);
        metrics.lost(losses::SINK, dropped);
        match &stalled {
            Some(error) if !waiting => warn!(to = sink.target(), %error, "events wait, they can't be written now"),
            None if waiting => info!(to = sink.target(), "events are written again"),
            _ => {}
        }
        waiting = stalled.is_some();
        if !waiting {
            for event in &batch {
                metrics.delay(event.kind, clock::since(event.last_time_unix_ns));
            }
        }
        bytes.fetch_sub(batch.iter().map(weight::of_event).sum(), Ordering::Relaxed);
        batch.clear();
        if ended {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        sync::mpsc::{Sender, channel},
    };

    use super::*;
    use crate::export::{metrics::tests::metrics, native::NativeEncoder, testing::touch};

    /// Takes nothing until it is told to.
    struct Blocked(Receiver<()>);

    impl Write for Blocked {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // It is told by the end of the other side.
            let _ = self.0.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn blocked() -> (Outbox, Sender<()>) {
        let (go, blocked) = channel();
        let sink = JsonSink::new("test", Box::new(Blocked(blocked)), NativeEncoder::new("node"));
        let (outbox, _) = Outbox::start(sink, Arc::new(metrics())).unwrap();
        (outbox, go)
    }

    fn with_path(bytes: usize) -> Event {
        let mut event = touch();
        event.file.as_mut().unwrap().path = Some(vec![b'x'; bytes]);
        event
    }

    fn lost(outbox: &Outbox) -> u64 {
        let text = outbox.metrics.render().unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(r#"rosentry_events_lost_total{stage="writer"} "#));
        line.map_or(0, |count| count.parse().unwrap())
    }

    #[test]
    fn long_paths_fill_the_queue_by_their_bytes() {
        let (outbox, go) = blocked();
        for _ in 0..100 {
            outbox.send(with_path(1 << 20));
        }
        assert_eq!(lost(&outbox), 85, "15 by 1 MiB and a little have room in 16 MiB");
        let bytes = Arc::clone(&outbox.bytes);
        drop(go);
        outbox.close(Duration::from_secs(20)).unwrap();
        assert_eq!(bytes.load(Ordering::Relaxed), 0, "what is written takes no room");
    }

    #[test]
    fn short_paths_fill_the_queue_by_their_number() {
        let (outbox, go) = blocked();
        for _ in 0..4000 {
            outbox.send(with_path(10));
        }
        assert_eq!(lost(&outbox), 0);
        drop(go);
        outbox.close(Duration::from_secs(20)).unwrap();
    }
}
