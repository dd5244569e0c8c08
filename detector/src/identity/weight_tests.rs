//! What is held of a pod.

use std::{collections::HashMap, sync::Arc};

use containerd_client::services::v1::Container as ContainerRecord;
use prost_types::Any;
use serde_json::{Value, json};

use super::{
    cgroups::Cgroups,
    cri::{CONTAINER_EXTENSION, SANDBOX_EXTENSION},
    images::ImageName,
    mounts::Mounts,
    record::Draft,
    registry::{First, Key, Loaded, Paths, Registry},
};
use crate::counting_allocator::held;

/// Of a pod with its sandbox and one container, each with its mounts, their cgroups included.
const MOST_BYTES: usize = 4600;
const PODS: usize = 500;

fn any(json: &Value) -> Option<Any> {
    Some(Any { type_url: String::new(), value: json.to_string().into_bytes() })
}

/// What containerd 1.6 puts into every container, and what is a container's own.
fn spec(uid: &str, id: &str, binds: &[(&str, String)]) -> Value {
    let mounts = [
        ("/proc", "proc", "proc"),
        ("/dev", "tmpfs", "tmpfs"),
        ("/dev/pts", "devpts", "devpts"),
        ("/dev/mqueue", "mqueue", "mqueue"),
        ("/sys", "sysfs", "sysfs"),
        ("/sys/fs/cgroup", "cgroup", "cgroup"),
    ];
    let mounts = mounts.map(|(point, fstype, source)| json!({"destination": point, "type": fstype, "source": source}));
    let bind = |(point, source): &(&str, String)| json!({"destination": point, "type": "bind", "source": source, "options": ["rbind", "ro"]});
    let paths = ["/proc/asound", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
    json!({
        "root": {"path": "rootfs", "readonly": true},
        "mounts": mounts.into_iter().chain(binds.iter().map(bind)).collect::<Vec<_>>(),
        "linux": {"cgroupsPath": format!("/kubepods/burstable/pod{uid}/{id}"), "readonlyPaths": paths},
        "annotations": {"io.kubernetes.cri.sandbox-uid": uid},
    })
}

/// The sandbox and the container of a pod, as containerd has them.
fn records(number: usize) -> [ContainerRecord; 2] {
    let uid = format!("{number:08x}-1111-2222-3333-444455556666");
    let name = format!("web-7d4b9c6f5-{number:05}");
    let [sandbox, app] = ["5a", "c0"].map(|kind| format!("{kind}{number:062x}"));
    let pod = format!("/var/lib/kubelet/pods/{uid}");
    let files = format!("/var/lib/containerd/io.containerd.grpc.v1.cri/sandboxes/{sandbox}");
    let of_sandbox = [("/etc/resolv.conf", format!("{files}/resolv.conf")), ("/dev/shm", format!("{files}/shm"))];
    let of_app = [
        ("/etc/hosts", format!("{pod}/etc-hosts")),
        ("/dev/termination-log", format!("{pod}/containers/app/0b1c2d3e")),
        ("/etc/hostname", format!("{files}/hostname")),
        ("/tmp", format!("{pod}/volumes/kubernetes.io~empty-dir/tmp")),
        ("/etc/app", format!("{pod}/volumes/kubernetes.io~configmap/settings")),
        (
            "/var/run/secrets/kubernetes.io/serviceaccount",
            format!("{pod}/volumes/kubernetes.io~projected/kube-api-access-{number:05}"),
        ),
    ];
    let labels = json!({"app": "web", "pod-template-hash": "7d4b9c6f5", "app.kubernetes.io/part-of": "shop"});
    let request = json!({"Version": "v1", "Metadata": {"Config": {
        "metadata": {"name": name, "uid": uid, "namespace": "prod"}, "labels": labels}}});
    let of_cri = json!({"Version": "v1", "Metadata": {"SandboxID": sandbox, "Config": {"metadata": {"name": "app"}}}});
    let binds: Vec<_> = of_sandbox.clone().into_iter().chain(of_app).collect();
    let record = |id: &str, binds: &[_], extension: &str, value: &Value| ContainerRecord {
        id: id.to_owned(),
        image: "docker.io/library/nginx:1".to_owned(),
        spec: any(&spec(&uid, id, binds)),
        extensions: any(value).map(|value| (extension.to_owned(), value)).into_iter().collect::<HashMap<_, _>>(),
        ..ContainerRecord::default()
    };
    [record(&sandbox, &of_sandbox, SANDBOX_EXTENSION, &request), record(&app, &binds, CONTAINER_EXTENSION, &of_cri)]
}

/// Takes a pod as the watcher does.
fn learn(number: usize, registry: &mut Registry, cgroups: &mut Cgroups, mounts: &mut Mounts, image: &ImageName) {
    let namespace: Arc<str> = "k8s.io".into();
    let mut pod = None;
    for (which, record) in records(number).into_iter().enumerate() {
        let mut draft = Draft::read(record, &namespace, 0);
        mounts.share(&mut draft.container.mounts);
        match &pod {
            None => pod.clone_from(&draft.container.pod),
            Some(pod) => draft.set_pod(Arc::clone(pod)),
        }
        let Draft { mut container, cgroup, defect, .. } = draft;
        assert!(defect.is_none() && container.mounts.len() >= 14 && container.pod.is_some());
        // As the node's images name it: both are shared with the other containers of the image.
        container.image.clone_from(&image.reference);
        container.image_digest.clone_from(&image.digest);
        let key = Key { namespace: Arc::clone(&namespace), id: container.id.as_str().into() };
        cgroups.created((3 * number + which) as u64, cgroup.as_deref().unwrap());
        registry.loaded(Loaded { key: key.clone(), container, cgroup });
        let first = First { pid: 1, start_time_ns: Some(1), started_at_unix_ns: Some(1) };
        registry.task_created(&key, first);
        // Who watches its seal holds it as it was.
        let watched = registry.running();
        registry.task_started(&key, first);
        drop(watched);
    }
    cgroups
        .created((3 * number + 2) as u64, &format!("/kubepods/burstable/pod{number:08x}-1111-2222-3333-444455556666"));
}

#[test]
fn a_pod_takes_a_few_kilobytes() {
    let before = held();
    let mut registry = Registry::new(vec!["k8s.io".into()], Paths::Whole);
    let (mut cgroups, mut mounts) = (Cgroups::new(8192), Mounts::default());
    let image = ImageName {
        reference: Some("docker.io/library/nginx:1".into()),
        digest: Some(format!("sha256:{}", "0".repeat(64)).into()),
    };
    for number in 0..PODS {
        learn(number, &mut registry, &mut cgroups, &mut mounts, &image);
    }
    assert_eq!(registry.len(), 2 * PODS);
    let by_pod = (held() - before) / PODS;
    println!("{by_pod} bytes by pod");
    assert!(by_pod < MOST_BYTES);
}
