//! The queue before a sink: bounded by number and bytes, and it never waits.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    time::Duration,
};

use crate::export::native::Body;

/// Events that wait at most.
const EVENTS_MAX: usize = 8192;

/// What they take at most.
const BYTES_MAX: usize = 8 << 20;

/// The side that puts events in.
#[derive(Debug)]
pub struct Sender {
    events: SyncSender<Option<Arc<Body>>>,
    bytes: Arc<AtomicUsize>,
}

/// The side that takes events out. What was taken out still counts until it is [`release`](Self::release)d.
#[derive(Debug)]
pub struct Taker {
    events: Receiver<Option<Arc<Body>>>,
    bytes: Arc<AtomicUsize>,
}

/// A queue.
pub fn queue() -> (Sender, Taker) {
    let (sender, receiver) = sync_channel(EVENTS_MAX);
    let bytes = Arc::new(AtomicUsize::new(0));
    (Sender { events: sender, bytes: Arc::clone(&bytes) }, Taker { events: receiver, bytes })
}

impl Sender {
    /// Puts an event in; says whether there was room.
    pub fn put(&self, body: &Arc<Body>) -> bool {
        let bytes = body.line_bytes_max();
        // Before it is sent: the taker subtracts.
        let waiting = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let taken = waiting.saturating_add(bytes) <= BYTES_MAX && self.events.try_send(Some(Arc::clone(body))).is_ok();
        if !taken {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        taken
    }

    /// Lets the taker look around, though no event comes.
    pub fn wake(&self) {
        // Where there is no room it is awake.
        let _ = self.events.try_send(None);
    }
}

impl Taker {
    /// The next event, for which it waits as long as this, or for ever; none where it was woken without one.
    ///
    /// # Errors
    /// Where none has come, or none will come any more.
    pub fn next(&self, patience: Option<Duration>) -> Result<Option<Arc<Body>>, RecvTimeoutError> {
        match patience {
            Some(patience) => self.events.recv_timeout(patience),
            None => self.events.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    /// Those that are there.
    pub fn ready(&self) -> impl Iterator<Item = Arc<Body>> {
        self.events.try_iter().flatten()
    }

    /// Gives back the room of an event that was taken out.
    pub fn release(&self, body: &Body) {
        self.bytes.fetch_sub(body.line_bytes_max(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::testing::touch;

    fn with_path(bytes: usize) -> Arc<Body> {
        let mut event = touch();
        event.file.as_mut().unwrap().path = Some(vec![b'x'; bytes]);
        Arc::new(Body::of(&event, "n1").unwrap())
    }

    #[test]
    fn long_events_fill_the_queue_by_their_bytes_until_they_are_written() {
        let (sender, taker) = queue();
        let long = with_path(1 << 19);
        assert_eq!((0..100).filter(|_| sender.put(&long)).count(), 15, "a little more than half a MiB each, in 8");
        let taken = taker.ready().take(2).collect::<Vec<_>>();
        assert!(!sender.put(&long), "what was taken out is still in memory");
        taken.iter().for_each(|body| taker.release(body));
        assert!(sender.put(&long) && sender.put(&long) && !sender.put(&long));
    }

    #[test]
    fn short_events_fill_the_queue_by_their_number() {
        let (sender, _taker) = queue();
        let short = with_path(1);
        let fitting = BYTES_MAX / short.line_bytes_max();
        assert_eq!((0..2 * EVENTS_MAX).filter(|_| sender.put(&short)).count(), fitting.min(EVENTS_MAX));
    }
}
