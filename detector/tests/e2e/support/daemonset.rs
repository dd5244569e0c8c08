//! The agent as a node of a cluster runs it: a pod over CRI whose command, environment, mounts, user, capabilities, seccomp profile
//! and limits are read from the DaemonSet in `deploy/kustomize`, as the kubelet reads them.

use std::{
    collections::HashMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use k8s_cri::v1::{
    Capability, ContainerConfig, ContainerMetadata, Int64Value, KeyValue, LinuxContainerConfig,
    LinuxContainerResources, LinuxContainerSecurityContext, LinuxPodSandboxConfig, LinuxSandboxSecurityContext, Mount,
    MountPropagation, NamespaceMode, NamespaceOption, PodSandboxConfig, PodSandboxMetadata, SecurityProfile,
    security_profile::ProfileType,
};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};
use serde_json::Value;

use super::{
    Lab,
    agent::{NODE, free_address},
    contract,
    cri::{Cri, image_spec, label},
    image::agent_image,
    kernel_objects::KernelObjects,
    metrics::get,
    new_uid, patiently,
    pod::Container,
    prometheus::deploy,
};

/// The name in the lab of the image that the DaemonSet names.
const IMAGE: &str = "localhost/rosentry:test";

/// What a kubelet hides in a container with the default `procMount`
/// (`pkg/securitycontext/util.go` of Kubernetes 1.30).
const MASKED: [&str; 9] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
];
const READ_ONLY: [&str; 6] = ["/proc/asound", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// How long the pod may take to be ready, by its start-up probe.
const READY_DEADLINE: std::time::Duration = std::time::Duration::from_secs(60);

/// A pod of the DaemonSet.
pub struct AgentPod {
    /// Where the agent serves its metrics.
    pub metrics: SocketAddr,
    id: String,
    cri: Cri,
    log: PathBuf,
    grace_seconds: i64,
}

impl AgentPod {
    /// Starts one, and waits until its readiness probe says yes.
    pub async fn ready(lab: &Lab) -> Self {
        let pod = Self::start(lab, declared_capabilities()).await;
        pod.becomes_ready().await;
        pod
    }

    /// Waits until its readiness probe says yes.
    pub async fn becomes_ready(&self) {
        patiently(READY_DEADLINE, "the pod is ready", async || {
            matches!(get(self.metrics, "/readyz").await, Ok((200, _)))
        })
        .await;
    }

    /// Starts one that lacks a capability of the DaemonSet's.
    pub async fn start_without(lab: &Lab, capability: &str) -> Self {
        let mut capabilities = declared_capabilities();
        let declared = capabilities.len();
        capabilities.retain(|declared| declared != capability);
        assert_eq!(capabilities.len() + 1, declared, "{capability} is declared");
        Self::start(lab, capabilities).await
    }

    async fn start(lab: &Lab, capabilities: Vec<String>) -> Self {
        let daemonset = manifest("daemonset");
        let spec = &daemonset["spec"]["template"]["spec"];
        let container = &spec["containers"][0];
        let mut cri = Cri::connect(&lab.containerd.socket()).await.expect("containerd answers");
        if !cri.has_image(IMAGE).await {
            import(lab);
        }
        // /run is a shared mount wherever systemd runs.
        mount_change(lab.containerd.path(""), MountPropagationFlags::SHARED).expect("the lab's mount is ours");

        let uid = new_uid();
        let logs = lab.containerd.path(&format!("pods/rosentry_{uid}"));
        fs::create_dir_all(&logs).expect("the pod's log folder is made");
        let names = |container: &str| {
            let mut labels = HashMap::from([
                (label::POD_NAMESPACE.to_owned(), "rosentry".to_owned()),
                (label::POD_NAME.to_owned(), format!("rosentry-{uid}")),
                (label::POD_UID.to_owned(), uid.clone()),
            ]);
            if !container.is_empty() {
                labels.insert(label::CONTAINER_NAME.to_owned(), container.to_owned());
            }
            labels
        };
        let namespaces = NamespaceOption {
            // The lab has no network of pods.
            network: NamespaceMode::Node.into(),
            pid: if spec["hostPID"] == true { NamespaceMode::Node } else { NamespaceMode::Container }.into(),
            ..NamespaceOption::default()
        };
        let sandbox = PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: format!("rosentry-{uid}"),
                uid: uid.clone(),
                namespace: "rosentry".to_owned(),
                attempt: 0,
            }),
            log_directory: logs.display().to_string(),
            labels: names(""),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: format!("/{}/burstable/pod{uid}", lab.containerd.cgroup()),
                security_context: Some(LinuxSandboxSecurityContext {
                    namespace_options: Some(namespaces.clone()),
                    seccomp: seccomp(spec),
                    ..LinuxSandboxSecurityContext::default()
                }),
                ..LinuxPodSandboxConfig::default()
            }),
            ..PodSandboxConfig::default()
        };
        let metrics = free_address();
        let config = ContainerConfig {
            metadata: Some(ContainerMetadata { name: text(&container["name"]), attempt: 0 }),
            image: Some(image_spec(IMAGE)),
            args: texts(&container["args"]),
            envs: environment(lab, container),
            mounts: mounts(lab, spec, container, &settings(&logs, metrics)),
            log_path: "agent.log".to_owned(),
            labels: names(&text(&container["name"])),
            linux: Some(LinuxContainerConfig {
                resources: Some(LinuxContainerResources {
                    memory_limit_in_bytes: bytes(&container["resources"]["limits"]["memory"]),
                    ..LinuxContainerResources::default()
                }),
                security_context: Some(security_context(spec, container, namespaces, capabilities)),
            }),
            ..ContainerConfig::default()
        };
        let sandbox_id = cri.run_pod_sandbox(sandbox.clone(), "").await.expect("the pod starts");
        let id = cri.create_container(&sandbox_id, &sandbox, config).await.expect("the container is created");
        cri.start_container(&id).await.expect("the container starts");
        let grace_seconds = spec["terminationGracePeriodSeconds"].as_i64().expect("a number of seconds");
        Self { metrics, id, cri, log: logs.join("agent.log"), grace_seconds }
    }

    /// Has a container write by way of a link, until what is told of it has followed the link in the container's root. That
    /// takes CAP_SYS_PTRACE and the node's process ids; on a busy machine it may take longer than the agent waits.
    pub async fn follows(&self, container: &Container, name: &str) -> Value {
        for attempt in 0..10 {
            let requested = format!("/settings/{name}{attempt}");
            container.exec(["touch", &requested]).await;
            let told = |event: &Value| event["file"]["requested"] == requested.as_str();
            let write = self.wait_for("a write by way of a link is told", told).await;
            if write["file"]["resolved"] == "root" {
                assert_eq!(write["file"]["path"], format!("/etc/{name}{attempt}"));
                return write;
            }
        }
        panic!("no link was followed");
    }

    /// Runs one more command in the agent's container; its exit code and what it printed.
    pub async fn exec<const N: usize>(&self, command: [&str; N]) -> (i32, String) {
        let answer = self.cri.clone().exec_sync(&self.id, command.map(str::to_owned).to_vec()).await.expect("it runs");
        let printed = [answer.stdout, answer.stderr].concat();
        (answer.exit_code, String::from_utf8_lossy(&printed).into_owned())
    }

    /// The events in the container's log up to now, each checked against the contract. The runtime cuts long lines, and marks all
    /// parts but the last with a P.
    pub fn events(&self) -> Vec<Value> {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let (mut events, mut line) = (Vec::new(), String::new());
        for entry in log.lines() {
            let mut parts = entry.splitn(4, ' ').skip(1);
            let (stream, tag, part) = (parts.next(), parts.next(), parts.next().unwrap_or_default());
            if stream != Some("stdout") {
                continue;
            }
            line.push_str(part);
            if tag == Some("F") {
                events.push(contract::checked(&std::mem::take(&mut line)));
            }
        }
        events
    }

    /// The first event that `wanted` holds for, whether it came or is to come.
    pub async fn wait_for(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut found = None;
        patiently(READY_DEADLINE, what, async || {
            found = self.events().into_iter().find(&wanted);
            found.is_some()
        })
        .await;
        found.expect("it was found")
    }

    /// What its processes have in the kernel now.
    pub fn kernel_objects(&self) -> KernelObjects {
        let mut objects = KernelObjects::default();
        self.processes().into_iter().for_each(|pid| objects.note(pid));
        objects
    }

    /// Its processes, by their ids on the node.
    pub fn processes(&self) -> Vec<u32> {
        let processes = fs::read_dir("/proc").expect("procfs is mounted").flatten();
        // One that has ended meanwhile has nothing.
        let is_its =
            |pid: &u32| fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|cgroup| cgroup.contains(&self.id));
        processes.filter_map(|process| process.file_name().to_str()?.parse().ok()).filter(is_its).collect()
    }

    /// Waits until it has ended by itself; its exit code, and what it said on stderr.
    pub async fn ended(mut self) -> (i32, String) {
        let status = self.cri.wait_exit(&self.id).await;
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        (status.exit_code, log.lines().filter_map(|entry| entry.split_once(" stderr ")).map(|(_, said)| said).collect())
    }

    /// As the kubelet stops it, within its grace period; its exit code and all its events.
    pub async fn stop(mut self) -> (i32, Vec<Value>) {
        self.cri.stop_container_within(&self.id, self.grace_seconds).await.expect("the container stops");
        let status = self.cri.wait_exit(&self.id).await;
        (status.exit_code, self.events())
    }
}

/// The capabilities that the DaemonSet adds to none, in its order.
pub fn declared_capabilities() -> Vec<String> {
    let capabilities =
        &manifest("daemonset")["spec"]["template"]["spec"]["containers"][0]["securityContext"]["capabilities"];
    assert_eq!(texts(&capabilities["drop"]), ["ALL"]);
    texts(&capabilities["add"])
}

/// What the pods have for the node's bpffs: a folder, and no bpffs unless [`Bpffs::mounted`].
fn bpffs(lab: &Lab) -> PathBuf {
    lab.containerd.path("bpf")
}

/// A bpffs of the lab's; unmounted when dropped.
pub struct Bpffs(PathBuf);

impl Bpffs {
    /// Before the pods start.
    pub fn mounted(lab: &Lab) -> Self {
        let folder = bpffs(lab);
        fs::create_dir_all(&folder).expect("the folder is made");
        mount("bpf", &folder, "bpf", MountFlags::empty(), None::<&std::ffi::CStr>).expect("a bpffs can be mounted");
        // As each mount of a node is that systemd makes.
        mount_change(&folder, MountPropagationFlags::SHARED).expect("the mount is ours");
        Self(folder)
    }

    fn is_mounted(lab: &Lab) -> bool {
        let folder = format!(" {} bpf ", bpffs(lab).display());
        fs::read_to_string("/proc/self/mounts").expect("procfs is mounted").contains(&folder)
    }

    /// Where agents keep their programs in it.
    pub fn pins(&self) -> PathBuf {
        self.0.join("rosentry")
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        // The containers that have it may be there yet.
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// The archive that `ROSENTRY_IMAGE` names, of `cargo xtask image`; else one that is made of this test's program.
fn import(lab: &Lab) {
    match std::env::var_os("ROSENTRY_IMAGE") {
        Some(path) => {
            lab.containerd.import(&fs::read(path).expect("the image can be read"));
            lab.containerd.tag(concat!("ghcr.io/rosentry/rosentry:", env!("CARGO_PKG_VERSION")), IMAGE);
        }
        None => lab.containerd.import(&agent_image(IMAGE, Path::new(super::agent::PROGRAM)).archive),
    }
}

/// The ConfigMap's file, with an address that is free on this machine, in a folder as the kubelet makes one.
fn settings(pod: &Path, metrics: SocketAddr) -> PathBuf {
    let folder = pod.join("config");
    fs::create_dir_all(&folder).expect("the folder is made");
    for (name, content) in manifest("configmap")["data"].as_object().expect("the ConfigMap has files") {
        let content = text(content).replace("0.0.0.0:9465", &metrics.to_string());
        fs::write(folder.join(name), content).expect("the file is written");
    }
    folder
}

/// An object that `kubectl apply -k` would apply.
fn manifest(name: &str) -> Value {
    let path = deploy().join(format!("kustomize/{name}.yaml"));
    let text = fs::read_to_string(&path).expect("the manifest is there");
    serde_saphyr::from_str(&text).expect("the manifest is YAML")
}

fn environment(lab: &Lab, container: &Value) -> Vec<KeyValue> {
    let variables = container["env"].as_array().expect("the agent has an environment").iter();
    let value = |variable: &Value| match variable["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
        Some("spec.nodeName") => NODE.to_owned(),
        Some(other) => panic!("the lab knows no {other}"),
        None if variable["name"] == "ROSENTRY_PIN" && !Bpffs::is_mounted(lab) => "off".to_owned(),
        None => text(&variable["value"]),
    };
    variables.map(|variable| KeyValue { key: text(&variable["name"]), value: value(variable) }).collect()
}

fn mounts(lab: &Lab, spec: &Value, container: &Value, settings: &Path) -> Vec<Mount> {
    let volumes = spec["volumes"].as_array().expect("the pod has volumes");
    let mounts = container["volumeMounts"].as_array().expect("the agent has mounts").iter();
    let host_path = |name: &Value| {
        let volume = volumes.iter().find(|volume| volume["name"] == *name).expect("a mount is of a volume");
        match volume["hostPath"]["path"].as_str() {
            // The lab's containerd has its socket, and the mounts of its containers, in its own folder.
            Some("/run/containerd") => lab.containerd.path("").display().to_string(),
            Some("/sys/fs/bpf/rosentry") => {
                let folder = bpffs(lab).join("rosentry");
                fs::create_dir_all(&folder).expect("the folder is made");
                folder.display().to_string()
            }
            Some(path) => path.to_owned(),
            None if volume["configMap"]["name"].is_string() => settings.display().to_string(),
            None => panic!("the lab knows no volume like {volume}"),
        }
    };
    let propagation = |mount: &Value| match mount["mountPropagation"].as_str() {
        Some("HostToContainer") => MountPropagation::PropagationHostToContainer,
        Some(other) => panic!("the lab knows no {other}"),
        None => MountPropagation::PropagationPrivate,
    };
    mounts
        .map(|mount| Mount {
            host_path: host_path(&mount["name"]),
            container_path: text(&mount["mountPath"]),
            readonly: mount["readOnly"] == true,
            propagation: propagation(mount).into(),
            ..Mount::default()
        })
        .collect()
}

fn security_context(
    spec: &Value,
    container: &Value,
    namespaces: NamespaceOption,
    capabilities: Vec<String>,
) -> LinuxContainerSecurityContext {
    let context = &container["securityContext"];
    let id = |id: &Value| id.as_i64().map(|value| Int64Value { value });
    LinuxContainerSecurityContext {
        capabilities: Some(Capability {
            add_capabilities: capabilities,
            drop_capabilities: texts(&context["capabilities"]["drop"]),
            ..Capability::default()
        }),
        privileged: context["privileged"] == true,
        namespace_options: Some(namespaces),
        run_as_user: id(&context["runAsUser"]),
        run_as_group: id(&context["runAsGroup"]),
        readonly_rootfs: context["readOnlyRootFilesystem"] == true,
        no_new_privs: context["allowPrivilegeEscalation"] == false,
        masked_paths: MASKED.map(str::to_owned).to_vec(),
        readonly_paths: READ_ONLY.map(str::to_owned).to_vec(),
        seccomp: seccomp(spec),
        ..LinuxContainerSecurityContext::default()
    }
}

fn seccomp(spec: &Value) -> Option<SecurityProfile> {
    let profile_type = match spec["securityContext"]["seccompProfile"]["type"].as_str() {
        Some("RuntimeDefault") => ProfileType::RuntimeDefault,
        other => panic!("the lab knows no seccomp profile {other:?}"),
    };
    Some(SecurityProfile { profile_type: profile_type.into(), localhost_ref: String::new() })
}

/// `256Mi`.
fn bytes(quantity: &Value) -> i64 {
    let quantity = text(quantity);
    let mebibytes = quantity.strip_suffix("Mi").and_then(|number| number.parse::<i64>().ok());
    mebibytes.unwrap_or_else(|| panic!("{quantity} is no number of mebibytes")) << 20
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().expect("a list").iter().map(text).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("a text: {value}")).to_owned()
}
