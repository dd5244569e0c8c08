//! Containers that are gone before anyone could ask about them.

use std::{collections::BTreeMap, time::Duration};

use super::support::{
    Lab,
    agent::Agent,
    metrics::Metrics,
    pod::{Pod, sealed},
};

/// What counts as short.
const SHORT: Duration = Duration::from_millis(20);

#[tokio::test]
async fn each_of_100_containers_that_live_under_20_ms_and_write_once_is_told_with_its_pod() {
    const PODS: usize = 10;
    const CONTAINERS_PER_POD: usize = 10;
    let lab = Lab::start().await;
    let agent = Agent::watching(&lab).await;
    let mut pods: Vec<Pod> = Vec::new();
    for pod in 0..PODS {
        pods.push(lab.pod("prod", &format!("job-{pod}")).await);
    }

    // By the path that only it writes to: the container's id, its name, its pod.
    let mut writers = BTreeMap::new();
    let mut lives = Vec::new();
    for container in 0..CONTAINERS_PER_POD {
        for pod in &pods {
            let name = format!("step-{container}");
            let path = format!("/etc/{}-{name}", pod.name);
            let ended = pod.run(sealed(["touch", &path]).named(&name)).await;
            lives.push(ended.lived);
            writers.insert(path, (ended.id, name, pod));
        }
    }
    let (last_path, (_, _, last_pod)) = writers.last_key_value().expect("there are writers");
    agent.wait_for_write(last_pod, last_path).await;
    // Another may still wait for what containerd says of its container.
    let counted = |metrics: &Metrics| metrics.sum("rosentry_write_denied_total", &[("namespace", "prod")]);
    let all = Some((PODS * CONTAINERS_PER_POD) as f64);
    agent.metrics_when("each write is counted", |metrics| counted(metrics) == all).await;
    let events = agent.stop().await;

    let writes = events.of_lab(&lab, "write_denied");
    for event in &writes {
        let path = event["file"]["path"].as_str().expect("a refused open has a path");
        let Some((id, name, pod)) = writers.remove(path) else {
            panic!("an event too many: {event:#}");
        };
        assert_eq!(event["count"], 1);
        assert_eq!(event["container"]["id"], id.as_str());
        assert_eq!(event["container"]["name"], name.as_str());
        assert_eq!(event["pod"]["name"], pod.name.as_str());
        assert_eq!(event["pod"]["uid"], pod.uid.as_str());
    }
    assert!(writers.is_empty(), "no event of {:?}", writers.keys());
    assert_eq!(writes.len(), PODS * CONTAINERS_PER_POD);
    // containerd notes a start when it has heard of it, so a busy machine makes most lives look longer than they are.
    lives.sort_unstable();
    println!("lived {:?} to {:?}, half of them {:?} at most", lives[0], lives[lives.len() - 1], lives[lives.len() / 2]);
    assert!(lives[lives.len() / 10] < SHORT, "this was no test of short ones: {lives:?}");
}
