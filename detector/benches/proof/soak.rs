//! The agent under load for long: its memory stays flat. With a seed, containerd, the receiver and the agent are killed now and
//! then: the record stays whole, and all that was refused while an agent watched is in it.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use fastrand::Rng;
use jiff::Timestamp;
use serde_json::Value;

use crate::{
    claims::{Claims, mebibytes},
    receiver::Receiver,
    support::{cri::Cri, patiently},
    watched::{Watched, text},
    work::Work,
};

/// Between two writes of each of the two pods that go on.
const PAUSE: Duration = Duration::from_millis(10);
/// Between two containers that come, write once and go.
const BETWEEN_CONTAINERS: Duration = Duration::from_secs(2);
/// Between two looks at the memory.
const BETWEEN_SAMPLES: Duration = Duration::from_secs(10);
/// By how much the memory's mean of the last third may be above that of the second.
const GROWTH: f64 = (2 << 20) as f64;
/// What an agent that is killed may have had in its hands.
const IN_HAND: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(120);

/// When an agent watched, as far as can be told from outside.
type Watch = (Timestamp, Timestamp);

/// Runs it for so long, with kills from this seed.
pub async fn run(program: &Path, minutes: u64, chaos: Option<u64>) -> bool {
    let mut claims = Claims::default();
    let (mut lab, work) = Work::in_lab().await;
    let mut receiver = Receiver::start();
    let [spool, file] = ["spool", "events.json"].map(|name| lab.containerd.path(name).display().to_string());
    let url = receiver.url();
    let sinks = ["--json", &file, "--file-max-size", "0", "--syslog", &url, "--spool-dir", &spool];
    let mut agent = Watched::start_with(program, &lab.containerd.socket(), &sinks).await;
    let mut watches: Vec<Watch> = Vec::new();
    let mut since = Timestamp::now();

    let mut probes = Vec::new();
    for pod in ["one", "two"] {
        probes.push(work.probe(&lab.pod("prod", pod).await, PAUSE, usize::MAX >> 1).await);
    }
    let coming = lab.pod("prod", "coming").await;
    let mut rng = chaos.map(Rng::with_seed);
    let (began, length) = (Instant::now(), Duration::from_secs(minutes * 60));
    let (mut next_container, mut next_sample, mut next_kill) = (began, began, began + Duration::from_secs(5));
    let (mut samples, mut kills, mut crashes, mut containers) = (Vec::new(), [0; 3], 0, 0u64);
    while began.elapsed() < length {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = Instant::now();
        if !agent.runs() {
            crashes += 1;
            watches.push((since, Timestamp::now()));
            agent = Watched::start_with(program, &lab.containerd.socket(), &sinks).await;
            since = Timestamp::now();
        }
        if now >= next_container {
            next_container = now + BETWEEN_CONTAINERS;
            containers += 1;
            let path = format!("/etc/coming-{containers}");
            let spec = work.container(["/proof/writer", "blink", &path]).named(&format!("step-{containers}"));
            let ended = coming.run(spec).await;
            // As a kubelet does after a while.
            let mut cri = Cri::connect(&lab.containerd.socket()).await.expect("containerd answers");
            cri.remove_container(&ended.id).await.expect("the container is removed");
        }
        if now >= next_sample {
            next_sample = now + BETWEEN_SAMPLES;
            let used = agent.used();
            samples.push(used.resident);
            println!("{:>6} s  {}", began.elapsed().as_secs(), mebibytes(used.resident));
        }
        let Some(rng) = rng.as_mut().filter(|_| now >= next_kill) else { continue };
        let away = Duration::from_millis(rng.u64(0..3000));
        match rng.usize(0..3) {
            0 => {
                watches.push((since, Timestamp::now()));
                drop(agent);
                tokio::time::sleep(away).await;
                agent = Watched::start_with(program, &lab.containerd.socket(), &sinks).await;
                since = Timestamp::now();
                kills[0] += 1;
            }
            1 => {
                lab.containerd.kill();
                tokio::time::sleep(away).await;
                lab.containerd.start_again().await;
                kills[1] += 1;
            }
            _ => {
                receiver.go_away();
                tokio::time::sleep(away * 3).await;
                receiver.come_back();
                kills[2] += 1;
            }
        }
        next_kill = Instant::now() + Duration::from_millis(rng.u64(3000..12_000));
    }
    // Not by a stop over CRI: what they have written is on record, and they go with the lab.
    let ended = Timestamp::now();
    tokio::time::sleep(IN_HAND).await;
    patiently(PATIENCE, "all is delivered", async || {
        tokio::time::sleep(Duration::from_millis(200)).await;
        // What is being written just now is always on its way.
        agent.metrics().await.sum("rosentry_sink_spool_bytes", &[("sink", "syslog")]).unwrap_or_default()
            < f64::from(4 << 20)
    })
    .await;
    let lost = agent.metrics().await.sum("rosentry_events_lost_total", &[]).unwrap_or_default();
    let used = agent.used();
    agent.stop().await;
    watches.push((since, ended + IN_HAND));

    let received = receiver.received();
    let copy = lab.containerd.path("received.json");
    received.write_to(&copy);
    let text_of_file = fs::read_to_string(&file).unwrap_or_default();
    let events: Vec<Value> = text_of_file.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let told: BTreeSet<&str> = events.iter().map(|event| text(&event["file"]["path"])).collect();
    let refused: Vec<_> = probes.iter().flat_map(|probe| probe.refused()).filter(|(_, time)| *time < ended).collect();
    let is_watched = |time: Timestamp| watches.iter().any(|&(from, until)| from <= time && time + IN_HAND <= until);
    let watched: Vec<_> = refused.iter().filter(|(_, time)| is_watched(*time)).collect();
    let missing = watched.iter().filter(|(path, _)| !told.contains(path.as_str())).count();

    let minutes = began.elapsed().as_secs_f64() / 60.0;
    claims.note(
        "it took",
        format!("{minutes:.1} min; {} writes refused, {containers} containers came and went", refused.len()),
    );
    if let Some(seed) = chaos {
        let [agents, containerds, receivers] = kills;
        claims.note(
            "killed, with seed",
            format!("{seed}: {agents} × the agent, {containerds} × containerd, {receivers} × the receiver"),
        );
    }
    claims.check("the agent ended by itself", format!("{crashes} times"), crashes == 0);
    claims.check(
        "refused while an agent watched and not in its record",
        format!("{missing} of {}", watched.len()),
        missing == 0,
    );
    claims.note("refused while none did, or a second before it was killed", refused.len() - watched.len());
    claims.check("lost, by the last agent's own count", lost, lost == 0.0);
    for (what, path) in [("rosentry verify of the file", file.as_ref()), ("of what the receiver has", copy.as_path())] {
        let verified = Command::new(program).arg("verify").arg(path).output().expect("rosentry verify runs");
        let said = [verified.stdout, verified.stderr].concat();
        claims.check(what, String::from_utf8_lossy(&said).trim().replace('\n', "\n      "), verified.status.success());
    }
    claims.check("lines with a number of another", received.contradicted, received.contradicted == 0);
    claims.note("lines that the receiver got twice", received.repeated);
    claims.note("memory at most", mebibytes(used.most_resident));
    if chaos.is_none() && samples.len() >= 6 {
        let third = samples.len() / 3;
        let mean = |samples: &[u64]| samples.iter().sum::<u64>() as f64 / samples.len() as f64;
        let (second, last) = (mean(&samples[third..2 * third]), mean(&samples[2 * third..]));
        claims.check(
            "memory in the second and in the last third",
            format!("{}, {}", mebibytes(second as u64), mebibytes(last as u64)),
            last - second < GROWTH,
        );
    }
    claims.are_held()
}
