//! The least that the agent needs: [`TABLE`] is what its DaemonSet declares and what docs/install.md says, and each capability of
//! it is missed where it is taken out.

use std::fs;

use serde_json::Value;

use super::support::{
    Lab,
    agent::Agent,
    daemonset::{AgentPod, declared_capabilities},
    metrics::get,
    pod::idle,
    prometheus::deploy,
};

/// `CAP_SYS_PTRACE` (`include/uapi/linux/capability.h`), which is all that a watching agent has.
const KEPT: u64 = 1 << 19;

/// A capability of the DaemonSet, as docs/install.md tells of it.
struct Row {
    capability: &'static str,
    why: &'static str,
    until: &'static str,
    without: &'static str,
    /// Whether it is so.
    missed: Missed,
}

enum Missed {
    /// The agent ends at once, and names the capability.
    DoesNotStart,
    /// The agent runs, and does not look into roots of others.
    PathsByText,
}

const TABLE: [Row; 3] = [
    Row {
        capability: "CAP_BPF",
        why: "to load programs and maps",
        until: "given up once they are attached (before kernel 5.19: kept, to read the counters)",
        without: "it does not start",
        missed: Missed::DoesNotStart,
    },
    Row {
        capability: "CAP_PERFMON",
        why: "to attach to tracepoints and read the kernel's memory",
        until: "given up once they are attached",
        without: "it does not start",
        missed: Missed::DoesNotStart,
    },
    Row {
        capability: "CAP_SYS_PTRACE",
        why: "to follow symbolic links within a container's root, to name the executables of ancestors, and to see that a first \
              process has left its container",
        until: "kept: containers come and go",
        without: "paths by their text alone (`file.resolved: lexical`), ancestors without `exe`",
        missed: Missed::PathsByText,
    },
];

#[test]
fn the_daemonset_and_the_documentation_have_the_capabilities_of_the_table() {
    let names = TABLE.map(|row| row.capability.trim_start_matches("CAP_").to_owned());
    assert_eq!(declared_capabilities(), names);
    let page = fs::read_to_string(deploy().join("../docs/install.md")).expect("the page can be read");
    let told: Vec<&str> = page.lines().filter(|line| line.starts_with("| `CAP_")).collect();
    let rows = TABLE
        .map(|Row { capability, why, until, without, .. }| format!("| `{capability}` | {why} | {until} | {without} |"));
    assert_eq!(told, rows);
}

#[tokio::test]
async fn without_any_one_of_its_capabilities_the_agent_misses_what_the_table_says() {
    let lab = Lab::start().await;
    let web = lab.pod("prod", "web").await;
    let app = web.start_container(idle()).await;
    for Row { capability, missed, .. } in TABLE {
        let agent = AgentPod::start_without(&lab, capability.trim_start_matches("CAP_")).await;
        match missed {
            Missed::DoesNotStart => {
                let (code, complaint) = agent.ended().await;
                assert_eq!(code, 2, "{complaint}");
                assert!(complaint.contains(capability), "{complaint}");
            }
            Missed::PathsByText => {
                agent.becomes_ready().await;
                app.exec(["touch", "/etc/without"]).await;
                let write = told(&agent, "/etc/without").await;
                assert_eq!(write["file"]["resolved"], "lexical");
                assert_eq!(programs_above(&write), [""; 0]);
                assert_eq!(agent.stop().await.0, 0, "it stops clean all the same");
            }
        }
    }
    // With all of them, nothing of that is missed.
    let agent = AgentPod::ready(&lab).await;
    let write = agent.follows(&app, "with").await;
    assert!(programs_above(&write).iter().any(|program| program.ends_with("/containerd-shim-runc-v2")), "{write}");
    assert_eq!(agent.stop().await.0, 0);
}

#[tokio::test]
async fn an_agent_that_watches_has_one_capability_left_in_every_thread() {
    let lab = Lab::start().await;
    let web = lab.pod("prod", "web").await;
    let app = web.start_container(idle()).await;
    let pod = AgentPod::ready(&lab).await;
    let root = Agent::watching(&lab).await;

    // Threads that begin later are there then, too: those that look into roots, that write, that answer.
    app.exec(["touch", "/etc/x"]).await;
    told(&pod, "/etc/x").await;
    root.wait_for_write(&web, "/etc/x").await;
    get(pod.metrics, "/metrics").await.expect("the agent serves metrics");
    root.metrics().await;

    let in_pod = pod.processes();
    assert_eq!(in_pod.len(), 1, "{in_pod:?}");
    for (agent, pid, filtered) in [("in its pod", in_pod[0], true), ("started by root", root.pid(), false)] {
        let threads = threads(pid);
        assert!(threads.len() > 5, "{agent}: {threads:?}");
        for thread in &threads {
            assert_eq!(
                thread.sets,
                [("CapInh", 0), ("CapPrm", KEPT), ("CapEff", KEPT), ("CapAmb", 0)],
                "{agent}: {thread:?}"
            );
            assert_eq!(thread.no_new_privs, "1", "{agent}: {thread:?}");
            assert!(!filtered || thread.seccomp == "2", "{agent}: {thread:?}");
        }
    }
    assert_eq!(pod.stop().await.0, 0);
    root.stop().await;
}

/// The refused write to this path.
async fn told(agent: &AgentPod, path: &str) -> Value {
    agent.wait_for("the write is told", |event| event["kind"] == "write_denied" && event["file"]["path"] == path).await
}

/// The executables of its ancestors, of those that have one.
fn programs_above(event: &Value) -> Vec<&str> {
    let ancestors = event["process"]["ancestors"].as_array().expect("it has ancestors");
    ancestors.iter().filter_map(|ancestor| ancestor["exe"].as_str()).collect()
}

#[derive(Debug)]
struct Thread {
    #[expect(dead_code, reason = "for whoever reads why a test failed")]
    name: String,
    sets: [(&'static str, u64); 4],
    no_new_privs: String,
    /// 2 where the runtime's profile filters its system calls.
    seccomp: String,
}

fn threads(pid: u32) -> Vec<Thread> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the agent runs").flatten();
    // One may end meanwhile.
    let statuses = tasks.filter_map(|task| fs::read_to_string(task.path().join("status")).ok());
    let thread = |status: String| {
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
            line.expect("the kernel tells it").to_owned()
        };
        let set = |name| (name, u64::from_str_radix(&field(name), 16).expect("a set is a number"));
        Thread {
            name: field("Name"),
            sets: ["CapInh", "CapPrm", "CapEff", "CapAmb"].map(set),
            no_new_privs: field("NoNewPrivs"),
            seccomp: field("Seccomp"),
        }
    };
    statuses.map(thread).collect()
}
