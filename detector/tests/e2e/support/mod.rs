//! The lab: what an end-to-end test needs of a node. A containerd of its own, pods made over CRI, the agent as a black
//! box, and the machine's state before and after.

pub mod agent;
#[path = "../../shared/browser.rs"]
pub mod browser;
pub mod containerd;
pub mod contract;
pub mod cri;
pub mod daemonset;
pub mod image;
#[path = "../../shared/kernel_objects.rs"]
pub mod kernel_objects;
pub mod kubelet;
pub mod leftovers;
pub mod metrics;
#[path = "../../shared/mortal.rs"]
pub mod mortal;
pub mod pod;
pub mod prometheus;
pub mod proxy;

use std::{
    fs,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use rustix::mount::{MountFlags, mount};
use tokio::sync::{Mutex, MutexGuard};

use self::{
    containerd::{CARELESS_RUNTIME, Containerd},
    pod::Pod,
};

/// Tests look at what every container of the machine does, so one runs at a time.
pub async fn alone() -> MutexGuard<'static, ()> {
    static MACHINE: Mutex<()> = Mutex::const_new(());
    MACHINE.lock().await
}

/// A node with a containerd.
pub struct Lab {
    pub containerd: Containerd,
    // After containerd in the order of drops: the next test starts when this one's traces are gone.
    _alone: MutexGuard<'static, ()>,
}

impl Lab {
    /// With a running containerd.
    pub async fn start() -> Self {
        let alone = alone().await;
        Self { containerd: Containerd::start().await, _alone: alone }
    }

    /// Before containerd runs.
    pub async fn without_containerd() -> Self {
        let alone = alone().await;
        Self { containerd: Containerd::prepare(), _alone: alone }
    }

    /// A running pod with no container yet.
    pub async fn pod(&self, namespace: &str, name: &str) -> Pod {
        Pod::start(&self.containerd, namespace, name, new_uid(), false, "").await
    }

    /// A pod whose runtime does not heed `readonly`.
    pub async fn careless_pod(&self, namespace: &str, name: &str) -> Pod {
        Pod::start(&self.containerd, namespace, name, new_uid(), false, CARELESS_RUNTIME).await
    }

    /// A pod that may have privileged containers.
    pub async fn privileged_pod(&self, namespace: &str, name: &str) -> Pod {
        Pod::start(&self.containerd, namespace, name, new_uid(), true, "").await
    }

    /// A memory-backed emptyDir of the pod with this uid, with 90 of its 100 pages in use: its folder on the node.
    pub fn nearly_full_memory(&self, pod_uid: &str) -> PathBuf {
        let folder = self.containerd.path(&format!("kubelet/pods/{pod_uid}/volumes/kubernetes.io~empty-dir/cache"));
        fs::create_dir_all(&folder).expect("the volume's folder is made");
        mount("tmpfs", &folder, "tmpfs", MountFlags::empty(), Some(c"size=400k")).expect("a test may mount a tmpfs");
        fs::write(folder.join("kept"), vec![0; 90 * 4096]).expect("there is room");
        folder
    }
}

/// A pod uid that no other pod of this process has.
pub fn new_uid() -> String {
    static PODS: AtomicU32 = AtomicU32::new(0);
    let pod = PODS.fetch_add(1, Ordering::Relaxed);
    format!("0b5e55ed-0000-4000-8000-{:06x}{pod:06x}", std::process::id() & 0xff_ffff)
}

/// Asks again and again, and fails the test with what it waited for.
pub async fn patiently(deadline: Duration, what: &str, mut asked: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !asked().await {
        assert!(start.elapsed() < deadline, "waited {deadline:?} in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
