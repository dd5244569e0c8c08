//! A write that a container's read-only root refuses becomes one event and one count, with everything about it; what
//! is no such write becomes none.

use std::process::Command;

use serde_json::Value;

use super::support::{
    Lab,
    agent::{Agent, PATIENCE},
    image::{IMAGE, image},
    patiently,
    pod::{idle, sealed, writable},
};

#[tokio::test]
async fn a_refused_touch_is_exactly_one_event_with_everything_about_it() {
    let lab = Lab::start().await;
    let agent = Agent::watching(&lab).await;
    let web = lab.pod("prod", "web").await;

    let app = web.run(sealed(["touch", "/etc/x"])).await;
    agent.wait_for_write(&web, "/etc/x").await;
    let metrics = agent.metrics().await;
    let events = agent.stop().await;

    let writes = events.writes_of(&web);
    assert_eq!(writes.len(), 1, "{writes:#?}");
    let event = writes[0];
    assert_eq!(event["operation"], "open");
    assert_eq!(event["outcome"], "denied");
    assert_eq!(event["errno"], "EROFS");
    assert_eq!(event["count"], 1);
    assert_eq!(event["file"]["path"], "/etc/x");
    assert_eq!(event["file"]["requested"], "/etc/x");
    assert!(has_flag(event, "O_CREAT"), "{event:#}");
    assert!(has_flag(event, "O_WRONLY") || has_flag(event, "O_RDWR"), "{event:#}");
    assert_eq!(event["mount"]["kind"], "rootfs");
    assert_eq!(event["process"]["exe"], "/bin/busybox");
    assert_eq!(event["process"]["comm"], "touch");
    assert_eq!(event["process"]["args"], serde_json::json!(["touch", "/etc/x"]));
    assert_eq!(event["process"]["uid"], 0);
    assert_eq!(event["process"]["cap_sys_admin"], false);
    assert_eq!(event["container"]["id"], app.id.as_str());
    assert_eq!(event["container"]["name"], "app");
    assert_eq!(event["container"]["image"], IMAGE);
    assert_eq!(event["container"]["image_digest"], image().digest.as_str());
    assert_eq!(event["container"]["readonly_rootfs"], true);
    assert_eq!(event["container"]["privileged"], false);
    assert_eq!(event["pod"]["namespace"], "prod");
    assert_eq!(event["pod"]["name"], "web");
    assert_eq!(event["pod"]["uid"], web.uid.as_str());
    assert_eq!(event["pod"]["labels"]["app"], "web");

    let of_pod = [("namespace", "prod"), ("pod", "web")];
    assert_eq!(metrics.sum("rosentry_write_denied_total", &of_pod), Some(1.0));
    let of_container = [("pod", "web"), ("container", "app"), ("operation", "open"), ("mount", "rootfs")];
    assert_eq!(metrics.sum("rosentry_write_denied_total", &of_container), Some(1.0));
}

#[tokio::test]
async fn a_writable_pod_is_no_event() {
    let lab = Lab::start().await;
    let agent = Agent::watching(&lab).await;
    let free = lab.pod("prod", "free").await;
    let sealed_pod = lab.pod("prod", "sealed").await;

    let app = free.run(writable(["touch", "/etc/x"])).await;
    assert_eq!(app.exit_code, 0);
    // What comes after it has come, so whatever was to come of it would be there too.
    sealed_pod.run(sealed(["touch", "/etc/x"])).await;
    agent.wait_for_write(&sealed_pod, "/etc/x").await;
    let metrics = agent.metrics().await;
    let events = agent.stop().await;

    assert!(events.writes_of(&free).is_empty());
    assert_eq!(metrics.sum("rosentry_write_denied_total", &[("pod", "free")]).unwrap_or(0.0), 0.0);
}

#[tokio::test]
async fn a_process_of_the_host_is_no_event_in_the_default_scope() {
    let lab = Lab::start().await;
    let agent = Agent::watching(&lab).await;
    let web = lab.pod("prod", "web").await;

    let on_host = Command::new("unshare")
        .args(["--mount", "sh", "-c", "mount -t tmpfs -o ro of-the-host /mnt && touch /mnt/of-the-host"])
        .output()
        .expect("unshare is installed");
    let refusal = String::from_utf8_lossy(&on_host.stderr);
    assert!(refusal.contains("Read-only file system"), "{refusal}");
    web.run(sealed(["touch", "/etc/x"])).await;
    agent.wait_for_write(&web, "/etc/x").await;
    let events = agent.stop().await;

    let of_host: Vec<&Value> = events.0.iter().filter(|event| event.to_string().contains("of-the-host")).collect();
    assert!(of_host.is_empty(), "{of_host:#?}");
}

#[tokio::test]
async fn a_write_into_a_volume_of_a_sealed_pod_is_no_event() {
    let lab = Lab::start().await;
    let agent = Agent::watching(&lab).await;
    let web = lab.pod("prod", "web").await;
    let volume = lab.containerd.path("volume");
    std::fs::create_dir(&volume).expect("the volume's folder is made");

    let app = web.run(sealed(["sh", "-c", "touch /data/x && touch /etc/x"]).with_volume(&volume, "/data")).await;
    assert_eq!(app.output, "touch: /etc/x: Read-only file system");
    agent.wait_for_write(&web, "/etc/x").await;
    let events = agent.stop().await;

    assert_eq!(events.writes_of(&web).len(), 1);
}

#[tokio::test]
async fn a_relative_path_is_reported_from_the_root_of_the_container() {
    let lab = Lab::start().await;
    let agent = Agent::watching(&lab).await;
    let web = lab.pod("prod", "web").await;
    let app = web.start_container(idle()).await;

    app.exec(["sh", "-c", "cd /usr && touch ../etc/x"]).await;
    let event = agent.wait_for_write(&web, "/etc/x").await;
    agent.stop().await;

    assert_eq!(event["file"]["requested"], "../etc/x");
    assert_eq!(event["process"]["cwd"], "/usr");
}

#[tokio::test]
async fn an_open_by_dirfd_is_reported_from_the_root_of_the_container() {
    let lab = Lab::start().await;
    let agent = Agent::watching(&lab).await;
    let web = lab.pod("prod", "web").await;
    let app = web.start_container(idle()).await;

    app.exec(["open-by-dirfd", "/usr/share", "../../etc/./x"]).await;
    let event = agent.wait_for_write(&web, "/etc/x").await;
    agent.stop().await;

    assert_eq!(event["file"]["requested"], "../../etc/./x");
    assert_eq!(event["file"]["flags"], serde_json::json!(["O_WRONLY", "O_CREAT"]));
    assert_eq!(event["process"]["exe"], "/bin/open-by-dirfd");
}

#[tokio::test]
async fn a_path_through_a_symlinked_folder_is_reported_where_it_leads() {
    let lab = Lab::start().await;
    let agent = Agent::watching(&lab).await;
    let web = lab.pod("prod", "web").await;
    let app = web.start_container(idle()).await;

    // Links are followed where that does not take too long, so again where the machine was busy with something else.
    patiently(PATIENCE, "a write is told where the link leads", async || {
        app.exec(["touch", "/settings/x"]).await;
        let told = |event: &Value| event["file"]["requested"] == "/settings/x";
        agent.wait_for("the write", told).await;
        agent
            .so_far()
            .writes_of(&web)
            .into_iter()
            .filter(|event| told(event))
            .any(|event| event["file"]["path"] == "/etc/x")
    })
    .await;
    agent.stop().await;
}

#[tokio::test]
async fn repeats_of_a_refused_write_add_up_to_what_was_tried() {
    let lab = Lab::start().await;
    let agent = Agent::watching(&lab).await;
    let web = lab.pod("prod", "web").await;

    web.run(sealed(["sh", "-c", "for again in 1 2 3 4 5 6 7; do echo line >> /var/log/app.log; done"])).await;
    let event = agent.wait_for_write(&web, "/var/log/app.log").await;
    let events = agent.stop().await;

    assert!(has_flag(&event, "O_APPEND"), "{event:#}");
    let counts = events.writes_of(&web).into_iter().filter_map(|event| event["count"].as_u64());
    assert_eq!(counts.sum::<u64>(), 7);
}

fn has_flag(event: &Value, flag: &str) -> bool {
    event["file"]["flags"].as_array().is_some_and(|flags| flags.iter().any(|it| it == flag))
}
