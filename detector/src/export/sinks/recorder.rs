//! What stands behind each queue: a thread that numbers and chains events as they enter what the sink keeps.
//!
//! An event gets its number when it is written, not before. So what can't be written leaves no hole, and after a crash the
//! stream goes on where the record ends.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind},
    sync::{Arc, mpsc::RecvTimeoutError},
    time::{Duration, Instant},
};

use detector_common::kept::LINES;
use tracing::{info, warn};

use super::{SinkError, queue::Taker};
use crate::{
    clock,
    export::{Metrics, format::Format, native::Body, stream::Stream},
    kernel::kept::Kept,
};

/// Events that are written at once, at most.
const BATCH: usize = LINES;

/// Bytes that are written at once, about.
const BATCH_BYTES: usize = 256 << 10;

/// Bytes that are kept for the next lines.
const KEPT_BYTES: usize = 64 << 10;

/// After how long a store that failed is tried again, however many events come meanwhile.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// Where lines are kept, or handed on.
pub trait Store: Send {
    /// Writes lines. How many bytes of them are in the record now, at the end of a line; and why not all, where it is so.
    fn write(&mut self, lines: &[u8]) -> (usize, io::Result<()>);

    /// Makes ready for a line of at most so many bytes: whether it will be the first in a new file, and how many bytes may
    /// follow it there, itself included.
    fn make_room(&mut self, bytes: usize) -> (bool, usize) {
        let _ = bytes;
        (false, usize::MAX)
    }

    /// Does what has to be done from time to time. Whether the next line will be the first in a new file.
    fn tick(&mut self) -> bool {
        false
    }

    /// When to do that at the latest.
    fn due(&self) -> Option<Instant> {
        None
    }

    /// Nothing more will come.
    fn finish(&mut self) {}
}

/// What it means that a line is in the store.
pub enum Delivery {
    /// It is all there is to deliver. What the line counts is noted there, if it is to be.
    Last(Option<Arc<Kept>>),
    /// A sender says when it is delivered.
    Spool,
}

/// The thread's work.
pub struct Recorder<S> {
    /// The sink's name in metrics.
    pub name: &'static str,
    /// What is written to, for people.
    pub target: String,
    /// Where events come from.
    pub queue: Taker,
    /// Where lines go.
    pub store: S,
    /// In which format.
    pub format: Format,
    /// Where the record ends.
    pub stream: Stream,
    /// What being in the store means.
    pub delivery: Delivery,
    /// Where it is counted.
    pub metrics: Arc<Metrics>,
}

impl<S: Store> Recorder<S> {
    /// Writes until the queue is closed and empty.
    ///
    /// # Errors
    /// Where whoever read has gone away.
    pub fn run(mut self) -> Result<(), SinkError> {
        let mut backlog = VecDeque::with_capacity(BATCH);
        let mut lines = Vec::new();
        // When a store that failed is tried again.
        let mut stalled_until: Option<Instant> = None;
        loop {
            let next = self.queue.next(
                stalled_until.or_else(|| self.store.due()).map(|due| due.saturating_duration_since(Instant::now())),
            );
            let has_ended = matches!(next, Err(RecvTimeoutError::Disconnected));
            backlog.extend(next.ok().flatten());
            backlog.extend(self.queue.ready(BATCH.saturating_sub(backlog.len())));
            let is_new = self.store.tick();
            if is_new {
                self.stream.tell_previous();
            }
            // What comes until then waits unnumbered, within the bounds of the queue, which it still counts for. Another file may
            // take it at once.
            if !has_ended && !is_new && stalled_until.is_some_and(|until| Instant::now() < until) {
                continue;
            }
            match self.write(&mut backlog, &mut lines) {
                Ok(()) => {
                    if stalled_until.take().is_some() {
                        info!(to = self.target, "events are written again");
                    }
                }
                Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                    return Err(SinkError::Closed { target: self.target });
                }
                Err(error) => {
                    if stalled_until.is_none() {
                        warn!(to = self.target, %error, "events wait, they can't be written now");
                    }
                    stalled_until = Some(Instant::now() + TRY_AGAIN);
                }
            }
            if has_ended && (stalled_until.is_some() || backlog.is_empty()) {
                let given_up = backlog.len() + self.queue.ready(usize::MAX).len();
                self.metrics.sink(self.name, "dropped", given_up.try_into().unwrap_or(u64::MAX));
                self.store.finish();
                return Ok(());
            }
        }
    }

    /// Writes what it can of the backlog, by way of `lines`.
    fn write(&mut self, backlog: &mut VecDeque<Arc<Body>>, lines: &mut Vec<u8>) -> io::Result<()> {
        while let Some(first) = backlog.front() {
            let (is_first_in_file, room) = self.store.make_room(self.format.line_bytes_max(first));
            if is_first_in_file {
                self.stream.tell_previous();
            }
            lines.clear();
            lines.shrink_to(KEPT_BYTES);
            let mut stream = self.stream.clone();
            // Where the stream stands after each line, so that it can go on from the last one that was taken.
            let mut after = Vec::new();
            for body in backlog.iter().take(BATCH) {
                let would_be = lines.len() + self.format.line_bytes_max(body);
                if !lines.is_empty() && (would_be > BATCH_BYTES || would_be > room) {
                    break;
                }
                let start = lines.len();
                stream.append(body, lines);
                self.format.render_end(lines, start);
                after.push((lines.len(), stream.clone()));
            }
            let kept = match &self.delivery {
                Delivery::Last(kept) => kept.as_ref(),
                Delivery::Spool => None,
            };
            if let Some(kept) = kept {
                kept.begin(backlog.iter().take(after.len()).map(|body| body.mark.as_ref()));
            }
            let (taken, result) = self.store.write(lines);
            let count = after.partition_point(|(length, _)| *length <= taken);
            if let Some((_, stream)) = count.checked_sub(1).and_then(|last| after.get(last)) {
                self.stream = stream.clone();
            }
            if let Some(kept) = kept {
                kept.commit(count, self.stream.end());
            }
            let is_delivered = matches!(self.delivery, Delivery::Last(_));
            if is_delivered {
                self.metrics.sink(self.name, "delivered", count.try_into().unwrap_or(u64::MAX));
            }
            for body in backlog.drain(..count) {
                self.queue.release(&body);
                if is_delivered {
                    self.metrics.delay(body.kind, clock::since(body.last_time_unix_ns));
                }
            }
            result?;
            if count == 0 {
                // No store gives that back; were it so, this would not end.
                return Err(ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::export::{metrics::tests::metrics, sinks::queue::queue, testing::touch};

    /// Takes nothing, and counts how often it was asked to.
    struct Full(Arc<AtomicU64>);

    impl Store for Full {
        fn write(&mut self, _: &[u8]) -> (usize, io::Result<()>) {
            self.0.fetch_add(1, Ordering::Relaxed);
            (0, Err(ErrorKind::StorageFull.into()))
        }
    }

    #[test]
    fn a_store_that_takes_nothing_is_tried_again_each_second_and_not_with_each_event() {
        let tries = Arc::new(AtomicU64::new(0));
        let (sender, queue) = queue();
        let recorder = Recorder {
            name: "test",
            target: "test".to_owned(),
            queue,
            store: Full(Arc::clone(&tries)),
            format: Format::Native,
            stream: Stream::after(None),
            delivery: Delivery::Last(None),
            metrics: Arc::new(metrics()),
        };
        let body = Arc::new(Body::of(&touch(), "n1").unwrap());
        while sender.put(&body) {}
        drop(sender);
        let begin = Instant::now();
        recorder.run().unwrap();
        // At first, each second, and at the end.
        let most = 2 + begin.elapsed().as_secs();
        assert!((2..=most).contains(&tries.load(Ordering::Relaxed)), "{tries:?} tries, {most} at most");
    }
}
