//! What is at the other end of the socket: containerd, no one, or something else.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::net::UnixStream;

use super::runtime::{CallError, Runtime, Version};

/// containerd that dies while it is asked looks for a moment like a server of another kind: ask again.
const TRIES: usize = 3;
const PAUSE: Duration = Duration::from_millis(200);

/// Why containerd could not be spoken with.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// There is no such file. containerd may start yet.
    #[error("there is no socket at {socket}: is containerd running, and is this its socket (--containerd-socket)?")]
    Absent {
        /// The socket's path.
        socket: PathBuf,
    },
    /// The file is there, but no one listens. containerd may start again.
    #[error("no one listens at {socket}: is containerd running?")]
    Refused {
        /// The socket's path.
        socket: PathBuf,
    },
    /// The socket may not be opened.
    #[error("may not connect to {socket} ({source}): run as root, or as a user who may")]
    Denied {
        /// The socket's path.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Someone listens, and says nothing: containerd that hangs, or a server of another kind.
    #[error("no answer at {socket}{}: name containerd's socket with --containerd-socket", listener.as_deref().map(|name| format!(", where the process \"{name}\" listens")).unwrap_or_default())]
    NoAnswer {
        /// The socket's path.
        socket: PathBuf,
        /// Name of the process that listens, where it can be seen.
        listener: Option<String>,
    },
    /// It is something else.
    #[error("{socket} is not containerd's socket ({found}): name the right one with --containerd-socket")]
    NotContainerd {
        /// The socket's path.
        socket: PathBuf,
        /// What was found instead.
        found: String,
    },
}

impl ProbeError {
    /// Whether waiting cannot help: someone has to name another socket, or other rights.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Absent { .. } | Self::Refused { .. } => false,
            Self::Denied { .. } | Self::NotContainerd { .. } => true,
            // One that merely hangs will answer again. systemd is named for a socket that it opened for another.
            Self::NoAnswer { listener, .. } => listener
                .as_deref()
                .is_some_and(|listener| !listener.contains("containerd") && !listener.contains("systemd")),
        }
    }
}

/// Asks who is at the socket. Takes up to 5 seconds where no answer comes.
///
/// # Errors
/// Says which of the ways there are not to reach containerd it is.
pub async fn probe(socket: &Path) -> Result<Version, ProbeError> {
    let mut result = connect(socket).await;
    for _ in 1..TRIES {
        if !matches!(result, Err(ProbeError::NotContainerd { .. })) {
            break;
        }
        tokio::time::sleep(PAUSE).await;
        result = connect(socket).await;
    }
    result.map(|connection| connection.version)
}

/// A connection to containerd, which has said what it is.
pub(super) struct Connection {
    pub runtime: Runtime,
    pub version: Version,
    /// The process that listens, where it is seen from our pid namespace.
    pub listener: Option<i32>,
}

/// Connects, once.
pub(super) async fn connect(socket: &Path) -> Result<Connection, ProbeError> {
    let pid = knock(socket).await?;
    let listener = pid.and_then(name);
    let not_containerd = |found| ProbeError::NotContainerd { socket: socket.to_owned(), found };
    let answer = async {
        let mut runtime = Runtime::connect(socket).await?;
        let version = runtime.version().await?;
        Ok(Connection { runtime, version, listener: pid })
    };
    answer.await.map_err(|error| match error {
        CallError::Timeout => ProbeError::NoAnswer { socket: socket.to_owned(), listener },
        CallError::Unimplemented => not_containerd("a gRPC server of another kind".to_owned()),
        other => not_containerd(format!("no gRPC: {other}")),
    })
}

/// Opens and closes a connection, to tell what the gRPC library does not; returns the process that listens.
async fn knock(socket: &Path) -> Result<Option<i32>, ProbeError> {
    let path = || socket.to_owned();
    let stream = match UnixStream::connect(socket).await {
        Ok(stream) => stream,
        Err(error) => {
            return Err(match error.kind() {
                io::ErrorKind::NotFound => ProbeError::Absent { socket: path() },
                io::ErrorKind::PermissionDenied => ProbeError::Denied { socket: path(), source: error },
                // Also the answer for a file that is no socket.
                io::ErrorKind::ConnectionRefused if !is_socket(socket) => {
                    ProbeError::NotContainerd { socket: path(), found: "not a socket".to_owned() }
                }
                // A full queue of connections (EAGAIN) is one that no one has answered for long.
                io::ErrorKind::WouldBlock => ProbeError::NoAnswer { socket: path(), listener: None },
                io::ErrorKind::ConnectionRefused => ProbeError::Refused { socket: path() },
                _ => ProbeError::NotContainerd { socket: path(), found: error.to_string() },
            });
        }
    };
    // The pid is that of the process which called listen(2), in this process's pid namespace, or 0 (`man 7 unix`).
    Ok(stream.peer_cred().ok().and_then(|credentials| credentials.pid()).filter(|pid| *pid > 0))
}

/// The name of a process, where it can be seen.
fn name(pid: i32) -> Option<String> {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(name.trim_end().escape_debug().to_string())
}

fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::UnixListener,
    };

    use super::*;

    /// A server that says this to whoever connects, whatever was asked.
    fn serve(socket: &Path, answer: &'static [u8]) {
        let listener = UnixListener::bind(socket).unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 64]).await;
                let _ = stream.write_all(answer).await;
            }
        });
    }

    #[tokio::test]
    async fn no_file_and_no_listener_are_worth_waiting_for() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("containerd.sock");
        let error = probe(&socket).await.unwrap_err();
        assert!(matches!(error, ProbeError::Absent { .. }) && !error.is_final(), "{error}");
        drop(UnixListener::bind(&socket).unwrap());
        let error = probe(&socket).await.unwrap_err();
        assert!(matches!(error, ProbeError::Refused { .. }) && !error.is_final(), "{error}");
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_named_so() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = probe(file.path()).await.unwrap_err();
        assert!(matches!(error, ProbeError::NotContainerd { .. }) && error.is_final(), "{error}");
        assert!(error.to_string().contains("--containerd-socket"));
    }

    #[tokio::test]
    async fn servers_of_other_kinds_are_told_from_containerd() {
        let folder = tempfile::tempdir().unwrap();
        for (name, answer) in [
            ("web", &b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"[..]),
            ("garbage", b"\x00\x01\x02 nonsense"),
            ("closes", b""),
        ] {
            let socket = folder.path().join(name);
            serve(&socket, answer);
            let error = probe(&socket).await.unwrap_err();
            assert!(matches!(error, ProbeError::NotContainerd { .. }) && error.is_final(), "{name}: {error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_who_never_answers_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("silent.sock");
        let _listener = UnixListener::bind(&socket).unwrap();
        let error = probe(&socket).await.unwrap_err();
        assert!(matches!(&error, ProbeError::NoAnswer { listener: Some(_), .. }), "{error}");
        assert!(error.is_final(), "the listener is this test, which is not containerd: {error}");
    }
}
