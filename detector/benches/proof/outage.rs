//! A receiver that is away twice, under a thousand different refused writes a second: all of them arrive.

use std::{
    collections::BTreeSet,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    claims::{Claims, mebibytes},
    receiver::Receiver,
    support::patiently,
    watched::{Watched, text},
    work::Work,
};

/// Pods that write, together a thousand times a second.
const PODS: u32 = 4;
const PAUSE: Duration = Duration::from_millis(4);
const WRITES_A_SECOND: u64 = 1000;
/// How long the receiver is there before, between and after.
const THERE: Duration = Duration::from_secs(15);
/// How long it may take until all is delivered.
const PATIENCE: Duration = Duration::from_secs(180);

/// Runs it with outages of so many seconds.
pub async fn run(program: &Path, seconds: u64) -> bool {
    let mut claims = Claims::default();
    let (lab, work) = Work::in_lab().await;
    let mut receiver = Receiver::start();
    let spool = lab.containerd.path("spool").display().to_string();
    let sinks = ["--json", "/dev/null", "--file-max-size", "0", "--syslog", &receiver.url(), "--spool-dir", &spool];
    let agent = Watched::start_with(program, &lab.containerd.socket(), &sinks).await;

    let away = Duration::from_secs(seconds);
    let writes = WRITES_A_SECOND * (2 * away + 3 * THERE).as_secs() / u64::from(PODS);
    let mut probes = Vec::new();
    for pod in 0..PODS {
        let pod = lab.pod("prod", &format!("writer-{pod}")).await;
        probes.push(work.probe(&pod, PAUSE, usize::try_from(writes).unwrap_or(usize::MAX)).await);
    }
    let began = Instant::now();
    let mut most_waiting = 0.0f64;
    for _ in 0..2 {
        tokio::time::sleep(THERE).await;
        receiver.go_away();
        tokio::time::sleep(away).await;
        most_waiting = most_waiting.max(waiting(&agent).await);
        receiver.come_back();
    }
    for probe in &probes {
        probe.done(PATIENCE).await;
    }
    let took = began.elapsed();
    let since = Instant::now();
    patiently(PATIENCE, "all is delivered", async || {
        tokio::time::sleep(Duration::from_millis(200)).await;
        waiting(&agent).await == 0.0
    })
    .await;
    let delivered = since.elapsed();
    let metrics = agent.metrics().await;
    let lost_by_stage = agent.samples("rosentry_events_lost_total").await;
    let by_sink = agent.samples("rosentry_sink_events_total").await;
    let resolutions = agent.samples("rosentry_path_resolutions_total").await;
    let used = agent.used();
    agent.stop().await;

    let received = receiver.received();
    let file = lab.containerd.path("received.json");
    received.write_to(&file);
    let verified = Command::new(program).arg("verify").arg(&file).output().expect("rosentry verify runs");
    let events: Vec<Value> = received.lines.values().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let paths: BTreeSet<&str> = events.iter().map(|event| text(&event["file"]["path"])).collect();
    let refused: Vec<_> = probes.iter().flat_map(|probe| probe.refused()).collect();
    let arrived = refused.iter().filter(|(path, _)| paths.contains(path.as_str())).count();
    let rate = refused.len() as f64 / took.as_secs_f64();
    claims.note("refused", format!("{} in {:.0} s, {rate:.0} a second", refused.len(), took.as_secs_f64()));
    claims.note("away", format!("twice for {seconds} s, up to {} waiting", mebibytes(most_waiting as u64)));
    claims.check("arrived", arrived, arrived == refused.len());
    claims.note("until nothing waited any more, after the last write", format!("{:.1} s", delivered.as_secs_f64()));
    let lost = metrics.sum("rosentry_events_lost_total", &[]).unwrap_or_default();
    claims.check("rosentry_events_lost_total", lost_by_stage, lost == 0.0);
    claims.note("events by sink", by_sink);
    claims.note("looks into containers' roots", resolutions);
    claims.check(
        "lines that came twice",
        format!("{}, each the same under its seq", received.repeated),
        received.contradicted == 0 && received.unknown == 0,
    );
    claims.check("rosentry verify", String::from_utf8_lossy(&verified.stdout).trim(), verified.status.success());
    claims.note("the agent's memory at most", mebibytes(used.most_resident));
    claims.are_held()
}

/// Bytes in the spool.
async fn waiting(agent: &Watched) -> f64 {
    agent.metrics().await.sum("rosentry_sink_spool_bytes", &[("sink", "syslog")]).unwrap_or_default()
}
