//! Tries to change mounts: what a container does on purpose is told with its effect, and what the runtime does to start
//! it raises no alarm.

use serde_json::{Value, json};

use super::{
    identity::node::{import, run},
    support::{
        Lab,
        agent::{Agent, Events},
        pod::{Pod, idle, sealed},
    },
};

#[tokio::test]
async fn a_remount_of_the_sealed_root_is_one_attempt_that_unseals() {
    let lab = Lab::start().await;
    let agent = Agent::watching(&lab).await;
    let web = lab.privileged_pod("prod", "web").await;

    let app = web.run(sealed(["mount", "-o", "remount,rw", "/"]).privileged()).await;
    assert_eq!((app.exit_code, app.output.as_str()), (0, ""));
    wait_for_attempt(&agent, &web, "remount").await;
    let metrics = agent.metrics().await;
    let events = agent.stop().await;

    let event = the_one_attempt(&events, &web);
    assert_eq!(event["operation"], "remount");
    assert_eq!(event["outcome"], "succeeded");
    assert_eq!(event["errno"], Value::Null);
    assert_eq!(event["count"], 1);
    assert_eq!(event["mount"]["effect"], "unseal");
    assert_eq!(event["mount"]["target"], "/");
    assert_eq!(event["process"]["exe"], "/bin/busybox");
    assert_eq!(event["process"]["args"], serde_json::json!(["mount", "-o", "remount,rw", "/"]));
    assert_eq!(event["process"]["cap_sys_admin"], true);
    assert_eq!(event["container"]["id"], app.id.as_str());
    assert_eq!(event["container"]["privileged"], true);
    assert_eq!(event["pod"]["name"], "web");

    let of_attempt = [("pod", "web"), ("operation", "remount"), ("effect", "unseal"), ("outcome", "succeeded")];
    assert_eq!(metrics.sum("rosentry_mount_attempts_total", &of_attempt), Some(1.0));
    assert_eq!(metrics.sum("rosentry_mount_attempts_total", &[("pod", "web")]), Some(1.0));
}

#[tokio::test]
async fn a_shell_that_moves_itself_to_a_cgroup_of_the_node_is_still_known_by_its_pod() {
    const ESCAPE: &str =
        "mkdir /dev/x && mount -t cgroup2 none /dev/x && echo 0 >/dev/x/cgroup.procs && mount -o remount,rw /";
    let lab = Lab::start().await;
    let agent = Agent::watching(&lab).await;
    let web = lab.privileged_pod("prod", "web").await;

    let app = web.run(sealed(["sh", "-c", ESCAPE]).privileged()).await;
    assert_eq!((app.exit_code, app.output.as_str()), (0, ""));
    let remount = wait_for_attempt(&agent, &web, "remount").await;
    agent.stop().await;

    assert_eq!(remount["mount"]["effect"], "unseal");
    assert_eq!(remount["container"]["id"], app.id.as_str());
}

#[tokio::test]
async fn an_unprivileged_remount_is_an_attempt_that_failed() {
    let lab = Lab::start().await;
    let agent = Agent::watching(&lab).await;
    let web = lab.pod("prod", "web").await;

    let app = web.run(sealed(["mount", "-o", "remount,rw", "/"])).await;
    assert_ne!(app.exit_code, 0);
    wait_for_attempt(&agent, &web, "remount").await;
    let events = agent.stop().await;

    for event in events.mount_attempts_of(&web) {
        assert_eq!(event["operation"], "remount");
        assert_eq!(event["outcome"], "failed");
        assert_eq!(event["errno"], "EPERM");
        assert_eq!(event["process"]["cap_sys_admin"], false);
    }
}

#[tokio::test]
async fn mount_setattr_on_the_sealed_root_unseals_as_well() {
    let lab = Lab::start().await;
    let agent = Agent::watching(&lab).await;
    let web = lab.privileged_pod("prod", "web").await;

    let app = web.run(sealed(["clear-readonly", "/"]).privileged()).await;
    assert_eq!((app.exit_code, app.output.as_str()), (0, ""));
    wait_for_attempt(&agent, &web, "mount_setattr").await;
    let events = agent.stop().await;

    let event = the_one_attempt(&events, &web);
    assert_eq!(event["outcome"], "succeeded");
    assert_eq!(event["mount"]["effect"], "unseal");
    assert_eq!(event["mount"]["target"], "/");
}

#[tokio::test]
async fn a_mount_over_a_sealed_folder_shadows_it_and_its_umount_detaches() {
    let lab = Lab::start().await;
    let agent = Agent::watching(&lab).await;
    let web = lab.privileged_pod("prod", "web").await;

    let script = "mount -t tmpfs scratch /usr && umount /usr";
    let app = web.run(sealed(["sh", "-c", script]).privileged()).await;
    assert_eq!((app.exit_code, app.output.as_str()), (0, ""));
    let shadow = wait_for_attempt(&agent, &web, "mount").await;
    let detach = wait_for_attempt(&agent, &web, "umount").await;
    let events = agent.stop().await;

    assert_eq!(shadow["mount"]["effect"], "shadow");
    assert_eq!(shadow["mount"]["target"], "/usr");
    assert_eq!(shadow["mount"]["source"], "scratch");
    assert_eq!(shadow["mount"]["fstype"], "tmpfs");
    assert_eq!(detach["mount"]["effect"], "detach");
    assert_eq!(detach["mount"]["target"], "/usr");
    assert_eq!(events.mount_attempts_of(&web).len(), 2);
}

// ctr blocks the test's own thread.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_container_that_is_not_watched_its_own_mounts_are_told_and_not_the_runtime_s() {
    let lab = Lab::start().await;
    let agent = Agent::watching(&lab).await;
    import(&lab);
    let id = "f0".repeat(32);
    let cgroup = format!("/{}/docker/{id}", lab.containerd.cgroup());
    let command = [id.as_str(), "mount", "-t", "tmpfs", "scratch", "/usr"];
    run(&lab, &["--rm", "--privileged", "--cgroup", &cgroup], &command);

    let is_its = |event: &Value| event["cgroup"]["path"].as_str().is_some_and(|path| path.ends_with(&id));
    agent.wait_for("its mount", |event| event["kind"] == "mount_attempt" && is_its(event)).await;
    let events = agent.stop().await;

    let attempts: Vec<_> = events.0.iter().filter(|event| event["kind"] == "mount_attempt" && is_its(event)).collect();
    assert_eq!(attempts.len(), 1, "{attempts:#?}");
    assert_eq!((&attempts[0]["mount"]["target"], &attempts[0]["container"]), (&json!("/usr"), &Value::Null));
}

#[tokio::test]
async fn starting_stopping_and_restarting_50_sealed_containers_is_no_attempt() {
    const PODS: usize = 5;
    const CONTAINERS_PER_POD: usize = 10;
    let lab = Lab::start().await;
    let agent = Agent::watching(&lab).await;

    for pod in 0..PODS {
        let pod = lab.pod("prod", &format!("web-{pod}")).await;
        for container in 0..CONTAINERS_PER_POD {
            let spec = idle().named(&format!("app-{container}"));
            let first = pod.start_container(spec.clone()).await;
            first.stop().await;
            first.remove().await;
            pod.start_container(spec.restarted()).await.stop().await;
        }
    }
    // A write that is reported shows that the agent saw the containers at all.
    let last = lab.pod("prod", "last").await;
    last.run(sealed(["touch", "/etc/x"])).await;
    agent.wait_for_write(&last, "/etc/x").await;
    let events = agent.stop().await;

    // No container of this test mounts anything: whatever is told would be the runtime's own work, some 40 mounts a start.
    let attempts = events.of_lab(&lab, "mount_attempt");
    assert!(attempts.is_empty(), "{} events, the first: {:#}", attempts.len(), attempts[0]);
    assert!(events.of_lab(&lab, "seal_broken").is_empty());
}

async fn wait_for_attempt(agent: &Agent, pod: &Pod, operation: &str) -> Value {
    let wanted = |event: &Value| {
        event["kind"] == "mount_attempt" && event["pod"]["uid"] == pod.uid.as_str() && event["operation"] == operation
    };
    agent.wait_for(&format!("a {operation} in {}/{}", pod.namespace, pod.name), wanted).await
}

fn the_one_attempt<'a>(events: &'a Events, pod: &Pod) -> &'a Value {
    let attempts = events.mount_attempts_of(pod);
    assert_eq!(attempts.len(), 1, "{attempts:#?}");
    attempts[0]
}
