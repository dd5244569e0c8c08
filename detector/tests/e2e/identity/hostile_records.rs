//! Records that someone with access to containerd may have made to do harm, and very many ordinary ones.

use std::fs;

use containerd_client::services::v1::{
    Container as Record, CreateContainerRequest, GetContainerRequest, UpdateContainerRequest, container::Runtime,
    containers_client::ContainersClient,
};
use detector::identity::Lookup;
use prost_types::{Any, FieldMask};
use tonic::{
    Code, Request,
    transport::{Channel, Endpoint},
};

use crate::{
    identity::node::{DEADLINE, becomes_synced, container, settled, start, synced},
    support::{Lab, patiently, pod::idle},
};

const MEBIBYTE: usize = 1 << 20;

/// containerd's own client, as any program with access to the socket may use it.
struct Store {
    containers: ContainersClient<Channel>,
}

impl Store {
    async fn of(lab: &Lab) -> Self {
        let uri = format!("unix://{}", lab.containerd.socket().display());
        let channel = Endpoint::from_shared(uri).unwrap().connect().await.unwrap();
        let containers = ContainersClient::new(channel).max_decoding_message_size(64 * MEBIBYTE);
        Self { containers }
    }

    async fn create(&mut self, namespace: &str, container: Record) {
        let request = CreateContainerRequest { container: Some(container) };
        self.containers.create(of(namespace, request)).await.expect("containerd takes the record");
    }

    async fn get(&mut self, namespace: &str, id: &str) -> Record {
        let request = of(namespace, GetContainerRequest { id: id.to_owned() });
        self.containers.get(request).await.unwrap().into_inner().container.unwrap()
    }
}

fn of<T>(namespace: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("containerd-namespace", namespace.parse().unwrap());
    request
}

fn record(id: &str, spec: Vec<u8>) -> Record {
    Record {
        id: id.to_owned(),
        runtime: Some(Runtime { name: "io.containerd.runc.v2".to_owned(), options: None }),
        spec: Some(any(spec)),
        ..Record::default()
    }
}

fn any(value: Vec<u8>) -> Any {
    Any { type_url: "types.containerd.io/opencontainers/runtime-spec/1/Spec".to_owned(), value }
}

#[tokio::test]
async fn specs_that_are_none_leave_the_container_known_and_its_seal_unknown() {
    let lab = Lab::start().await;
    let identity = synced(&lab).await;
    let mut store = Store::of(&lab).await;
    let specs =
        [("text", b"not json".to_vec()), ("large", vec![b' '; 5 * MEBIBYTE]), ("types", br#"{"root":7}"#.to_vec())];
    for (number, (id, spec)) in specs.into_iter().enumerate() {
        store.create("default", record(id, spec)).await;
        let cgroup_id = u64::MAX - number as u64;
        identity.cgroup_created(cgroup_id, &format!("/default/{id}"));
        let known = container(&identity, cgroup_id).await;
        assert_eq!((known.id.as_str(), known.readonly_rootfs, known.mounts.len()), (id, None, 0));
    }
    // One that is asked for while an event tells of it may be read twice.
    assert!(identity.status().counts.specs_malformed >= 3);

    // They are no hindrance to one who lists them either.
    let second = synced(&lab).await;
    assert_eq!(second.status().counts.containers, 3);
}

#[tokio::test]
async fn records_too_large_for_any_message_hide_no_other() {
    let lab = Lab::start().await;
    let pod = lab.pod("prod", "web").await;
    let app = pod.start_container(idle()).await;
    let mut store = Store::of(&lab).await;
    // One is more than rosentry takes. The other is more than containerd sends: it takes 16 MiB at a time, so the record is
    // made in two steps. They are first in the list.
    let (large, larger) = ("1".repeat(64), "0".repeat(64));
    for id in [&large, &larger] {
        store.create("k8s.io", record(id, vec![b' '; 10 * MEBIBYTE])).await;
    }
    let more = Record {
        id: larger.clone(),
        extensions: [("harm".to_owned(), any(vec![0; 10 * MEBIBYTE]))].into(),
        ..Record::default()
    };
    let update_mask = Some(FieldMask { paths: vec!["extensions.harm".to_owned()] });
    let request = UpdateContainerRequest { container: Some(more), update_mask };
    // It takes this, and then can't answer with what it has got.
    let status = store.containers.update(of("k8s.io", request)).await.expect_err("the answer is too large");
    assert_eq!(status.code(), Code::ResourceExhausted);

    let identity = start(&lab.containerd.socket());
    becomes_synced(&identity).await;
    assert!(identity.status().counts.records_refused > 0);
    let path = format!("/{}/besteffort/pod{}/{}", lab.containerd.cgroup(), pod.uid, app.id);
    identity.cgroup_created(u64::MAX, &path);
    assert_eq!(container(&identity, u64::MAX).await.name.as_deref(), Some("app"));
    for (cgroup_id, id) in [(1, large), (2, larger)] {
        identity.cgroup_created(u64::MAX - cgroup_id, &format!("/kubepods/{id}"));
        assert!(matches!(settled(&identity, u64::MAX - cgroup_id).await, Lookup::Foreign { .. }));
    }
    assert!(identity.status().up);
}

#[tokio::test]
async fn a_node_full_of_pods_takes_little_memory() {
    const PODS: usize = 250;
    let lab = Lab::start().await;
    let pod = lab.pod("prod", "web").await;
    let app = pod.start_container(idle()).await;
    let mut store = Store::of(&lab).await;
    let container = store.get("k8s.io", &app.id).await;
    for number in 0..2 * PODS {
        let copy = Record {
            id: format!("{number:064x}"),
            snapshotter: String::new(),
            snapshot_key: String::new(),
            ..container.clone()
        };
        store.create("k8s.io", copy).await;
    }
    drop(store);

    let before = resident_kib();
    let identity = synced(&lab).await;
    patiently(DEADLINE, "all are known", async || identity.status().counts.containers > 2 * PODS as u64).await;
    let grown = resident_kib().saturating_sub(before);
    println!("{} containers take {grown} KiB", identity.status().counts.containers);
    assert!(grown < 12 * 1024, "{grown} KiB");
}

fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
