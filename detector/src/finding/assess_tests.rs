//! Tests of [`super`].

use super::*;
use crate::{
    finding::{
        event::{Category, Effect, PlaceKind, Severity},
        testing::{attempt, facts, judged, sealed, walk, walk_in},
    },
    kernel::attempt::PathBase,
};

const CLOCK: BootClock = BootClock { unix_ns_at_boot: 1_700_000_000_000_000_000 };

fn assessed(attempt: &Attempt, container: Option<&Arc<Container>>, answers: [Option<Resolved>; 2]) -> Event {
    judged(assess(&Sighting { attempt, container, cgroup_path: Some("/a/b"), resolved: answers, clock: CLOCK }))
}

fn in_container(attempt: &Attempt) -> Event {
    assessed(attempt, Some(&sealed()), [None, None])
}

fn answer(path: &str, point: &str) -> Option<Resolved> {
    let point =
        MountPoint { point: point.as_bytes().to_vec(), fstype: b"overlay".to_vec(), facts: facts(true), of_root: true };
    Some(Resolved { path: path.as_bytes().to_vec(), mount: Some(point) })
}

#[test]
fn a_write_that_succeeded_is_where_its_open_file_is_and_no_more_is_asked() {
    let mut observed = attempt("openat").arg(2, 0o101).path("/settings/x").result(3);
    observed.kind = RecordKind::WriteObserved;
    observed.path.base = PathBase::File(walk("/etc/x"));
    observed.mount =
        Some(attempt::Mount { id: 7, flags: 0, super_flags: 0, fstype: b"overlay".to_vec(), point: Some(walk("/")) });
    assert_eq!(questions(&observed), [None, None]);
    let event = in_container(&observed);
    assert_eq!((event.kind, event.outcome), (Kind::WriteObserved, Some(Outcome::Succeeded)));
    let file = event.file.unwrap();
    assert_eq!((file.path.as_deref(), file.resolved), (Some(b"/etc/x".as_slice()), Some(Resolution::Kernel)));
    assert_eq!(file.requested.as_deref(), Some(b"/settings/x".as_slice()));
    assert!(matches!(event.mount, Some(Mount::Place(place)) if place.kind == PlaceKind::Rootfs));
}

#[test]
fn a_refused_open_becomes_an_event_with_all_that_is_known() {
    let event = in_container(&attempt("openat").arg(2, 0o101).arg(3, 0o644).path("/etc/x"));
    assert_eq!((event.kind, event.operation), (Kind::WriteDenied, Some(Operation::Open)));
    assert_eq!(event.outcome, Some(Outcome::Denied));
    assert_eq!(event.first_time_unix_ns, 1_700_000_010_000_000_000);
    assert_eq!(event.last_time_unix_ns, event.first_time_unix_ns);
    let file = event.file.unwrap();
    assert_eq!(file.path.as_deref(), Some(b"/etc/x".as_slice()));
    assert_eq!(file.flags, ["O_WRONLY", "O_CREAT"]);
    assert_eq!(file.mode, Some(0o644));
    let Some(Mount::Place(place)) = event.mount else { panic!("a write has a place") };
    assert_eq!(place.kind, PlaceKind::Rootfs);
    assert_eq!(event.process.unwrap().start_time_unix_ns, 1_700_000_009_000_000_000);
    assert!(event.cgroup.is_none(), "the container is known");
}

#[test]
fn links_that_were_followed_in_the_real_root_outweigh_the_text() {
    let open = attempt("openat").arg(2, 0o101).path("/var/run/x");
    let event = assessed(&open, Some(&sealed()), [answer("/run/x", "/"), None]);
    let file = event.file.unwrap();
    assert_eq!(file.path.as_deref(), Some(b"/run/x".as_slice()));
    assert_eq!(file.resolved, Some(Resolution::Root));
    let Some(Mount::Place(place)) = event.mount else { panic!("a write has a place") };
    assert_eq!(place.fstype.as_deref(), Some(b"overlay".as_slice()));
}

#[test]
fn the_mount_that_the_kernel_saw_refuse_outweighs_one_that_a_later_look_found() {
    let of_kernel = |point: Walk| {
        let fstype = b"tmpfs".to_vec();
        let mut mkdir = attempt("mkdir").path("/data/x");
        mkdir.mount = Some(attempt::Mount { id: 77, flags: 0x40, super_flags: 0, fstype, point: Some(point) });
        mkdir
    };
    let later = [answer("/data/x", "/"), None];
    let place = place_of(assessed(&of_kernel(walk("/data")), Some(&sealed()), later.clone()));
    assert_eq!((place.point.as_deref(), place.fstype.as_deref()), (Some(&b"/data"[..]), Some(&b"tmpfs"[..])));
    let facts = place.facts.unwrap();
    assert_eq!((facts.id, facts.told_by), (77, Resolution::Kernel));
    assert_eq!((facts.flags.of_mount(), facts.flags.of_superblock()), (vec!["ro"], vec!["rw"]));

    // One whose point was cut is not told; the look is.
    let cut = Walk { truncated: true, ..walk("/data") };
    let place = place_of(assessed(&of_kernel(cut), Some(&sealed()), later));
    assert_eq!(place.facts.unwrap().told_by, Resolution::Root);
}

#[test]
fn what_the_kernel_saw_at_the_time_of_the_call_outweighs_a_later_look() {
    let mut chmod = attempt("fchmod").arg(1, 0o600);
    chmod.path.base = PathBase::File(walk("/etc/x"));
    let event = assessed(&chmod, Some(&sealed()), [answer("/etc/moved", "/"), None]);
    let file = event.file.unwrap();
    assert_eq!(file.path.as_deref(), Some(b"/etc/x".as_slice()));
    assert_eq!(file.resolved, Some(Resolution::Kernel));
}

#[test]
fn without_a_container_paths_are_told_in_the_processs_root_and_the_cgroup_is_named() {
    let mut mkdir = attempt("mkdir").path("x");
    mkdir.process.cwd = Some(walk_in("/srv/jail", "/tmp"));
    let event = assessed(&mkdir, None, [answer("/srv/jail/tmp/x", "/srv/jail"), None]);
    assert_eq!(event.file.unwrap().path.as_deref(), Some(b"/tmp/x".as_slice()));
    let Some(Mount::Place(place)) = event.mount else { panic!("the mount was seen") };
    assert_eq!((place.kind, place.point.as_deref()), (PlaceKind::Other, Some(b"/".as_slice())));
    assert_eq!(event.process.unwrap().cwd.as_deref(), Some(b"/tmp".as_slice()));
    let cgroup = event.cgroup.unwrap();
    assert_eq!((cgroup.id, cgroup.path.as_deref()), (4711, Some("/a/b")));
}

#[test]
fn a_rename_tells_both_names() {
    let event = in_container(&attempt("rename").path("/etc/a").path2("/etc/b"));
    let file = event.file.unwrap();
    assert_eq!(file.path.as_deref(), Some(b"/etc/a".as_slice()));
    assert_eq!(file.new_path.as_deref(), Some(b"/etc/b".as_slice()));
}

fn place_of(event: Event) -> crate::finding::event::Place {
    let Some(Mount::Place(place)) = event.mount else { panic!("a write has a place") };
    place
}

#[test]
fn a_hard_link_is_refused_by_the_mount_of_its_new_name() {
    let event = in_container(&attempt("link").path("/data/a").path2("/etc/shadow"));
    assert_eq!((event.category, event.severity), (Some(Category::Credentials), Severity::High));
    assert_eq!(event.file.as_ref().unwrap().path.as_deref(), Some(b"/data/a".as_slice()));
    assert_eq!(place_of(event).kind, PlaceKind::Rootfs);
    let seen = [answer("/data/a", "/data"), answer("/etc/b", "/")];
    assert_eq!(
        place_of(assessed(&attempt("link").path("/data/a").path2("/etc/b"), Some(&sealed()), seen)).kind,
        PlaceKind::Rootfs
    );
    let to_volume = in_container(&attempt("link").path("/etc/shadow").path2("/etc/app/b"));
    assert_eq!(to_volume.severity, Severity::Low, "the old name stays as it is");
    assert_eq!(place_of(to_volume).kind, PlaceKind::Volume);
}

#[test]
fn a_rename_is_as_bad_as_the_worse_of_its_names() {
    for (from, to) in [("/tmp/x", "/etc/sudoers"), ("/etc/sudoers", "/tmp/x")] {
        let event = in_container(&attempt("rename").path(from).path2(to));
        assert_eq!((event.category, event.severity), (Some(Category::Credentials), Severity::High), "{from} to {to}");
        assert_eq!(event.attack, ["T1548.003".into()], "{from} to {to}");
    }
    let temporary = in_container(&attempt("rename").path("/tmp/x").path2("/srv/y"));
    assert_eq!(temporary.category, Some(Category::TempFile), "of two that are equally bad the old name's");
}

#[test]
fn a_volumes_own_folder_is_removed_from_the_folder_that_holds_it() {
    for (call, path, expected) in [
        ("rmdir", "/data", PlaceKind::Rootfs),
        ("rmdir", "/data/", PlaceKind::Rootfs),
        ("mkdir", "/data", PlaceKind::Rootfs),
        ("rmdir", "/etc/app/x", PlaceKind::Volume),
        ("chmod", "/etc/app", PlaceKind::Volume),
    ] {
        assert_eq!(place_of(in_container(&attempt(call).path(path))).kind, expected, "{call} {path}");
    }
    let removed = in_container(&attempt("rmdir").path("/data"));
    assert_ne!(removed.severity, Severity::High);
}

#[test]
fn a_path_that_must_stay_below_an_open_folder_is_told_below_it() {
    const RESOLVE_IN_ROOT: u64 = 0x10;
    let container = sealed();
    for (requested, expected) in
        [("/etc/x", "/data/jail/etc/x"), ("../../x", "/data/jail/x"), ("/", "/data/jail"), ("x", "/data/jail/x")]
    {
        let mut open = attempt("openat2").extra([0o101, 0o644, RESOLVE_IN_ROOT, 0]).path(requested);
        open.path.base = PathBase::Dirfd(walk("/data/jail"));
        let told = |open: &Attempt, container| assessed(open, container, [None, None]).file.unwrap().path.unwrap();
        assert_eq!(told(&open, Some(&container)), expected.as_bytes(), "{requested}");
        assert_eq!(told(&open, None), expected.as_bytes(), "{requested}, without a container");
        open.path.base = PathBase::Cwd;
        open.process.cwd = Some(walk_in("/srv", "/data/jail"));
        assert_eq!(told(&open, Some(&container)), [b"/srv", expected.as_bytes()].concat(), "{requested}, in a chroot");
        assert_eq!(told(&open, None), expected.as_bytes(), "{requested}, in a chroot without a container");
    }
}

#[test]
fn a_symbolic_link_and_an_attribute_tell_theirs() {
    let link = in_container(&attempt("symlink").path("/etc/l").source("../target")).file.unwrap();
    assert_eq!(link.link_target.as_deref(), Some(b"../target".as_slice()));
    let mut set = attempt("setxattr").path("/etc/x");
    set.data = Some(b"user.x".to_vec());
    assert_eq!(in_container(&set).file.unwrap().xattr.as_deref(), Some(b"user.x".as_slice()));
}

#[test]
fn a_path_that_was_cut_is_flagged_and_not_told() {
    let mut open = attempt("openat").arg(2, 1).path("/a/very/long");
    open.path.truncated = true;
    open.process.exe = Some(Walk { truncated: true, ..walk("/deep/bin/app") });
    let event = in_container(&open);
    let file = event.file.unwrap();
    assert_eq!(file.path, None);
    assert_eq!(file.requested.as_deref(), Some(b"/a/very/long".as_slice()));
    assert_eq!(file.truncated, ["path", "requested"]);
    let process = event.process.unwrap();
    assert_eq!(process.exe.as_deref(), Some(b"deep/bin/app".as_slice()));
    assert_eq!(process.truncated, ["exe"]);
}

#[test]
fn what_the_root_does_not_lead_to_is_not_told_as_if_it_did() {
    let detached = || Walk { in_root: None, unreachable: true, ..walk("/etc") };
    let mut open = attempt("openat").arg(2, 1).path("x");
    open.path.base = PathBase::Dirfd(detached());
    open.process.cwd = Some(detached());
    open.process.exe = Some(detached());
    let event = in_container(&open);
    let (file, process) = (event.file.unwrap(), event.process.unwrap());
    assert_eq!((file.path, file.requested.as_deref(), file.resolved), (None, Some(&b"x"[..]), None));
    assert_eq!((process.cwd, process.exe.as_deref()), (None, Some(&b"(unreachable)/etc"[..])));
    assert_eq!(questions(&open), [None, None]);

    let mut moved = attempt("move_mount").path("/usr");
    moved.path2.base = PathBase::File(detached());
    let Some(Mount::Attempt(mount)) = in_container(&moved).mount else { panic!("a mount attempt") };
    assert_eq!((mount.source, mount.effect), (None, Effect::Shadow));
}

#[test]
fn an_executable_without_a_folder_is_told_by_its_name() {
    let mut open = attempt("openat").arg(2, 1).path("/etc/x");
    open.process.exe = Some(Walk { in_root: None, unreachable: true, ..walk("/memfd:payload") });
    assert_eq!(in_container(&open).process.unwrap().exe.as_deref(), Some(&b"memfd:payload"[..]));
}

#[test]
fn attributes_that_could_not_be_read_are_told_to_be_unreadable() {
    let setattr = Attempt { extra_unreadable: true, ..attempt("mount_setattr").path("/") };
    let Some(Mount::Attempt(mount)) = in_container(&setattr).mount else { panic!("a mount attempt") };
    assert_eq!((mount.unreadable, mount.effect), (vec!["flags"], Effect::Unseal));
}

#[test]
fn a_remount_becomes_a_mount_attempt_with_its_effect() {
    let mut remount = attempt("mount").arg(3, 0x20).path("/").source("none").result(-1);
    remount.data = Some(b"rw".to_vec());
    let event = in_container(&remount);
    assert_eq!((event.kind, event.operation), (Kind::MountAttempt, Some(Operation::Remount)));
    assert_eq!(event.outcome.unwrap().errno().unwrap().name(), "EPERM");
    assert!(event.file.is_none());
    let Some(Mount::Attempt(mount)) = event.mount else { panic!("a mount attempt") };
    assert_eq!(mount.effect, Effect::Unseal);
    assert_eq!(mount.target.as_deref(), Some(b"/".as_slice()));
    assert_eq!(mount.flags, ["MS_REMOUNT"]);
    assert_eq!(mount.options.as_deref(), Some(b"rw".as_slice()));
}

#[test]
fn fsconfig_tells_its_key_and_value_as_an_option() {
    let told = |attempt: &Attempt| {
        let Some(Mount::Attempt(mount)) = in_container(attempt).mount else { panic!("a mount attempt") };
        (mount.source, mount.options)
    };
    let mut set = attempt("fsconfig").arg(1, 1).source("size");
    set.data = Some(b"1m".to_vec());
    assert_eq!(told(&set), (None, Some(b"size=1m".to_vec())));
    set.source = Some(b"source".to_vec());
    assert_eq!(told(&set), (Some(b"1m".to_vec()), None));
    assert_eq!(told(&attempt("fsconfig").source("rw")), (None, Some(b"rw".to_vec())));
}

#[test]
fn what_may_follow_links_is_asked_and_what_has_no_start_is_not() {
    let [path, second] = questions(&attempt("openat").arg(2, 0o101).path("/var/run/x"));
    let path = path.unwrap();
    assert!(path.follow_last && !path.mount_of_folder);
    assert_eq!(path.requested, b"/var/run/x");
    assert!(second.is_none());
    let [path, second] = questions(&attempt("rename").path("a").path2("b"));
    assert!(path.is_some_and(|path| !path.follow_last && path.mount_of_folder));
    assert!(second.is_some());
    assert_eq!(questions(&attempt("fsopen")), [None, None]);
}
