//! Syslog over TCP or TLS (RFC 5424, 5425, 6587).
//!
//! Syslog has no acknowledgements. A line counts as delivered when the receiver's system has acknowledged its bytes and the
//! connection has stood for [`SETTLE`] after that; or when the receiver closes the connection in order after we have said
//! that nothing more comes. Until then it stays in the spool, and is sent once more where the connection is lost. So a receiver
//! that dies loses nothing that it had not read, unless it had stood still for longer than that before.

mod message;
mod stream;

use std::{
    collections::VecDeque,
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use rustls::{ClientConfig, pki_types::ServerName};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_rustls::TlsConnector;

use self::stream::{Counted, Wire};
use super::{
    sender::{Connection, Receiver, SendError},
    spool::{Batch, Position},
    tls::{self, TlsConfig, TlsError},
};
use crate::export::format::Format;

/// How long a connection must have stood after the receiver's system had a line.
const SETTLE: Duration = Duration::from_secs(3);

/// How often it is looked whether that is so.
const LOOK: Duration = Duration::from_millis(500);

/// A receiver of syslog.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SyslogConfig {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How to speak TLS with it; none: plain TCP.
    pub tls: Option<TlsConfig>,
}

/// The receiver.
pub struct Syslog {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    format: Format,
}

impl Syslog {
    /// Reads what TLS needs; connects to nothing.
    ///
    /// # Errors
    /// Where that can't be used.
    pub fn new(config: SyslogConfig, format: Format) -> Result<Self, TlsError> {
        let SyslogConfig { host, port, tls } = config;
        let tls = match tls {
            Some(tls) => {
                let settings: Arc<ClientConfig> = tls::client(&tls)?;
                let name = ServerName::try_from(host.clone()).map_err(|_| {
                    rustls::Error::General(format!("`{host}` is no name that a certificate can be for"))
                })?;
                Some((TlsConnector::from(settings), name))
            }
            None => None,
        };
        Ok(Self { host, port, tls, format })
    }
}

impl Receiver for Syslog {
    type Connection = SyslogConnection;

    async fn connect(&mut self) -> Result<SyslogConnection, SendError> {
        let counted = Counted::connect(&self.host, self.port).await?;
        let wire = match &self.tls {
            Some((connector, name)) => Wire::Tls(Box::new(connector.connect(name.clone(), counted).await?)),
            None => Wire::Tcp(counted),
        };
        Ok(SyslogConnection {
            wire,
            sent: VecDeque::new(),
            last: Position::default(),
            frames: Vec::new(),
            format: self.format,
        })
    }
}

/// Lines that were sent together.
struct Sent {
    end: Position,
    /// Bytes that were written by then.
    written: u64,
    /// When the receiver's system was seen to have them all.
    arrived: Option<Instant>,
}

/// A connection to a receiver.
pub struct SyslogConnection {
    wire: Wire,
    /// What does not count as delivered yet.
    sent: VecDeque<Sent>,
    /// Behind the last line that was sent.
    last: Position,
    frames: Vec<u8>,
    format: Format,
}

impl SyslogConnection {
    /// What counts as delivered by now, and did not before.
    fn settled(&mut self) -> io::Result<Option<Position>> {
        let acknowledged = self.wire.counted().acknowledged()?;
        let now = Instant::now();
        for sent in &mut self.sent {
            if sent.arrived.is_none() && sent.written <= acknowledged {
                sent.arrived = Some(now);
            }
        }
        let has_settled = |sent: &Sent| sent.arrived.is_some_and(|arrived| now.duration_since(arrived) >= SETTLE);
        let count = self.sent.iter().take_while(|sent| has_settled(sent)).count();
        Ok(self.sent.drain(..count).next_back().map(|sent| sent.end))
    }

    /// Ready where the receiver has closed the connection. It has nothing to say; what it says all the same is left unread.
    fn poll_closed(wire: &mut Wire, context: &mut Context<'_>) -> Poll<io::Error> {
        let mut bytes = [0; 512];
        loop {
            let mut buffer = ReadBuf::new(&mut bytes);
            match Pin::new(&mut *wire).poll_read(context, &mut buffer) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(error),
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                    return Poll::Ready(io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection"));
                }
                Poll::Ready(Ok(())) => {}
            }
        }
    }

    async fn write(&mut self) -> io::Result<()> {
        let (wire, frames) = (&mut self.wire, &self.frames);
        let mut taken = 0;
        poll_fn(|context| {
            while taken < frames.len() {
                match Pin::new(&mut *wire).poll_write(context, &frames[taken..]) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(Ok(count)) => taken += count,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    // Not for ever, where the receiver has gone.
                    Poll::Pending => return Self::poll_closed(wire, context).map(Err),
                }
            }
            Pin::new(&mut *wire).poll_flush(context)
        })
        .await
    }
}

impl Connection for SyslogConnection {
    async fn send(&mut self, batch: Batch) -> Result<u64, SendError> {
        self.frames.clear();
        for line in &batch.lines {
            message::frame(line, self.format, std::process::id(), &mut self.frames);
        }
        self.write().await?;
        self.sent.push_back(Sent { end: batch.end, written: self.wire.counted().written(), arrived: None });
        self.last = batch.end;
        Ok(0)
    }

    async fn delivered(&mut self) -> Result<Position, SendError> {
        loop {
            if let Some(position) = self.settled()? {
                return Ok(position);
            }
            let closed = poll_fn(|context| Self::poll_closed(&mut self.wire, context));
            tokio::select! {
                () = tokio::time::sleep(LOOK), if !self.sent.is_empty() => {}
                error = closed => return Err(error.into()),
            }
        }
    }

    async fn finish(mut self) -> Result<Position, SendError> {
        self.wire.shutdown().await?;
        let closed = poll_fn(|context| Self::poll_closed(&mut self.wire, context)).await;
        // With something unread its system would have reset the connection.
        match closed.kind() {
            io::ErrorKind::UnexpectedEof => Ok(self.last),
            _ => Err(closed.into()),
        }
    }
}
