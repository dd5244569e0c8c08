//! The lab itself, without the agent: what it shows is real, and it leaves nothing behind.

use super::support::{
    Lab,
    containerd::Containerd,
    image::image,
    leftovers,
    pod::{idle, sealed, writable},
};

#[tokio::test]
async fn a_sealed_pod_that_touches_a_file_is_refused_with_erofs() {
    let lab = Lab::start().await;
    let web = lab.pod("prod", "web").await;

    let app = web.run(sealed(["touch", "/etc/x"])).await;

    assert_eq!(app.exit_code, 1);
    assert_eq!(app.output, "touch: /etc/x: Read-only file system");
    assert_eq!(app.id.len(), 64);
}

#[tokio::test]
async fn a_writable_pod_may_touch_the_same_file() {
    let lab = Lab::start().await;
    let web = lab.pod("prod", "web").await;

    let app = web.run(writable(["touch", "/etc/x"])).await;

    assert_eq!((app.exit_code, app.output.as_str()), (0, ""));
}

#[tokio::test]
async fn a_privileged_pod_can_make_its_sealed_root_writable() {
    let lab = Lab::start().await;
    let web = lab.privileged_pod("prod", "web").await;
    for unseal in ["mount -o remount,rw /", "clear-readonly /"] {
        // One pipe, so that the lines keep their order.
        let script = format!("exec 2>&1; touch /etc/x; {unseal} && touch /etc/x && echo unsealed");

        let app = web.run(sealed(["sh", "-c", &script]).privileged().named(&unseal[..5])).await;

        assert_eq!(app.output, "touch: /etc/x: Read-only file system\nunsealed", "{unseal}");
    }
}

#[tokio::test]
async fn a_program_can_open_by_dirfd_and_through_a_symlinked_folder() {
    let lab = Lab::start().await;
    let app = lab.pod("prod", "web").await.start_container(idle()).await;

    let by_dirfd = app.exec(["open-by-dirfd", "/usr", "../etc/x"]).await;
    let by_link = app.exec(["touch", "/settings/x"]).await;

    assert_eq!(by_dirfd, (1, "../etc/x: Read-only file system\n".to_owned()));
    assert_eq!(by_link, (1, "touch: /settings/x: Read-only file system\n".to_owned()));
}

#[tokio::test]
async fn containerd_knows_the_image_by_the_digest_of_its_manifest() {
    let lab = Lab::start().await;

    assert_eq!(lab.containerd.image_digest(), image().digest);
}

#[tokio::test]
async fn a_container_outlives_a_killed_containerd() {
    let mut lab = Lab::start().await;
    let web = lab.pod("prod", "web").await;
    let app = web.start_container(idle()).await;

    lab.containerd.kill();
    lab.containerd.start_again().await;

    assert_eq!(app.exec(["cat", "/proc/1/comm"]).await, (0, "sleep\n".to_owned()));
}

#[tokio::test]
async fn a_lab_leaves_nothing_behind_even_when_containerd_was_killed_or_frozen() {
    type End = fn(&mut Containerd);
    let ends: [End; 3] = [|_| (), Containerd::kill, |containerd| containerd.freeze()];
    for end in ends {
        let mut lab = Lab::start().await;
        lab.pod("prod", "web").await.start_container(idle()).await;
        let (folder, cgroup) = (lab.containerd.path(""), lab.containerd.cgroup());
        let busy = leftovers::traces_of(&folder, &cgroup);
        for kind in ["process", "shim", "mount", "cgroup", "socket", "folder"] {
            assert!(busy.iter().any(|trace| trace.starts_with(kind)), "a running lab has a {kind}: {busy:?}");
        }
        end(&mut lab.containerd);

        drop(lab);

        assert_eq!(leftovers::traces_of(&folder, &cgroup), Vec::<String>::new());
    }
}
