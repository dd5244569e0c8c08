//! Debian's rsyslog as a receiver.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::{certificates::Certificates, feeder::PATIENCE, received::Received};

/// An rsyslog that can be killed and started again. Each run of it writes to a file of its own.
pub struct Rsyslog {
    folder: TempDir,
    port: u16,
    tls: String,
    child: Option<Child>,
    runs: usize,
}

impl Rsyslog {
    /// Starts it, with TLS where there are certificates; then it asks clients for theirs.
    pub fn start(certificates: Option<&Certificates>) -> Self {
        let tls = certificates.map_or(String::new(), |certificates| {
            let path = |name| certificates.path(name).display().to_string();
            format!(
                "global(DefaultNetstreamDriverCAFile=\"{}\" DefaultNetstreamDriverCertFile=\"{}\" \
                 DefaultNetstreamDriverKeyFile=\"{}\")\n",
                path("ca"),
                path("server"),
                path("server-key")
            )
        });
        let port = free_port();
        let mut rsyslog = Self { folder: tempfile::tempdir().unwrap(), port, tls, child: None, runs: 0 };
        rsyslog.start_again();
        rsyslog
    }

    /// Its port on this machine.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Starts it once more.
    pub fn start_again(&mut self) {
        let folder = self.folder.path();
        let driver = if self.tls.is_empty() {
            ""
        } else {
            r#"StreamDriver.Name="gtls" StreamDriver.Mode="1" StreamDriver.AuthMode="x509/certvalid""#
        };
        self.runs += 1;
        // A queue in memory would lose what it holds when rsyslog is killed.
        let config = format!(
            "global(workDirectory=\"{}\" maxMessageSize=\"2m\")\n{}\
             main_queue(queue.type=\"Direct\")\n\
             module(load=\"imtcp\" {driver})\n\
             input(type=\"imtcp\" address=\"127.0.0.1\" port=\"{}\")\n\
             template(name=\"line\" type=\"string\" string=\"%msg%\\n\")\n\
             action(type=\"omfile\" file=\"{}\" template=\"line\")\n",
            folder.display(),
            self.tls,
            self.port,
            self.file(self.runs).display()
        );
        fs::write(folder.join("rsyslog.conf"), config).unwrap();
        let log = fs::File::create(folder.join("log")).unwrap();
        let child = Command::new(program())
            .arg("-n")
            .arg("-f")
            .arg(folder.join("rsyslog.conf"))
            .arg("-i")
            .arg(folder.join("pid"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("rsyslog starts (`cargo xtask setup` installs it)");
        self.child = Some(child);
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let log = || fs::read_to_string(self.folder.path().join("log")).unwrap();
            assert!(Instant::now() < deadline, "rsyslog does not listen: {}", log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Kills it as `kill -9` does.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// What all its runs have written, as far as their lines are whole.
    pub fn received(&self) -> Received {
        let texts: Vec<_> = (1..=self.runs).map(|run| fs::read_to_string(self.file(run)).unwrap_or_default()).collect();
        let whole = |text: &'_ str| text.rfind('\n').map_or(0, |end| end + 1);
        Received::of(texts.iter().flat_map(|text| text[..whole(text)].lines()))
    }

    /// Waits until it has this line.
    pub fn wait_for(&self, seq: u64) -> Received {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let received = self.received();
            if received.lines.contains_key(&seq) {
                return received;
            }
            assert!(
                Instant::now() < deadline,
                "it has {} lines, the last is {}",
                received.lines.len(),
                received.last()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn file(&self, run: usize) -> PathBuf {
        self.folder.path().join(format!("received-{run}"))
    }
}

impl Drop for Rsyslog {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port on which nothing listens, for a receiver that keeps it over its runs.
///
/// Below those that the kernel gives to connections: while the receiver is away another one's connection would get it, or one that
/// asks for it would be connected to itself. Each process of the tests begins at another.
pub fn free_port() -> u16 {
    static ASKED: AtomicU32 = AtomicU32::new(0);
    let ports = 16_384..29_000_u16;
    let number = |asked: u32| std::process::id().wrapping_mul(31).wrapping_add(asked) as usize % ports.len();
    (0..ports.len())
        .filter_map(|_| ports.clone().nth(number(ASKED.fetch_add(1, Ordering::Relaxed))))
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a port is free")
}

/// A user's PATH may lack the folders of root's programs.
fn program() -> PathBuf {
    let usual = Path::new("/usr/sbin/rsyslogd");
    if usual.exists() { usual.to_owned() } else { "rsyslogd".into() }
}
