//! Containers that are gone at once: each one's only write is told with its pod.

use std::{collections::BTreeMap, path::Path, time::Duration};

use crate::{
    claims::{Claims, spread},
    support::{Lab, pod::Pod},
    watched::{Watched, text},
    work::{Work, join_all},
};

/// How many are started at a time, each in a pod of its own.
const AT_A_TIME: usize = 20;
/// How long the last event may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs so many containers.
pub async fn run(program: &Path, containers: usize) -> bool {
    let mut claims = Claims::default();
    let lab = Lab::start().await;
    let work = Work::new(&lab, &[]);
    let agent = Watched::start(program, &lab.containerd.socket()).await;
    let mut pods: Vec<Pod> = Vec::new();
    for pod in 0..AT_A_TIME {
        pods.push(lab.pod("prod", &format!("job-{pod}")).await);
    }
    let began = std::time::Instant::now();
    let work = &work;
    let of_pod = async |pod: &Pod| {
        let mut ended = Vec::new();
        for step in 0..containers / AT_A_TIME {
            let name = format!("step-{step}");
            let path = format!("/etc/{}-{name}", pod.name);
            let spec = work.container(["/proof/writer", "blink", &path]).named(&name);
            ended.push((path, pod.run(spec).await));
        }
        ended
    };
    let ended = join_all(pods.iter().map(of_pod)).await;
    let took = began.elapsed();
    let ended: Vec<_> =
        ended.into_iter().zip(&pods).flat_map(|(ended, pod)| ended.into_iter().map(move |it| (it, pod))).collect();

    let waiting = std::time::Instant::now();
    let counted = async || agent.metrics().await.sum("rosentry_write_denied_total", &[("namespace", "prod")]);
    while counted().await.unwrap_or_default() < ended.len() as f64 && waiting.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let lines = agent.stop().await;

    let mut events = BTreeMap::new();
    for line in lines.iter().filter(|line| line.writes() > 0) {
        events.entry(text(&line.event["file"]["path"]).to_owned()).or_insert_with(Vec::new).push(line);
    }
    let right = ended.iter().filter(|((path, it), pod)| {
        let Some([line]) = events.get(path).map(Vec::as_slice) else { return false };
        line.writes() == 1
            && line.event["container"]["id"] == it.id.as_str()
            && line.event["pod"]["uid"] == pod.uid.as_str()
            && line.event["pod"]["name"] == pod.name.as_str()
    });
    let right = right.count();
    let refused = ended.iter().filter(|((_, it), _)| it.exit_code == 0).count();
    claims.check("containers that were refused one write", refused, refused == containers);
    claims.check("told once, with container and pod", right, right == containers);
    claims.note("time", format!("{:.1} s, {AT_A_TIME} at a time", took.as_secs_f64()));
    let mut lives: Vec<Duration> = ended.iter().map(|((_, it), _)| it.lived).collect();
    claims.note("from containerd's time of start to its time of end", spread(&mut lives));
    let short = lives.iter().filter(|life| **life <= Duration::from_millis(10)).count();
    claims.note("of these 10 ms at most", short);
    claims.are_held()
}
