//! What the path of a cgroup tells: which of its components names a container, under every way that runtimes name them.
//!
//! | driver | example |
//! | --- | --- |
//! | cgroupfs | `/kubepods/burstable/pod<uid>/<64 hex>` |
//! | systemd | `/kubepods.slice/…-pod<uid>.slice/cri-containerd-<64 hex>.scope` |
//! | docker, podman | `/docker/<64 hex>`, `/system.slice/docker-<64 hex>.scope`, `/machine.slice/libpod-<64 hex>.scope` |
//! | ctr | `/<containerd namespace>/<any name>` |

/// The length of an id that Kubernetes, Docker and Podman give a container.
const ID_LENGTH: usize = 64;

/// A cgroup or one above it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Ancestor<'a> {
    /// Its path, absolute in the hierarchy.
    pub path: &'a str,
    /// The last component of the path.
    pub name: &'a str,
}

/// The cgroup of this path and those above it, innermost first, without the hierarchy's root.
pub(super) fn ancestors(path: &str) -> impl Iterator<Item = Ancestor<'_>> {
    let mut rest = path.trim_end_matches('/');
    std::iter::from_fn(move || {
        let (parent, name) = rest.rsplit_once('/')?;
        let found = Ancestor { path: rest, name };
        rest = parent;
        (!name.is_empty()).then_some(found)
    })
}

/// The container id in the name of a cgroup, where it is one that tells itself: 64 hex digits, bare or as the last part
/// of a systemd scope.
pub(super) fn id_in(name: &str) -> Option<&str> {
    let name = name.strip_suffix(".scope").unwrap_or(name);
    let id = name.rsplit(['-', ':']).next()?;
    is_id(id).then_some(id)
}

/// Whether this is an id as Kubernetes gives them: it is found nowhere but in a container's own cgroup.
pub(super) fn is_id(text: &str) -> bool {
    text.len() == ID_LENGTH && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The container that ctr's and containerd's default path names: `/<namespace>/<name>`.
pub(super) fn name_below_namespace<'a>(ancestor: Ancestor<'a>, namespaces: &[impl AsRef<str>]) -> Option<&'a str> {
    let (parent, name) = ancestor.path.rsplit_once('/')?;
    let parent = parent.rsplit('/').next()?;
    namespaces.iter().any(|namespace| namespace.as_ref() == parent).then_some(name)
}

/// Where `linux.cgroupsPath` of an OCI spec puts the container: its path in the hierarchy, as the runtime sees that, and without
/// a leading `/` where it begins at the runtime's own cgroup; none where the runtime chooses.
///
/// Either a path, or `slice:prefix:name` for the systemd driver
/// (<https://github.com/opencontainers/runc/blob/v1.1.5/docs/systemd.md>).
pub(super) fn from_spec(cgroups_path: &str) -> Option<String> {
    let parts: Vec<&str> = cgroups_path.split(':').collect();
    // A unit's name has no slash: with one it is a path with colons.
    if let [slice, prefix, name] = parts[..]
        && !cgroups_path.contains('/')
    {
        let slice = if slice.is_empty() { "system.slice" } else { slice };
        let unit = match prefix {
            "" => name.to_owned(),
            prefix => format!("{prefix}-{name}"),
        };
        let unit = if unit.ends_with(".slice") { unit } else { format!("{unit}.scope") };
        return Some(format!("{}/{unit}", expand(slice)));
    }
    let path = cgroups_path.trim_matches('/');
    let root = if cgroups_path.starts_with('/') { "/" } else { "" };
    (!path.is_empty()).then(|| format!("{root}{path}"))
}

/// The path of a slice, which its name tells: `a-b.slice` is in `a.slice` (systemd.slice(5); runc v1.1.5, `ExpandSlice`). The
/// root of all slices, `-.slice`, is the hierarchy's own.
fn expand(slice: &str) -> String {
    let name = slice.strip_suffix(".slice").unwrap_or(slice);
    let ends = name.match_indices('-').map(|(at, _)| at).chain([name.len()]);
    ends.filter(|end| *end > 0 && name != "-").map(|end| format!("/{}.slice", &name[..end])).collect()
}

/// Whether the cgroup of this path is the one that the spec names, as [`from_spec`] has read it, where the path is seen from the
/// hierarchy's root. What begins at the runtime's own cgroup stands at the root, or in a slice there, beside that.
pub(super) fn is_named(path: &str, spec: &str) -> bool {
    let is_beside = |parent: &str| {
        let slice = parent.strip_prefix('/');
        parent.is_empty() || slice.is_some_and(|name| name.ends_with(".slice") && !name.contains('/'))
    };
    if !spec.starts_with('/') {
        return path.strip_suffix(spec).and_then(|above| above.strip_suffix('/')).is_some_and(is_beside);
    }
    path == spec || (is_unsplit(path, spec) && path.rsplit_once('/').is_some_and(|(parent, _)| is_beside(parent)))
}

/// The same, where the hierarchy may have more above it than the runtime sees, or rosentry does.
pub(super) fn is_named_at_end(path: &str, spec: &str) -> bool {
    let is_end = |above: &str| spec.starts_with('/') || above.ends_with('/');
    path.strip_suffix(spec).is_some_and(is_end) || is_unsplit(path, spec)
}

/// Whether the last component of this path is what a runtime that does not use systemd makes of a path which was meant for
/// systemd: one folder called `slice:prefix:name`.
fn is_unsplit(path: &str, spec: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    name.contains(':') && from_spec(name).as_deref() == Some(spec)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "d59f4cbaa8e5b45cd84044bf27b5eb6e96dab10745bdc3e1cd4f2bd48cf721f5";

    fn ids(path: &str) -> Vec<&str> {
        ancestors(path).filter_map(|ancestor| id_in(ancestor.name)).collect()
    }

    #[test]
    fn a_path_with_colons_is_no_unit_of_systemd() {
        assert_eq!(from_spec("/a:b:c").as_deref(), Some("/a:b:c"));
        assert_eq!(from_spec("/::").as_deref(), Some("/::"));
    }

    #[test]
    fn every_driver_s_way_to_name_a_container_is_read() {
        for path in [
            format!("/kubepods/burstable/pod0aa1/{ID}"),
            format!(
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0aa1.slice/cri-containerd-{ID}.scope"
            ),
            format!("/system.slice/kubepods-burstable-pod0aa1.slice:cri-containerd:{ID}"),
            format!("/docker/{ID}"),
            format!("/system.slice/docker-{ID}.scope"),
            format!("/machine.slice/libpod-{ID}.scope"),
            format!("/user.slice/user-1000.slice/user@1000.service/app.slice/nerdctl-{ID}.scope"),
            format!("/kubepods/burstable/pod0aa1/{ID}/"),
        ] {
            assert_eq!(ids(&path), [ID], "{path}");
        }
    }

    #[test]
    fn a_cgroup_below_a_container_belongs_to_it() {
        assert_eq!(ids(&format!("/kubepods/pod0aa1/{ID}/init.scope/worker")), [ID]);
    }

    #[test]
    fn of_containers_within_each_other_the_inner_one_comes_first() {
        let inner = ID.replace('d', "e");
        assert_eq!(ids(&format!("/kubepods/pod0aa1/{ID}/docker/{inner}")), [inner.as_str(), ID]);
    }

    #[test]
    fn what_is_no_container_names_none() {
        for path in [
            "/",
            "",
            "/system.slice/ssh.service",
            "/kubepods/burstable/pod0aa11122-1111-2222-3333-444455556666",
            &format!("/system.slice/{}", &ID[1..]),
            &format!("/system.slice/{ID}0"),
            &format!("/system.slice/{}", ID.to_uppercase()),
        ] {
            assert_eq!(ids(path), Vec::<&str>::new(), "{path}");
        }
    }

    #[test]
    fn a_plain_name_is_a_container_only_right_below_a_namespace_of_containerd() {
        let named = |path: &'static str| {
            ancestors(path).find_map(|ancestor| name_below_namespace(ancestor, &["default", "k8s.io"]))
        };
        assert_eq!(named("/default/job"), Some("job"));
        assert_eq!(named("/default/job/nested"), Some("job"));
        assert_eq!(named("/kind-node/default/job"), Some("job"));
        assert_eq!(named("/system.slice/job"), None);
        assert_eq!(named("/default"), None);
    }

    #[test]
    fn the_spec_s_path_is_taken_in_both_of_its_forms() {
        assert_eq!(from_spec("/default/job").as_deref(), Some("/default/job"));
        assert_eq!(from_spec("default/job").as_deref(), Some("default/job"));
        assert_eq!(
            from_spec("kubepods-pod1.slice:cri-containerd:job").as_deref(),
            Some("/kubepods.slice/kubepods-pod1.slice/cri-containerd-job.scope")
        );
        assert_eq!(from_spec(":ctr:job").as_deref(), Some("/system.slice/ctr-job.scope"));
        assert_eq!(from_spec("-.slice:ctr:job").as_deref(), Some("/ctr-job.scope"));
        assert_eq!(from_spec(""), None);
        assert_eq!(from_spec("/"), None);
    }

    #[test]
    fn what_begins_at_the_runtime_s_own_cgroup_is_beside_that() {
        for (path, is_its) in [
            ("/default/job", true),
            ("/system.slice/default/job", true),
            ("/evil/default/job", false),
            ("/evil.slice/deeper.slice/default/job", false),
            ("/notdefault/job", false),
        ] {
            assert_eq!(is_named(path, "default/job"), is_its, "{path}");
        }
        assert!(
            is_named_at_end("/evil/default/job", "default/job") && !is_named_at_end("/notdefault/job", "default/job")
        );
    }

    proptest! {
        #[test]
        fn any_text_is_taken_for_a_path_without_harm(path in "\\PC*") {
            for ancestor in ancestors(&path) {
                prop_assert!(path.starts_with(ancestor.path));
                prop_assert!(id_in(ancestor.name).is_none_or(is_id));
                name_below_namespace(ancestor, &["default"]);
            }
            if let Some(from_spec) = from_spec(&path) {
                prop_assert!(!from_spec.is_empty() && !from_spec.ends_with('/'));
                let whole = ["/", from_spec.trim_start_matches('/')].concat();
                prop_assert!(is_named_at_end(&whole, &from_spec));
            }
        }
    }
}
