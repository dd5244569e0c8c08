//! A real containerd that serves its version and no pods, in a folder of its own.

use std::{
    fs,
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

const START_DEADLINE: Duration = Duration::from_secs(60);

/// Ended when dropped.
pub struct Containerd {
    folder: TempDir,
    process: Child,
}

impl Containerd {
    /// Listens when this returns.
    pub fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("rosentry-doctor-").tempdir().unwrap();
        let place = folder.path().display();
        // Without CRI and snapshots it starts at once, and mounts nothing.
        let config = format!(
            r#"version = 2
root = "{place}/root"
state = "{place}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
address = "{place}/containerd.sock"
"#
        );
        fs::write(folder.path().join("config.toml"), config).unwrap();
        let process = Command::new("containerd")
            .arg("--config")
            .arg(folder.path().join("config.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("containerd is installed");
        let containerd = Self { folder, process };
        let start = Instant::now();
        while UnixStream::connect(containerd.socket()).is_err() {
            assert!(start.elapsed() < START_DEADLINE, "containerd listens");
            std::thread::sleep(Duration::from_millis(10));
        }
        containerd
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("containerd.sock")
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
