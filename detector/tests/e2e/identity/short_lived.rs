//! Containers that are gone before anyone asks whose they were.

use std::{sync::Arc, time::Instant};

use detector::identity::model::TaskState;

use tokio::task::{JoinSet, LocalSet};

use crate::{
    identity::node::{container, synced},
    support::{
        Lab,
        cri::Cri,
        pod::{idle, writable},
    },
};

#[tokio::test]
async fn fifty_containers_deleted_at_once_are_known_when_their_records_come_in() {
    const LANES: usize = 5;
    const CONTAINERS_PER_LANE: usize = 10;
    let lab = Lab::start().await;
    let identity = synced(&lab).await;
    let pod = Arc::new(lab.pod("prod", "jobs").await);
    let cri = Cri::connect(&lab.containerd.socket()).await.unwrap();
    let (side_by_side, mut lanes) = (LocalSet::new(), JoinSet::new());
    for lane in 0..LANES {
        let (pod, mut cri) = (Arc::clone(&pod), cri.clone());
        let lane = async move {
            let mut gone = Vec::new();
            for number in 0..CONTAINERS_PER_LANE {
                let name = format!("step-{lane}-{number}");
                let ended = pod.run(writable(["true"]).named(&name)).await;
                assert_eq!(ended.exit_code, 0);
                cri.remove_container(&ended.id).await.unwrap();
                gone.push((ended.id, name));
            }
            gone
        };
        lanes.spawn_local_on(lane, &side_by_side);
    }
    let gone = side_by_side.run_until(lanes.join_all()).await.concat();
    assert_eq!(gone.len(), LANES * CONTAINERS_PER_LANE);
    for (number, (id, name)) in gone.iter().enumerate() {
        // The kernel's records of its cgroup, read late.
        let cgroup_id = u64::MAX - number as u64;
        let path = format!("/{}/besteffort/pod{}/{id}", lab.containerd.cgroup(), pod.uid);
        identity.cgroup_created(cgroup_id, &path);
        identity.cgroup_removed(cgroup_id);
        let known = container(&identity, cgroup_id).await;
        assert_eq!((known.id.as_str(), known.name.as_deref()), (id.as_str(), Some(name.as_str())));
        assert_eq!(known.pod.as_ref().unwrap().uid, pod.uid);
        assert_eq!(*known.pod.as_ref().unwrap().labels, [("app".into(), "jobs".into())]);
        assert!(known.init_pid.is_some() && known.image_digest.is_some());
        assert_eq!(known.task, TaskState::Ended);
    }
    let counts = identity.status().counts;
    assert_eq!((counts.calls_failed, counts.requests_dropped), (0, 0), "{counts:?}");
}

#[tokio::test]
async fn a_container_is_known_by_the_time_its_process_runs() {
    let lab = Lab::start().await;
    let identity = synced(&lab).await;
    let pod = lab.pod("prod", "web").await;
    let mut delays = Vec::new();
    for number in 0..20u64 {
        let app = pod.start_container(idle().named(&format!("app-{number}"))).await;
        let start = Instant::now();
        let path = format!("/{}/besteffort/pod{}/{}", lab.containerd.cgroup(), pod.uid, app.id);
        identity.cgroup_created(u64::MAX - number, &path);
        let known = container(&identity, u64::MAX - number).await;
        delays.push(start.elapsed());
        assert_eq!((known.id.as_str(), known.readonly_rootfs), (app.id.as_str(), Some(true)));
        app.stop().await;
    }
    delays.sort_unstable();
    println!("known after: median {:?}, longest {:?}", delays[delays.len() / 2], delays[delays.len() - 1]);
    // Not the median: on a busy machine, the test itself comes late to ask.
    assert!(delays[delays.len() / 4].as_millis() < 5, "{delays:?}");
}
