//! An identity room of the lab's containerd, and questions to it.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use detector::identity::{Hierarchy, Identity, IdentityConfig, Lookup, model::Container};

use crate::support::{
    Lab,
    image::{IMAGE, image},
    patiently,
};

/// For what takes milliseconds on a machine that does nothing else.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// An identity room that watches the namespaces of CRI and of ctr.
pub fn start(socket: &Path) -> Identity {
    Identity::start(IdentityConfig {
        socket: socket.to_owned(),
        namespaces: vec!["k8s.io".to_owned(), "default".to_owned()],
        host_proc: PathBuf::from("/proc"),
        host_cgroup: PathBuf::from("/sys/fs/cgroup"),
    })
    .expect("the machine has a cgroup2 hierarchy")
}

/// The same, when it knows all containers.
pub async fn synced(lab: &Lab) -> Identity {
    let identity = start(&lab.containerd.socket());
    becomes_synced(&identity).await;
    identity
}

pub async fn becomes_synced(identity: &Identity) {
    patiently(DEADLINE, "all containers are known", async || identity.status().synced).await;
    assert!(identity.status().up);
}

/// The id of a cgroup by the end of its path; one must exist.
pub fn cgroup_id(path: &str) -> u64 {
    let hierarchy = Hierarchy::find(Path::new("/proc"), Path::new("/sys/fs/cgroup")).expect("cgroup2 is mounted");
    let folder = hierarchy.mount().join(path.trim_start_matches('/'));
    fs::metadata(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())).ino()
}

/// What a cgroup is taken for, once that is settled: waits as the pipeline does, for word of a change.
pub async fn settled(identity: &Identity, cgroup_id: u64) -> Lookup {
    let mut changed = identity.changed();
    let settle = async {
        loop {
            match identity.lookup(cgroup_id) {
                Lookup::Pending { .. } => changed.changed().await.expect("the identity room is there"),
                settled => return settled,
            }
        }
    };
    tokio::time::timeout(DEADLINE, settle).await.expect("a cgroup's owner is found in time")
}

/// The container that a cgroup belongs to.
pub async fn container(identity: &Identity, cgroup_id: u64) -> Arc<Container> {
    match settled(identity, cgroup_id).await {
        Lookup::Container { container, .. } => container,
        other => panic!("not a container: {other:?}"),
    }
}

/// Runs ctr in the namespace `default` with these arguments.
pub fn ctr(lab: &Lab, arguments: &[&str]) {
    let output = Command::new("ctr")
        .arg("--address")
        .arg(lab.containerd.socket())
        .args(arguments)
        .output()
        .expect("ctr is installed");
    assert!(output.status.success(), "ctr {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Gives the lab's image to ctr's own namespace.
pub fn import(lab: &Lab) {
    let archive = lab.containerd.path("image.tar");
    fs::write(&archive, &image().archive).unwrap();
    ctr(lab, &["images", "import", archive.to_str().unwrap()]);
}

/// Runs a container of the lab's image with ctr, in the namespace `default`.
pub fn run(lab: &Lab, options: &[&str], name_and_command: &[&str]) {
    let (runc_root, fifos) = (lab.containerd.path("runc"), lab.containerd.path("fifos"));
    ctr(
        lab,
        &[
            &["run", "--runc-root", runc_root.to_str().unwrap(), "--fifo-dir", fifos.to_str().unwrap()],
            options,
            &[IMAGE],
            name_and_command,
        ]
        .concat(),
    );
}
