//! What a container may choose, it chooses to do harm: names, how many there are, and whose they seem to be.

use std::{
    collections::BTreeSet,
    fs,
    process::{Command, Stdio},
};

use serde_json::Value;

use super::support::{
    Lab,
    agent::{Agent, PATIENCE, PROGRAM, free_address, run_command},
    metrics::Metrics,
    patiently,
    pod::{idle, sealed},
};

/// Names in the way that `printf` writes them, and as events tell them.
const NAMES: [(&str, &str); 6] = [
    (r"new\nline", r"new\x0aline"),
    (r"\033[2J\033]0;owned\007", r"\x1b[2J\x1b]0;owned\x07"),
    (r"\377\376 no text", r"\xff\xfe no text"),
    (r"\342\200\256over", r"\xe2\x80\xaeover"),
    (r#"a","kind":"agent"#, r#"a","kind":"agent"#),
    (r"back\\slash", r"back\\slash"),
];

#[tokio::test]
async fn names_of_any_bytes_make_lines_that_are_whole_and_steer_no_terminal() {
    let lab = Lab::start().await;
    let agent = Agent::watching(&lab).await;
    let web = lab.pod("prod", "web").await;
    let mut script = String::new();
    for (name, _) in NAMES {
        // Its own name, and the file's; a name of a process has room for 15 bytes, and an empty one is none.
        script += &format!("printf '{name}' > /proc/$$/comm\nfile=$(printf '{name}')\ntrue > \"/etc/$file\"\n");
    }
    // As long as a path may be, its NUL included.
    script += "path=/etc/\nwhile [ ${#path} -lt 4093 ]; do path=$path./; done\ntrue > \"${path}xy\"\n";

    web.run(sealed(["sh", "-c", &script])).await;
    for (_, told) in NAMES {
        agent.wait_for_write(&web, &format!("/etc/{told}")).await;
    }
    let longest = agent.wait_for_write(&web, "/etc/xy").await;
    assert_eq!(longest["file"]["requested"].as_str().map(str::len), Some(4095));

    let names: BTreeSet<String> = agent
        .so_far()
        .writes_of(&web)
        .iter()
        .filter_map(|event| Some(event["process"]["comm"].as_str()?.into()))
        .collect();
    assert!(names.contains(r"new\x0aline") && names.contains(r"\xff\xfe no text"), "{names:?}");
    let lines = agent.lines();
    assert!(lines.iter().all(|line| !line.contains(char::is_control)), "{lines:#?}");
    // Written by one agent, so each follows the one before; `verify` reads what they say.
    let folder = tempfile::tempdir().expect("a temporary folder");
    agent.stop().await;
    let record = folder.path().join("events");
    fs::write(&record, lines.iter().map(|line| format!("{line}\n")).collect::<String>())
        .expect("the record is written");
    let verdict = Command::new(PROGRAM).arg("verify").arg(&record).output().expect("verify runs");
    assert!(verdict.status.success(), "{}", String::from_utf8_lossy(&verdict.stdout));
}

#[tokio::test]
async fn a_hundred_thousand_paths_of_one_pod_cost_no_series_and_no_memory_that_stays() {
    const PATHS: u64 = 100_000;
    let lab = Lab::start().await;
    let metrics = free_address();
    let mut command = run_command(&lab.containerd.socket(), metrics);
    // The events themselves are of no use here.
    command.stdout(Stdio::null());
    let agent = Agent::from_command(command, metrics);
    agent.becomes_ready().await;
    let web = lab.pod("prod", "web").await;
    let labels = [("namespace", "prod"), ("pod", "web")];
    let app = web.start_container(idle()).await;
    agent.knows(&web, "app").await;
    app.exec(["touch", "/etc/first"]).await;
    patiently(PATIENCE, "the first is counted", async || {
        agent.metrics().await.sum("rosentry_write_denied_total", &labels).is_some()
    })
    .await;
    let (before, resident_before) = (agent.metrics().await, resident_kib(agent.pid()));

    let script = format!(
        "i=0; while [ $i -lt {PATHS} ]; do true > /etc/a-name-that-is-not-short-$i; i=$((i+1)); done 2>/dev/null"
    );
    web.run(sealed(["sh", "-c", &script]).named("flood")).await;

    let told = |page: &Metrics| {
        let counted = page.sum("rosentry_write_denied_total", &[("container", "flood")]).unwrap_or(0.0);
        counted + page.sum("rosentry_events_lost_total", &[]).unwrap_or(0.0)
    };
    let mut after = agent.metrics().await;
    patiently(PATIENCE, "each of them is counted, as told or as lost", async || {
        after = agent.metrics().await;
        told(&after) >= PATHS as f64
    })
    .await;
    // Those of a second container, of the tmpfs that it has if it was looked at in time, and of what was lost or ignored.
    assert!(after.len() <= before.len() + 50, "{} series, then {}", before.len(), after.len());
    let grown = resident_kib(agent.pid()).saturating_sub(resident_before);
    println!("{PATHS} paths: {grown} KiB more, {} lost", after.sum("rosentry_events_lost_total", &[]).unwrap_or(0.0));
    assert!(grown < 64 << 10, "{grown} KiB");
    agent.stop().await;
}

#[tokio::test]
async fn two_pods_of_one_name_are_told_apart_and_share_their_series() {
    let lab = Lab::start().await;
    let agent = Agent::watching(&lab).await;
    let [one, other] = [lab.pod("prod", "web").await, lab.pod("prod", "web").await];
    for pod in [&one, &other] {
        pod.start_container(idle()).await.exec(["touch", "/etc/x"]).await;
    }

    let told = [agent.wait_for_write(&one, "/etc/x").await, agent.wait_for_write(&other, "/etc/x").await];

    let of_pod = |event: &Value| (event["pod"]["name"].clone(), event["container"]["name"].clone());
    assert_eq!(of_pod(&told[0]), of_pod(&told[1]));
    assert_ne!(told[0]["container"]["id"], told[1]["container"]["id"]);
    let labels = [("namespace", "prod"), ("pod", "web"), ("container", "app")];
    let metrics = agent.metrics().await;
    assert_eq!(metrics.sum("rosentry_write_denied_total", &labels), Some(2.0));
    assert_eq!(metrics.sum("rosentry_container_readonly_rootfs", &labels), Some(1.0));
    assert!(metrics.are_distinct(), "a scraper refuses a page that has a series twice");
    agent.stop().await;
}

fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the agent runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("the kernel tells it");
    line.trim().trim_end_matches(" kB").parse().expect("a number of kibibytes")
}
