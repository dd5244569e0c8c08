//! Where a write hit: the root, a volume by its type and name as the kubelet's folders tell, a volume that failed, or something
//! else.

use std::{fs, path::PathBuf};

use rustix::mount::{MountFlags, mount};
use serde_json::{Value, json};

use super::support::{
    Lab,
    agent::{Agent, PATIENCE},
    patiently,
    pod::idle,
};

#[tokio::test]
async fn a_refused_write_names_the_kind_of_place_and_the_volume_by_type_and_name() {
    let lab = Lab::start().await;
    let agent = Agent::watching(&lab).await;
    let web = lab.pod("prod", "web").await;
    let folder = |path: PathBuf| {
        fs::create_dir_all(&path).expect("the folder is made");
        path
    };
    let of_pod = |below: &str| folder(lab.containerd.path(&format!("kubelet/pods/{}/{below}", web.uid)));
    let conf = of_pod("volumes/kubernetes.io~configmap/conf");
    of_pod("volumes/kubernetes.io~secret/tls");
    let part = of_pod("volume-subpaths/tls/app/0");
    let on_node = folder(lab.containerd.path("on-the-node"));
    let failed = of_pod("volumes/kubernetes.io~csi/pvc-1/mount");
    // As the kernel leaves a filesystem after an error: its superblock is read-only, and the pod asked for a writable volume.
    mount("tmpfs", &failed, "tmpfs", MountFlags::RDONLY, None).expect("a test may mount a tmpfs");

    let spec = idle()
        .with_readonly_volume(&conf, "/conf")
        .with_readonly_volume(&part, "/tls")
        .with_readonly_volume(&on_node, "/node")
        .with_volume(&failed, "/data");
    let app = web.start_container(spec).await;
    app.exec(["sh", "-c", "for place in /conf /tls /node /etc /sys; do touch $place/x; done"]).await;
    agent.wait_for_write(&web, "/sys/x").await;
    // By its text alone no path accuses a volume. Mounts are looked at where that does not take too long, so again where the
    // machine was busy with something else: with a new name, as repeats are told as their first was.
    let mut tries = 0;
    let mut failure = String::new();
    patiently(PATIENCE, "the mount of a failed volume is looked at", async || {
        tries += 1;
        failure = format!("/data/{tries}");
        app.exec(["touch", &failure]).await;
        agent.wait_for_write(&web, &failure).await["mount"]["id"].is_u64()
    })
    .await;
    let events = agent.stop().await;

    let of = |path: &str| -> Value {
        let event = events.writes_of(&web).into_iter().find(|event| event["file"]["path"] == path);
        let event = event.unwrap_or_else(|| panic!("{path} is told: {:#?}", events.writes_of(&web)));
        let of_mount = |member: &str| event["mount"][member].clone();
        json!([of_mount("kind"), of_mount("point"), of_mount("volume"), of_mount("declared_readonly")])
    };
    let volume = |kind: &str, name: &str| json!({"type": kind, "name": name});
    assert_eq!(of("/conf/x"), json!(["volume", "/conf", volume("configmap", "conf"), true]));
    assert_eq!(
        of("/tls/x"),
        json!(["volume", "/tls", volume("secret", "tls"), true]),
        "a part is of its volume's type"
    );
    assert_eq!(of("/node/x"), json!(["volume", "/node", volume("host_path", &on_node.display().to_string()), true]));
    assert_eq!(of(&failure), json!(["volume_failed", "/data", volume("csi", "pvc-1"), false]));
    assert_eq!(of("/etc/x"), json!(["rootfs", "/", null, true]));
    assert_eq!(of("/sys/x"), json!(["other", "/sys", null, true]));
}
