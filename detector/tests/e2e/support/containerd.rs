//! A real containerd in a folder of its own: root, state, socket and the containers' cgroup. It can be killed, restarted
//! and frozen, and it leaves nothing behind, however the test ends.

use std::{
    fs::{self, File, Permissions},
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::{
    mount::{MountFlags, mount},
    process::{Pid, Signal, kill_process},
};
use tempfile::TempDir;

use super::{
    cri::Cri,
    image::{IMAGE, image},
    leftovers, patiently,
};

/// The namespace in which containerd keeps what came over CRI.
pub const NAMESPACE: &str = "k8s.io";

/// The handler of a runtime that does not heed a root's `readonly`, as there have been some.
pub const CARELESS_RUNTIME: &str = "careless";

/// runc with another specification than containerd's: the root is writable.
const CARELESS_RUNC: &str = r#"#!/bin/sh
bundle=
for argument; do
    [ "$bundle" = next ] && bundle=$argument
    [ "$argument" = --bundle ] && bundle=next
done
[ -z "$bundle" ] || sed -i 's/"readonly":true/"readonly":false/' "$bundle/config.json"
exec runc "$@"
"#;

/// containerd starts in a fraction of a second; a loaded machine gets this long.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// A containerd that this test started.
pub struct Containerd {
    folder: TempDir,
    process: Option<Child>,
}

impl Containerd {
    /// A running containerd that has the lab's image and serves CRI.
    pub async fn start() -> Self {
        let mut containerd = Self::prepare();
        containerd.start_again().await;
        containerd
    }

    /// Everything is in place, but containerd does not run yet: its socket is absent.
    pub fn prepare() -> Self {
        let folder =
            tempfile::Builder::new().prefix("rosentry-lab-").tempdir().expect("a temporary folder for containerd");
        // containerd syncs its database at every step, which on a disk takes longer than all the rest.
        mount("tmpfs", folder.path(), "tmpfs", MountFlags::empty(), None).expect("a test may mount a tmpfs");
        let containerd = Self { folder, process: None };
        fs::write(containerd.path("config.toml"), containerd.config()).expect("the configuration is written");
        let runtime = containerd.path("careless-runc");
        fs::write(&runtime, CARELESS_RUNC).expect("the runtime is written");
        fs::set_permissions(&runtime, Permissions::from_mode(0o755)).expect("the runtime is made executable");
        containerd
    }

    /// Starts containerd, for the first time or after [`kill`](Self::kill), and waits until CRI has the image.
    pub async fn start_again(&mut self) {
        assert!(self.process.is_none(), "containerd runs already");
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.path("containerd.log"))
            .expect("containerd's log opens");
        self.process = Some(
            Command::new("containerd")
                .arg("--config")
                .arg(self.path("config.toml"))
                .stdin(Stdio::null())
                .stdout(log.try_clone().expect("the log is shared"))
                .stderr(log)
                .spawn()
                .expect("containerd is installed"),
        );
        patiently(START_DEADLINE, "containerd serves CRI", async || match Cri::connect(&self.socket()).await {
            Ok(mut cri) => cri.is_ready().await,
            Err(_) => false,
        })
        .await;
        let mut cri = Cri::connect(&self.socket()).await.expect("containerd answers");
        if !cri.has_image(IMAGE).await {
            self.import_image();
            patiently(START_DEADLINE, "CRI learns of the image", async || cri.has_image(IMAGE).await).await;
        }
    }

    /// SIGKILL; its shims and containers go on, as they do on a node.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("containerd is ours to kill");
            process.wait().expect("containerd ends");
        }
    }

    /// SIGSTOP: the socket accepts connections, and no answer comes.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// The gRPC socket, for `--containerd-socket`.
    pub fn socket(&self) -> PathBuf {
        self.path("containerd.sock")
    }

    /// A place in this containerd's folder, which goes with it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The parent of all its containers' cgroups, below the mount of each hierarchy.
    pub fn cgroup(&self) -> String {
        let name = self.folder.path().file_name().expect("the folder has a name");
        format!("kubepods-{}", name.to_string_lossy())
    }

    /// The digest by which containerd itself knows the lab's image.
    pub fn image_digest(&self) -> String {
        let listed = self.ctr().args(["images", "list", &format!("name=={IMAGE}")]).output().expect("ctr is installed");
        String::from_utf8_lossy(&listed.stdout)
            .split_whitespace()
            .find(|word| word.starts_with("sha256:"))
            .expect("containerd has the image")
            .to_owned()
    }

    fn import_image(&self) {
        self.import(&image().archive);
    }

    /// Makes an image known that stands in an archive.
    pub fn import(&self, image: &[u8]) {
        let mut import = self
            .ctr()
            .args(["images", "import", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("ctr is installed");
        let mut archive = import.stdin.take().expect("ctr reads the archive from its input");
        archive.write_all(image).expect("ctr takes the archive");
        drop(archive);
        assert!(import.wait().expect("ctr ends").success(), "containerd imports the image");
    }

    /// Gives an image a second name.
    pub fn tag(&self, name: &str, other: &str) {
        let tagged = self.ctr().args(["images", "tag", name, other]).stdout(Stdio::null()).status();
        assert!(tagged.expect("ctr is installed").success(), "containerd has {name}");
    }

    fn ctr(&self) -> Command {
        let mut ctr = Command::new("ctr");
        ctr.arg("--address").arg(self.socket()).args(["--namespace", NAMESPACE]);
        ctr
    }

    fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().expect("containerd runs");
        kill_process(Pid::from_child(process), signal).expect("containerd is ours to signal");
    }

    /// Host network needs no CNI; a process may not lower `oom_score_adj` without CAP_SYS_RESOURCE, which a test machine
    /// may lack; every path that has a default outside of the folder is moved into it.
    fn config(&self) -> String {
        let folder = self.folder.path().display();
        format!(
            r#"version = 2
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing",
]
[grpc]
address = "{folder}/containerd.sock"
[debug]
level = "info"
[plugins."io.containerd.internal.v1.opt"]
path = "{folder}/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{IMAGE}"
restrict_oom_score_adj = true
disable_apparmor = true
stream_server_address = "127.0.0.1"
stream_server_port = "0"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{folder}/cni/bin"
conf_dir = "{folder}/cni/conf"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
Root = "{folder}/runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{CARELESS_RUNTIME}]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{CARELESS_RUNTIME}.options]
Root = "{folder}/runc"
BinaryName = "{folder}/careless-runc"
"#
        )
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let folder: &Path = self.folder.path();
        if std::thread::panicking() {
            let log = fs::read_to_string(folder.join("containerd.log")).unwrap_or_default();
            let warnings: Vec<&str> = log.lines().filter(|line| !line.contains("level=info")).collect();
            let latest = warnings.len().saturating_sub(20);
            eprintln!("containerd's latest warnings:\n{}", warnings[latest..].join("\n"));
        }
        if let Some(mut process) = self.process.take() {
            // A frozen process dies of SIGKILL as well. There is no one to tell of an error here.
            let _ = process.kill();
            let _ = process.wait();
        }
        leftovers::clear(folder, &self.cgroup());
    }
}
