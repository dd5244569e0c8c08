//! Learning mode: which folders of its root a container writes, and nothing where the mode is off.

use std::collections::BTreeMap;

use super::support::{
    Lab,
    agent::{Agent, Events},
    pod::{Pod, sealed, writable},
};

/// By operation and folder, what was told of the pod.
fn observed(events: &Events, pod: &Pod) -> BTreeMap<(String, String), u64> {
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let mut folders = BTreeMap::new();
    let of_pod = events.0.iter().filter(|event| event["pod"]["uid"] == pod.uid.as_str());
    for event in of_pod.filter(|event| event["kind"] == "write_observed") {
        let path = text(&event["file"]["path"]);
        let folder = path.rsplit_once('/').map(|(folder, _)| folder.to_owned()).unwrap_or_default();
        assert_eq!((&event["outcome"], &event["mount"]["kind"]), (&"succeeded".into(), &"rootfs".into()), "{event:#}");
        *folders.entry((text(&event["operation"]), folder)).or_default() += event["count"].as_u64().unwrap_or_default();
    }
    folders
}

const SCRIPT: &str = "for n in 1 2 3 4 5 6 7; do echo > /var/log/$n; echo > /data/$n; mkdir /tmp/$n /data/d$n; done; \
    cd /tmp && rm -r 1 && mv 2 /var/log/two && cat /etc/passwd > /dev/null; \
    echo > /settings/x";

#[tokio::test]
async fn each_folder_of_a_writable_root_that_is_written_is_told_and_no_volume() {
    let lab = Lab::start().await;
    let agent = Agent::learning(&lab).await;
    let web = lab.pod("prod", "web").await;
    let volume = lab.containerd.path("volume");
    std::fs::create_dir(&volume).expect("the volume's folder is made");

    let app = web.run(writable(["sh", "-c", SCRIPT]).with_volume(&volume, "/data")).await;
    assert_eq!((app.exit_code, app.output.as_str()), (0, ""));
    agent.wait_for("the last write", |event| event["file"]["requested"] == "/settings/x").await;
    let metrics = agent.metrics().await;
    let events = agent.stop().await;

    let expected = [
        (("mkdir", "/tmp"), 7),
        (("open", "/etc"), 1),
        (("open", "/var/log"), 7),
        (("rename", "/tmp"), 1),
        (("rmdir", "/tmp"), 1),
    ];
    let expected = expected.map(|((operation, folder), count)| ((operation.to_owned(), folder.to_owned()), count));
    assert_eq!(observed(&events, &web), BTreeMap::from(expected));
    let of_opens = [("pod", "web"), ("container", "app"), ("operation", "open")];
    assert_eq!(metrics.sum("rosentry_write_observed_total", &of_opens), Some(8.0));
    assert!(events.writes_of(&web).is_empty(), "none was refused");
    let start = &events.0[0];
    assert_eq!((&start["agent"]["what"], &start["agent"]["observe_writes"]), (&"start".into(), &true.into()));
    let coverage = &events.0[1]["agent"];
    assert!(coverage["seen"].as_array().is_some_and(|seen| seen.contains(&"observed_x86_64".into())), "{coverage}");
    assert!(coverage["not_seen"].as_array().is_some_and(|not| not.contains(&"observed_io_uring".into())), "{coverage}");
}

#[tokio::test]
async fn without_the_mode_no_write_that_succeeds_is_told() {
    let lab = Lab::start().await;
    let agent = Agent::watching(&lab).await;
    let (free, sealed_pod) = (lab.pod("prod", "free").await, lab.pod("prod", "sealed").await);

    let app = free.run(writable(["sh", "-c", "echo > /var/log/x; mkdir /tmp/x"])).await;
    assert_eq!((app.exit_code, app.output.as_str()), (0, ""));
    // What comes after it has come, so whatever was to come of it would be there too.
    sealed_pod.run(sealed(["touch", "/etc/x"])).await;
    agent.wait_for_write(&sealed_pod, "/etc/x").await;
    let events = agent.stop().await;

    assert!(observed(&events, &free).is_empty());
    assert_eq!(events.0[0]["agent"]["observe_writes"], false);
}
