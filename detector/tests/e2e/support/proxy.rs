//! A unix socket in front of containerd's, which can be slow, cut and mended while containerd itself runs on.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    task::{JoinHandle, JoinSet},
    time::sleep,
};

/// The way to a containerd; its tasks end with it.
pub struct Proxy {
    socket: PathBuf,
    containerd: PathBuf,
    delay_ms: Arc<AtomicU64>,
    serving: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Passes bytes on at once until [`delay`](Self::delay) says otherwise.
    pub fn to(containerd: &Path, socket: PathBuf) -> Self {
        let mut proxy =
            Self { socket, containerd: containerd.to_owned(), delay_ms: Arc::new(AtomicU64::new(0)), serving: None };
        proxy.mend();
        proxy
    }

    /// For `--containerd-socket`.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// From now on every piece of every stream waits this long, in both directions.
    pub fn delay(&self, delay: Duration) {
        self.delay_ms.store(delay.as_millis() as u64, Ordering::Relaxed);
    }

    /// Ends all connections and takes the socket away.
    pub fn cut(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
        }
        let _ = std::fs::remove_file(&self.socket);
    }

    /// Listens again.
    pub fn mend(&mut self) {
        self.cut();
        let listener = UnixListener::bind(&self.socket).expect("the proxy's socket is free");
        self.serving = Some(tokio::spawn(serve(listener, self.containerd.clone(), Arc::clone(&self.delay_ms))));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
    }
}

/// The connections are in this task's set, so that they end with it.
async fn serve(listener: UnixListener, containerd: PathBuf, delay_ms: Arc<AtomicU64>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let Ok(server) = UnixStream::connect(&containerd).await else {
            continue;
        };
        let delay_ms = Arc::clone(&delay_ms);
        connections.spawn(async move {
            let (client_reads, client_writes) = client.into_split();
            let (server_reads, server_writes) = server.into_split();
            tokio::join!(pass(client_reads, server_writes, &delay_ms), pass(server_reads, client_writes, &delay_ms));
        });
    }
}

async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, delay_ms: &AtomicU64) {
    let mut piece = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        sleep(Duration::from_millis(delay_ms.load(Ordering::Relaxed))).await;
        if to.write_all(&piece[..length]).await.is_err() {
            break;
        }
    }
    // The other side may be gone already.
    let _ = to.shutdown().await;
}
