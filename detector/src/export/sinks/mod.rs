//! The ways out: each sink has a queue and threads of its own, so that a slow one holds back nothing else.
//!
//! Standard output and the file are written by one thread. A network sink has a spool: one thread writes it, another delivers
//! what is in it ([`sender`]).

mod event_line;
pub mod file;
mod otlp;
mod queue;
mod recorder;
mod sender;
pub mod spool;
mod stdout;
mod syslog;
mod tls;
mod writer;

use std::{
    io,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    thread::{Builder, JoinHandle},
    time::Instant,
};

use tokio::sync::watch;
use tracing::{error, info};

use self::{
    file::{FileConfig, FileStore},
    otlp::{Otlp, OtlpError},
    recorder::{Delivery, Recorder, Store},
    sender::{Receiver, Sender},
    spool::{SpoolConfig, SpoolError, SpoolReader, SpoolWriter},
    stdout::Stdout,
    syslog::Syslog,
    tls::TlsError,
};
pub use self::{otlp::OtlpConfig, syslog::SyslogConfig, tls::TlsConfig};
use super::{Metrics, chain::End, format::Format, native::Body, stream::Stream};
use crate::kernel::kept::Kept;

/// Where events go.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SinksConfig {
    /// The format of lines, wherever they go but to OTLP, which has one of its own.
    pub format: Format,
    /// As lines.
    pub json: JsonConfig,
    /// To a receiver of syslog.
    pub syslog: Option<SyslogConfig>,
    /// To a receiver of OTLP.
    pub otlp: Option<OtlpConfig>,
    /// Where those two keep what is not delivered.
    pub spool: SpoolConfig,
}

/// Where lines go.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum JsonConfig {
    /// Standard output.
    Stdout,
    /// A file.
    File(FileConfig),
}

/// Why a sink can't be had, or is no more.
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
    /// Its spool.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// Its certificates.
    #[error("--syslog: {0}")]
    Syslog(#[source] TlsError),
    /// Its address or certificates.
    #[error("--otlp: {0}")]
    Otlp(#[from] OtlpError),
}

/// The sinks, opened and not yet started: what is wrong with them is known before anything is attached.
pub struct Sinks {
    format: Format,
    json: Json,
    json_end: Option<End>,
    reopen: Arc<AtomicBool>,
    syslog: Option<Network<Syslog>>,
    otlp: Option<Network<Otlp>>,
    targets: Vec<String>,
}

enum Json {
    Stdout(Stdout),
    File(Box<FileStore>),
}

struct Network<R> {
    receiver: R,
    target: String,
    writer: SpoolWriter,
    reader: SpoolReader,
    end: Option<End>,
}

impl Sinks {
    /// Opens them.
    ///
    /// # Errors
    /// Where one can't be used; a receiver that does not answer is no such error.
    pub fn open(config: SinksConfig) -> Result<Self, SinkError> {
        let SinksConfig { format, json, syslog, otlp, spool } = config;
        let reopen = Arc::new(AtomicBool::new(false));
        let mut targets = Vec::new();
        let (json, json_end) = match json {
            JsonConfig::Stdout => {
                targets.push("stdout".to_owned());
                let stdout =
                    Stdout::open().map_err(|source| SinkError::Open { target: "stdout".to_owned(), source })?;
                (Json::Stdout(stdout), None)
            }
            JsonConfig::File(file) => {
                let target = file.path.display().to_string();
                targets.push(target.clone());
                let (store, end) =
                    FileStore::open(file, Arc::clone(&reopen)).map_err(|source| SinkError::Open { target, source })?;
                (Json::File(Box::new(store)), end)
            }
        };
        let syslog = match syslog {
            Some(config) => {
                let scheme = if config.tls.is_some() { "tls" } else { "tcp" };
                let target = format!("{scheme}://{}:{}", config.host, config.port);
                let receiver = Syslog::new(config, format).map_err(SinkError::Syslog)?;
                Some(Network::open(SYSLOG, receiver, target, &spool)?)
            }
            None => None,
        };
        let otlp = match otlp {
            Some(config) => {
                let target = config.endpoint.clone();
                Some(Network::open(OTLP, Otlp::new(config)?, target, &spool)?)
            }
            None => None,
        };
        targets.extend(syslog.iter().map(|syslog| syslog.target.clone()));
        targets.extend(otlp.iter().map(|otlp| otlp.target.clone()));
        Ok(Self { format, json, json_end, reopen, syslog, otlp, targets })
    }

    /// Where the record of lines ends, if it is one that can be looked at.
    pub const fn end(&self) -> Option<&End> {
        self.json_end.as_ref()
    }

    /// Where standard output ended, which can't be looked at.
    pub fn go_on_after(&mut self, end: Option<End>) {
        if matches!(self.json, Json::Stdout(_)) {
            self.json_end = end;
        }
    }

    /// What is written and sent to, for people.
    pub fn targets(&self) -> String {
        self.targets.join(", ")
    }

    /// Starts their threads.
    ///
    /// # Errors
    /// Where no thread can be made.
    pub fn start(self, metrics: &Arc<Metrics>, kept: Option<Arc<Kept>>) -> io::Result<Running> {
        let Self { format, json, json_end, reopen, syslog, otlp, targets } = self;
        let target = targets.into_iter().next().unwrap_or_default();
        let (ended, has_ended) = watch::channel(false);
        let mut sinks = Vec::new();
        sinks.push(match json {
            Json::Stdout(store) => {
                record("stdout", target, store, format, json_end, Delivery::Last(kept), metrics, ended)?
            }
            Json::File(store) => {
                record("file", target, *store, format, json_end, Delivery::Last(kept), metrics, ended)?
            }
        });
        if let Some(syslog) = syslog {
            sinks.push(syslog.start(SYSLOG, metrics)?);
        }
        if let Some(otlp) = otlp {
            sinks.push(otlp.start(OTLP, metrics)?);
        }
        Ok(Running { sinks, reopen, has_ended })
    }
}

const SYSLOG: &str = "syslog";
const OTLP: &str = "otlp";

impl<R: Receiver> Network<R> {
    fn open(name: &str, receiver: R, target: String, spool: &SpoolConfig) -> Result<Self, SpoolError> {
        let (writer, reader, end) = spool::open(spool, name)?;
        Ok(Self { receiver, target, writer, reader, end })
    }

    fn start(self, name: &'static str, metrics: &Arc<Metrics>) -> io::Result<Sink> {
        let (ended, complete) = watch::channel(false);
        let sender = Sender {
            name,
            target: self.target.clone(),
            spool: self.reader,
            receiver: self.receiver,
            metrics: Arc::clone(metrics),
            complete,
            refused: 0,
        };
        let target = format!("the spool for {}", self.target);
        let sender = sender.start()?;
        // What waits is native: its format is that of the run that delivers it.
        let sink = record(name, target, self.writer, Format::Native, self.end, Delivery::Spool, metrics, ended)?;
        Ok(Sink { sender: Some(sender), ..sink })
    }
}

/// Starts what stands behind a queue; `ended` becomes true when it has ended.
#[expect(clippy::too_many_arguments, reason = "it is told what a recorder is made of")]
fn record<S: Store + 'static>(
    name: &'static str,
    target: String,
    store: S,
    format: Format,
    end: Option<End>,
    delivery: Delivery,
    metrics: &Arc<Metrics>,
    ended: watch::Sender<bool>,
) -> io::Result<Sink> {
    let (sender, queue) = queue::queue();
    let metrics = Arc::clone(metrics);
    // There from the start, so that a rate can be told of the first.
    for result in ["delivered", "retried", "dropped"] {
        metrics.sink(name, result, 0);
    }
    let recorder = Recorder { name, target, queue, store, format, stream: Stream::after(end), delivery, metrics };
    let recorder = Builder::new().name(format!("rosentry-{name}-w")).spawn(move || {
        let result = recorder.run();
        ended.send_replace(true);
        result
    })?;
    Ok(Sink { name, queue: Arc::new(sender), recorder, sender: None })
}

/// The sinks at work.
pub struct Running {
    sinks: Vec<Sink>,
    reopen: Arc<AtomicBool>,
    has_ended: watch::Receiver<bool>,
}

/// A sink at work.
pub struct Sink {
    /// Its name in metrics.
    pub name: &'static str,
    queue: Arc<queue::Sender>,
    recorder: JoinHandle<Result<(), SinkError>>,
    sender: Option<JoinHandle<()>>,
}

impl Sink {
    /// Hands it an event; says whether there was room. It may not be written before [`flush`](Self::flush).
    pub fn put(&self, body: &Arc<Body>) -> bool {
        self.queue.put(body)
    }

    /// Lets it write what it was handed.
    pub fn flush(&self) {
        self.queue.flush();
    }
}

/// Asks for the file to be opened anew.
#[derive(Clone)]
pub struct Reopen {
    asked: Arc<AtomicBool>,
    /// The file's. It ends when the sinks are closed, whoever may still ask.
    queue: Weak<queue::Sender>,
}

impl Reopen {
    /// Asks for it; it is done before the next line is written.
    pub fn ask(&self) {
        self.asked.store(true, Ordering::Relaxed);
        if let Some(queue) = self.queue.upgrade() {
            queue.wake();
        }
    }
}

impl Running {
    /// Each of them.
    pub fn sinks(&self) -> &[Sink] {
        &self.sinks
    }

    /// Changes to true when the one for lines has ended, be it that its other end has gone.
    pub fn has_ended(&self) -> watch::Receiver<bool> {
        self.has_ended.clone()
    }

    /// To ask for the file to be opened anew.
    pub fn reopen(&self) -> Reopen {
        let queue = self.sinks.first().map_or_else(Weak::new, |lines| Arc::downgrade(&lines.queue));
        Reopen { asked: Arc::clone(&self.reopen), queue }
    }

    /// Closes the queues and waits until they are written and what can be is delivered, `deadline` at most.
    ///
    /// # Errors
    /// [`SinkError::Closed`] where the other end of standard output has gone.
    pub fn close(self, deadline: Instant) -> Result<(), SinkError> {
        let mut threads: Vec<_> = Vec::new();
        for Sink { name, queue, recorder, sender } in self.sinks {
            drop(queue);
            threads.push((name, recorder, sender));
        }
        let mut result = Ok(());
        for (name, recorder, sender) in threads {
            if !wait(&recorder, deadline) {
                tracing::warn!(sink = name, "it takes nothing; ending without it");
                continue;
            }
            match recorder.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => result = Err(error),
                Err(_) => error!(sink = name, "its thread ended by itself; please report it"),
            }
            if sender.is_some_and(|sender| !wait(&sender, deadline)) {
                info!(sink = name, "ending before all is delivered; the rest is in the spool");
            }
        }
        result
    }
}

/// Whether the thread has ended in time.
fn wait<T>(thread: &JoinHandle<T>, deadline: Instant) -> bool {
    while !thread.is_finished() {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    true
}
