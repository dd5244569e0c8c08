//! A full node that is quiet: what the agent holds of it, and how soon a write is told.

use std::{path::Path, time::Duration};

use crate::{
    claims::{Claims, mebibytes, quantile, spread},
    support::{patiently, pod::idle},
    watched::Watched,
    work::{Work, join_all},
};

const PATIENCE: Duration = Duration::from_secs(600);
/// Between two writes.
const PAUSE: Duration = Duration::from_millis(50);
/// Pods that are started at a time.
const AT_A_TIME: usize = 4;
/// How many are measured.
const WRITES: usize = 400;
/// Numbers of pods at which the memory is looked at, before those that are asked for.
const STEPS: [usize; 4] = [10, 50, 100, 250];
/// The agent gives free memory back ten seconds after it had work.
const UNTIL_GIVEN_BACK: Duration = Duration::from_secs(22);

const MOST_RESIDENT: u64 = 30 << 20;
const MOST_BY_POD: u64 = 10 << 10;
const MOST_DELAY: Duration = Duration::from_millis(20);

/// Runs it with so many pods, of a container each.
pub async fn run(program: &Path, pods: usize) -> bool {
    let mut claims = Claims::default();
    let (lab, work) = Work::in_lab().await;
    let agent = Watched::start(program, &lab.containerd.socket()).await;
    claims.note("memory before any pod", mebibytes(agent.used().resident));
    let lab_of_all = &lab;
    let known = async || agent.metrics().await.sum("rosentry_container_readonly_rootfs", &[]).unwrap_or_default();
    let mut memory: Vec<(usize, u64)> = Vec::new();
    let mut started = 0;
    for step in STEPS.into_iter().filter(|step| *step < pods).chain([pods]) {
        join_all((0..AT_A_TIME).map(async |first| {
            for pod in (started + first..step).step_by(AT_A_TIME) {
                lab_of_all.pod("prod", &format!("web-{pod}")).await.start_container(idle()).await;
            }
        }))
        .await;
        started = step;
        patiently(PATIENCE, "the agent knows all of them", async || known().await >= step as f64).await;
        tokio::time::sleep(UNTIL_GIVEN_BACK).await;
        let used = agent.used().resident;
        claims.note(&format!("memory with {step} pods"), mebibytes(used));
        memory.push((step, used));
    }
    let known = known().await;

    let prober = lab.pod("prod", "prober").await;
    let before = agent.used();
    let probe = work.probe(&prober, PAUSE, WRITES).await;
    probe.done(PATIENCE).await;
    let refused = probe.refused();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let used = agent.used();
    let lines = agent.stop().await;

    claims.check("read-only containers that it knows", known, known >= pods as f64);
    if let (Some((few, before)), Some((many, after))) = (memory.first(), memory.last())
        && few < many
    {
        let by_pod = after.saturating_sub(*before) / (many - few) as u64;
        let measured = format!("{:.1} KiB, from {few} to {many} pods", by_pod as f64 / 1024.0);
        claims.check("memory by pod, of two containers each", measured, by_pod < MOST_BY_POD);
    }
    claims.check("memory", mebibytes(used.resident), used.resident < MOST_RESIDENT);
    claims.note("at most, the start of all of them included", mebibytes(used.most_resident));
    let cpu = (used.cpu - before.cpu).as_secs_f64() / (PAUSE * u32::try_from(WRITES).unwrap_or(1)).as_secs_f64();
    claims.note("processor time of one core while it is probed", format!("{:.1} %", cpu * 100.0));
    let mut delays: Vec<Duration> = lines
        .iter()
        .filter(|line| line.writes() > 0 && line.event["pod"]["name"] == "prober")
        .map(|line| line.delay())
        .collect();
    claims.check(
        "writes that were told",
        format!("{} of {}", delays.len(), refused.len()),
        delays.len() == refused.len(),
    );
    claims.check(
        "from the kernel to the reader of stdout",
        spread(&mut delays),
        quantile(&mut delays, 99) < MOST_DELAY,
    );
    claims.are_held()
}
