//! What `deploy/` shows of a node on which much happens: a real Prometheus scrapes the pod of the DaemonSet, records the rules and
//! answers every query of every dashboard.
//!
//! Of kube-state-metrics a page with a few series stands in.

use std::{fs, net::SocketAddr, process::Command, time::Duration};

use rustix::mount::{MountFlags, mount};
use serde_json::{Value, json};

use super::support::{
    Lab,
    agent::free_address,
    daemonset::AgentPod,
    patiently,
    pod::{idle, writable},
    prometheus::{Prometheus, Target, deploy, serve_page},
};

/// Scrapes, rules that need each other, and alerts take some rounds of a second each.
const SHOWN_DEADLINE: Duration = Duration::from_secs(90);

/// Queries that answer with nothing where all is well, beside others of their panel that do not.
const EMPTY_WHERE_ALL_IS_WELL: [&str; 2] = ["rosentry_containerd_up{", "rosentry_coverage{"];

const STAND_IN: &str = r#"kube_pod_container_status_waiting_reason{namespace="prod",pod="web-7d4b9c6f5-x2x7p",container="app",uid="u",reason="CrashLoopBackOff"} 1
kube_daemonset_status_desired_number_scheduled{namespace="rosentry",daemonset="rosentry"} 2
kube_daemonset_status_number_available{namespace="rosentry",daemonset="rosentry"} 1
kube_daemonset_status_updated_number_scheduled{namespace="rosentry",daemonset="rosentry"} 2
"#;

#[tokio::test]
async fn every_panel_shows_what_happens_on_a_node_and_the_alerts_fire() {
    let lab = Lab::start().await;
    let agent = AgentPod::ready(&lab).await;
    let sealed = lab.pod("prod", "web-7d4b9c6f5-x2x7p").await;
    let cache = lab.nearly_full_memory(&sealed.uid);
    let app = sealed.start_container(idle().with_volume(&cache, "/data")).await;
    let privileged = lab.privileged_pod("prod", "db-0").await;
    let db = privileged.start_container(idle().privileged()).await;
    let open = lab.pod("dev", "tool").await;
    open.start_container(writable(["sleep", "2147483647"])).await;

    let gone = free_address();
    let of_node = |node: &str, address: SocketAddr| Target {
        job: "rosentry",
        address,
        labels: json!({"node": node, "namespace": "rosentry", "pod": format!("rosentry-{node}"), "container": "agent"}),
    };
    let prometheus = Prometheus::watching(&[
        of_node("n1", agent.metrics),
        of_node("n2", gone),
        Target { job: "kube-state-metrics", address: serve_page(STAND_IN.to_owned()), labels: json!({}) },
    ])
    .await;

    app.exec(["touch", "/etc/x"]).await;
    app.exec(["mount", "-o", "remount,rw", "/"]).await;
    db.exec(["mount", "-o", "remount,rw", "/"]).await;
    refuse_a_write_of_the_node(&lab);
    refuse_a_write_of_a_foreign_container(&lab);
    let is_write = |event: &Value| event["pod"]["uid"] == sealed.uid.as_str() && event["file"]["path"] == "/etc/x";
    agent.wait_for("the refused write is told", is_write).await;

    let queries = queries();
    assert!(queries.len() > 40, "{} queries", queries.len());
    let mut missing = Vec::new();
    patiently(SHOWN_DEADLINE, "every panel shows something", async || {
        missing.clear();
        for (panel, query) in &queries {
            match prometheus.query(query).await {
                Ok(series) if series.is_empty() => missing.push(format!("{panel}: {query}")),
                Ok(_) => {}
                Err(error) => panic!("{panel}: {query}: {error}"),
            }
        }
        missing
            .retain(|it| !EMPTY_WHERE_ALL_IS_WELL.iter().any(|query| it.contains(&format!("label_replace({query}"))));
        if !missing.is_empty() {
            eprintln!("nothing yet in {missing:#?}");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        missing.is_empty()
    })
    .await;

    // Each group of rules has its own second, so that what a panel shows already may be an alert, or a record, in the next round.
    let state = async |alert: &str| -> Vec<String> {
        let rules = prometheus.rules().await;
        let of_alert = rules.iter().filter(|rule| rule["name"] == alert);
        of_alert.filter_map(|rule| rule["state"].as_str().map(str::to_owned)).collect()
    };
    for alert in ["RosentrySealBroken", "RosentryUnsealSucceeded", "RosentryRemountAttempt"] {
        patiently(SHOWN_DEADLINE, &format!("{alert} fires"), async || state(alert).await == ["firing"]).await;
    }
    // They wait whether it lasts; promtool's tests say how long.
    for alert in ["RosentryPodCannotStart", "RosentryTmpfsNearlyFull", "RosentryAgentDown", "RosentryAgentMissing"] {
        patiently(SHOWN_DEADLINE, &format!("{alert} is about to fire"), async || {
            let state = state(alert).await;
            state == ["pending"] || state == ["firing"]
        })
        .await;
    }
    for alert in ["RosentryBlind", "RosentryEventsLost", "RosentryContainerdDown", "RosentryAgentAbsent"] {
        assert_eq!(state(alert).await, ["inactive"], "{alert}");
    }
    for rule in prometheus.rules().await {
        let name = rule["name"].as_str().expect("a rule has a name");
        assert_eq!(rule["health"], "ok", "{name}: {}", rule["lastError"]);
        if rule["type"] == "recording" {
            patiently(SHOWN_DEADLINE, &format!("{name} is recorded"), async || {
                !prometheus.query(name).await.expect("the query is sound").is_empty()
            })
            .await;
        }
    }

    // The workload is made of the pod's name.
    shows(&prometheus, "cluster_namespace_workload_pod:rosentry_seal_broken:max == 1", |it, _| it["workload"] == "db")
        .await;
    // The first write of a series counts; what has no container is not the agent's own. What else runs on the machine may have
    // been refused writes, too.
    let refused = "sum by (namespace, workload) (cluster_namespace_workload_pod:rosentry_write_denied:increase5m)";
    let web = json!({"namespace": "prod", "workload": "web"});
    shows(&prometheus, refused, |it, count| *it == web && count == "1").await;
    shows(&prometheus, refused, |it, count| *it == json!({}) && count != "0").await;
    let is_cache =
        |it: &Value| it["pod"] == "web-7d4b9c6f5-x2x7p" && it["workload"] == "web" && it["mountpoint"] == "/data";
    let memory = "cluster_namespace_workload_pod:rosentry_tmpfs_used:ratio";
    shows(&prometheus, memory, |it, share| is_cache(it) && share == "0.9").await;
    let enforcement = "cluster_namespace:rosentry_enforcement:ratio";
    shows(&prometheus, enforcement, |it, ratio| it["namespace"] == "prod" && ratio == "1").await;
    shows(&prometheus, enforcement, |it, ratio| it["namespace"] == "dev" && ratio == "0").await;
    assert_eq!(agent.stop().await.0, 0);
}

/// Waits until a query answers with a series whose labels and value are wanted.
async fn shows(prometheus: &Prometheus, query: &str, wanted: impl Fn(&Value, &str) -> bool) {
    let what = format!("{query} tells what happened");
    patiently(SHOWN_DEADLINE, &what, async || {
        let series = prometheus.query(query).await.expect("the query is sound");
        series.iter().any(|one| wanted(&one["metric"], one["value"][1].as_str().unwrap_or_default()))
    })
    .await;
}

/// The queries of all panels of all dashboards, for everything there is.
fn queries() -> Vec<(String, String)> {
    let mut queries = Vec::new();
    for entry in fs::read_dir(deploy().join("charts/rosentry/dashboards")).expect("there are dashboards") {
        let path = entry.expect("a dashboard").path();
        let dashboard: Value = serde_json::from_slice(&fs::read(&path).expect("it can be read")).expect("it is JSON");
        for panel in dashboard["panels"].as_array().expect("a dashboard has panels") {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let mut query = target["expr"].as_str().expect("a target has a query").to_owned();
                for variable in ["cluster", "namespace", "workload", "node"] {
                    query = query.replace(&format!("${variable}"), ".*");
                }
                query = query.replace("$__rate_interval", "1m");
                assert!(!query.replace("\"$1\"", "").contains('$'), "a variable is left in {query}");
                queries.push((format!("{} / {}", dashboard["title"], panel["title"]), query));
            }
        }
    }
    queries
}

/// On a read-only mount of the lab.
fn refuse_a_write_of_the_node(lab: &Lab) {
    let folder = lab.containerd.path("read-only");
    fs::create_dir(&folder).expect("the folder is made");
    mount("tmpfs", &folder, "tmpfs", MountFlags::RDONLY, None).expect("a test may mount a tmpfs");
    fs::write(folder.join("x"), "").expect_err("a read-only mount refuses writes");
}

/// From a cgroup that looks like a container's, of which containerd knows nothing.
fn refuse_a_write_of_a_foreign_container(lab: &Lab) {
    let mounts = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(|mount| format!("{mount}/cgroup.procs"));
    let mount = mounts.iter().find(|file| fs::exists(file).unwrap_or(false)).expect("a cgroup2 hierarchy");
    let cgroup = mount.replace("cgroup.procs", &format!("{}/{}", lab.containerd.cgroup(), "f".repeat(64)));
    fs::create_dir_all(&cgroup).expect("the cgroup is made");
    let script = format!("echo $$ > {cgroup}/cgroup.procs && : > {}/y", lab.containerd.path("read-only").display());
    let refused = Command::new("sh").args(["-c", &script]).output().expect("sh runs");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("Read-only"), "{refused:?}");
}
