//! Pods and containers as a kubelet makes them: `lab.pod("prod", "web").await.run(sealed(["touch", "/etc/x"])).await`.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use k8s_cri::v1::{
    ContainerConfig, ContainerMetadata, Int64Value, KeyValue, LinuxContainerConfig, LinuxContainerResources,
    LinuxContainerSecurityContext, LinuxPodSandboxConfig, LinuxSandboxSecurityContext, Mount, NamespaceMode,
    NamespaceOption, PodSandboxConfig, PodSandboxMetadata,
};

use super::{
    containerd::{Containerd, NAMESPACE},
    cri::{Cri, image_spec, label},
    image::IMAGE,
};

/// A container to be, with a root filesystem that is mounted read-only.
pub fn sealed<const N: usize>(command: [&str; N]) -> ContainerSpec {
    ContainerSpec { read_only: true, ..writable(command) }
}

/// A container to be, with a writable root filesystem.
pub fn writable<const N: usize>(command: [&str; N]) -> ContainerSpec {
    ContainerSpec {
        name: "app".to_owned(),
        image: IMAGE.to_owned(),
        variables: Vec::new(),
        command: command.map(str::to_owned).to_vec(),
        read_only: false,
        privileged: false,
        user: None,
        cpu_shares: 0,
        mounts: Vec::new(),
        attempt: 0,
    }
}

/// A sealed container that waits to be stopped, or for commands.
pub fn idle() -> ContainerSpec {
    sealed(["sleep", "2147483647"])
}

/// What a kubelet knows of a container before it starts it.
#[derive(Clone)]
pub struct ContainerSpec {
    name: String,
    image: String,
    variables: Vec<KeyValue>,
    command: Vec<String>,
    read_only: bool,
    privileged: bool,
    user: Option<i64>,
    /// Of the processors where others want them, too; 1024 is what one gets by default, as with 0.
    pub cpu_shares: i64,
    mounts: Vec<Mount>,
    attempt: u32,
}

impl ContainerSpec {
    /// `app` unless it is said.
    pub fn named(self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self }
    }

    /// All capabilities and devices; the pod must be privileged too.
    pub fn privileged(self) -> Self {
        Self { privileged: true, ..self }
    }

    /// By the user with this id, and not by root.
    pub fn by_user(self, user: i64) -> Self {
        Self { user: Some(user), ..self }
    }

    /// With another command.
    pub fn with_command(self, command: Vec<String>) -> Self {
        Self { command, ..self }
    }

    /// Of another image than the lab's.
    pub fn of_image(self, image: &str) -> Self {
        Self { image: image.to_owned(), ..self }
    }

    /// With a variable in its environment.
    pub fn with_variable(mut self, key: &str, value: &str) -> Self {
        self.variables.push(KeyValue { key: key.to_owned(), value: value.to_owned() });
        self
    }

    /// A folder of the host as a writable volume.
    pub fn with_volume(mut self, host: &Path, point: &str) -> Self {
        self.mounts.push(Mount {
            host_path: host.display().to_string(),
            container_path: point.to_owned(),
            ..Mount::default()
        });
        self
    }

    /// A folder or a file of the host as a read-only volume.
    pub fn with_readonly_volume(self, host: &Path, point: &str) -> Self {
        let mut spec = self.with_volume(host, point);
        spec.mounts.iter_mut().filter(|mount| mount.container_path == point).for_each(|mount| mount.readonly = true);
        spec
    }

    /// The same container started once more, as a kubelet does after it ended.
    pub fn restarted(self) -> Self {
        Self { attempt: self.attempt + 1, ..self }
    }

    fn config(&self, pod: &Pod) -> ContainerConfig {
        ContainerConfig {
            metadata: Some(ContainerMetadata { name: self.name.clone(), attempt: self.attempt }),
            image: Some(image_spec(&self.image)),
            envs: self.variables.clone(),
            command: self.command.clone(),
            mounts: self.mounts.clone(),
            log_path: format!("{}-{}.log", self.name, self.attempt),
            labels: HashMap::from([
                (label::CONTAINER_NAME.to_owned(), self.name.clone()),
                (label::POD_NAMESPACE.to_owned(), pod.namespace.clone()),
                (label::POD_NAME.to_owned(), pod.name.clone()),
                (label::POD_UID.to_owned(), pod.uid.clone()),
            ]),
            linux: Some(LinuxContainerConfig {
                security_context: Some(LinuxContainerSecurityContext {
                    privileged: self.privileged,
                    readonly_rootfs: self.read_only,
                    run_as_user: self.user.map(|value| Int64Value { value }),
                    namespace_options: Some(host_network()),
                    ..LinuxContainerSecurityContext::default()
                }),
                resources: Some(LinuxContainerResources {
                    cpu_shares: self.cpu_shares,
                    ..LinuxContainerResources::default()
                }),
            }),
            ..ContainerConfig::default()
        }
    }
}

/// A running pod sandbox.
pub struct Pod {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    sandbox_id: String,
    sandbox: PodSandboxConfig,
    cri: Cri,
}

impl Pod {
    /// `uid` must be new to the containerd; the pod's only label of its own is `app`, its name.
    /// `runtime` names a handler of containerd; empty for the default.
    pub async fn start(
        containerd: &Containerd,
        namespace: &str,
        name: &str,
        uid: String,
        privileged: bool,
        runtime: &str,
    ) -> Self {
        let log_directory = containerd.path(&format!("pods/{namespace}_{name}_{uid}"));
        fs::create_dir_all(&log_directory).expect("the pod's log folder is made");
        let sandbox = PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: name.to_owned(),
                uid: uid.clone(),
                namespace: namespace.to_owned(),
                attempt: 0,
            }),
            log_directory: log_directory.display().to_string(),
            labels: HashMap::from([
                ("app".to_owned(), name.to_owned()),
                (label::POD_NAMESPACE.to_owned(), namespace.to_owned()),
                (label::POD_NAME.to_owned(), name.to_owned()),
                (label::POD_UID.to_owned(), uid.clone()),
            ]),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: format!("/{}/besteffort/pod{uid}", containerd.cgroup()),
                security_context: Some(LinuxSandboxSecurityContext {
                    privileged,
                    namespace_options: Some(host_network()),
                    ..LinuxSandboxSecurityContext::default()
                }),
                ..LinuxPodSandboxConfig::default()
            }),
            ..PodSandboxConfig::default()
        };
        let mut cri = Cri::connect(&containerd.socket()).await.expect("containerd answers");
        let sandbox_id = cri.run_pod_sandbox(sandbox.clone(), runtime).await.expect("the pod starts");
        Self { namespace: namespace.to_owned(), name: name.to_owned(), uid, sandbox_id, sandbox, cri }
    }

    /// Starts a container that goes on.
    pub async fn start_container(&self, spec: ContainerSpec) -> Container {
        let mut cri = self.cri.clone();
        let id = cri
            .create_container(&self.sandbox_id, &self.sandbox, spec.config(self))
            .await
            .expect("the container is created");
        cri.start_container(&id).await.expect("the container starts");
        Container { id, log: Path::new(&self.sandbox.log_directory).join(spec.config(self).log_path), cri }
    }

    /// Runs a container to its end.
    pub async fn run(&self, spec: ContainerSpec) -> Ended {
        self.start_container(spec).await.ended().await
    }
}

/// A container that was started.
pub struct Container {
    /// 64 hexadecimal digits.
    pub id: String,
    log: PathBuf,
    cri: Cri,
}

impl Container {
    /// Waits for its end.
    pub async fn ended(mut self) -> Ended {
        let status = self.cri.wait_exit(&self.id).await;
        let lived_ns = status.finished_at.saturating_sub(status.started_at).max(0);
        Ended {
            id: self.id,
            exit_code: status.exit_code,
            output: output_of(&self.log),
            lived: Duration::from_nanos(lived_ns.cast_unsigned()),
        }
    }

    /// Where it is, and with it the files of its image, on the node.
    pub fn root(&self, containerd: &Containerd) -> PathBuf {
        containerd.path(&format!("state/io.containerd.runtime.v2.task/{NAMESPACE}/{}/rootfs", self.id))
    }

    /// Runs one more command in it; returns its exit code and what it printed.
    pub async fn exec<const N: usize>(&self, command: [&str; N]) -> (i32, String) {
        let command = command.map(str::to_owned).to_vec();
        let answer = self.cri.clone().exec_sync(&self.id, command).await.expect("the command runs");
        let printed = [answer.stdout, answer.stderr].concat();
        (answer.exit_code, String::from_utf8_lossy(&printed).into_owned())
    }

    /// What it has printed up to now.
    pub fn output(&self) -> String {
        output_of(&self.log)
    }

    /// Asks it to end, and kills it where it does not.
    pub async fn terminate(&self) {
        self.cri.clone().stop_container_within(&self.id, 10).await.expect("the container stops");
    }

    /// Kills it.
    pub async fn stop(&self) {
        self.cri.clone().stop_container(&self.id).await.expect("the container stops");
    }

    /// Deletes it, once it has ended.
    pub async fn remove(self) {
        self.cri.clone().remove_container(&self.id).await.expect("the container is removed");
    }
}

/// A container that has ended.
pub struct Ended {
    /// 64 hexadecimal digits.
    pub id: String,
    pub exit_code: i32,
    /// Both of its streams.
    pub output: String,
    /// From containerd's time of start to its time of end.
    pub lived: Duration,
}

/// CRI's log format has a time, a stream and a tag before the text: `2026-01-02T03:04:05.6Z stderr F text`.
fn output_of(log: &Path) -> String {
    let lines = fs::read_to_string(log).unwrap_or_default();
    lines.lines().map(|line| line.splitn(4, ' ').nth(3).unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The host's network, so that no CNI plug-in is needed; everything else is the pod's own.
fn host_network() -> NamespaceOption {
    NamespaceOption { network: NamespaceMode::Node.into(), ..NamespaceOption::default() }
}
