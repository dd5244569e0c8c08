//! A connection that knows how much of what was written has arrived at the other side's system.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use rustix::{
    io::Errno,
    ioctl::{Getter, ioctl},
    net::sockopt,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

/// `SIOCOUTQ` of `include/uapi/linux/sockios.h`: bytes in the send queue, those that are sent and not acknowledged among them.
const SIOCOUTQ: rustix::ioctl::Opcode = 0x5411;

/// A connection on which nothing is said is asked whether it still stands after this, and so often, and given up after so
/// many.
const KEEP_ALIVE: (Duration, Duration, u32) = (Duration::from_secs(15), Duration::from_secs(5), 3);

/// How long what was sent may go without an acknowledgement.
const UNACKNOWLEDGED: Duration = Duration::from_secs(60);

/// A TCP connection that counts what is written.
#[derive(Debug)]
pub struct Counted {
    stream: TcpStream,
    written: u64,
}

impl Counted {
    /// Connects.
    ///
    /// # Errors
    /// The system's.
    pub async fn connect(host: &str, port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        let (idle, between, times) = KEEP_ALIVE;
        sockopt::set_socket_keepalive(&stream, true)?;
        sockopt::set_tcp_keepidle(&stream, idle)?;
        sockopt::set_tcp_keepintvl(&stream, between)?;
        sockopt::set_tcp_keepcnt(&stream, times)?;
        sockopt::set_tcp_user_timeout(&stream, UNACKNOWLEDGED.as_millis().try_into().unwrap_or(u32::MAX))?;
        Ok(Self { stream, written: 0 })
    }

    /// Bytes that were written.
    pub const fn written(&self) -> u64 {
        self.written
    }

    /// Bytes of them that the other side's system has acknowledged. Its program need not have read them yet.
    ///
    /// # Errors
    /// The system's.
    pub fn acknowledged(&self) -> io::Result<u64> {
        // SAFETY: SIOCOUTQ writes one int, which the getter has room for, and does nothing else.
        let queued: Result<libc::c_int, Errno> = unsafe { ioctl(&self.stream, Getter::<SIOCOUTQ, libc::c_int>::new()) };
        Ok(self.written.saturating_sub(u64::try_from(queued?).unwrap_or_default()))
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        if let Poll::Ready(Ok(count)) = written {
            self.written += count as u64;
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// With TLS or without.
#[derive(Debug)]
pub enum Wire {
    /// Plain.
    Tcp(Counted),
    /// Encrypted.
    Tls(Box<TlsStream<Counted>>),
}

impl Wire {
    /// The TCP connection in it.
    pub fn counted(&self) -> &Counted {
        match self {
            Self::Tcp(counted) => counted,
            Self::Tls(tls) => tls.get_ref().0,
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(counted) => Pin::new(counted).poll_read(context, buffer),
            Self::Tls(tls) => Pin::new(tls).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(counted) => Pin::new(counted).poll_write(context, bytes),
            Self::Tls(tls) => Pin::new(tls).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(counted) => Pin::new(counted).poll_flush(context),
            Self::Tls(tls) => Pin::new(tls).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(counted) => Pin::new(counted).poll_shutdown(context),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(context),
        }
    }
}
