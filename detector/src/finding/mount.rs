//! Which mount a write hit: the root filesystem, a volume, or something else.

use super::{
    event::{Place, PlaceKind},
    paths::{MountPoint, is_at_or_below},
};
use crate::identity::model::{Container, SpecMount};

/// Where a write that was refused hit.
///
/// `path` is absolute in the container's root, and the folder that holds the name where the operation changes that (of
/// rmdir of a mount point: the mount that the point stands on); `mount` is the mount it is on, where somebody looked; `certain` says that no
/// symbolic link can have led elsewhere. None where neither path nor mount is known.
pub fn place(
    path: Option<&[u8]>,
    mount: Option<&MountPoint>,
    certain: bool,
    container: Option<&Container>,
) -> Option<Place> {
    let seen_fstype = mount.map(|mount| mount.fstype.clone());
    let facts = mount.map(|mount| mount.facts);
    let Some(container) = container else {
        return mount.map(|mount| Place {
            kind: PlaceKind::Other,
            point: Some(mount.point.clone()),
            fstype: seen_fstype,
            volume: None,
            declared_readonly: None,
            facts,
        });
    };
    let specified = match (mount, path) {
        (Some(mount), _) => specified(container).rfind(|spec| is_mounted_at(spec, &mount.point)),
        (None, Some(path)) => governing(container, path),
        (None, None) => return None,
    };
    Some(match (specified, mount) {
        (Some(spec), _) => Place {
            kind: match &spec.volume {
                None => PlaceKind::Other,
                Some(_) if !spec.readonly && (certain || mount.is_some()) => PlaceKind::VolumeFailed,
                Some(_) => PlaceKind::Volume,
            },
            point: Some(spec.destination.clone().into_bytes()),
            fstype: seen_fstype.or_else(|| declared_fstype(spec)),
            volume: spec.volume.clone(),
            declared_readonly: Some(spec.readonly),
            facts,
        },
        (None, Some(mount)) if mount.point != b"/" => Place {
            kind: PlaceKind::Other,
            point: Some(mount.point.clone()),
            fstype: seen_fstype,
            volume: None,
            declared_readonly: None,
            facts,
        },
        (None, _) => Place {
            kind: PlaceKind::Rootfs,
            point: Some(b"/".to_vec()),
            fstype: seen_fstype,
            volume: None,
            declared_readonly: container.readonly_rootfs,
            facts,
        },
    })
}

/// The specified mount that `path` lies on: the one with the longest destination, of several the last. None: the root.
pub fn governing<'a>(container: &'a Container, path: &[u8]) -> Option<&'a SpecMount> {
    specified(container)
        .filter(|spec| spec.destination != "/")
        .filter(|spec| destinations(spec).any(|destination| is_at_or_below(path, &destination)))
        .max_by_key(|spec| spec.destination.len())
}

/// The specified mounts in their order.
pub fn specified(container: &Container) -> impl DoubleEndedIterator<Item = &SpecMount> {
    container.mounts.iter().map(AsRef::as_ref)
}

/// Whether the specified mount's destination is `point`.
pub fn is_mounted_at(spec: &SpecMount, point: &[u8]) -> bool {
    destinations(spec).any(|destination| destination == point)
}

/// The destination as specified, and with `/var/run` as the link to `/run` that it is in most images: the service account's
/// token is specified below the one and mounted below the other.
fn destinations(spec: &SpecMount) -> impl Iterator<Item = Vec<u8>> + use<> {
    let destination = match spec.destination.trim_end_matches('/') {
        "" => "/",
        trimmed => trimmed,
    };
    let alias = destination.strip_prefix("/var/run/").map(|rest| format!("/run/{rest}").into_bytes());
    [Some(destination.as_bytes().to_vec()), alias].into_iter().flatten()
}

/// A bind mount has the type of what is bound, which the specification does not say.
fn declared_fstype(spec: &SpecMount) -> Option<Vec<u8>> {
    spec.fstype
        .as_deref()
        .filter(|fstype| !matches!(*fstype, "" | "bind" | "rbind" | "none"))
        .map(|fstype| fstype.as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::finding::testing::{facts, sealed};

    fn seen(point: &str, fstype: &str) -> MountPoint {
        MountPoint {
            point: point.as_bytes().to_vec(),
            fstype: fstype.as_bytes().to_vec(),
            facts: facts(true),
            of_root: false,
        }
    }

    fn placed(path: &str, mount: Option<MountPoint>) -> Place {
        place(Some(path.as_bytes()), mount.as_ref(), false, Some(&sealed())).unwrap()
    }

    #[test]
    fn a_path_on_no_specified_mount_is_on_the_root_filesystem() {
        let place = placed("/database/x", None);
        assert_eq!(place.kind, PlaceKind::Rootfs);
        assert_eq!(place.declared_readonly, Some(true));
        assert_eq!(place.point.as_deref(), Some(b"/".as_slice()));
        assert_eq!(place.fstype, None, "nobody looked, nothing is guessed");
    }

    #[test]
    fn a_write_to_a_read_only_volume_names_the_volume() {
        let place = placed("/etc/app/settings.yaml", None);
        assert_eq!(place.kind, PlaceKind::Volume);
        assert_eq!(place.volume.unwrap().name, "settings");
        assert_eq!(place.declared_readonly, Some(true));
    }

    #[test]
    fn a_writable_volume_that_refuses_has_failed() {
        let place = placed("/data/x", Some(seen("/data", "ext4")));
        assert_eq!(place.kind, PlaceKind::VolumeFailed);
        assert_eq!(place.declared_readonly, Some(false));
        assert_eq!(place.fstype.as_deref(), Some(b"ext4".as_slice()));
    }

    #[test]
    fn a_path_that_a_link_may_have_led_elsewhere_accuses_no_volume() {
        assert_eq!(placed("/data/link/x", None).kind, PlaceKind::Volume);
    }

    #[test]
    fn the_mount_that_was_seen_outweighs_the_text_of_the_path() {
        assert_eq!(placed("/data/link/x", Some(seen("/", "overlay"))).kind, PlaceKind::Rootfs);
        let nested = placed("/data/sub/x", Some(seen("/data/sub", "tmpfs")));
        assert_eq!((nested.kind, nested.declared_readonly), (PlaceKind::Other, None));
    }

    #[test]
    fn proc_and_sys_are_no_volumes() {
        let place = placed("/sys/kernel/x", None);
        assert_eq!((place.kind, place.declared_readonly), (PlaceKind::Other, Some(true)));
        assert_eq!(place.fstype.as_deref(), Some(b"sysfs".as_slice()));
    }

    #[test]
    fn a_mount_below_var_run_is_found_below_run() {
        let mut container = (*sealed()).clone();
        Arc::make_mut(&mut container.mounts[4]).destination = "/var/run/secrets/token".to_owned();
        let seen = seen("/run/secrets/token", "tmpfs");
        let place = place(Some(b"/run/secrets/token/x"), Some(&seen), true, Some(&container)).unwrap();
        assert_eq!(place.kind, PlaceKind::Volume);
    }

    #[test]
    fn a_process_without_a_container_has_no_declared_mounts() {
        let seen = seen("/boot", "vfat");
        let place = place(Some(b"/boot/x"), Some(&seen), true, None).unwrap();
        assert_eq!((place.kind, place.declared_readonly), (PlaceKind::Other, None));
        assert_eq!(super::place(Some(b"/boot/x"), None, true, None), None);
        assert_eq!(super::place(None, None, true, Some(&sealed())), None);
    }
}
