//! The queue before a sink: bounded by number and bytes, and it never waits.
//!
//! What is put in wakes the taker only when that is asked for, or when a good part of the room is taken: on a busy machine to wake
//! a thread for each of a hundred events costs more than to write them.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc::RecvTimeoutError,
    },
    time::{Duration, Instant},
};

use crate::export::native::Body;

/// Events that wait at most.
const EVENTS_MAX: usize = 8192;

/// What they take at most.
const BYTES_MAX: usize = 8 << 20;

/// With so much in the queue the taker is woken by itself: thousands of repeats are put in before anybody asks for it.
const WAKING: (usize, usize) = (EVENTS_MAX / 16, BYTES_MAX / 16);

/// The side that puts events in.
#[derive(Debug)]
pub struct Sender {
    shared: Arc<Shared>,
}

/// The side that takes events out. What was taken out still counts until it is [`release`](Self::release)d.
#[derive(Debug)]
pub struct Taker {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// There is something for the taker.
    wake: Condvar,
    bytes: AtomicUsize,
}

#[derive(Debug, Default)]
struct Waiting {
    events: VecDeque<Arc<Body>>,
    /// The taker is to look around.
    is_woken: bool,
    /// The taker waits.
    is_awaited: bool,
    /// The other side has gone.
    is_closed: bool,
}

/// A queue.
pub fn queue() -> (Sender, Taker) {
    let waiting = Mutex::default();
    let shared = Arc::new(Shared { waiting, wake: Condvar::new(), bytes: AtomicUsize::new(0) });
    (Sender { shared: Arc::clone(&shared) }, Taker { shared })
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.waiting().is_closed = true;
        self.wake.notify_one();
    }

    /// Wakes the taker, once, if it waits.
    fn wake(&self, mut waiting: MutexGuard<'_, Waiting>) {
        let is_awaited = std::mem::take(&mut waiting.is_awaited);
        drop(waiting);
        if is_awaited {
            self.wake.notify_one();
        }
    }
}

impl Sender {
    /// Puts an event in; says whether there was room. The taker may not see it before [`flush`](Self::flush).
    pub fn put(&self, body: &Arc<Body>) -> bool {
        let bytes = body.line_bytes_max();
        let mut waiting = self.shared.waiting();
        let would_be = self.shared.bytes.load(Ordering::Relaxed).saturating_add(bytes);
        let taken = would_be <= BYTES_MAX && waiting.events.len() < EVENTS_MAX && !waiting.is_closed;
        if taken {
            self.shared.bytes.fetch_add(bytes, Ordering::Relaxed);
            waiting.events.push_back(Arc::clone(body));
            if waiting.events.len() >= WAKING.0 || would_be >= WAKING.1 {
                self.shared.wake(waiting);
            }
        }
        taken
    }

    /// Lets the taker see what was put in.
    pub fn flush(&self) {
        let waiting = self.shared.waiting();
        if !waiting.events.is_empty() {
            self.shared.wake(waiting);
        }
    }

    /// Lets the taker look around, though no event comes.
    pub fn wake(&self) {
        self.shared.waiting().is_woken = true;
        self.shared.wake.notify_one();
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Taker {
    /// The next event, for which it waits as long as this, or for ever; none where it was woken without one.
    ///
    /// # Errors
    /// Where none has come, or none will come any more.
    pub fn next(&self, patience: Option<Duration>) -> Result<Option<Arc<Body>>, RecvTimeoutError> {
        let deadline = patience.map(|patience| Instant::now() + patience);
        let mut waiting = self.shared.waiting();
        loop {
            if let Some(event) = waiting.events.pop_front() {
                return Ok(Some(event));
            }
            if std::mem::take(&mut waiting.is_woken) {
                return Ok(None);
            }
            if waiting.is_closed {
                return Err(RecvTimeoutError::Disconnected);
            }
            waiting.is_awaited = true;
            waiting = match deadline {
                Some(deadline) => {
                    let patience = deadline.saturating_duration_since(Instant::now());
                    if patience.is_zero() {
                        waiting.is_awaited = false;
                        return Err(RecvTimeoutError::Timeout);
                    }
                    let woken = self.shared.wake.wait_timeout(waiting, patience);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.shared.wake.wait(waiting).unwrap_or_else(PoisonError::into_inner),
            };
            waiting.is_awaited = false;
        }
    }

    /// Those that are there, so many at most.
    pub fn ready(&self, most: usize) -> VecDeque<Arc<Body>> {
        let events = &mut self.shared.waiting().events;
        events.drain(..most.min(events.len())).collect()
    }

    /// Gives back the room of an event that was taken out.
    pub fn release(&self, body: &Body) {
        self.shared.bytes.fetch_sub(body.line_bytes_max(), Ordering::Relaxed);
    }
}

impl Drop for Taker {
    fn drop(&mut self) {
        self.shared.close();
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
        let taken = taker.ready(2);
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

    #[test]
    fn what_is_put_in_wakes_the_taker_when_that_is_asked_for() {
        let (sender, taker) = queue();
        let taking = std::thread::spawn(move || taker.next(None).map(|event| (event.is_some(), taker.ready(9).len())));
        while !sender.shared.waiting().is_awaited {
            std::thread::yield_now();
        }
        let short = with_path(1);
        assert!(sender.put(&short) && sender.put(&short) && sender.put(&short));
        sender.flush();
        assert_eq!(taking.join().unwrap(), Ok((true, 2)), "all at once");
    }

    #[test]
    fn the_taker_is_woken_by_itself_long_before_there_is_no_more_room() {
        for (path, most) in [(1, EVENTS_MAX), (1 << 19, BYTES_MAX >> 19)] {
            let (sender, taker) = queue();
            let (took, taken) = std::sync::mpsc::channel();
            let taking = std::thread::spawn(move || {
                took.send(taker.next(None).is_ok()).unwrap();
                taker
            });
            while !sender.shared.waiting().is_awaited {
                std::thread::yield_now();
            }
            let event = with_path(path);
            assert!((0..most / 4).all(|_| sender.put(&event)), "nobody asks for it to be written");
            assert_eq!(taken.recv_timeout(Duration::from_secs(60)), Ok(true), "events of {path} bytes");
            drop(taking.join().unwrap());
        }
    }

    #[test]
    fn the_taker_is_woken_without_an_event_and_told_of_the_end_after_the_last() {
        let (sender, taker) = queue();
        sender.wake();
        assert_eq!(taker.next(None), Ok(None));
        assert_eq!(taker.next(Some(Duration::ZERO)), Err(RecvTimeoutError::Timeout));
        assert!(sender.put(&with_path(1)));
        drop(sender);
        assert!(matches!(taker.next(None), Ok(Some(_))));
        assert_eq!(taker.next(None), Err(RecvTimeoutError::Disconnected));
    }

    #[test]
    fn nothing_is_put_in_where_nobody_takes_any_more() {
        let (sender, taker) = queue();
        drop(taker);
        assert!(!sender.put(&with_path(1)));
    }
}
