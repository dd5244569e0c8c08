//! Whose volume a part of one (`subPath`) is: its source tells the volume's name alone, the pod's folder on the node the plugin.
//!
//! Only names are read, of folders that the kubelet makes. Nothing is looked up in a volume, which may be of a server that
//! does not answer. Minimum kernel: 5.6 (openat2); before that the type stays [`SUBPATH`].

use std::{
    collections::HashMap,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::Arc,
};

use rustix::fs::{CWD, Dir, Mode, OFlags, ResolveFlags, openat, openat2};

use super::{
    model::{Container, Volume},
    volumes::{SUBPATH, folder_of_volumes, kind},
};

/// Names in one folder that are looked at, at most.
const NAMES_MAX: usize = 4096;

/// A part of a volume of which the type is wanted: the folder on the node that has the pod's volumes, and the volume's name.
pub(super) type Part = (String, String);

/// The parts of volumes that a container mounts.
pub(super) fn parts(container: &Container) -> Vec<Part> {
    let Some(pod) = container.pod.as_deref().filter(|pod| !pod.uid.is_empty()) else { return Vec::new() };
    let part = |source: &str, volume: &Volume| {
        let folder = folder_of_volumes(source, &pod.uid).filter(|_| volume.kind == SUBPATH)?;
        Some((folder, volume.name.clone()))
    };
    let mounts = container.mounts.iter();
    let mut parts: Vec<Part> =
        mounts.filter_map(|mount| part(&container.source_of(mount)?, mount.volume.as_ref()?)).collect();
    parts.sort_unstable();
    parts.dedup();
    parts
}

/// The types of these volumes by their names, as far as they are found. Reads folders of the node: in the root of its first
/// process, by its proc file system at `host_proc` (takes CAP_SYS_PTRACE), or in our own, which is the node's where rosentry
/// runs without a container. A folder with the pod's uid is that pod's wherever it is found.
pub(super) fn look(host_proc: &Path, parts: &[Part]) -> HashMap<String, String> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let roots = [host_proc.join("1/root"), "/".into()];
    let roots: Vec<OwnedFd> = roots.iter().filter_map(|root| openat(CWD, root, flags, Mode::empty()).ok()).collect();
    let kind = |folder: &str, name: &str| roots.iter().find_map(|root| kind_of(root.as_fd(), folder, name));
    parts.iter().filter_map(|(folder, name)| Some((name.clone(), kind(folder, name)?))).collect()
}

/// Takes over the types that were found.
pub(super) fn name(container: &mut Container, kinds: &HashMap<String, String>) {
    for mount in &mut container.mounts {
        if let Some(volume) = mount.volume.as_ref().filter(|volume| volume.kind == SUBPATH)
            && let Some(kind) = kinds.get(&volume.name)
        {
            let volume = Volume { kind: kind.clone(), name: volume.name.clone() };
            Arc::make_mut(mount).volume = Some(volume);
        }
    }
}

fn kind_of(node: BorrowedFd<'_>, folder: &str, name: &str) -> Option<String> {
    let volumes = open(node, folder)?;
    names(&volumes).into_iter().find_map(|plugin| {
        let volumes_of_plugin = open(volumes.as_fd(), &plugin)?;
        names(&volumes_of_plugin).iter().any(|volume| volume == name).then(|| kind(&plugin))
    })
}

/// A folder below another, whose links lead nowhere else than it would on the node.
fn open(root: BorrowedFd<'_>, path: &str) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS).ok()
}

fn names(folder: &OwnedFd) -> Vec<String> {
    let Ok(entries) = Dir::read_from(folder) else { return Vec::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().to_str().ok().map(str::to_owned));
    names.filter(|name| name != "." && name != "..").take(NAMES_MAX).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{
        finding::testing::sealed,
        identity::model::{Pod, SpecMount},
    };

    const UID: &str = "0aa11122-1111-2222-3333-444455556666";

    /// A container with these parts of volumes, of a pod whose folder is below `kubelet`.
    fn with_parts(kubelet: &Path, volumes: &[&str]) -> Container {
        let mut container = (*sealed()).clone();
        let pod = Pod { uid: UID.to_owned(), ..(**container.pod.as_ref().unwrap()).clone() };
        container.pod = Some(Arc::new(pod));
        let mount = |(number, name): (usize, &&str)| {
            let mount = SpecMount {
                destination: format!("/{number}"),
                fstype: Some("bind".to_owned()),
                source: Some(container.keep_source(&format!(
                    "{}/pods/{UID}/volume-subpaths/{name}/app/{number}",
                    kubelet.display().to_string().trim_end_matches('/')
                ))),
                readonly: true,
                volume: Some(Volume { kind: SUBPATH.to_owned(), name: (*name).to_owned() }),
            };
            Arc::new(mount)
        };
        container.mounts = volumes.iter().enumerate().map(mount).collect();
        container
    }

    fn looked(host_proc: &Path, mut container: Container) -> Vec<(String, String)> {
        let kinds = look(host_proc, &parts(&container));
        name(&mut container, &kinds);
        let volumes = container.mounts.iter().filter_map(|mount| mount.volume.clone());
        volumes.map(|volume| (volume.kind, volume.name)).collect()
    }

    #[test]
    fn a_part_of_a_volume_has_the_type_of_the_folder_that_has_the_volume() {
        let kubelet = tempfile::tempdir().unwrap();
        let volumes = kubelet.path().join(format!("pods/{UID}/volumes"));
        for volume in ["kubernetes.io~configmap/conf", "kubernetes.io~csi/pvc-1", "kubernetes.io~secret/tls"] {
            fs::create_dir_all(volumes.join(volume)).unwrap();
        }
        let container = with_parts(kubelet.path(), &["conf", "pvc-1", "conf", "gone"]);
        let pair = |kind: &str, name: &str| (kind.to_owned(), name.to_owned());
        let expected =
            [pair("configmap", "conf"), pair("csi", "pvc-1"), pair("configmap", "conf"), pair(SUBPATH, "gone")];
        assert_eq!(looked(Path::new("/nowhere"), container.clone()), expected, "our own root is the node's");

        // A node whose first process has another root than ours.
        let node = tempfile::tempdir().unwrap();
        fs::create_dir_all(node.path().join("proc/1")).unwrap();
        std::os::unix::fs::symlink(kubelet.path(), node.path().join("proc/1/root")).unwrap();
        let container = with_parts(Path::new("/"), &["conf"]);
        assert_eq!(looked(&node.path().join("proc"), container), [pair("configmap", "conf")]);
    }

    #[test]
    fn where_the_pod_s_folder_is_not_there_nothing_is_guessed() {
        let container = with_parts(Path::new("/nowhere"), &["conf"]);
        assert_eq!(looked(Path::new("/proc"), container), [(SUBPATH.to_owned(), "conf".to_owned())]);
    }
}
