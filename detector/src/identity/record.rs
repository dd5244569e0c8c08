//! From containerd's record of a container to rosentry's: its role, its seal, its mounts, its pod.
//!
//! Where the record says the same thing in several places, the CRI request goes first, then the annotations that CRI
//! writes into the spec, then the labels: an image can bring labels of its own.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use containerd_client::services::v1::Container as ContainerRecord;

use super::{
    cgroup_path,
    cri::{CONTAINER_EXTENSION, CriContainer, CriSandbox, SANDBOX_EXTENSION},
    images::ImageHints,
    model::{Container, Pod, Role, TaskState},
    spec::{Spec, SpecError},
    volumes, workload,
};

/// Labels of a pod beyond this many bytes in all are left out; the API server allows a pod far more.
const MAX_LABEL_BYTES: usize = 64 << 10;

/// Names of labels that CRI and the kubelet set.
mod label {
    pub const KIND: &str = "io.cri-containerd.kind";
    pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
    pub const POD_NAME: &str = "io.kubernetes.pod.name";
    pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
    pub const POD_UID: &str = "io.kubernetes.pod.uid";
    /// Labels that begin so are the runtime's or the kubelet's, not the pod's.
    pub const RUNTIME: [&str; 3] = ["io.kubernetes.", "io.cri-containerd.", "io.containerd."];
}

/// Names of annotations that CRI writes into the spec (containerd v1.6.20, `pkg/cri/annotations/annotations.go`).
mod annotation {
    pub const KIND: &str = "io.kubernetes.cri.container-type";
    pub const CONTAINER_NAME: &str = "io.kubernetes.cri.container-name";
    pub const IMAGE_NAME: &str = "io.kubernetes.cri.image-name";
    pub const SANDBOX_ID: &str = "io.kubernetes.cri.sandbox-id";
    pub const POD_NAME: &str = "io.kubernetes.cri.sandbox-name";
    pub const POD_NAMESPACE: &str = "io.kubernetes.cri.sandbox-namespace";
    pub const POD_UID: &str = "io.kubernetes.cri.sandbox-uid";
}

/// A container that was read from its record; what the record does not hold is to be asked for.
#[derive(Debug)]
pub(super) struct Draft {
    /// The container without its image's digest and its task. Its pod is complete if it is a sandbox; else it lacks the labels.
    pub container: Container,
    /// The sandbox that knows the pod's labels.
    pub sandbox_id: Option<Arc<str>>,
    /// Its cgroup's path in the hierarchy, as the runtime sees that, as far as the spec says.
    pub cgroup: Option<Arc<str>>,
    /// What is known of its image.
    pub image: ImageHints,
    /// Why the spec could not be read.
    pub defect: Option<SpecError>,
}

impl Draft {
    /// Reads a record of this namespace. `node_capabilities` are all that a process can have on this node, as a bit set.
    pub(super) fn read(record: ContainerRecord, runtime_namespace: &Arc<str>, node_capabilities: u64) -> Self {
        let ContainerRecord { id, labels, image, spec, mut extensions, sandbox, .. } = record;
        let cri_container =
            extensions.remove(CONTAINER_EXTENSION).and_then(|extension| CriContainer::parse(&extension.value));
        let cri_sandbox =
            extensions.remove(SANDBOX_EXTENSION).and_then(|extension| CriSandbox::parse(&extension.value));
        let (spec, defect) = match spec.map(|spec| Spec::parse(&spec.value)) {
            Some(Ok(spec)) => (Some(spec), None),
            Some(Err(error)) => (None, Some(error)),
            None => (None, None),
        };
        let tells = Tells { labels: &labels, annotations: spec.as_ref().map(|spec| &spec.annotations) };

        let role = match (&cri_container, &cri_sandbox) {
            (Some(_), _) => Role::Container,
            (None, Some(_)) => Role::Sandbox,
            (None, None) => match tells.first(annotation::KIND, label::KIND) {
                Some("container") => Role::Container,
                Some("sandbox") => Role::Sandbox,
                _ => Role::Plain,
            },
        };
        let privileged = match (&cri_container, &cri_sandbox) {
            (Some(container), _) => Some(container.privileged),
            (None, Some(sandbox)) => Some(sandbox.privileged),
            (None, None) => spec.as_ref().map(|spec| spec.is_unconfined(node_capabilities)),
        };
        let name = match role {
            Role::Container => cri_container
                .as_ref()
                .and_then(|container| container.name.clone())
                .or_else(|| tells.first(annotation::CONTAINER_NAME, label::CONTAINER_NAME).map(str::to_owned)),
            Role::Sandbox | Role::Plain => None,
        };
        let sandbox_id = match role {
            Role::Container => cri_container
                .as_ref()
                .and_then(|container| container.sandbox_id.as_deref())
                .or_else(|| tells.annotation(annotation::SANDBOX_ID))
                // Since containerd 1.7.
                .or_else(|| Some(sandbox.as_str()).filter(|id| !id.is_empty()))
                .map(Arc::from),
            Role::Sandbox | Role::Plain => None,
        };
        let image = image_hints(image, cri_container.as_ref(), &tells);
        let pod = match (role, cri_sandbox) {
            (Role::Plain, _) => None,
            (_, Some(sandbox)) => Some(pod_of_request(sandbox)),
            (_, None) => tells.pod(role),
        };
        let (readonly_rootfs, mounts, cgroups_path) = match spec {
            Some(Spec { readonly_rootfs, mounts, cgroups_path, .. }) => (readonly_rootfs, mounts, cgroups_path),
            None => (None, Vec::new(), None),
        };
        let mut container = Container {
            id,
            runtime_namespace: Arc::clone(runtime_namespace),
            role,
            name,
            image: None,
            image_digest: None,
            readonly_rootfs,
            privileged,
            task: TaskState::Unseen,
            started_at_unix_ns: None,
            init_pid: None,
            init_start_time_ns: None,
            mounts: mounts.into_iter().map(Arc::new).collect(),
            pod: pod.map(Arc::new),
            sandbox_id: sandbox_id.clone(),
        };
        let sources = sources(&container);
        name_volumes(&mut container, sources);
        let cgroup = cgroups_path.as_deref().and_then(cgroup_path::from_spec).map(Arc::from);
        Self { container, sandbox_id, cgroup, image, defect }
    }

    /// Takes the pod as its sandbox knows it.
    pub(super) fn set_pod(&mut self, pod: Arc<Pod>) {
        let sources = sources(&self.container);
        self.container.pod = Some(pod);
        name_volumes(&mut self.container, sources);
    }
}

/// The two places, besides the CRI request, that may tell of a pod.
struct Tells<'a> {
    labels: &'a HashMap<String, String>,
    annotations: Option<&'a HashMap<String, String>>,
}

impl<'a> Tells<'a> {
    fn annotation(&self, name: &str) -> Option<&'a str> {
        self.annotations?.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn first(&self, annotation: &str, label: &str) -> Option<&'a str> {
        let label = || self.labels.get(label).map(String::as_str).filter(|value| !value.is_empty());
        self.annotation(annotation).or_else(label)
    }

    fn pod(&self, role: Role) -> Option<Pod> {
        // The labels of a container that is no sandbox are the container's, not the pod's.
        let labels = if role == Role::Sandbox { pod_labels(self.labels.clone()) } else { BTreeMap::new() };
        let name = self.first(annotation::POD_NAME, label::POD_NAME)?.to_owned();
        Some(Pod {
            namespace: self.first(annotation::POD_NAMESPACE, label::POD_NAMESPACE)?.to_owned(),
            uid: self.first(annotation::POD_UID, label::POD_UID).unwrap_or_default().to_owned(),
            workload: workload::workload(&name, &labels),
            name,
            labels: kept(labels),
        })
    }
}

fn pod_of_request(sandbox: CriSandbox) -> Pod {
    let CriSandbox { name, namespace, uid, labels, privileged: _ } = sandbox;
    let labels = pod_labels(labels);
    Pod { workload: workload::workload(&name, &labels), namespace, name, uid, labels: kept(labels) }
}

/// The pod's own labels, in the order of their names, as many as there is room for.
fn pod_labels(labels: impl IntoIterator<Item = (String, String)>) -> BTreeMap<String, String> {
    let all: BTreeMap<String, String> =
        labels.into_iter().filter(|(name, _)| !label::RUNTIME.iter().any(|prefix| name.starts_with(prefix))).collect();
    let mut bytes = 0;
    all.into_iter()
        .take_while(|(name, value)| {
            bytes += name.len() + value.len();
            bytes <= MAX_LABEL_BYTES
        })
        .collect()
}

/// As they are kept: a tree of three takes as much room as one of eleven.
fn kept(labels: BTreeMap<String, String>) -> Box<[(Box<str>, Box<str>)]> {
    labels.into_iter().map(|(name, value)| (name.into(), value.into())).collect()
}

fn image_hints(recorded: String, cri: Option<&CriContainer>, tells: &Tells<'_>) -> ImageHints {
    let others = [
        tells.annotation(annotation::IMAGE_NAME),
        cri.and_then(|container| container.image_in_pod_spec.as_deref()),
        cri.and_then(|container| container.image.as_deref()),
    ];
    ImageHints {
        config_digest: cri.and_then(|container| container.image_config_digest.clone()),
        recorded: Some(recorded).filter(|name| !name.is_empty()),
        others: others.into_iter().flatten().map(str::to_owned).collect(),
    }
}

/// The paths on the node that its mounts come from, in their order.
fn sources(container: &Container) -> Vec<Option<String>> {
    container.mounts.iter().map(|mount| container.source_of(mount)).collect()
}

/// Names the volumes for the pod that the container has now, given where its mounts come from.
fn name_volumes(container: &mut Container, sources: Vec<Option<String>>) {
    let mut mounts = std::mem::take(&mut container.mounts);
    let uid = container.pod.as_ref().map(|pod| pod.uid.as_str()).filter(|uid| !uid.is_empty());
    for (mount, path) in mounts.iter_mut().zip(sources) {
        let is_bind = mount.fstype.as_deref() == Some("bind");
        let volume = path.as_deref().filter(|_| is_bind).and_then(|path| volumes::volume(path, uid));
        let source = path.as_deref().map(|path| container.keep_source(path));
        if mount.volume != volume || mount.source != source {
            let mount = Arc::make_mut(mount);
            (mount.volume, mount.source) = (volume, source);
        }
    }
    container.mounts = mounts;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost_types::Any;

    use super::*;

    const UID: &str = "0aa11122-1111-2222-3333-444455556666";

    fn any(json: &str) -> Any {
        Any { type_url: String::new(), value: json.as_bytes().to_vec() }
    }

    fn map(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    /// As Debian's containerd 1.6.20 keeps it, shortened.
    fn cri_container() -> ContainerRecord {
        ContainerRecord {
            id: "d59f".into(),
            image: "localhost/lab:1".into(),
            labels: map(&[
                ("img", "label"),
                ("io.cri-containerd.kind", "container"),
                ("io.kubernetes.pod.name", "forged"),
            ]),
            spec: Some(any(&format!(
                r#"{{"root":{{"readonly":true}},
                "mounts":[{{"destination":"/conf","type":"bind","options":["rbind","ro"],
                  "source":"/var/lib/kubelet/pods/{UID}/volumes/kubernetes.io~configmap/conf"}}],
                "annotations":{{"io.kubernetes.cri.container-name":"app","io.kubernetes.cri.container-type":"container",
                  "io.kubernetes.cri.image-name":"localhost/lab:1","io.kubernetes.cri.sandbox-id":"dd6b",
                  "io.kubernetes.cri.sandbox-name":"web-7d4b9c6f5-x2x7p","io.kubernetes.cri.sandbox-namespace":"prod",
                  "io.kubernetes.cri.sandbox-uid":"{UID}"}},
                "linux":{{"cgroupsPath":"/kubepods/burstable/pod{UID}/d59f"}}}}"#
            ))),
            extensions: [(
                CONTAINER_EXTENSION.to_owned(),
                any(r#"{"Version":"v1","Metadata":{"SandboxID":"dd6b","ImageRef":"sha256:b713",
                    "Config":{"metadata":{"name":"app"},"image":{"image":"sha256:b713"},
                    "linux":{"security_context":{"privileged":true}}}}}"#),
            )]
            .into(),
            ..ContainerRecord::default()
        }
    }

    #[test]
    fn a_container_of_a_pod_is_read() {
        let Draft { container, sandbox_id, cgroup, image, defect } = Draft::read(cri_container(), &"k8s.io".into(), 0);
        assert!(defect.is_none());
        assert_eq!(sandbox_id.as_deref(), Some("dd6b"));
        assert_eq!(cgroup.as_deref(), Some(&*format!("/kubepods/burstable/pod{UID}/d59f")));
        assert_eq!(
            image,
            ImageHints {
                config_digest: Some("sha256:b713".into()),
                recorded: Some("localhost/lab:1".into()),
                others: vec!["localhost/lab:1".into(), "sha256:b713".into()],
            }
        );
        assert_eq!(
            (container.id.as_str(), container.role, container.name.as_deref()),
            ("d59f", Role::Container, Some("app"))
        );
        assert_eq!((container.readonly_rootfs, container.privileged), (Some(true), Some(true)));
        let volume = container.mounts[0].volume.as_ref().unwrap();
        assert_eq!((volume.kind.as_str(), volume.name.as_str()), ("configmap", "conf"));
        let pod = container.pod.unwrap();
        assert_eq!((&*pod.namespace, &*pod.name, &*pod.uid), ("prod", "web-7d4b9c6f5-x2x7p", UID));
        assert!(pod.labels.is_empty(), "a container's labels are not its pod's");
    }

    #[test]
    fn a_sandbox_has_the_pod_s_labels_and_none_of_its_image() {
        let record = ContainerRecord {
            id: "dd6b".into(),
            labels: map(&[("img", "label"), ("app", "web")]),
            extensions: [(
                SANDBOX_EXTENSION.to_owned(),
                any(&format!(
                    r#"{{"Version":"v1","Metadata":{{"Config":{{"metadata":{{"name":"web-7d4b9c6f5-x2x7p","uid":"{UID}",
                    "namespace":"prod"}},"labels":{{"app":"web","pod-template-hash":"7d4b9c6f5",
                    "io.kubernetes.pod.name":"web-7d4b9c6f5-x2x7p"}}}}}}}}"#
                )),
            )]
            .into(),
            ..ContainerRecord::default()
        };
        let container = Draft::read(record, &"k8s.io".into(), 0).container;
        assert_eq!((container.role, &container.name), (Role::Sandbox, &None));
        let pod = container.pod.unwrap();
        assert_eq!(pod.workload, "web");
        assert_eq!(pod.labels.iter().map(|(name, _)| &**name).collect::<Vec<_>>(), ["app", "pod-template-hash"]);
    }

    #[test]
    fn labels_alone_name_the_pod_where_there_is_nothing_better() {
        let record = ContainerRecord {
            labels: map(&[
                (label::KIND, "container"),
                (label::CONTAINER_NAME, "app"),
                (label::POD_NAME, "web"),
                (label::POD_NAMESPACE, "prod"),
                (label::POD_UID, UID),
            ]),
            ..ContainerRecord::default()
        };
        let container = Draft::read(record, &"k8s.io".into(), 0).container;
        assert_eq!((container.role, container.name.as_deref()), (Role::Container, Some("app")));
        assert_eq!(container.readonly_rootfs, None);
        assert_eq!(container.pod.unwrap().uid, UID);
    }

    #[test]
    fn a_container_of_no_pod_stays_without_one() {
        let record = ContainerRecord {
            id: "job".into(),
            labels: map(&[(label::POD_NAME, "forged"), (label::POD_NAMESPACE, "prod")]),
            spec: Some(any(r#"{"root":{},"linux":{"cgroupsPath":"/default/job"}}"#)),
            ..ContainerRecord::default()
        };
        let Draft { container, cgroup, .. } = Draft::read(record, &"default".into(), 1);
        assert_eq!((container.role, container.pod.is_none()), (Role::Plain, true));
        assert_eq!((container.readonly_rootfs, container.privileged), (Some(false), Some(false)));
        assert_eq!(cgroup.as_deref(), Some("/default/job"));
    }

    #[test]
    fn a_spec_that_can_t_be_read_leaves_the_pod_known_and_the_seal_unknown() {
        let record = ContainerRecord { spec: Some(any("not json")), ..cri_container() };
        let Draft { container, defect, sandbox_id, .. } = Draft::read(record, &"k8s.io".into(), 0);
        assert!(defect.is_some());
        assert_eq!((container.readonly_rootfs, container.mounts.len()), (None, 0));
        assert_eq!((container.name.as_deref(), sandbox_id.as_deref()), (Some("app"), Some("dd6b")));
    }

    #[test]
    fn labels_beyond_measure_are_cut() {
        let labels = pod_labels((0..10_000).map(|number| (format!("label-{number}"), "v".repeat(100))));
        assert!(!labels.is_empty());
        assert!(labels.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() <= MAX_LABEL_BYTES);
    }

    proptest! {
        #[test]
        fn no_record_crashes_the_reader(
            id in "\\PC{0,80}",
            labels in proptest::collection::hash_map("(io\\.kubernetes\\.pod\\.(name|namespace)|io\\.cri-containerd\\.kind|\\PC{0,9})", "(container|sandbox|\\PC{0,9})", 0..6),
            spec in proptest::option::of("(\\{\"root\":\\{\"readonly\":(true|false|1)\\}\\}|\\PC{0,40})"),
            extension in "\\PC{0,40}",
        ) {
            let record = ContainerRecord {
                id,
                labels,
                spec: spec.as_deref().map(any),
                extensions: [(CONTAINER_EXTENSION.to_owned(), any(&extension))].into(),
                ..ContainerRecord::default()
            };
            let draft = Draft::read(record, &"k8s.io".into(), u64::MAX);
            prop_assert!(draft.defect.is_none() || draft.container.readonly_rootfs.is_none());
        }
    }
}
