//! What is known of a container and its pod.

use std::{fs, sync::Arc, time::Instant};

use detector::identity::{
    Lookup,
    model::{Role, TaskState},
};

use crate::{
    identity::node::{DEADLINE, becomes_synced, cgroup_id, container, import, run, settled, start, synced},
    support::{
        Lab,
        containerd::NAMESPACE,
        image::{IMAGE, image},
        patiently,
        pod::{idle, writable},
    },
};

#[tokio::test]
async fn a_container_of_a_pod_is_known_with_all_that_events_tell_of_it() {
    let lab = Lab::start().await;
    let identity = synced(&lab).await;
    let pod = lab.pod("prod", "web").await;
    let volume = lab.containerd.path("data");
    fs::create_dir(&volume).unwrap();
    let app = pod.start_container(idle().with_volume(&volume, "/data")).await;
    let path = format!("/{}/besteffort/pod{}/{}", lab.containerd.cgroup(), pod.uid, app.id);
    let id = cgroup_id(&path);

    let start = Instant::now();
    let known = container(&identity, id).await;
    println!("known {:?} after the first question", start.elapsed());

    assert_eq!((known.id.as_str(), &*known.runtime_namespace), (app.id.as_str(), NAMESPACE));
    assert_eq!((known.role, known.name.as_deref()), (Role::Container, Some("app")));
    assert_eq!(known.image.as_deref(), Some(IMAGE));
    assert_eq!(known.image_digest.as_deref(), Some(lab.containerd.image_digest().as_str()));
    assert_eq!(known.image_digest.as_deref(), Some(image().digest.as_str()));
    assert_eq!((known.readonly_rootfs, known.privileged), (Some(true), Some(false)));
    let data = known.mounts.iter().find(|mount| mount.destination == "/data").expect("the volume is a mount");
    let named = data.volume.as_ref().expect("a bind mount is a volume");
    assert_eq!((named.kind.as_str(), named.name.as_str()), ("host_path", volume.to_str().unwrap()));
    let hosts = known.mounts.iter().find(|mount| mount.destination == "/etc/hosts").expect("CRI mounts it");
    assert_eq!(hosts.volume.as_ref().unwrap().kind, "runtime");

    let of = known.pod.as_ref().expect("it is in a pod");
    assert_eq!((of.namespace.as_str(), of.name.as_str(), of.uid.as_str()), ("prod", "web", pod.uid.as_str()));
    assert_eq!(*of.labels, [("app".into(), "web".into())]);
    assert_eq!(of.workload, "web");

    patiently(DEADLINE, "the task is told", async || container(&identity, id).await.task == TaskState::Running).await;
    let known = container(&identity, id).await;
    let init = known.init_pid.expect("its first process is known");
    let cgroups = fs::read_to_string(format!("/proc/{init}/cgroup")).expect("the first process lives");
    assert!(cgroups.contains(&app.id), "{cgroups}");
    assert!(known.started_at_unix_ns.is_some());
    let running = identity.containers();
    assert_eq!(running.len(), 2, "the container and its sandbox: {running:#?}");
    let sandbox = running.iter().find(|container| container.role == Role::Sandbox).expect("a pod has a sandbox");
    assert!(Arc::ptr_eq(sandbox.pod.as_ref().unwrap(), of), "a pod is kept once");

    app.stop().await;
    patiently(DEADLINE, "the end is told", async || container(&identity, id).await.task == TaskState::Ended).await;
    assert_eq!(container(&identity, id).await.init_pid, Some(init), "it stays known for events that come late");
}

#[tokio::test]
async fn containers_that_ran_before_are_known_as_well_as_those_that_came_after() {
    let lab = Lab::start().await;
    let pod = lab.privileged_pod("prod", "web").await;
    let app = pod.start_container(writable(["sleep", "2147483647"]).privileged()).await;
    let started = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as i128;
    let id = cgroup_id(&format!("/{}/besteffort/pod{}/{}", lab.containerd.cgroup(), pod.uid, app.id));

    let identity = synced(&lab).await;

    let known = container(&identity, id).await;
    assert_eq!((known.readonly_rootfs, known.privileged), (Some(false), Some(true)));
    assert_eq!(known.task, TaskState::Running);
    assert!(known.init_pid.is_some());
    let off_ns = (started - known.started_at_unix_ns.expect("the process tells when it started")).abs();
    assert!(off_ns < 10_000_000_000, "{off_ns} ns off");
    assert_eq!(*known.pod.as_ref().unwrap().labels, [("app".into(), "web".into())]);
}

// ctr blocks the test's own thread.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_of_ctr_is_known_by_whatever_name_it_has_and_so_are_cgroups_below_it() {
    let lab = Lab::start().await;
    let identity = synced(&lab).await;
    import(&lab);
    let name = format!("job_{}", std::process::id());
    let cgroup = format!("/{}/own/place", lab.containerd.cgroup());
    run(&lab, &["--detach", "--read-only", "--privileged", "--cgroup", &cgroup], &[&name, "sleep", "2147483647"]);
    let nested = format!("{cgroup}/nested");
    let mounted = format!("/sys/fs/cgroup/unified{nested}");
    if fs::create_dir(&mounted).is_err() {
        fs::create_dir(format!("/sys/fs/cgroup{nested}")).unwrap();
    }

    for path in [&cgroup, &nested] {
        let known = container(&identity, cgroup_id(path)).await;
        assert_eq!((known.id.as_str(), &*known.runtime_namespace), (name.as_str(), "default"));
        assert_eq!((known.role, known.pod.is_none()), (Role::Plain, true));
        assert_eq!((known.readonly_rootfs, known.privileged), (Some(true), Some(true)));
        assert_eq!(known.image_digest.as_deref(), Some(image().digest.as_str()));
    }
    let host = settled(&identity, cgroup_id("/")).await;
    assert!(matches!(host, Lookup::Host { .. }), "{host:?}");
}

// ctr blocks the test's own thread.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_used_again_does_not_change_whose_the_former_cgroup_was() {
    let lab = Lab::start().await;
    let identity = synced(&lab).await;
    import(&lab);
    let cgroup = format!("/{}/again", lab.containerd.cgroup());
    let (first, second) = (u64::MAX, u64::MAX - 1);
    identity.cgroup_created(first, &cgroup);
    run(&lab, &["--rm", "--read-only", "--cgroup", &cgroup], &["again", "true"]);
    identity.cgroup_removed(first);
    let former = container(&identity, first).await;
    identity.cgroup_created(second, &cgroup);
    run(&lab, &["--rm", "--cgroup", &cgroup], &["again", "true"]);
    identity.cgroup_removed(second);

    patiently(DEADLINE, "the second is told", async || container(&identity, second).await.init_pid != former.init_pid)
        .await;
    assert_eq!(container(&identity, second).await.readonly_rootfs, Some(false));
    let late = container(&identity, first).await;
    assert_eq!((late.readonly_rootfs, late.init_pid), (Some(true), former.init_pid));
}

#[tokio::test]
async fn a_container_that_calls_a_cgroup_by_another_one_s_id_is_told_as_itself() {
    let lab = Lab::start().await;
    let identity = synced(&lab).await;
    let pod = lab.pod("prod", "web").await;
    let victim = pod.start_container(idle().named("victim")).await;
    let evil = pod.start_container(idle().named("evil")).await;
    let of = |id: &str| format!("/{}/besteffort/pod{}/{id}", lab.containerd.cgroup(), pod.uid);
    let paths = [format!("{}/{}", of(&evil.id), victim.id), format!("{}{}", of(&evil.id), of(&victim.id))];
    for (cgroup_id, path) in (0..).zip(&paths) {
        identity.cgroup_created(u64::MAX - cgroup_id, path);
        assert_eq!(container(&identity, u64::MAX - cgroup_id).await.name.as_deref(), Some("evil"), "{path}");
    }
    let of_victim = container(&identity, cgroup_id(&of(&victim.id))).await;
    assert_eq!(of_victim.name.as_deref(), Some("victim"));
}

#[tokio::test]
async fn what_no_cgroup_has_and_what_containerd_does_not_know_is_said_so() {
    let lab = Lab::start().await;
    let identity = start(&lab.containerd.socket());
    assert!(matches!(settled(&identity, u64::MAX).await, Lookup::Unknown));
    let foreign = "f".repeat(64);
    identity.cgroup_created(u64::MAX, &format!("/docker/{foreign}"));
    match settled(&identity, u64::MAX).await {
        Lookup::Foreign { container_id, cgroup_path, first: _ } => {
            assert_eq!(*container_id, *foreign);
            assert_eq!(*cgroup_path, format!("/docker/{foreign}"));
        }
        other => panic!("{other:?}"),
    }
    becomes_synced(&identity).await;
}
