//! The way out of the pipeline: an event is told once, and handed to each sink's queue. Nothing here waits.
//!
//! What finds a queue full is counted, and told in that sink's own stream as soon as it takes events again. It has no number
//! yet, so that `seq` stays without holes.

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
};

/// Puts events in the sinks' queues.
pub struct Outbox {
    node: String,
    sinks: Running,
    /// Of each sink, what it was not told of.
    untold: Vec<Untold>,
    metrics: Arc<Metrics>,
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
    pub fn start(sinks: Sinks, node: &str, metrics: Arc<Metrics>) -> io::Result<Self> {
        let sinks = sinks.start(&metrics)?;
        let untold = sinks.sinks().iter().map(|_| Untold::default()).collect();
        Ok(Self { node: node.to_owned(), sinks, untold, metrics })
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
    pub fn send(&self, event: Event) {
        let count = event.count;
        match Body::of(&event, &self.node) {
            Ok(body) => {
                let body = Arc::new(body);
                for (sink, untold) in self.sinks.sinks().iter().zip(&self.untold) {
                    if !self.told(sink, untold) || !sink.put(&body) {
                        self.lose(sink, untold, count);
                    }
                }
            }
            Err(error) => {
                warn!(%error, "an event is given up");
                self.metrics.lost(losses::WRITER, 1);
            }
        }
    }

    /// Closes the queues and waits until they are written, `patience` at most.
    ///
    /// # Errors
    /// [`SinkError::Closed`] where the other end of standard output has gone.
    pub fn close(self, patience: Duration) -> Result<(), SinkError> {
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
        }
        has_room
    }
}
