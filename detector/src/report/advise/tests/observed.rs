//! What is advised from learning mode, whose events name one file of each folder and count the rest.

use super::*;

/// A write of the record that succeeded.
fn observed(operation: &str, path: &str, change: Value) -> Value {
    let mut event =
        write(operation, path, json!({"kind": "write_observed", "outcome": "succeeded", "errno": null, "count": 1}));
    merge(&mut event, change);
    event
}

#[test]
fn folders_made_on_the_way_are_one_mount() {
    let (spec, _) = advised(&[
        observed("mkdir", "/app/state", json!({})),
        observed("mkdir", "/app/state/a", json!({})),
        observed("open", "/app/state/a/x", json!({})),
        observed("mkdir", "/tmp/a", json!({})),
        observed("open", "/tmp/a/x", json!({})),
    ]);
    assert_eq!(mounts(&spec), [("/app/state", None), ("/tmp", None)]);
    assert!(spec["initContainers"].is_null());
}

#[test]
fn where_more_was_made_than_is_named_the_folder_around_it_is_mounted() {
    // As of nginx, which makes body, proxy, fastcgi, uwsgi and scgi.
    let (spec, told) = advised(&[
        observed("mkdir", "/var/lib/nginx/body", json!({})),
        observed("open", "/var/lib/nginx/body/1", json!({})),
        observed("mkdir", "/var/lib/nginx/body", json!({"count": 4})),
    ]);
    assert_eq!(mounts(&spec), [("/var/lib/nginx", None)]);
    assert!(told.contains("/var/lib/nginx/body by /usr/sbin/app, once") && told.contains("4 times more"), "{told}");
}

#[test]
fn a_repeat_of_one_write_may_be_of_another_name() {
    let made = || observed("mkdir", "/srv/a", json!({}));
    assert_eq!(mounts(&advised(&[made()]).0), [("/srv/a", None)]);
    let (spec, told) = advised(&[made(), made()]);
    assert_eq!(mounts(&spec), [("/srv/a", None)], "nothing is mounted over /srv");
    assert!(told.contains("not mended: once more in /srv"), "{told}");
    let of_replica = observed("mkdir", "/srv/a", json!({"container": {"id": "another"}}));
    let (_, told) = advised(&[made(), of_replica]);
    assert!(!told.contains("not mended"), "another container's first is of the name that it tells: {told}");
}

#[test]
fn a_file_is_not_enough_where_others_of_its_folder_are_written() {
    let opened = |count| observed("open", "/opt/app/a", json!({"count": count, "file": {"flags": ["O_WRONLY"]}}));
    assert_eq!(mounts(&advised(&[opened(1)]).0), [("/opt/app/a", Some("opt-app-a"))]);
    assert_eq!(mounts(&advised(&[opened(1), opened(6)]).0), [("/opt/app", Some("opt-app"))]);
}

#[test]
fn where_no_folder_may_be_mounted_the_file_that_is_named_is() {
    let opened = |count| observed("open", "/etc/app.conf", json!({"count": count, "category": "config"}));
    let (spec, told) = advised(&[opened(1), opened(3)]);
    assert_eq!(mounts(&spec), [("/etc/app.conf", Some("etc-app.conf"))]);
    assert!(told.contains("not mended: 3 times more in /etc"), "{told}");
}

#[test]
fn what_a_program_has_made_is_its_own_to_change() {
    let owned = |path: &str| observed("chown", path, json!({"attack": ["T1222.002"]}));
    let (spec, told) = advised(&[
        observed("mkdir", "/srv/app/state", json!({})),
        owned("/srv/app/state"),
        observed("open", "/srv/app/data/x", json!({"file": {"flags": ["O_CREAT", "O_EXCL"]}})),
        owned("/srv/app/data/x"),
    ]);
    assert!(!told.contains("LOOK FIRST"), "{told}");
    assert!(spec["initContainers"].is_null(), "the image has nothing to copy: {spec:#}");
    let (spec, told) = advised(&[owned("/srv/app/data/x")]);
    assert!(told.contains("LOOK FIRST") && spec["initContainers"].is_array(), "{told}");
}

#[test]
fn what_lies_in_a_folder_for_scratch_is_the_programs_own_though_no_event_names_it() {
    let owned = |operation| observed(operation, "/tmp/upload1", json!({"attack": ["T1222.002"]}));
    let opened = |count| observed("open", "/tmp/upload0", json!({"count": count, "file": {"flags": ["O_CREAT"]}}));
    let (spec, told) = advised(&[opened(1), opened(7), owned("chmod"), owned("chown")]);
    assert_eq!(mounts(&spec), [("/tmp", None)]);
    assert!(!told.contains("LOOK FIRST"), "{told}");
    let run = json!({"attack": ["T1222.002", "T1105"]});
    let (_, told) = advised(&[observed("chmod", "/tmp/kit", run)]);
    assert!(told.contains("LOOK FIRST") && told.contains("T1105"), "another technique is: {told}");
}

#[test]
fn bytecode_that_is_not_named_gets_no_mount_either() {
    let written =
        |count| observed("open", "/usr/lib/python3.11/__pycache__/re.cpython-311.pyc.140", json!({"count": count}));
    let (spec, _) =
        advised(&[observed("mkdir", "/usr/lib/python3.11/__pycache__", json!({})), written(1), written(192)]);
    assert_eq!(spec["containers"][0]["env"][0]["name"], "PYTHONDONTWRITEBYTECODE");
    assert!(mounts(&spec).is_empty(), "{spec:#}");
}
