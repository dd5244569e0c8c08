//! What a container tries again and again is told once in full, and then by its number; what it floods is cut, and said.

use serde_json::Value;

use super::support::{
    Lab,
    agent::Agent,
    metrics::Metrics,
    pod::{idle, sealed},
};

fn counts(events: &[&Value]) -> u64 {
    events.iter().filter_map(|event| event["count"].as_u64()).sum()
}

/// Has a shell try to write so often; `$file` is the number of the try.
fn tries(times: u64, path: &str) -> String {
    format!("file=0; while [ $file -lt {times} ]; do file=$((file+1)); echo > {path}; done 2>/dev/null; exit 0")
}

#[tokio::test]
async fn repeats_are_told_by_their_number_and_counted_at_once() {
    const TIMES: u64 = 5000;
    let lab = Lab::start().await;
    let agent = Agent::watching(&lab).await;
    let web = lab.pod("prod", "web").await;
    let app = web.start_container(idle()).await;
    agent.knows(&web, "app").await;

    app.exec(["sh", "-c", &tries(TIMES, "/etc/x")]).await;
    agent.wait_for_write(&web, "/etc/x").await;
    let metrics = agent.metrics().await;
    let events = agent.stop().await;

    let total =
        metrics.sum("rosentry_write_denied_total", &[("pod", "web"), ("operation", "open"), ("mount", "rootfs")]);
    assert_eq!(total, Some(TIMES as f64), "those that are not told yet are counted");
    let writes = events.writes_of(&web);
    assert_eq!(counts(&writes), TIMES);
    assert!(writes.len() < 100, "{} lines", writes.len());
    let [first, .., last] = writes.as_slice() else { panic!("a first and repeats: {writes:#?}") };
    assert_eq!((&first["count"], &first["first_time"]), (&Value::from(1), &first["last_time"]));
    assert_eq!(last["file"]["path"], "/etc/x");
    assert_eq!(last["time"], last["last_time"]);
    assert!(last["first_time"].as_str() >= first["last_time"].as_str(), "{last:#}");
    assert!(last["last_time"].as_str() >= last["first_time"].as_str(), "{last:#}");
}

#[tokio::test]
async fn a_container_that_floods_is_cut_and_its_neighbour_is_not() {
    const FLOOD: u64 = 60_000;
    let lab = Lab::start().await;
    let agent = Agent::watching(&lab).await;
    let (flood, quiet) = (lab.pod("prod", "flood").await, lab.pod("prod", "quiet").await);
    let flooding = flood.start_container(idle()).await;
    agent.knows(&flood, "app").await;

    let script = tries(FLOOD, "/etc/$file");
    let flooded = flooding.exec(["sh", "-c", &script]);
    let (_, neighbour) = tokio::join!(flooded, quiet.run(sealed(["touch", "/etc/x"])));
    drop(neighbour);
    agent.wait_for_write(&quiet, "/etc/x").await;
    let told = agent.wait_for("what was cut", |event| event["agent"]["events"]["budget"].is_number()).await;
    let all = |metrics: &Metrics| metrics.sum("rosentry_write_denied_total", &[("pod", "flood")]) == Some(FLOOD as f64);
    let metrics = agent.metrics_when("each refused write is counted", all).await;
    let events = agent.stop().await;

    assert_eq!(told["agent"]["what"], "lost");
    assert_eq!((&told["pod"]["name"], &told["container"]["name"]), (&Value::from("flood"), &Value::from("app")));
    let unknown = metrics.sum("rosentry_write_denied_total", &[("pod", "flood"), ("mount", "unknown")]).unwrap_or(0.0);
    assert!(unknown > 0.0);
    assert_eq!(counts(&events.writes_of(&flood)) as f64 + unknown, FLOOD as f64);
    assert_eq!(counts(&events.writes_of(&quiet)), 1);
}
