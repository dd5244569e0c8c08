//! What reads containerd's answers and the node's files, for [`crate::fuzzing`].

use std::sync::Arc;

use containerd_client::{events, services::v1::Container as ContainerRecord, types::Envelope};
use prost::Message as _;
use prost_types::Any;

use super::{
    cgroup_path, cri, hierarchy, node,
    record::Draft,
    spec::{MAX_MOUNTS, Spec},
    watch,
};
use crate::{
    finding::{Sighting, assess, testing::attempt},
    fuzzing::{CLOCK, tell},
};

const SPEC: &[u8] = include_bytes!("../fuzzing/seeds/oci-spec.json");
const CONTAINER: &[u8] = br#"{"Version":"v1","Metadata":{"SandboxID":"dd6b","ImageRef":"sha256:b713","Config":{"metadata":{"name":"app"},"image":{"image":"sha256:b713"},"linux":{"security_context":{"privileged":true}}}}}"#;
const SANDBOX: &[u8] = br#"{"Version":"v1","Metadata":{"Config":{"metadata":{"name":"web-7d4b9c6f5-x2x7p","uid":"0aa1","namespace":"prod"},"labels":{"app":"web","pod-template-hash":"7d4b9c6f5"}}}}"#;

/// Reads an OCI spec.
pub(crate) fn spec(json: &[u8]) -> bool {
    let spec = Spec::parse(json);
    if let Ok(spec) = &spec {
        assert!(spec.mounts.len() <= 2 * MAX_MOUNTS);
        spec.is_unconfined(u64::MAX);
    }
    spec.is_ok()
}

/// Specs as containerd has them.
pub(crate) fn specs() -> Vec<Vec<u8>> {
    vec![SPEC.to_vec(), br#"{"root":{"readonly":true},"mounts":[{"destination":"/x"}]}"#.to_vec()]
}

/// Reads a container's record, and tells a refused write in it.
pub(crate) fn container_record(bytes: &[u8]) -> bool {
    let Ok(record) = ContainerRecord::decode(bytes) else { return false };
    let Draft { container, defect, .. } = Draft::read(record, &"k8s.io".into(), u64::MAX);
    assert!(defect.is_none() || container.readonly_rootfs.is_none(), "nothing is guessed");
    let container = Arc::new(container);
    let attempt = attempt("mkdir").path("/data/x");
    let (container, cgroup_path) = (Some(&container), None);
    tell(&assess(&Sighting { attempt: &attempt, container, cgroup_path, resolved: [None, None], clock: CLOCK }));
    true
}

/// Records of a container and of a sandbox.
pub(crate) fn container_records() -> Vec<Vec<u8>> {
    let any = |json: &[u8]| Any { type_url: String::new(), value: json.to_vec() };
    let container = ContainerRecord {
        id: "d59f".to_owned(),
        image: "docker.io/library/nginx:1".to_owned(),
        labels: [("io.cri-containerd.kind".to_owned(), "container".to_owned())].into(),
        spec: Some(any(SPEC)),
        extensions: [(cri::CONTAINER_EXTENSION.to_owned(), any(CONTAINER))].into(),
        ..ContainerRecord::default()
    };
    let sandbox = ContainerRecord {
        id: "dd6b".to_owned(),
        extensions: [(cri::SANDBOX_EXTENSION.to_owned(), any(SANDBOX))].into(),
        ..ContainerRecord::default()
    };
    vec![container.encode_to_vec(), sandbox.encode_to_vec()]
}

/// Follows events, each with its length before it.
pub(crate) fn events(mut bytes: &[u8]) -> bool {
    let mut envelopes = Vec::new();
    while !bytes.is_empty() {
        // The length itself may be wrong.
        let Ok(envelope) = Envelope::decode_length_delimited(&mut bytes) else { break };
        envelopes.push(envelope);
    }
    watch::harness::follow(envelopes) == 0 && bytes.is_empty()
}

/// The life of a container, as containerd tells it.
pub(crate) fn event_streams() -> Vec<Vec<u8>> {
    let id = || "d59f4cbaa8e5b45cd84044bf27b5eb6e96dab10745bdc3e1cd4f2bd48cf721f5".to_owned();
    let life = [
        ("/containers/create", events::ContainerCreate { id: id(), ..Default::default() }.encode_to_vec()),
        ("/tasks/create", events::TaskCreate { container_id: id(), pid: 1, ..Default::default() }.encode_to_vec()),
        ("/tasks/start", events::TaskStart { container_id: id(), pid: 1 }.encode_to_vec()),
        ("/containers/update", events::ContainerUpdate { id: id(), ..Default::default() }.encode_to_vec()),
        ("/tasks/exit", events::TaskExit { container_id: id(), id: id(), ..Default::default() }.encode_to_vec()),
        ("/tasks/delete", events::TaskDelete { container_id: id(), ..Default::default() }.encode_to_vec()),
        ("/containers/delete", events::ContainerDelete { id: id() }.encode_to_vec()),
        ("/images/update", Vec::new()),
    ];
    let streams = ["k8s.io", "moby"].map(|namespace| {
        life.iter()
            .flat_map(|(topic, value)| {
                let event = Some(Any { type_url: String::new(), value: value.clone() });
                let timestamp = Some(prost_types::Timestamp { seconds: 1_767_323_045, nanos: 7 });
                Envelope { timestamp, namespace: namespace.to_owned(), topic: (*topic).to_owned(), event }
                    .encode_length_delimited_to_vec()
            })
            .collect()
    });
    streams.into()
}

/// Reads what the node's files say of cgroups, mounts and capabilities.
pub(crate) fn node(text: &str) -> bool {
    for mount in hierarchy::cgroup2_mounts(text) {
        assert!(mount.as_os_str().len() < text.len());
    }
    for ancestor in cgroup_path::ancestors(text) {
        assert!(text.starts_with(ancestor.path));
        assert!(cgroup_path::id_in(ancestor.name).is_none_or(cgroup_path::is_id));
        cgroup_path::name_below_namespace(ancestor, &["default"]);
    }
    if let Some(path) = cgroup_path::from_spec(text) {
        assert!(!path.is_empty() && !path.ends_with('/'), "{path}");
    }
    node::bounding_set(text).is_some() || cgroup_path::ancestors(text).next().is_some()
}
