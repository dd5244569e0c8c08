//! From the source of a mount on the node to the volume that a pod's author knows, by the paths that the kubelet uses.
//!
//! `<kubelet's root>/pods/<uid>/volumes/kubernetes.io~<plugin>/<volume>/…`, `…/volume-subpaths/<volume>/<container>/<n>`,
//! `…/etc-hosts`, `…/containers/<container>/<n>` (the termination log); kubernetes `pkg/kubelet/kubelet_getters.go`
//! and `pkg/volume/util/subpath/subpath_linux.go`, v1.31. The kubelet's root differs between distributions.

use super::model::Volume;

/// The volume that is mounted from this path on the node; none where it is no absolute path.
///
/// What lies in a pod's folder counts only if it is this pod's: a hostPath volume may show the folder of another.
pub(super) fn volume(source: &str, pod_uid: Option<&str>) -> Option<Volume> {
    if !source.starts_with('/') {
        return None;
    }
    let found = pod_uid.and_then(|uid| in_pod_folder(source, uid)).or_else(|| in_sandbox_folder(source));
    Some(found.unwrap_or_else(|| named("host_path", source)))
}

fn in_pod_folder(source: &str, pod_uid: &str) -> Option<Volume> {
    let (_, below) = source.split_once(&format!("/pods/{pod_uid}/"))?;
    let mut parts = below.split('/');
    match (parts.next()?, parts.next(), parts.next()) {
        ("volumes", Some(plugin), Some(name)) => Some(named(&kind(plugin), name)),
        ("volume-subpaths", Some(name), Some(_)) => Some(named("subpath", name)),
        ("containers", Some(container), Some(_)) => Some(named("termination_log", container)),
        ("etc-hosts", None, None) => Some(named("etc_hosts", "etc-hosts")),
        _ => None,
    }
}

/// Files that containerd makes for each sandbox: `<root or state>/io.containerd.grpc.v1.cri/sandboxes/<id>/resolv.conf`
/// (containerd 2 names the plugin `io.containerd.cri.v1.…`).
fn in_sandbox_folder(source: &str) -> Option<Volume> {
    let (above, below) = source.rsplit_once("/sandboxes/")?;
    let plugin = above.rsplit('/').next()?;
    let is_cri = plugin.starts_with("io.containerd.") && plugin.contains("cri");
    let (_, file) = below.split_once('/')?;
    (is_cri && matches!(file, "hostname" | "hosts" | "resolv.conf" | "shm")).then(|| named("runtime", file))
}

/// The plugin's folder is its name with `/` as `~`: `kubernetes.io~empty-dir`.
fn kind(plugin: &str) -> String {
    let plugin = plugin.rsplit('~').next().unwrap_or(plugin);
    match plugin {
        "empty-dir" => "emptydir".to_owned(),
        // There is no other way to such a volume than a persistent one.
        "local-volume" => "persistent_volume".to_owned(),
        other => other.replace('-', "_"),
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
            ("volumes/kubernetes.io~secret/tls", "secret", "tls"),
            ("volumes/kubernetes.io~projected/kube-api-access-x", "projected", "kube-api-access-x"),
            ("volumes/kubernetes.io~empty-dir/tmp", "emptydir", "tmp"),
            ("volumes/kubernetes.io~downward-api/info", "downward_api", "info"),
            ("volumes/kubernetes.io~csi/pvc-1/mount", "csi", "pvc-1"),
            ("volumes/kubernetes.io~local-volume/pv-1", "persistent_volume", "pv-1"),
            ("volumes/kubernetes.io~nfs/share", "nfs", "share"),
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
