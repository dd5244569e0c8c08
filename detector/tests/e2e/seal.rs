//! The state of a seal, whatever made it so: found within a second, and so is its mend; nothing of a runtime's work is
//! taken for a breach.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use rustix::mount::{MountFlags, mount_remount};
use serde_json::{Value, json};

use super::support::{
    Lab,
    agent::{Agent, PATIENCE},
    patiently,
    pod::{Container, Pod, idle, sealed},
};

/// From the call that changes a seal to the line that tells of it.
const SOON: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_root_that_is_remounted_writable_is_told_within_a_second_and_so_is_its_mend() {
    let lab = Lab::start().await;
    let agent = Agent::watching(&lab).await;
    // Again where the machine was too busy with something else.
    for round in 0..5 {
        if is_told_soon_and_in_order(&lab, &agent, &format!("web-{round}")).await {
            agent.stop().await;
            return;
        }
    }
    panic!("never within {SOON:?}, and what was done before what came of it");
}

async fn is_told_soon_and_in_order(lab: &Lab, agent: &Agent, pod: &str) -> bool {
    let web = lab.privileged_pod("prod", pod).await;
    let app = web.start_container(idle().privileged()).await;
    gauge_is(agent, pod, 0.0).await;

    exec(&app, ["mount", "-o", "remount,rw", "/"]).await;
    let done = Instant::now();
    let broken = seal_told(agent, &web, false).await;
    let broken_after = done.elapsed();
    assert_eq!(gauge(agent, pod).await, Some(1.0));
    exec(&app, ["mount", "-o", "remount,ro", "/"]).await;
    let done = Instant::now();
    let mended = seal_told(agent, &web, true).await;
    let mended_after = done.elapsed();
    assert_eq!(gauge(agent, pod).await, Some(0.0));

    assert_eq!(
        broken["mount"],
        json!({
            "kind": "rootfs", "point": "/", "fstype": "overlay", "volume": null, "declared_readonly": true,
            "effect": "unseal", "cause": "remount",
        })
    );
    assert_eq!(broken["severity"], "critical");
    assert_eq!(broken["attack"], json!(["T1562"]));
    assert_eq!(broken["container"]["id"], app.id.as_str());
    assert_eq!(mended["mount"]["point"], "/");
    assert_eq!(mended["severity"], "info");
    assert_eq!(mended["first_time"], broken["time"]);
    let is_unseal = |event: &Value| event["mount"]["effect"] == "unseal" && event["container"]["id"] == app.id.as_str();
    let unseal = agent.wait_for("the attempt", |event| event["kind"] == "mount_attempt" && is_unseal(event)).await;
    assert_eq!(agent.so_far().seals_of(&web).len(), 2);
    broken_after < SOON && mended_after < SOON && unseal["seq"].as_u64() < broken["seq"].as_u64()
}

#[tokio::test]
async fn mount_setattr_breaks_a_seal_as_well() {
    let lab = Lab::start().await;
    let agent = Agent::watching(&lab).await;
    let web = lab.privileged_pod("prod", "web").await;
    let app = web.start_container(idle().privileged()).await;
    gauge_is(&agent, "web", 0.0).await;

    exec(&app, ["clear-readonly", "/"]).await;
    let broken = seal_told(&agent, &web, false).await;

    assert_eq!((&broken["mount"]["point"], &broken["mount"]["cause"]), (&json!("/"), &json!("remount")));
    agent.stop().await;
}

#[tokio::test]
async fn a_writable_mount_over_a_part_of_the_root_is_told_and_so_is_its_umount() {
    let lab = Lab::start().await;
    let agent = Agent::watching(&lab).await;
    let web = lab.privileged_pod("prod", "web").await;
    let app = web.start_container(idle().privileged()).await;
    gauge_is(&agent, "web", 0.0).await;

    exec(&app, ["mount", "-t", "tmpfs", "scratch", "/usr"]).await;
    let broken = seal_told(&agent, &web, false).await;
    assert_eq!(gauge(&agent, "web").await, Some(1.0));
    exec(&app, ["umount", "/usr"]).await;
    seal_told(&agent, &web, true).await;
    assert_eq!(gauge(&agent, "web").await, Some(0.0));
    // Read-only itself, or over what was writable already.
    exec(&app, ["mount", "-t", "tmpfs", "-o", "ro", "scratch", "/usr"]).await;
    exec(&app, ["mount", "-t", "tmpfs", "scratch", "/dev/shm"]).await;
    exec(&app, ["touch", "/etc/x"]).await;
    agent.wait_for_write(&web, "/etc/x").await;
    let events = agent.stop().await;

    let mount = &broken["mount"];
    assert_eq!((&mount["point"], &mount["fstype"]), (&json!("/usr"), &json!("tmpfs")));
    assert_eq!((&mount["effect"], &mount["cause"]), (&json!("shadow"), &json!("mount")));
    assert_eq!(broken["severity"], "critical");
    assert_eq!(events.seals_of(&web).len(), 2, "{:#?}", events.seals_of(&web));
}

#[tokio::test]
async fn a_writable_mount_on_top_of_the_root_itself_is_told() {
    let lab = Lab::start().await;
    let agent = Agent::watching(&lab).await;
    let web = lab.privileged_pod("prod", "web").await;
    let app = web.start_container(idle().privileged()).await;
    gauge_is(&agent, "web", 0.0).await;

    exec(&app, ["mount", "-t", "tmpfs", "scratch", "/"]).await;
    let broken = seal_told(&agent, &web, false).await;

    let mount = &broken["mount"];
    assert_eq!((&mount["point"], &mount["fstype"]), (&json!("/"), &json!("tmpfs")));
    assert_eq!(mount["effect"], "shadow");
    agent.stop().await;
}

#[tokio::test]
async fn a_writable_copy_of_the_root_below_dev_is_told_and_so_is_its_umount() {
    let lab = Lab::start().await;
    let agent = Agent::watching(&lab).await;
    let web = lab.privileged_pod("prod", "web").await;
    let app = web.start_container(idle().privileged()).await;
    gauge_is(&agent, "web", 0.0).await;

    exec(&app, ["mkdir", "/dev/copy"]).await;
    exec(&app, ["mount", "-o", "bind", "/", "/dev/copy"]).await;
    exec(&app, ["mount", "-o", "remount,bind,rw", "/dev/copy"]).await;
    let broken = seal_told(&agent, &web, false).await;
    assert_eq!(gauge(&agent, "web").await, Some(1.0));
    exec(&app, ["umount", "/dev/copy"]).await;
    seal_told(&agent, &web, true).await;
    let events = agent.stop().await;

    let mount = &broken["mount"];
    assert_eq!((&mount["point"], &mount["fstype"]), (&json!("/dev/copy"), &json!("overlay")));
    assert_eq!(mount["effect"], "unseal");
    assert_eq!(broken["severity"], "critical");
    assert_eq!(events.seals_of(&web).len(), 2, "{:#?}", events.seals_of(&web));
}

#[tokio::test]
async fn a_mount_table_that_is_too_large_to_read_is_told_and_not_taken_for_a_mend() {
    let lab = Lab::start().await;
    let agent = Agent::watching(&lab).await;
    let web = lab.privileged_pod("prod", "web").await;
    let app = web.start_container(idle().privileged()).await;
    gauge_is(&agent, "web", 0.0).await;
    exec(&app, ["mount", "-o", "remount,rw", "/"]).await;
    seal_told(&agent, &web, false).await;

    // Each step doubles what is mounted there.
    let script = "d=/dev/$(printf %0200d 0); mkdir $d && mount -t tmpfs many $d && cd $d || exit; \
        for at in $(seq 15); do mkdir $at && mount -o rbind $d $d/$at || exit; done";
    exec(&app, ["sh", "-c", script]).await;
    let blind = |event: &Value| event["agent"]["what"] == "gap" && event["container"]["id"] == app.id.as_str();
    let blind = agent.wait_for("that its seal can't be judged", blind).await;
    assert_eq!(gauge(&agent, "web").await, None, "nobody knows");
    let events = agent.stop().await;

    assert_eq!(
        (&blind["agent"]["surface"], &blind["agent"]["reason"]),
        (&json!("seal"), &json!("mount_table_too_large"))
    );
    let mended = |event: &&&Value| event["kind"] == "seal_mended";
    assert_eq!(events.seals_of(&web).iter().filter(mended).count(), 0, "{:#?}", events.seals_of(&web));
}

#[tokio::test]
async fn who_changes_the_superblock_in_a_loop_hides_no_breach_elsewhere() {
    let lab = Lab::start().await;
    let agent = Agent::watching(&lab).await;
    let (noisy, web) = (lab.privileged_pod("prod", "noisy").await, lab.privileged_pod("prod", "web").await);
    let script = "while true; do mount -o remount,ro /; done";
    noisy.start_container(sealed(["sh", "-c", script]).privileged()).await;
    let app = web.start_container(idle().privileged()).await;
    gauge_is(&agent, "web", 0.0).await;

    exec(&app, ["mount", "-o", "remount,rw", "/"]).await;
    seal_told(&agent, &web, false).await;
    agent.stop().await;
}

#[tokio::test]
async fn a_seal_that_was_broken_before_the_agent_came_is_found() {
    let lab = Lab::start().await;
    let web = lab.privileged_pod("prod", "web").await;
    let app = web.start_container(idle().privileged()).await;
    let covered = lab.privileged_pod("prod", "covered").await;
    let other = covered.start_container(idle().privileged()).await;
    exec(&app, ["mount", "-o", "remount,rw", "/"]).await;
    exec(&other, ["mount", "-t", "tmpfs", "scratch", "/usr"]).await;

    let agent = Agent::watching(&lab).await;
    let broken = seal_told(&agent, &web, false).await;
    let shadow = seal_told(&agent, &covered, false).await;
    assert_eq!(gauge(&agent, "web").await, Some(1.0));
    assert_eq!(gauge(&agent, "covered").await, Some(1.0));
    exec(&other, ["umount", "/usr"]).await;
    seal_told(&agent, &covered, true).await;

    assert_eq!((&broken["mount"]["effect"], &broken["mount"]["cause"]), (&json!("unseal"), &Value::Null));
    assert_eq!(broken["severity"], "critical");
    assert_eq!((&shadow["mount"]["effect"], &shadow["mount"]["cause"]), (&json!("shadow"), &Value::Null));
    assert_eq!(shadow["severity"], "high");
    agent.stop().await;
}

#[tokio::test]
async fn a_runtime_that_ignores_the_declaration_is_found_out() {
    let lab = Lab::start().await;
    let agent = Agent::watching(&lab).await;
    let web = lab.careless_pod("prod", "web").await;

    let app = web.start_container(idle()).await;
    let broken = seal_told(&agent, &web, false).await;

    assert_eq!(exec(&app, ["touch", "/etc/x"]).await, "");
    assert_eq!(broken["mount"]["effect"], "unseal");
    assert!(["runtime", ""].contains(&broken["mount"]["cause"].as_str().unwrap_or("")), "{broken}");
    assert_eq!(broken["severity"], "critical");
    assert_eq!(gauge(&agent, "web").await, Some(1.0));
    assert_eq!(agent.stop().await.seals_of(&web).len(), 1);
}

#[tokio::test]
async fn a_superblock_that_is_changed_from_the_node_is_told_though_the_container_s_mounts_stay_as_they_are() {
    let lab = Lab::start().await;
    let agent = Agent::watching(&lab).await;
    let web = lab.privileged_pod("prod", "web").await;
    let app = web.start_container(idle().privileged()).await;
    gauge_is(&agent, "web", 0.0).await;
    let on_node = app.root(&lab.containerd);
    let set_superblock = |flags| mount_remount(&on_node, flags, "").expect("the filesystem can be remounted");

    // First the superblock, then the mount: the root stays read-only all the time.
    set_superblock(MountFlags::RDONLY);
    exec(&app, ["mount", "-o", "remount,bind,rw", "/"]).await;
    exec(&app, ["touch", "/etc/x"]).await;
    agent.wait_for_write(&web, "/etc/x").await;
    assert_eq!(gauge(&agent, "web").await, Some(0.0));
    set_superblock(MountFlags::empty());
    let broken = seal_told(&agent, &web, false).await;

    assert_eq!((&broken["mount"]["point"], &broken["mount"]["cause"]), (&json!("/"), &json!("remount")));
    agent.stop().await;
}

#[tokio::test]
async fn volumes_are_no_breach_even_where_a_link_of_the_image_leads_to_them() {
    let lab = Lab::start().await;
    let volume = lab.containerd.path("volume");
    fs::create_dir(&volume).expect("the volume's folder is made");
    let web = lab.pod("prod", "web").await;
    // `/settings` is a link to `/etc`.
    let spec = || idle().with_volume(&volume, "/data").with_volume(&volume, "/settings");

    // Started before the agent, and watched from the beginning.
    let _early = web.start_container(spec().named("early")).await;
    let agent = Agent::watching(&lab).await;
    let _late = web.start_container(spec().named("late")).await;
    patiently(PATIENCE, "both seals are known", async || {
        let metrics = agent.metrics().await;
        let of = |container| metrics.sum("rosentry_seal_broken", &[("pod", "web"), ("container", container)]);
        of("early") == Some(0.0) && of("late") == Some(0.0)
    })
    .await;

    let events = agent.stop().await;
    assert!(events.seals_of(&web).is_empty(), "{:#?}", events.seals_of(&web));
}

#[tokio::test]
async fn a_private_mount_namespace_of_a_process_is_not_the_container_s_root() {
    let lab = Lab::start().await;
    let agent = Agent::watching(&lab).await;
    let web = lab.privileged_pod("prod", "web").await;

    let app = web.start_container(idle().privileged()).await;
    gauge_is(&agent, "web", 0.0).await;
    exec(&app, ["unshare", "-m", "mount", "-t", "tmpfs", "scratch", "/usr"]).await;
    exec(&app, ["touch", "/etc/x"]).await;
    agent.wait_for_write(&web, "/etc/x").await;
    let events = agent.stop().await;

    assert!(events.seals_of(&web).is_empty(), "{:#?}", events.seals_of(&web));
    let shadows = |event: &&&Value| event["mount"]["effect"] == "shadow" && event["outcome"] == "succeeded";
    assert_eq!(events.mount_attempts_of(&web).iter().filter(shadows).count(), 1, "the attempt is told all the same");
}

#[tokio::test]
async fn nothing_of_a_container_is_held_when_it_has_ended_even_where_containerd_says_nothing() {
    let lab = Lab::start().await;
    let agent = Agent::watching(&lab).await;
    let web = lab.pod("prod", "web").await;
    let folder = lab.containerd.path("told");
    fs::create_dir(&folder).expect("the volume's folder is made");
    let script = "until [ -e /data/end ]; do sleep 0.1; done";
    web.start_container(sealed(["sh", "-c", script]).with_volume(&folder, "/data")).await;
    gauge_is(&agent, "web", 0.0).await;
    // It opens the table anew for each look, and closes the former then.
    patiently(PATIENCE, "the agent holds the container's mounts", async || held(&agent) == 1).await;

    lab.containerd.freeze();
    fs::write(folder.join("end"), "").expect("the container is told to end");
    patiently(PATIENCE, "the agent lets go of the mounts", async || held(&agent) == 0).await;

    lab.containerd.thaw();
    agent.stop().await;
}

/// Mount tables that the agent holds open, and mount namespaces with them.
fn held(agent: &Agent) -> usize {
    agent.open_files().iter().filter(|file| file.file_name() == Path::new("mountinfo").file_name()).count()
}

/// Runs a command that has to succeed.
async fn exec<const N: usize>(app: &Container, command: [&str; N]) -> String {
    let (code, output) = app.exec(command).await;
    assert!(code == 0 || command[0] == "touch", "{command:?}: {output}");
    output
}

/// What was found of the pod's seal.
async fn seal_told(agent: &Agent, pod: &Pod, mended: bool) -> Value {
    let kind = if mended { "seal_mended" } else { "seal_broken" };
    let wanted = |event: &Value| event["kind"] == kind && event["pod"]["uid"] == pod.uid.as_str();
    agent.wait_for(&format!("{kind} of {}", pod.name), wanted).await
}

async fn gauge(agent: &Agent, pod: &str) -> Option<f64> {
    agent.metrics().await.sum("rosentry_seal_broken", &[("namespace", "prod"), ("pod", pod), ("container", "app")])
}

async fn gauge_is(agent: &Agent, pod: &str, value: f64) {
    patiently(PATIENCE, &format!("the seal of {pod} is {value}"), async || gauge(agent, pod).await == Some(value))
        .await;
}
