//! Millions of refused writes: every count says the same number, and nobody pays for it but the one who floods.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    claims::{Claims, mebibytes, quantile, spread},
    support::{Lab, patiently, pod::idle},
    watched::{Line, Watched, text},
    work::Work,
};

/// Processes that flood, each with an executable of its own.
const PROCESSES: u64 = 4;
/// Time for one such flood on a slow machine.
const PATIENCE: Duration = Duration::from_secs(3600);
/// How long after the last one the metric may become what the kernel counted.
const SETTLED: Duration = Duration::from_secs(60);
/// Longer than what was folded waits until it is told.
const SWEPT: Duration = Duration::from_secs(4);
/// Between two writes of the quiet pod.
const PAUSE: Duration = Duration::from_millis(250);

const MOST_CPU: f64 = 0.10;
const MOST_RESIDENT: u64 = 40 << 20;
const MOST_DELAY: Duration = Duration::from_millis(100);

/// Runs it with so many writes in all.
pub async fn run(program: &Path, writes: u64) -> bool {
    let mut claims = Claims::default();
    let lab = Lab::start().await;
    let names: Vec<String> = (0..PROCESSES).map(|number| format!("flood-{number}")).collect();
    let work = Work::new(&lab, &names);
    let agent = Watched::start(program, &lab.containerd.socket()).await;
    let (flood, quiet) = (lab.pod("prod", "flood").await, lab.pod("prod", "quiet").await);
    let script: String = names
        .iter()
        .map(|name| format!("/proof/{name} flood {name} {} /proof/refused-{name} & ", writes / PROCESSES))
        .collect();
    let _waits = quiet.start_container(idle().named("waits")).await;
    let (began, used_before) = (Instant::now(), agent.used());

    let probe = work.probe(&quiet, PAUSE, usize::MAX >> 1).await;
    let _flooding =
        flood.start_container(work.container(["sh", "-c", &format!("{script} wait; sleep 2147483647")])).await;
    let reports = || names.iter().filter_map(|name| work.report(&format!("refused-{name}"))).collect::<Vec<_>>();
    let mut most_resident = 0;
    patiently(PATIENCE, "the flood ends", async || {
        tokio::time::sleep(Duration::from_millis(50)).await;
        most_resident = most_resident.max(agent.used().resident);
        reports().len() == names.len()
    })
    .await;
    let (took, used) = (began.elapsed(), agent.used());
    probe.container.stop().await;
    let refused: u64 = reports().iter().filter_map(|report| report.split(' ').next()?.parse::<u64>().ok()).sum();
    let probed = probe.refused();

    let of_flood = [("namespace", "prod"), ("pod", "flood")];
    let counted =
        async || agent.metrics().await.sum("rosentry_write_denied_total", &of_flood).unwrap_or_default() as u64;
    let settling = Instant::now();
    while counted().await != refused && settling.elapsed() < SETTLED {
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    let settled = settling.elapsed();
    let metrics = agent.metrics().await;
    let in_metric = counted().await;
    let unknown = metrics.sum("rosentry_write_denied_total", &[("pod", "flood"), ("mount", "unknown")]);
    // Those of processes of the host, which are no events, are counted as ignored when they are swept.
    tokio::time::sleep(SWEPT).await;
    let later = agent.metrics().await;
    let all = later.sum("rosentry_kernel_events_total", &[("kind", "write_denied")]).unwrap_or_default();
    let of_host = later
        .sum("rosentry_events_ignored_total", &[("kind", "write_denied"), ("reason", "host_process")])
        .unwrap_or_default();
    let in_kernel = (all - of_host) as u64;
    most_resident = most_resident.max(agent.used().resident);
    let at_start = used_before.most_resident;
    let lines = agent.stop().await;

    let of = |pod: &'static str| lines.iter().filter(move |line| line.event["pod"]["name"] == pod);
    let told: u64 = of("flood").map(Line::writes).sum();
    // What a ring or a queue had no room for is said without a name; nobody else can have filled them.
    let nameless = lines.iter().filter(|line| line.event["pod"].is_null());
    let nameless: u64 = nameless.map(Line::writes_said_to_be_lost).sum();
    let said = of("flood").map(Line::writes_said_to_be_lost).sum::<u64>() + nameless;
    let cut_of_quiet: u64 = of("quiet").map(Line::writes_said_to_be_lost).sum();
    let rate = refused as f64 / took.as_secs_f64();
    claims.note(
        "refused, as the processes counted",
        format!("{refused} in {:.1} s, {rate:.0} a second", took.as_secs_f64()),
    );
    claims.check("rosentry_write_denied_total of the pod", in_metric, in_metric == refused);
    claims.note("of these with mount=\"unknown\"", unknown.unwrap_or_default());
    claims.note("until the metric said so", format!("{:.1} s after the last", settled.as_secs_f64()));
    let others = probed.len() as u64;
    claims.check(
        "rosentry_kernel_events_total, without processes of the host",
        format!("{in_kernel}, the quiet pod's {others} included"),
        in_kernel == refused + others,
    );
    claims.check(
        "events",
        format!("{told} told by {} lines, {said} said to be cut: {}", of("flood").count(), told + said),
        told + said == refused,
    );
    claims.note("of these without a name", nameless);
    claims.check("cut of the quiet pod", cut_of_quiet, cut_of_quiet == 0);
    let cpu = (used.cpu - used_before.cpu).as_secs_f64() / took.as_secs_f64();
    claims.check("the agent's processor time, of one core", format!("{:.1} %", cpu * 100.0), cpu < MOST_CPU);
    let million = (used.cpu - used_before.cpu).as_secs_f64() * 1e6 / refused as f64;
    claims.note("in and out of the kernel, for a million writes", format!("{million:.3} s"));
    claims.check("its memory at most, from then on", mebibytes(most_resident), most_resident < MOST_RESIDENT);
    claims.note("before, when it read the kernel's types and attached", mebibytes(at_start));

    // What was written before and after the flood would only make it look better.
    let told_of: Vec<&Line> = of("quiet").filter(|line| line.writes() > 0).collect();
    let whole = told_of.iter().all(|line| {
        line.writes() == 1
            && line.event["container"]["name"] == "app"
            && text(&line.event["process"]["exe"]) == "/proof/writer"
            && text(&line.event["file"]["path"]).starts_with("/etc/quiet-")
    });
    claims.check(
        "single writes of the quiet pod meanwhile",
        format!("{} refused, {} told{}", others, told_of.len(), if whole { ", all in full" } else { "" }),
        told_of.len() as u64 == others && whole,
    );
    let mut delays: Vec<Duration> = told_of.iter().map(|line| line.delay()).collect();
    claims.check(
        "from the kernel to the reader of stdout",
        spread(&mut delays),
        quantile(&mut delays, 100) < MOST_DELAY,
    );
    claims.are_held()
}
