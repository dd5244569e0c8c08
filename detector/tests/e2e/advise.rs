//! Advice is taken: an application that fails on a sealed root runs with the mounts that are advised from its refused writes, still
//! sealed, and nothing that it writes is refused any more.

use std::{fs, path::Path, process::Command};

use serde_json::Value;

use super::support::{
    Lab,
    agent::{Agent, PROGRAM},
    kubelet::Volumes,
    pod::sealed,
};

/// Writes temporary files, logs, a folder of its own, a file of /etc, and next to the image's files; fails where one fails.
const APPLICATION: &str = "failed=0
mkdir /tmp/work || failed=1
echo x >>/var/log/app.log || failed=1
mkdir -p /state/deep || failed=1
echo x >/etc/app.conf || failed=1
ln -s x /opt/app/link || failed=1
exit $failed";

#[tokio::test]
async fn with_the_mounts_that_are_advised_an_application_runs_sealed() {
    let lab = Lab::start().await;
    let agent = Agent::watching(&lab).await;
    let web = lab.pod("prod", "web").await;
    let app = sealed(["sh", "-c", APPLICATION]);

    assert_eq!(web.run(app.clone()).await.exit_code, 1, "it can't write");
    agent.wait_for_write(&web, "/opt/app/link").await;
    let folder = tempfile::tempdir().expect("a folder is made");
    let pod = advised(&agent, folder.path());

    let volumes = Volumes::of(&pod, folder.path());
    for fill in pod["initContainers"].as_array().expect("files are copied") {
        let ended = web.run(volumes.container(fill)).await;
        assert_eq!((ended.exit_code, ended.output.as_str()), (0, ""), "{fill}");
    }
    let mended = web.run(volumes.mounted(app, &pod["containers"][0]).restarted()).await;
    // What comes after it has come, so whatever was to come of it would be there too.
    let other = lab.pod("prod", "other").await;
    other.run(sealed(["touch", "/etc/x"])).await;
    agent.wait_for_write(&other, "/etc/x").await;
    let events = agent.stop().await;

    assert_eq!((mended.exit_code, mended.output.as_str()), (0, ""), "{pod:#}");
    let refused: Vec<_> = events
        .writes_of(&web)
        .into_iter()
        .filter(|event| event["container"]["id"] == mended.id.as_str() && event["severity"] != "info")
        .collect();
    assert!(refused.is_empty(), "{refused:#?}");
}

/// The specification of the pod in what is advised for it.
fn advised(agent: &Agent, folder: &Path) -> Value {
    let record = folder.join("events.json");
    fs::write(&record, agent.lines().join("\n") + "\n").expect("the events are written");
    let mut advise = Command::new(PROGRAM);
    advise.args(["advise", "--workload", "prod/web", "--format", "json"]).arg(&record);
    let output = advise.output().expect("advise runs");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let advice: Value = serde_json::from_slice(&output.stdout).expect("advise answers in JSON");
    assert_eq!(advice["workloads"][0]["notes"], Value::Array(Vec::new()), "everything is mended");
    advice["workloads"][0]["patch"]["spec"]["template"]["spec"].clone()
}
