//! Containers and pods as the rest of rosentry knows them.

use std::sync::Arc;

use super::source::Source;
use crate::process_stat::same_tick;

/// A container that the runtime told us of.
#[derive(Clone, Debug)]
pub struct Container {
    /// The runtime's id (64 hex digits in Kubernetes).
    pub id: String,
    /// The containerd namespace it lives in (`k8s.io` in Kubernetes).
    pub runtime_namespace: Arc<str>,
    /// What it is.
    pub role: Role,
    /// Name within the pod; none where there is no pod. Of a sandbox: none.
    pub name: Option<String>,
    /// Reference of the image.
    pub image: Option<Arc<str>>,
    /// Digest of the image's manifest or index, `sha256:…`.
    pub image_digest: Option<Arc<str>>,
    /// `root.readonly` of the OCI spec: a declaration. None where the spec could not be read.
    pub readonly_rootfs: Option<bool>,
    /// Whether it was declared privileged (CRI) or has all capabilities and no device limits (else).
    pub privileged: Option<bool>,
    /// How far its task (the running side of a container) has come, as far as containerd has said.
    pub task: TaskState,
    /// When its first process was made; none where that is not known. Nanoseconds since the Unix epoch.
    pub started_at_unix_ns: Option<i128>,
    /// Process id of its first process in the initial pid namespace; none where no task of it has been seen. It stays
    /// when the task has ended, for events that come late.
    pub init_pid: Option<u32>,
    /// When that process started, in nanoseconds since boot, to the clock tick: tells it from one that has its id later.
    /// None where it had ended when containerd named it.
    pub init_start_time_ns: Option<u64>,
    /// The mounts of its OCI spec, in the spec's order, and then its read-only paths as mounts. Those that other containers have,
    /// too, are shared with them.
    pub mounts: Vec<Arc<SpecMount>>,
    /// The pod, in Kubernetes.
    pub pod: Option<Arc<Pod>>,
    /// Id of its pod's sandbox; none of a sandbox itself, and where there is no pod.
    pub sandbox_id: Option<Arc<str>>,
}

impl Container {
    /// Its first process, where a task of it has been seen.
    pub fn first_process(&self) -> Option<FirstProcess> {
        Some(FirstProcess { pid: self.init_pid?, start_time_ns: self.init_start_time_ns })
    }
}

/// The first process of a container.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FirstProcess {
    /// Its id in the initial pid namespace.
    pub pid: u32,
    /// Its start in nanoseconds since boot, to the clock tick; none where it had ended when containerd named it.
    pub start_time_ns: Option<u64>,
}

impl FirstProcess {
    /// Whether it is the process with this id that started then (nanoseconds since boot); none where it ended too soon to
    /// tell it from one that has its id by now.
    pub fn is(&self, pid: u32, start_time_ns: u64) -> Option<bool> {
        if self.pid != pid {
            return Some(false);
        }
        self.start_time_ns.map(|start| same_tick(start, start_time_ns))
    }
}

/// How far the task of a container has come.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum TaskState {
    /// containerd has not spoken of a task: it does not exist yet, or ended before rosentry asked.
    #[default]
    Unseen,
    /// The first process exists, and is the runtime still.
    Created,
    /// The first process was told to execute the container's program.
    Running,
    /// It has ended.
    Ended,
}

/// What a container is to its pod.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// A container of a pod.
    Container,
    /// The sandbox ("pause") of a pod.
    Sandbox,
    /// Not of Kubernetes.
    Plain,
}

/// A mount of the OCI spec.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct SpecMount {
    /// Where, absolute in the container's root.
    pub destination: String,
    /// `bind`, `tmpfs`, `proc`, …
    pub fstype: Option<String>,
    /// On the node; [`Container::source_of`] tells the path.
    pub source: Option<Source>,
    /// Whether its options say `ro`.
    pub readonly: bool,
    /// The volume it is, as far as kubelet's paths tell.
    pub volume: Option<Volume>,
}

/// A volume of a pod.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Volume {
    /// `configmap`, `secret`, `projected`, `emptydir`, `downward_api`, `persistent_volume`, `csi`, `host_path`, … (docs/events.md).
    pub kind: String,
    /// Its name in the pod's spec, or the path on the node for `host_path`.
    pub name: String,
}

/// A pod.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pod {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Kubernetes uid.
    pub uid: String,
    /// The workload that its name and labels tell of (`web` of `web-7d4b9c6f5-x2x7p` with a pod-template-hash); else the pod's name.
    pub workload: String,
    /// Labels of the sandbox by name, in the names' order, without the runtime's own.
    pub labels: Box<[(Box<str>, Box<str>)]>,
}
