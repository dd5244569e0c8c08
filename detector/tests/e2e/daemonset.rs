//! The agent in a pod of its own, with exactly what its DaemonSet gives it, on a node with other pods.

use std::process::Command;

use serde_json::Value;

use super::support::{
    Lab,
    agent::{PATIENCE, PROGRAM},
    daemonset::{AgentPod, Bpffs},
    metrics::{Metrics, get},
    patiently,
    pod::{idle, sealed},
};

#[tokio::test]
async fn with_what_its_daemonset_gives_it_the_agent_sees_other_pods_and_stops_clean() {
    let lab = Lab::start().await;
    let earlier = lab.pod("prod", "earlier").await;
    let app = earlier.start_container(idle()).await;
    let agent = AgentPod::ready(&lab).await;
    let later = lab.pod("prod", "later").await;
    let worker = later.start_container(idle().named("worker").by_user(1000)).await;

    later.run(sealed(["touch", "/etc/y"])).await;

    let write = agent.follows(&app, "x").await;
    assert_eq!((&write["kind"], &write["pod"]["name"]), (&"write_denied".into(), &"earlier".into()));
    assert_eq!(write["node"], "n1");
    assert_eq!(write["mount"]["kind"], "rootfs");
    let ancestors = write["process"]["ancestors"].as_array().expect("it has ancestors").iter();
    let mut programs = ancestors.filter_map(|ancestor| ancestor["exe"].as_str());
    assert!(
        programs.any(|program| program.ends_with("/containerd-shim-runc-v2")),
        "those above it are looked up: {write}"
    );
    agent.wait_for("the write of the later pod is told", |event| event["file"]["path"] == "/etc/y").await;
    let write = agent.follows(&worker, "w").await;
    assert_eq!((&write["container"]["name"], &write["process"]["uid"]), (&"worker".into(), &1000.into()));
    let gauge = async |name: &str, label| {
        let (_, page) = get(agent.metrics, "/metrics").await.expect("the agent serves metrics");
        Metrics::parse(&page).sum(name, &[label])
    };
    assert_eq!(gauge("rosentry_container_readonly_rootfs", ("pod", "earlier")).await, Some(1.0));
    let own_seal = async || gauge("rosentry_seal_broken", ("namespace", "rosentry")).await == Some(0.0);
    patiently(PATIENCE, "its own seal is looked at, and holds", own_seal).await;
    assert_eq!(get(agent.metrics, "/healthz").await.expect("the agent lives").0, 200);

    let held = agent.kernel_objects();
    assert!(held.are_attached(), "a running agent has programs in the kernel: {held:?}");
    let (code, events) = agent.stop().await;
    assert_eq!(code, 0, "{:?}", events.last());
    assert_eq!(events.last().map(|event| &event["agent"]["what"]), Some(&"stop".into()));
    patiently(PATIENCE, "the kernel has nothing of the agent's", async || held.left().are_none()).await;
}

#[tokio::test]
async fn the_doctor_in_the_agents_pod_finds_nothing_missing() {
    let lab = Lab::start().await;
    let agent = AgentPod::ready(&lab).await;

    let (code, told) = agent.exec(["rosentry", "doctor", "--format", "json"]).await;

    let report: Value = serde_json::from_str(told.trim()).unwrap_or_else(|_| panic!("a report: {told}"));
    let wrong: Vec<_> =
        report["checks"].as_array().expect("it has checks").iter().filter(|it| it["status"] != "ok").collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(code, 0);
    agent.stop().await;
}

#[tokio::test]
async fn what_changed_between_two_agents_of_a_roll_out_is_found_by_the_second() {
    let lab = Lab::start().await;
    let first = AgentPod::ready(&lab).await;
    let db = lab.privileged_pod("prod", "db").await;
    let app = db.start_container(idle().privileged()).await;
    app.exec(["touch", "/etc/x"]).await;
    first.wait_for("the first write is told", |event| event["kind"] == "write_denied").await;

    let (code, events) = first.stop().await;
    app.exec(["mount", "-o", "remount,rw", "/"]).await;
    let second = AgentPod::ready(&lab).await;

    assert_eq!((code, &events.last().expect("it said something")["agent"]["what"]), (0, &"stop".into()));
    let broken =
        second.wait_for("the seal that was broken meanwhile is told", |event| event["kind"] == "seal_broken").await;
    assert_eq!(broken["pod"]["name"], "db");
    let start = &second.events()[0];
    assert_eq!((&start["seq"], &start["agent"]["what"]), (&1.into(), &"start".into()), "a stream of its own");
    app.exec(["mount", "-o", "remount,ro", "/"]).await;
    app.exec(["touch", "/etc/y"]).await;
    second.wait_for("the write after it is told", |event| event["file"]["path"] == "/etc/y").await;
    assert_eq!(second.stop().await.0, 0);
}

#[tokio::test]
async fn a_roll_out_misses_nothing_and_uninstall_leaves_nothing() {
    let lab = Lab::start().await;
    let bpffs = Bpffs::mounted(&lab);
    let earlier = lab.pod("prod", "earlier").await;
    let app = earlier.start_container(idle()).await;
    let first = AgentPod::ready(&lab).await;
    app.exec(["touch", "/etc/x"]).await;
    let is_write = |event: &Value| event["kind"] == "write_denied" && event["pod"]["name"] == "earlier";
    first.wait_for("the write is told", is_write).await;
    let held = first.kernel_objects();

    let (_, events) = first.stop().await;
    for _ in 0..3 {
        app.exec(["touch", "/etc/x"]).await;
    }
    app.exec(["touch", "/etc/y"]).await;
    let second = AgentPod::ready(&lab).await;

    second.wait_for("what was new is told", |event| event["file"]["path"] == "/etc/y").await;
    second.wait_for("what was told before is counted", |event| event["file"]["path"] == "/etc/x").await;
    let all = [&*events, &second.events()].concat();
    let count = |path: &str| -> u64 {
        let of_path = all.iter().filter(|event| is_write(event) && event["file"]["path"] == path);
        of_path.map(|event| event["count"].as_u64().expect("a count")).sum()
    };
    assert_eq!((count("/etc/x"), count("/etc/y")), (4, 1));
    let numbers: Vec<_> = all.iter().filter_map(|event| event["seq"].as_u64()).collect();
    assert!(numbers.is_sorted_by(|one, next| one + 1 == *next), "one stream: {numbers:?}");
    assert!(all.iter().any(|event| event["agent"]["what"] == "gap" && event["agent"]["programs"] == "went_on"));
    second.stop().await;
    assert!(held.left().are_attached(), "they wait for the next agent");
    let removed = Command::new(PROGRAM).args(["uninstall", "--pin"]).arg(bpffs.pins()).output().expect("it runs");
    assert!(removed.status.success(), "{removed:?}");
    patiently(PATIENCE, "the kernel has nothing of the agents'", async || held.left().are_none()).await;
}
