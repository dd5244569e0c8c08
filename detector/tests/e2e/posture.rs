//! What the containers of a node may write: the command and the agent's metrics tell the same.

use std::{
    fs,
    process::{Command, Output},
};

use serde_json::{Value, json};

use super::support::{
    Lab,
    agent::{Agent, NODE, PATIENCE, PROGRAM, free_address, run_command},
    patiently,
    pod::{idle, writable},
};

const SLEEP: [&str; 2] = ["sleep", "2147483647"];

#[tokio::test]
async fn the_command_and_the_metrics_tell_what_each_container_may_write_and_what_can_be_sealed() {
    let lab = Lab::start().await;
    let early = lab.pod("prod", "early").await;
    early.start_container(writable(SLEEP)).await;
    let address = free_address();
    let mut command = run_command(&lab.containerd.socket(), address);
    command.arg("--observe-writes");
    let agent = Agent::from_command(command, address);
    agent.becomes_ready().await;

    let web = lab.pod("prod", "web").await;
    let cache = lab.nearly_full_memory(&web.uid);
    web.start_container(idle().with_volume(&cache, "/data")).await;
    let quiet = lab.pod("prod", "quiet").await;
    quiet.start_container(writable(SLEEP)).await;
    let chatty = lab.pod("prod", "chatty").await;
    let chatter = chatty.start_container(writable(SLEEP)).await;
    chatter.exec(["touch", "/tmp/x"]).await;
    let root = lab.privileged_pod("prod", "root").await;
    let privileged = root.start_container(idle().privileged()).await;
    agent.wait_for("the write", |event| event["file"]["path"] == "/tmp/x").await;
    agent.knows(&root, "app").await;

    // A look at all containers may take longer than a scrape waits.
    let of_root = [("namespace", "prod"), ("pod", "root"), ("container", "app")];
    let is_looked_at = async || agent.metrics().await.sum("rosentry_container_cap_sys_admin", &of_root).is_some();
    patiently(PATIENCE, "the last container is looked at", is_looked_at).await;
    let metrics = agent.metrics().await;
    let gauge = |name: &str, pod: &str| metrics.sum(name, &[("namespace", "prod"), ("pod", pod), ("container", "app")]);
    let of_cache = [("pod", "web"), ("mountpoint", "/data")];
    assert_eq!(metrics.sum("rosentry_tmpfs_used_bytes", &of_cache), Some(90.0 * 4096.0));
    assert_eq!(metrics.sum("rosentry_tmpfs_size_bytes", &of_cache), Some(100.0 * 4096.0));
    for (pod, is_writable, is_privileged) in [("web", 0.0, 0.0), ("quiet", 1.0, 0.0), ("root", 0.0, 1.0)] {
        assert_eq!(gauge("rosentry_container_writable_rootfs", pod), Some(is_writable), "{pod}");
        assert_eq!(gauge("rosentry_container_privileged", pod), Some(is_privileged), "{pod}");
        assert_eq!(gauge("rosentry_container_cap_sys_admin", pod), Some(is_privileged), "{pod}");
    }

    let unlearned = posture(&lab, &["--format", "json"]);
    assert_eq!(of(&unlearned, "quiet")["ready"]["answer"], "unknown", "nothing is guessed without a record");
    let events = agent.stop().await;
    let record = lab.containerd.path("events.json");
    let lines: Vec<String> = events.0.iter().map(|event| format!("{event}\n")).collect();
    fs::write(&record, lines.concat()).expect("the record is written");
    let told = posture(&lab, &["--format", "json", "--node-name", NODE, "--events", &record.display().to_string()]);
    let seen = |pod: &str| of(&told, pod)["seen"].clone();
    assert_eq!(of(&told, "web")["declared_readonly"], true);
    assert_eq!((&seen("web")["sealed"], &seen("quiet")["sealed"]), (&json!(true), &json!(false)));
    let mounts = seen("web")["writable_mounts"].as_array().cloned().unwrap_or_default();
    let data = mounts.iter().find(|mount| mount["point"] == "/data").expect("the volume is told");
    assert_eq!(data["volume"], json!({"type": "emptydir", "name": "cache"}));
    assert_eq!((&data["used_bytes"], &data["size_bytes"]), (&json!(90 * 4096), &json!(100 * 4096)));
    assert_eq!(metrics.sum("rosentry_container_writable_mounts", &[("pod", "web")]), Some(mounts.len() as f64));
    assert_eq!((&seen("root")["cap_sys_admin"], &seen("web")["cap_sys_admin"]), (&json!(true), &json!(false)));
    let ready = |pod: &str| of(&told, pod)["ready"]["answer"].clone();
    assert_eq!((ready("web"), ready("quiet"), ready("chatty")), (json!("declared"), json!("yes"), json!("no")));
    assert_eq!(of(&told, "chatty")["ready"]["folders"], json!({"/tmp": 1}));
    assert_eq!(of(&told, "early")["ready"]["answer"], "unknown", "its start was not seen");

    privileged.exec(["mount", "-o", "remount,rw", "/"]).await;
    let broken = run(&lab, &[]);
    let text = String::from_utf8_lossy(&broken.stdout).into_owned();
    assert_eq!(broken.status.code(), Some(1), "{text}");
    assert!(text.lines().any(|line| line.starts_with("prod/root/app") && line.contains("BROKEN")), "{text}");
    assert!(text.lines().any(|line| line.starts_with("prod/web/app") && line.contains("sealed")), "{text}");
}

fn run(lab: &Lab, arguments: &[&str]) -> Output {
    let mut command = Command::new(PROGRAM);
    command
        .arg("posture")
        .arg("--containerd-socket")
        .arg(lab.containerd.socket())
        .args(arguments)
        .env("COLUMNS", "100");
    command.output().expect("the command runs")
}

/// The JSON of the command, which finds all as it should be.
fn posture(lab: &Lab, arguments: &[&str]) -> Value {
    let output = run(lab, arguments);
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), complaint.as_str()), (Some(0), ""), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("it is JSON")
}

fn of<'a>(report: &'a Value, pod: &str) -> &'a Value {
    let containers = report["containers"].as_array().expect("there are containers");
    containers.iter().find(|container| container["pod"] == pod).unwrap_or_else(|| panic!("{pod} is told: {report:#}"))
}
