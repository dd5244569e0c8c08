//! containerd absent, killed, restarted, cut off, slow or frozen: the agent goes on, says so in its readiness, its gauge
//! and one line of log, takes up again by itself and catches up.

use std::{fs, path::PathBuf, time::Duration};

use super::support::{
    Lab,
    agent::{Agent, PATIENCE},
    patiently,
    pod::{Container, Pod, idle, sealed},
    proxy::Proxy,
};

/// Long enough for an agent that logs each try to be caught at it.
const OUTAGE: Duration = Duration::from_millis(1500);

#[tokio::test]
async fn an_agent_that_starts_before_containerd_waits_for_it() {
    let mut lab = Lab::without_containerd().await;
    let agent = Agent::started(&lab.containerd.socket());

    says_that_containerd_is_away(&agent).await;
    lab.containerd.start_again().await;
    says_that_containerd_is_back(&agent).await;
    reports_a_new_pod(&agent, &lab, "web").await;
    assert_eq!(complaints(&agent).len(), 1, "{:#?}", agent.log());
    agent.stop().await;
}

#[tokio::test]
async fn an_agent_outlives_a_killed_containerd_and_goes_on_telling_what_it_knows() {
    let mut lab = Lab::start().await;
    let agent = Agent::watching(&lab).await;
    let web = lab.pod("prod", "web").await;
    let writer = Writer::in_pod(&lab, &web, &agent).await;

    lab.containerd.kill();
    says_that_containerd_is_away(&agent).await;
    writer.write();
    let during = agent.wait_for_write(&web, "/etc/told-to").await;
    assert_eq!(during["container"]["id"], writer.container.id.as_str());

    lab.containerd.start_again().await;
    says_that_containerd_is_back(&agent).await;
    writer.container.exec(["touch", "/etc/after"]).await;
    agent.wait_for_write(&web, "/etc/after").await;
    reports_a_new_pod(&agent, &lab, "after").await;
    assert_eq!(complaints(&agent).len(), 1, "{:#?}", agent.log());
    agent.stop().await;
}

#[tokio::test]
async fn an_agent_catches_up_with_containers_that_it_missed() {
    let lab = Lab::start().await;
    let mut way = Proxy::to(&lab.containerd.socket(), lab.containerd.path("way.sock"));
    let agent = Agent::started(way.socket());
    agent.becomes_ready().await;

    way.cut();
    says_that_containerd_is_away(&agent).await;
    let missed = lab.pod("prod", "missed").await;
    let app = missed.start_container(idle()).await;
    way.mend();
    says_that_containerd_is_back(&agent).await;

    app.exec(["touch", "/etc/x"]).await;
    let event = agent.wait_for_write(&missed, "/etc/x").await;
    assert_eq!(event["container"]["id"], app.id.as_str());
    assert_eq!(event["container"]["name"], "app");
    agent.stop().await;
}

#[tokio::test]
async fn an_agent_that_starts_after_the_containers_knows_them() {
    let lab = Lab::start().await;
    let web = lab.pod("prod", "web").await;
    let app = web.start_container(idle()).await;
    let agent = Agent::watching(&lab).await;

    app.exec(["touch", "/etc/x"]).await;
    let event = agent.wait_for_write(&web, "/etc/x").await;
    agent.stop().await;

    assert_eq!(event["container"]["id"], app.id.as_str());
}

#[tokio::test]
async fn a_slow_containerd_delays_no_event_beyond_its_answers_and_loses_no_pod() {
    let lab = Lab::start().await;
    let way = Proxy::to(&lab.containerd.socket(), lab.containerd.path("way.sock"));
    way.delay(Duration::from_millis(150));
    let agent = Agent::started(way.socket());
    agent.becomes_ready().await;

    for name in ["slow-0", "slow-1", "slow-2"] {
        reports_a_new_pod(&agent, &lab, name).await;
    }
    assert_eq!(agent.status("/healthz").await, Some(200));
    agent.stop().await;
}

#[tokio::test]
async fn a_frozen_containerd_stops_neither_events_nor_metrics() {
    let lab = Lab::start().await;
    let agent = Agent::watching(&lab).await;
    let web = lab.pod("prod", "web").await;
    let writer = Writer::in_pod(&lab, &web, &agent).await;

    lab.containerd.freeze();
    writer.write();
    agent.wait_for_write(&web, "/etc/told-to").await;
    says_that_containerd_is_away(&agent).await;

    lab.containerd.thaw();
    says_that_containerd_is_back(&agent).await;
    reports_a_new_pod(&agent, &lab, "after").await;
    assert_eq!(complaints(&agent).len(), 1, "{:#?}", agent.log());
    agent.stop().await;
}

async fn says_that_containerd_is_away(agent: &Agent) {
    patiently(PATIENCE, "the agent notices that containerd is away", async || agent.containerd_up().await == Some(0.0))
        .await;
    patiently(PATIENCE, "a line of log says it", async || !complaints(agent).is_empty()).await;
    assert_ne!(agent.status("/readyz").await, Some(200), "GET /readyz while containerd is away");
    assert_eq!(agent.status("/healthz").await, Some(200), "GET /healthz while containerd is away");
    tokio::time::sleep(OUTAGE).await;
    assert_eq!(complaints(agent).len(), 1, "one line of log says it: {:#?}", agent.log());
}

async fn says_that_containerd_is_back(agent: &Agent) {
    agent.becomes_ready().await;
    assert_eq!(agent.containerd_up().await, Some(1.0));
}

async fn reports_a_new_pod(agent: &Agent, lab: &Lab, name: &str) {
    let pod = lab.pod("prod", name).await;
    let app = pod.run(sealed(["touch", "/etc/new"])).await;
    let event = agent.wait_for_write(&pod, "/etc/new").await;
    assert_eq!(event["container"]["id"], app.id.as_str());
    assert_eq!(event["pod"]["name"], name);
}

/// Warnings and errors that speak of containerd.
fn complaints(agent: &Agent) -> Vec<String> {
    let complains = |line: &String| line.contains("containerd") && (line.contains("WARN") || line.contains("ERROR"));
    agent.log().into_iter().filter(complains).collect()
}

/// A container that can be told to write while containerd can't be asked to.
struct Writer {
    container: Container,
    signal: PathBuf,
}

impl Writer {
    /// One that the agent knows: what it has not read before an outage, it can't read during one.
    async fn in_pod(lab: &Lab, pod: &Pod, agent: &Agent) -> Self {
        let volume = lab.containerd.path("told");
        fs::create_dir(&volume).expect("the volume's folder is made");
        let script = "until [ -e /data/write ]; do sleep 0.1; done; touch /etc/told-to; sleep 2147483647";
        let container = pod.start_container(sealed(["sh", "-c", script]).with_volume(&volume, "/data")).await;
        agent.knows(pod, "app").await;
        Self { container, signal: volume.join("write") }
    }

    fn write(&self) {
        fs::write(&self.signal, "").expect("the container is told to write");
    }
}
