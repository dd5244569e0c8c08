//! containerd absent, killed, cut off and frozen.

use std::time::{Duration, Instant};

use detector::identity::{Lookup, ProbeError, model::TaskState, probe};

use crate::{
    identity::node::{DEADLINE, becomes_synced, cgroup_id, container, settled, start, synced},
    support::{Lab, patiently, pod::idle, proxy::Proxy},
};

#[tokio::test]
async fn containerd_may_come_later() {
    let mut lab = Lab::without_containerd().await;
    let identity = start(&lab.containerd.socket());
    let status = identity.status();
    assert!(!status.up && !status.synced && status.down_since.is_some());
    assert!(matches!(probe(&lab.containerd.socket()).await, Err(ProbeError::Absent { .. })));
    let path = format!("/kubepods/{}", "a".repeat(64));
    identity.cgroup_created(u64::MAX, &path);
    assert!(matches!(identity.lookup(u64::MAX), Lookup::Pending { .. }), "no one has been asked yet");

    lab.containerd.start_again().await;
    becomes_synced(&identity).await;
    let version = probe(&lab.containerd.socket()).await.expect("containerd answers");
    assert_eq!(identity.status().version, Some(version));
    assert!(matches!(settled(&identity, u64::MAX).await, Lookup::Foreign { .. }));
}

#[tokio::test]
async fn after_a_restart_everything_is_known_again_and_what_was_known_stays() {
    let mut lab = Lab::start().await;
    let identity = synced(&lab).await;
    let pod = lab.pod("prod", "web").await;
    let app = pod.start_container(idle()).await;
    let id = cgroup_id(&format!("/{}/besteffort/pod{}/{}", lab.containerd.cgroup(), pod.uid, app.id));
    let before = container(&identity, id).await;

    lab.containerd.kill();
    patiently(DEADLINE, "the loss is noticed", async || !identity.status().up).await;
    assert!(identity.status().down_since.is_some());
    assert_eq!(container(&identity, id).await.id, before.id);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!identity.status().up);

    lab.containerd.start_again().await;
    let start = Instant::now();
    becomes_synced(&identity).await;
    println!("synced {:?} after containerd was back", start.elapsed());
    let after = container(&identity, id).await;
    assert_eq!((after.init_pid, after.task), (before.init_pid, TaskState::Running));
    let late = pod.start_container(idle().named("late")).await;
    let id = cgroup_id(&format!("/{}/besteffort/pod{}/{}", lab.containerd.cgroup(), pod.uid, late.id));
    assert_eq!(container(&identity, id).await.name.as_deref(), Some("late"));
}

#[tokio::test]
async fn what_came_and_what_went_while_the_way_was_cut_is_caught_up_with() {
    let lab = Lab::start().await;
    let mut way = Proxy::to(&lab.containerd.socket(), lab.containerd.path("way.sock"));
    let identity = start(way.socket());
    becomes_synced(&identity).await;
    let pod = lab.pod("prod", "web").await;
    let going = pod.start_container(idle().named("going")).await;
    let of = |id: &str| format!("/{}/besteffort/pod{}/{id}", lab.containerd.cgroup(), pod.uid);
    let going_id = cgroup_id(&of(&going.id));
    patiently(DEADLINE, "it runs", async || container(&identity, going_id).await.task == TaskState::Running).await;

    way.cut();
    patiently(DEADLINE, "the loss is noticed", async || !identity.status().up).await;
    going.stop().await;
    going.remove().await;
    let coming = pod.start_container(idle().named("coming")).await;
    let coming_id = cgroup_id(&of(&coming.id));
    assert!(matches!(identity.lookup(coming_id), Lookup::Pending { .. }));
    way.mend();
    becomes_synced(&identity).await;

    let known = container(&identity, coming_id).await;
    assert_eq!((known.name.as_deref(), known.task), (Some("coming"), TaskState::Running));
    let known = container(&identity, going_id).await;
    assert_eq!((known.name.as_deref(), known.task), (Some("going"), TaskState::Ended));
    assert!(identity.containers().iter().all(|container| container.name.as_deref() != Some("going")));
}

#[tokio::test]
async fn a_frozen_containerd_is_noticed_and_holds_no_question_up() {
    let lab = Lab::start().await;
    let identity = synced(&lab).await;
    let pod = lab.pod("prod", "web").await;
    let app = pod.start_container(idle()).await;
    let id = cgroup_id(&format!("/{}/besteffort/pod{}/{}", lab.containerd.cgroup(), pod.uid, app.id));
    container(&identity, id).await;

    lab.containerd.freeze();
    identity.cgroup_created(u64::MAX, &format!("/kubepods/{}", "a".repeat(64)));
    let start = Instant::now();
    for _ in 0..1_000 {
        assert!(matches!(identity.lookup(id), Lookup::Container { .. }));
        assert!(matches!(identity.lookup(u64::MAX), Lookup::Pending { .. }));
    }
    let took = start.elapsed();
    println!("2000 questions took {took:?}");
    // One that waited for an answer would take longer by itself.
    assert!(took < Duration::from_secs(3), "{took:?}");
    patiently(DEADLINE, "the freeze is noticed", async || !identity.status().up).await;
    println!("noticed after {:?}", start.elapsed());
    match probe(&lab.containerd.socket()).await {
        Err(error @ ProbeError::NoAnswer { .. }) => assert!(!error.is_final(), "it is containerd: {error}"),
        other => panic!("{other:?}"),
    }

    lab.containerd.thaw();
    becomes_synced(&identity).await;
    assert!(matches!(settled(&identity, u64::MAX).await, Lookup::Foreign { .. }));
}
