//! From the source of a mount on the node to the volume that a pod's author knows, by the paths that the kubelet and containerd
//! use.
//!
//! `<kubelet's root>/pods/<uid>/volumes/<plugin>/<volume>/…`, `…/volume-subpaths/<volume>/<container>/<n>`, `…/etc-hosts`,
//! `…/containers/<container>/<n>` (the termination log); kubernetes `pkg/kubelet/kubelet_getters.go` and
//! `pkg/volume/util/subpath/subpath_linux.go`, v1.31. `<root or state>/io.containerd.…cri…/{sandboxes,containers,image-volumes}/…`;
//! containerd `internal/cri/server/helpers.go`, v2.1. Both roots differ between distributions.

use super::model::Volume;

/// The type of a part of a volume (`subPath`), as long as nobody has looked whose volume it is.
pub(super) const SUBPATH: &str = "subpath";

/// What the folder of a volume plugin is called, and the type it stands for: the names that a pod's spec has, in lower case. Of
/// other plugins the type is the folder's own name, of a FlexVolume (`vendor~driver`) that of its driver.
const PLUGINS: &[(&str, &str)] = &[
    ("kubernetes.io~configmap", "configmap"),
    ("kubernetes.io~secret", "secret"),
    ("kubernetes.io~projected", "projected"),
    ("kubernetes.io~downward-api", "downward_api"),
    ("kubernetes.io~empty-dir", "emptydir"),
    // By a claim or in the pod's spec itself; the path does not tell which.
    ("kubernetes.io~csi", "csi"),
    // There is no other way to such a volume than a claim.
    ("kubernetes.io~local-volume", "persistent_volume"),
    ("kubernetes.io~nfs", "nfs"),
    ("kubernetes.io~iscsi", "iscsi"),
    ("kubernetes.io~fc", "fc"),
    ("kubernetes.io~cephfs", "cephfs"),
    ("kubernetes.io~rbd", "rbd"),
    ("kubernetes.io~glusterfs", "glusterfs"),
    ("kubernetes.io~aws-ebs", "aws_ebs"),
    ("kubernetes.io~gce-pd", "gce_pd"),
    ("kubernetes.io~azure-disk", "azure_disk"),
    ("kubernetes.io~azure-file", "azure_file"),
    ("kubernetes.io~cinder", "cinder"),
    ("kubernetes.io~vsphere-volume", "vsphere_volume"),
    ("kubernetes.io~portworx-volume", "portworx_volume"),
    ("kubernetes.io~git-repo", "git_repo"),
];

/// The volume that is mounted from this path on the node; none where it is no absolute path.
///
/// What lies in a pod's folder counts only if it is this pod's: a hostPath volume may show the folder of another.
pub(super) fn volume(source: &str, pod_uid: Option<&str>) -> Option<Volume> {
    if !source.starts_with('/') {
        return None;
    }
    let found = pod_uid.and_then(|uid| in_pod_folder(source, uid)).or_else(|| in_runtime_folder(source));
    Some(found.unwrap_or_else(|| named("host_path", source)))
}

/// The type that the folder of a volume plugin stands for.
pub(super) fn kind(plugin: &str) -> String {
    let known = PLUGINS.iter().find(|(folder, _)| *folder == plugin).map(|(_, kind)| (*kind).to_owned());
    known.unwrap_or_else(|| plugin.rsplit('~').next().unwrap_or(plugin).replace('-', "_"))
}

/// Of the source of a part of this pod's volume: the folder on the node that has the folders of the pod's volumes by plugin.
pub(super) fn folder_of_volumes(source: &str, pod_uid: &str) -> Option<String> {
    let pod = format!("/pods/{pod_uid}/");
    let (above, below) = source.split_once(&pod)?;
    below.starts_with("volume-subpaths/").then(|| format!("{above}{pod}volumes"))
}

fn in_pod_folder(source: &str, pod_uid: &str) -> Option<Volume> {
    let (_, below) = source.split_once(&format!("/pods/{pod_uid}/"))?;
    let mut parts = below.split('/');
    match (parts.next()?, parts.next(), parts.next()) {
        ("volumes", Some(plugin), Some(name)) => Some(named(&kind(plugin), name)),
        ("volume-subpaths", Some(name), Some(_)) => Some(named(SUBPATH, name)),
        ("containers", Some(container), Some(_)) => Some(named("termination_log", container)),
        ("etc-hosts", None, None) => Some(named("etc_hosts", "etc-hosts")),
        _ => None,
    }
}

/// What containerd makes for a sandbox (`sandboxes/<id>/resolv.conf`), for a `VOLUME` of a container's image
/// (`containers/<id>/volumes/<volume>`), and for a volume that is an image (`image-volumes/<sandbox>/<digest>`).
fn in_runtime_folder(source: &str) -> Option<Volume> {
    let parts: Vec<&str> = source.split('/').collect();
    let is_cri = |folder: &str| folder.starts_with("io.containerd.") && folder.contains("cri");
    let at = parts.iter().rposition(|folder| is_cri(folder))?;
    match parts.get(at + 1..)? {
        ["sandboxes", _, file @ ("hostname" | "hosts" | "resolv.conf" | "shm")] => Some(named("runtime", file)),
        ["containers", _, "volumes", volume] => Some(named("image_declared", volume)),
        ["image-volumes", _, image, ..] => Some(named("image", image)),
        _ => None,
    }
}

fn named(kind: &str, name: &str) -> Volume {
    Volume { kind: kind.to_owned(), name: name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0aa11122-1111-2222-3333-444455556666";

    fn of(source: &str) -> (String, String) {
        let volume = volume(source, Some(UID)).unwrap();
        (volume.kind, volume.name)
    }

    fn pair(kind: &str, name: &str) -> (String, String) {
        (kind.to_owned(), name.to_owned())
    }

    #[test]
    fn the_kubelet_s_folders_tell_kind_and_name() {
        let pods = format!("/var/lib/kubelet/pods/{UID}");
        for (below, kind, name) in [
            ("volumes/kubernetes.io~configmap/conf", "configmap", "conf"),
            ("volumes/kubernetes.io~configmap/conf/..2026_11_22/app.yaml", "configmap", "conf"),
            ("volumes/kubernetes.io~secret/tls", "secret", "tls"),
            ("volumes/kubernetes.io~projected/kube-api-access-x", "projected", "kube-api-access-x"),
            ("volumes/kubernetes.io~empty-dir/tmp", "emptydir", "tmp"),
            ("volumes/kubernetes.io~downward-api/info", "downward_api", "info"),
            ("volumes/kubernetes.io~csi/pvc-1/mount", "csi", "pvc-1"),
            ("volumes/kubernetes.io~local-volume/pv-1", "persistent_volume", "pv-1"),
            ("volumes/kubernetes.io~nfs/share", "nfs", "share"),
            ("volumes/kubernetes.io~aws-ebs/data", "aws_ebs", "data"),
            ("volumes/kubernetes.io~yet-to-come/x", "yet_to_come", "x"),
            ("volumes/example.com~fuse/x", "fuse", "x"),
            ("volume-subpaths/conf/app/0", "subpath", "conf"),
            ("containers/app/1f2e3d4c", "termination_log", "app"),
            ("etc-hosts", "etc_hosts", "etc-hosts"),
        ] {
            assert_eq!(of(&format!("{pods}/{below}")), pair(kind, name), "{below}");
        }
        let elsewhere =
            format!("/var/snap/microk8s/common/var/lib/kubelet/pods/{UID}/volumes/kubernetes.io~secret/tls");
        assert_eq!(of(&elsewhere), pair("secret", "tls"));
    }

    #[test]
    fn the_runtime_s_own_files_are_no_host_path() {
        let folder = "/var/lib/containerd/io.containerd.grpc.v1.cri/sandboxes/dd6bb9";
        assert_eq!(of(&format!("{folder}/resolv.conf")), pair("runtime", "resolv.conf"));
        assert_eq!(of("/run/containerd/io.containerd.grpc.v1.cri/sandboxes/dd6bb9/shm"), pair("runtime", "shm"));
        assert_eq!(of(&format!("{folder}/other")).0, "host_path");
        assert_eq!(of("/srv/sandboxes/dd6bb9/shm").0, "host_path", "nothing of containerd's");
    }

    #[test]
    fn what_an_image_brings_is_no_host_path() {
        let state = "/var/lib/containerd/io.containerd.grpc.v1.cri";
        assert_eq!(of(&format!("{state}/containers/d59f/volumes/7c1e")), pair("image_declared", "7c1e"));
        assert_eq!(of(&format!("{state}/containers/d59f/other")).0, "host_path");
        let images = "/run/containerd/io.containerd.cri.v1.runtime/image-volumes/dd6b";
        assert_eq!(of(&format!("{images}/sha256:0123")), pair("image", "sha256:0123"));
    }

    #[test]
    fn every_plugin_of_the_table_is_found_by_its_folder_and_called_as_in_a_pod_s_spec() {
        for (folder, kind) in PLUGINS {
            let source = format!("/var/lib/kubelet/pods/{UID}/volumes/{folder}/data/mount");
            assert_eq!(of(&source), pair(kind, "data"));
            assert!(kind.chars().all(|letter| letter.is_ascii_lowercase() || letter == '_'), "{kind}");
        }
    }

    #[test]
    fn the_folder_with_the_volume_of_a_part_is_the_pod_s_own() {
        let pod = format!("/var/lib/kubelet/pods/{UID}");
        let of = |source: &str| folder_of_volumes(source, UID);
        assert_eq!(of(&format!("{pod}/volume-subpaths/conf/app/0")), Some(format!("{pod}/volumes")));
        assert_eq!(of(&format!("{pod}/volumes/kubernetes.io~secret/tls")), None);
        assert_eq!(of("/var/lib/kubelet/pods/other/volume-subpaths/conf/app/0"), None);
    }

    #[test]
    fn everything_else_is_a_path_of_the_node() {
        let other_pod = "/var/lib/kubelet/pods/1bb22233-1111-2222-3333-444455556666/volumes/kubernetes.io~secret/tls";
        for path in
            ["/var/log", "/", other_pod, &format!("/var/lib/kubelet/pods/{UID}"), &format!("/x/pods/{UID}/volumes")]
        {
            assert_eq!(of(path), pair("host_path", path));
        }
        assert_eq!(volume("tmpfs", Some(UID)), None);
        assert_eq!(volume("", None), None);
        assert_eq!(volume("/srv", None).unwrap().kind, "host_path");
    }
}
