//! Delivers what is in a spool to a receiver, at least once: a thread with a runtime of its own, so that nothing else waits.

use std::{io, sync::Arc, thread::Builder, time::Duration};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::sync::watch;
use tracing::{info, warn};

use super::spool::{Batch, Position, SpoolReader};
use crate::export::Metrics;

/// Lines that are sent at once.
const BATCH: usize = 512;

/// Bytes that are sent at once, about: with a line that comes on top well under the 4 MiB that gRPC servers take.
const BATCH_BYTES: usize = 1 << 20;

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(10);

/// The pauses between tries: from the first to the longest, each with up to its own length more by chance, so that the agents
/// of many nodes don't come back at once.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// How long the last lines may take to be delivered when the agent ends. What is left then, the next run delivers.
const LAST_WORDS: Duration = Duration::from_millis(900);

/// Why lines could not be delivered now.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SendError(pub String);

impl From<io::Error> for SendError {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}

/// What is sent to.
pub trait Receiver: Send + 'static {
    /// A way to it.
    type Connection: Connection;

    /// Finds a way to it.
    fn connect(&mut self) -> impl Future<Output = Result<Self::Connection, SendError>>;
}

/// A way to a receiver.
pub trait Connection {
    /// Sends lines. How many of them the receiver refused for good.
    fn send(&mut self, batch: Batch) -> impl Future<Output = Result<u64, SendError>>;

    /// Waits until more is known to be delivered, or the connection is known to be lost. May be given up and asked again.
    fn delivered(&mut self) -> impl Future<Output = Result<Position, SendError>>;

    /// Nothing more will be sent: up to where it is delivered.
    fn finish(self) -> impl Future<Output = Result<Position, SendError>>;
}

/// The thread's work.
pub struct Sender<R> {
    /// The sink's name in metrics.
    pub name: &'static str,
    /// What is sent to, for people.
    pub target: String,
    /// What is sent.
    pub spool: SpoolReader,
    /// Where to.
    pub receiver: R,
    /// Where it is counted.
    pub metrics: Arc<Metrics>,
    /// True when all that will be in the spool is there.
    pub complete: watch::Receiver<bool>,
    /// Lines that were refused for good, among those that will be confirmed next.
    pub refused: u64,
}

/// What came of a connection.
enum Parted {
    /// It was lost.
    Lost(SendError),
    /// There is nothing more to deliver, and will be nothing.
    Done,
}

impl<R: Receiver> Sender<R> {
    /// Starts the thread.
    ///
    /// # Errors
    /// Where no thread can be made.
    pub fn start(self) -> io::Result<std::thread::JoinHandle<()>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Builder::new().name(format!("rosentry-{}", self.name)).spawn(move || runtime.block_on(self.run()))
    }

    async fn run(mut self) {
        let mut complete = self.complete.clone();
        tokio::select! {
            () = self.deliver() => {}
            () = async {
                // Without a sender it is complete as well.
                let _ = complete.wait_for(|complete| *complete).await;
                tokio::time::sleep(LAST_WORDS).await;
            } => {}
        }
        let bytes = self.spool.waiting_bytes();
        if bytes > 0 {
            info!(to = self.target, bytes, "what is not delivered stays in the spool for the next run");
        }
    }

    async fn deliver(&mut self) {
        let mut pauses = pauses();
        let mut is_lost = false;
        loop {
            self.count_waiting();
            let connected = match tokio::time::timeout(CONNECT, self.receiver.connect()).await {
                Ok(connected) => connected,
                Err(_) => Err(SendError("it does not answer".to_owned())),
            };
            let error = match connected {
                Ok(connection) => {
                    let confirmed = self.spool.confirmed();
                    self.spool.rewind();
                    let parted = self.exchange(connection, &mut is_lost).await;
                    if self.spool.confirmed() > confirmed {
                        pauses = self::pauses();
                    }
                    match parted {
                        Parted::Lost(error) => error,
                        Parted::Done => return,
                    }
                }
                Err(error) => error,
            };
            // A receiver may close a connection on which nothing is said; then nothing waits.
            if !is_lost && self.spool.waiting_bytes() > 0 {
                warn!(to = self.target, %error, "events wait in the spool, they can't be delivered now");
                is_lost = true;
            }
            let pause = pauses.next().unwrap_or(PAUSE.1);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                // There is no time for another pause.
                _ = self.complete.wait_for(|complete| *complete), if !*self.complete.borrow() => {}
            }
        }
    }

    /// Sends and notes what is delivered, until one of the two ends it.
    async fn exchange(&mut self, mut connection: R::Connection, is_lost: &mut bool) -> Parted {
        loop {
            // Read before the spool is: what comes after that look is not missed.
            let is_complete = *self.complete.borrow_and_update();
            match self.spool.read(BATCH, BATCH_BYTES) {
                Ok(Some(batch)) => {
                    self.metrics.sink(self.name, "retried", batch.repeated);
                    match connection.send(batch).await {
                        Ok(refused) => self.refused += refused,
                        Err(error) => return Parted::Lost(error),
                    }
                    // What is known by now, without waiting for it.
                    match tokio::time::timeout(Duration::ZERO, connection.delivered()).await {
                        Ok(Ok(position)) => self.confirm(position, is_lost),
                        Ok(Err(error)) => return Parted::Lost(error),
                        Err(_) => {}
                    }
                    continue;
                }
                Ok(None) if is_complete => {
                    return match connection.finish().await {
                        Ok(position) => {
                            self.confirm(position, is_lost);
                            Parted::Done
                        }
                        Err(error) => Parted::Lost(error),
                    };
                }
                Ok(None) => {}
                Err(error) => return Parted::Lost(SendError(format!("the spool can't be read: {error}"))),
            }
            self.count_waiting();
            tokio::select! {
                () = self.spool.written() => {}
                // Without a sender it is complete as well, and was told so.
                Ok(()) = self.complete.changed() => {}
                delivered = connection.delivered() => match delivered {
                    Ok(position) => self.confirm(position, is_lost),
                    Err(error) => return Parted::Lost(error),
                },
            }
        }
    }

    fn confirm(&mut self, position: Position, is_lost: &mut bool) {
        let lines = self.spool.confirm(position);
        let refused = std::mem::take(&mut self.refused).min(lines);
        self.metrics.sink(self.name, "delivered", lines - refused);
        self.metrics.sink(self.name, "dropped", refused);
        self.count_waiting();
        if lines > 0 && std::mem::take(is_lost) {
            info!(to = self.target, "events are delivered again");
        }
    }

    fn count_waiting(&self) {
        self.metrics.spool_bytes(self.name, self.spool.waiting_bytes());
    }
}

fn pauses() -> ExponentialBackoff {
    let (first, longest) = PAUSE;
    ExponentialBuilder::new().with_min_delay(first).with_max_delay(longest).without_max_times().with_jitter().build()
}
