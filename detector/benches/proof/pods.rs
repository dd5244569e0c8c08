//! Containers that are gone at once: each one's only write is told with its pod.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    claims::{Claims, spread},
    lives::Lives,
    support::{
        Lab,
        pod::{Ended, Pod},
    },
    watched::{Line, Watched, text},
    work::{Work, join_all},
};

/// How many are started at a time, each in a pod of its own.
const AT_A_TIME: usize = 20;
/// How long such a program lives at most.
const SHORT: Duration = Duration::from_millis(10);
/// Containers that each pod has in a round.
const ROUND: usize = 10;
/// How long it goes on to find as many that lived so short: some have to wait for a processor.
const LONGEST: Duration = Duration::from_secs(170);
/// With fewer at a time, first, for the delay at a lower rate: pods, and containers that each has.
const SLOWER: [(usize, usize); 2] = [(1, 20), (5, 10)];
/// The most of a processor that a cgroup can be given before others, of version 1 and of version 2: what is looked for is the
/// container's life, not how long its program waits for a processor.
const SHARES: i64 = 262_144;
const WEIGHT: u64 = 10_000;
/// How long the last event may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs containers until so many of their programs have lived for 10 ms at most.
pub async fn run(program: &Path, containers: usize) -> bool {
    let mut claims = Claims::default();
    let (lab, work) = Work::in_lab().await;
    let agent = Watched::start(program, &lab.containerd.socket()).await;
    let mut pods: Vec<Pod> = Vec::new();
    for pod in 0..AT_A_TIME {
        pods.push(lab.pod("prod", &format!("job-{pod}")).await);
    }
    prefer(&lab, &pods);
    let lives = Lives::watch();
    let (mut ended, mut phases) = (Vec::new(), Vec::new());
    for (at_a_time, containers) in SLOWER {
        let began = Instant::now();
        let phase = round(&work, &pods[..at_a_time], containers, &format!("{at_a_time}-at-a-time")).await;
        phases.push((at_a_time, began.elapsed(), phase.iter().map(|(path, ..)| path.clone()).collect::<Vec<_>>()));
        ended.extend(phase);
    }
    let (began, before) = (Instant::now(), ended.len());
    let mut rounds = 0;
    while began.elapsed() < LONGEST && lived(&lives, &agent.lines()).filter(|life| *life <= SHORT).count() < containers
    {
        ended.extend(round(&work, &pods, ROUND, &rounds.to_string()).await);
        rounds += 1;
    }
    let took = began.elapsed();
    phases.push((AT_A_TIME, took, ended[before..].iter().map(|(path, ..)| path.clone()).collect()));

    let waiting = Instant::now();
    let counted = async || agent.metrics().await.sum("rosentry_write_denied_total", &[("namespace", "prod")]);
    while counted().await.unwrap_or_default() < ended.len() as f64 && waiting.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let lines = agent.stop().await;

    let mut events = BTreeMap::new();
    for line in lines.iter().filter(|line| line.writes() > 0) {
        events.entry(text(&line.event["file"]["path"]).to_owned()).or_insert_with(Vec::new).push(line);
    }
    let right = ended.iter().filter(|(path, it, pod)| {
        let Some([line]) = events.get(path).map(Vec::as_slice) else { return false };
        line.writes() == 1
            && line.event["container"]["id"] == it.id.as_str()
            && line.event["pod"]["uid"] == pod.uid.as_str()
            && line.event["pod"]["name"] == pod.name.as_str()
    });
    let right = right.count();
    let refused = ended.iter().filter(|(_, it, _)| it.exit_code == 0).count();
    let all = ended.len();
    claims.check("containers that were refused one write", format!("{refused} of {all}"), refused == all);
    claims.check("told once, with container and pod", format!("{right} of {all}"), right == all);
    let mut lengths: Vec<Duration> = lived(&lives, &lines).collect();
    let short = lengths.iter().filter(|life| **life <= SHORT).count();
    claims.check("of them lived for 10 ms at most, from execve to exit", short, short >= containers);
    claims.note("these lives, by the kernel's own record of each program", spread(&mut lengths));
    let mut lengths: Vec<Duration> = ended.iter().map(|(_, it, _)| it.lived).collect();
    claims.note("from containerd's time of start to its time of end", spread(&mut lengths));
    claims.note("time", format!("{:.1} s, {AT_A_TIME} at a time", took.as_secs_f64()));
    for (at_a_time, took, paths) in phases {
        let told = paths.iter().filter_map(|path| events.get(path)).flatten();
        let mut delays: Vec<Duration> = told.map(|line| line.delay()).collect();
        let rate = paths.len() as f64 / took.as_secs_f64();
        let what = format!("from the kernel to the reader of stdout, {rate:.1} starts a second, {at_a_time} at a time");
        claims.note(&what, spread(&mut delays));
    }
    claims.are_held()
}

/// Runs so many containers, one after the other, in each of the pods at once: the path that each was refused, and its end.
async fn round<'a>(work: &Work, pods: &'a [Pod], containers: usize, round: &str) -> Vec<(String, Ended, &'a Pod)> {
    let of_pod = async |pod: &'a Pod| {
        let mut ended = Vec::new();
        for step in 0..containers {
            let name = format!("step-{round}-{step}");
            let path = format!("/etc/{}-{name}", pod.name);
            let mut spec = work.container(["/proof/writer", "blink", &path]).named(&name);
            spec.cpu_shares = SHARES;
            ended.push((path, pod.run(spec).await, pod));
        }
        ended
    };
    join_all(pods.iter().map(of_pod)).await.into_iter().flatten().collect()
}

/// Lets what is in the pods' cgroups go first, where there is a controller for that: a container's own share counts among those of
/// its pod alone.
fn prefer(lab: &Lab, pods: &[Pod]) {
    let top = lab.containerd.cgroup();
    let of_pods = pods.iter().map(|pod| format!("{top}/besteffort/pod{}", pod.uid));
    for cgroup in [top.clone(), format!("{top}/besteffort")].into_iter().chain(of_pods) {
        // The controller is in one hierarchy or the other, or in none.
        let _ = fs::write(format!("/sys/fs/cgroup/cpu/{cgroup}/cpu.shares"), SHARES.to_string());
        let _ = fs::write(format!("/sys/fs/cgroup/{cgroup}/cpu.weight"), WEIGHT.to_string());
    }
}

/// How long the programs lived of which these lines tell, as far as that was seen.
fn lived(lives: &Lives, lines: &[Line]) -> impl Iterator<Item = Duration> {
    lines.iter().filter(|line| line.writes() > 0).filter_map(|line| {
        let process = u32::try_from(line.event["process"]["pid"].as_u64()?).ok()?;
        Some(lives.of(process, monotonic_ns(text(&line.event["time"]))?)?.length())
    })
}

/// The time of an event on CLOCK_MONOTONIC, nanoseconds.
fn monotonic_ns(time: &str) -> Option<u64> {
    let ago = jiff::Timestamp::now().duration_since(time.parse().ok()?);
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let now_ns = i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec);
    u64::try_from(now_ns - ago.as_nanos()).ok()
}
