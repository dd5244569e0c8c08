//! Tests of [`super`], with lines as an agent wrote them, changed in what is asked about.

mod observed;

use std::io::Write as _;

use proptest::prelude::*;

use super::*;

/// A break-in, as an agent recorded it.
const RECORD: &str = include_str!("../../../tests/data/intrusion.json");

/// A refused write of the record, with another operation and path, and what else is changed.
fn write(operation: &str, path: &str, change: Value) -> Value {
    let line = RECORD.lines().find(|line| line.contains("/tmp/kit") && line.contains("write_denied")).unwrap();
    let mut event: Value = serde_json::from_str(line).unwrap();
    event["operation"] = operation.into();
    event["attack"] = json!([]);
    event["category"] = "other".into();
    event["file"]["path"] = path.into();
    event["process"]["exe"] = "/usr/sbin/app".into();
    merge(&mut event, change);
    event
}

fn merge(into: &mut Value, change: Value) {
    match change {
        Value::Object(members) if into.is_object() => {
            for (name, member) in members {
                merge(&mut into[name], member);
            }
        }
        other => *into = other,
    }
}

fn report(events: &[Value], manifest: Option<&str>) -> Report {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    for event in events {
        writeln!(file, "{event}").unwrap();
    }
    let manifest = manifest.map(|text| Manifest::parse(text).unwrap());
    read(&[Input::of(file.path())], None, manifest.as_ref()).unwrap()
}

/// The specification in the patch of the only workload, and all that is said.
fn advised(events: &[Value]) -> (Value, String) {
    let report = report(events, None);
    let patch = report.advice[0].0.patch.as_ref().map_or(Value::Null, yaml::Node::json);
    (patch["spec"]["template"]["spec"].clone(), flat(&report.yaml()))
}

/// Without the breaks of comments.
fn flat(yaml: &str) -> String {
    let words = yaml.split_whitespace().filter(|word| *word != "#");
    words.collect::<Vec<_>>().join(" ")
}

/// Where the container has mounts, and the sub-path of each.
fn mounts(spec: &Value) -> Vec<(&str, Option<&str>)> {
    let mounts = spec["containers"][0]["volumeMounts"].as_array().into_iter().flatten();
    mounts.map(|mount| (mount["mountPath"].as_str().unwrap(), mount["subPath"].as_str())).collect()
}

#[test]
fn a_temporary_folder_becomes_a_volume_on_disk_with_a_limit() {
    let (spec, told) = advised(&[
        write("open", "/tmp/a", json!({"category": "temp_file", "count": 7})),
        write("mkdir", "/tmp/b", json!({"category": "temp_file"})),
    ]);
    assert_eq!(mounts(&spec), [("/tmp", None)]);
    assert_eq!(spec["volumes"], json!([{"name": "rosentry-app-tmp", "emptyDir": {"sizeLimit": "256Mi"}}]));
    assert!(told.contains("/tmp/a by /usr/sbin/app, 7 times"), "{told}");
}

#[test]
fn pid_files_are_kept_in_memory_and_folders_of_one_kind_share_a_volume() {
    let (spec, _) = advised(&[
        write("open", "/run/nginx.pid", json!({"category": "pid_file"})),
        write("open", "/var/lock/x", json!({"category": "pid_file"})),
    ]);
    assert_eq!(mounts(&spec), [("/run", Some("run")), ("/var/lock", Some("var-lock"))]);
    assert_eq!(
        spec["volumes"],
        json!([{"name": "rosentry-app-run", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}}])
    );
}

#[test]
fn a_folder_that_the_program_makes_is_mounted_itself_and_hides_nothing() {
    let (spec, told) = advised(&[write("mkdir", "/data", json!({})), write("mkdir", "/srv/app", json!({}))]);
    assert_eq!(mounts(&spec), [("/data", Some("data")), ("/srv/app", Some("srv-app"))]);
    assert!(!told.contains("WARNING") && spec["initContainers"].is_null(), "{told}");
}

#[test]
fn a_folder_of_which_nothing_is_known_is_mounted_with_a_warning() {
    let (spec, told) =
        advised(&[write("open", "/app/data/x", json!({"file": {"flags": ["O_WRONLY", "O_CREAT", "O_EXCL"]}}))]);
    assert_eq!(mounts(&spec), [("/app/data", None)]);
    assert!(told.contains("WARNING: hides what the image has here, if anything"), "{told}");
}

#[test]
fn nothing_is_mounted_over_the_root_or_etc() {
    let (spec, told) = advised(&[
        write("rename", "/etc/a", json!({"file": {"new_path": "/etc/b"}})),
        write("symlink", "/x", json!({})),
        write("open", "/etc/app.conf", json!({"category": "config"})),
    ]);
    assert_eq!(mounts(&spec), [("/etc/app.conf", Some("etc-app.conf"))], "the file that can be, by itself");
    assert!(told.contains("not mended: /x by") && told.contains("not mended: /etc/a by"), "{told}");
    let fill = &spec["initContainers"][0];
    assert_eq!(
        (&fill["command"][4], &fill["command"][5]),
        (&json!("/etc/app.conf"), &json!("/rosentry-fill/etc-app.conf"))
    );
    assert_eq!(
        (&fill["image"], &fill["volumeMounts"][0]["name"]),
        (&json!("localhost/rosentry-lab:1"), &json!("rosentry-app-config"))
    );
}

#[test]
fn what_may_be_a_folder_is_not_mounted_as_a_file() {
    let (spec, told) = advised(&[write("chmod", "/etc/app", json!({})), write("open", "/etc", json!({}))]);
    assert!(
        spec.is_null() && told.contains("not mended: /etc/app by") && told.contains("not mended: /etc by"),
        "{told}"
    );
}

#[test]
fn files_of_the_image_are_copied_before_a_mount_hides_them() {
    let temporary = json!({"category": "config", "file": {"flags": ["O_RDWR", "O_CREAT", "O_EXCL"]}});
    let (spec, told) = advised(&[write("open", "/etc/nginx/conf.d/sedAbCdEf", temporary)]);
    assert_eq!(mounts(&spec), [("/etc/nginx/conf.d", Some("etc-nginx-conf.d"))]);
    let fill = &spec["initContainers"][0];
    // Into a folder that it makes itself: of the volume's own, a user who is not root may not set the times.
    let copy = ["cp", "-RPp", "/etc/nginx/conf.d/.", "/rosentry-fill/etc-nginx-conf.d"];
    assert_eq!(fill["command"], json!(copy));
    assert_eq!(fill["volumeMounts"], json!([{"name": "rosentry-app-config", "mountPath": "/rosentry-fill"}]));
    assert!(told.contains("WARNING: the image has files here"), "{told}");
}

#[test]
fn the_folder_of_the_program_or_of_its_script_is_known_to_have_files() {
    for process in [
        json!({"exe": "/app/server"}),
        json!({"exe": "/usr/bin/python3.12", "args": ["python", "/app/main.py"]}),
        json!({"cwd": "/app"}),
    ] {
        let (spec, _) = advised(&[write("mknod", "/app/x", json!({"process": process}))]);
        assert_eq!(spec["initContainers"][0]["command"][2], "/app/.", "{process}");
    }
}

#[test]
fn many_folders_side_by_side_become_one() {
    let names: Vec<_> =
        (0..6).map(|n| write("open", &format!("/app/parts/{n}/x"), json!({"file": {"flags": ["O_EXCL"]}}))).collect();
    let (spec, _) = advised(&names);
    assert_eq!(mounts(&spec), [("/app/parts", Some("app-parts"))]);
    assert!(spec["initContainers"][0].is_object(), "the image has the folders, since the kernel looked them up");
}

#[test]
fn a_folder_of_the_image_in_a_mounted_one_gets_a_mount_too() {
    let (spec, _) = advised(&[write("open", "/tmp/x", json!({})), write("open", "/tmp/of-image/x", json!({}))]);
    assert_eq!(mounts(&spec), [("/tmp", Some("tmp")), ("/tmp/of-image", Some("tmp-of-image"))]);
}

#[test]
fn bytecode_gets_a_variable_and_no_mount() {
    let path = "/usr/lib/python3/dist-packages/x/__pycache__/y.cpython-312.pyc.140";
    let (spec, _) = advised(&[write("open", path, json!({"category": "package_install"}))]);
    assert_eq!(spec["containers"][0]["env"], json!([{"name": "PYTHONDONTWRITEBYTECODE", "value": "1"}]));
    assert!(mounts(&spec).is_empty() && spec["volumes"].is_null());
}

#[test]
fn a_user_without_a_home_gets_variables_that_lead_to_a_volume() {
    let (spec, _) = advised(&[
        write("mkdir", "/.npm", json!({"category": "cache"})),
        write("mkdir", "/.cache", json!({"category": "cache"})),
    ]);
    let expected = json!([
        {"name": "NPM_CONFIG_CACHE", "value": "/rosentry/npm"},
        {"name": "XDG_CACHE_HOME", "value": "/rosentry/cache"},
    ]);
    assert_eq!(spec["containers"][0]["env"], expected);
    assert_eq!(mounts(&spec).len(), 2);
}

#[test]
fn where_python_looks_for_a_temporary_folder_only_the_first_is_mounted() {
    let tries = |path: &str| {
        let change =
            json!({"file": {"flags": ["O_RDWR", "O_CREAT", "O_EXCL"]}, "process": {"exe": "/usr/bin/python3.12"}});
        write("open", path, change)
    };
    let (spec, told) = advised(&[
        tries("/tmp/ab3d_fgh"),
        tries("/var/tmp/xb3d_fgh"),
        tries("/usr/tmp/yb3d_fgh"),
        tries("/app/zb3d_fgh"),
    ]);
    assert_eq!(mounts(&spec), [("/tmp", None)]);
    assert!(told.contains("/app, /usr/tmp, /var/tmp were tried only because /tmp refused"), "{told}");
}

#[test]
fn what_an_intruder_would_write_gets_no_mount() {
    let report = report(&RECORD.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<_>>(), None);
    let told = flat(&report.yaml());
    assert!(told.contains("no mount is advised for /usr/bin/kit by"), "{told}");
    assert!(told.contains("LOOK FIRST who did this: it fits T1105"), "{told}");
    assert!(told.contains("no mount is advised for /etc/cron.d/kit by"), "{told}");
    let patch = report.advice[0].0.patch.as_ref().unwrap().json();
    assert_eq!(mounts(&patch["spec"]["template"]["spec"]), [("/tmp", None)]);
}

#[test]
fn volumes_that_refuse_are_told_and_left_as_they_are() {
    let volume = |kind: &str| json!({"mount": {"kind": kind, "point": "/data", "volume": {"type": "configmap", "name": "conf"}}});
    let (spec, told) =
        advised(&[write("open", "/data/x", volume("volume")), write("open", "/data/x", volume("volume_failed"))]);
    assert!(spec.is_null());
    assert!(told.contains("\"/data (configmap conf)\" refused") && told.contains("look for a storage fault"), "{told}");
}

#[test]
fn what_nobody_need_look_at_or_is_expected_is_left_out() {
    let report = report(
        &[write("unlink", "/tmp/x", json!({"severity": "info"})), write("open", "/y/x", json!({"expected": true}))],
        None,
    );
    assert!(!report.has_patch());
    assert_eq!(report.left_out(), ["2 writes of severity info, or expected by a rule, need nothing"]);
}

#[test]
fn a_move_between_mounts_is_told() {
    let (_, told) = advised(&[write("rename", "/tmp/a", json!({"file": {"new_path": "/app/data/a"}}))]);
    assert!(told.contains("EXDEV"), "{told}");
}

#[test]
fn the_pod_s_labels_tell_what_is_patched() {
    for (labels, name, kind) in [
        (json!({"pod-template-hash": "abc"}), "web-abc-x2x7p", "Deployment"),
        (json!({"statefulset.kubernetes.io/pod-name": "web-0"}), "web-0", "StatefulSet"),
        (json!({"controller-revision-hash": "abc"}), "web-x2x7p", "DaemonSet"),
    ] {
        let report = report(&[write("open", "/tmp/x", json!({"pod": {"labels": labels, "name": name}}))], None);
        assert_eq!(report.json()["workloads"][0]["patch"]["kind"], kind);
        assert!(report.yaml().contains(&format!("kubectl patch {}", kind.to_lowercase())));
    }
    let report = report(&[write("open", "/tmp/x", json!({}))], None);
    assert!(report.yaml().contains("kubectl patch KIND web --namespace"), "where no label tells, nothing is guessed");
}

const MANIFEST: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  template:
    spec:
      containers:
      - name: app
        image: registry.example/web:2
        env: [{name: PYTHONDONTWRITEBYTECODE, value: ""}]
        securityContext: {runAsUser: 101}
        volumeMounts: [{name: scratch, mountPath: /tmp}]
      volumes: [{name: rosentry-app-data, configMap: {name: x}}, {name: scratch, emptyDir: {}}]
"#;

#[test]
fn a_manifest_s_names_mounts_and_variables_are_respected() {
    let report = report(
        &[
            write("open", "/tmp/a", json!({})),
            write("open", "/x.pyc", json!({})),
            write("mknod", "/opt/app/x", json!({})),
            write("open", "/x/a", json!({"container": {"name": "other"}})),
        ],
        Some(MANIFEST),
    );
    let told = flat(&report.yaml());
    let json = report.json();
    let spec = &json["workloads"][0]["patch"]["spec"]["template"]["spec"];
    assert_eq!(mounts(spec), [("/opt/app", Some("opt-app"))]);
    assert_eq!(spec["volumes"][0]["name"], "rosentry-app-data-2");
    let fill = &spec["initContainers"][0];
    assert_eq!(
        (&fill["image"], &fill["securityContext"]["runAsUser"]),
        (&json!("registry.example/web:2"), &json!(101))
    );
    for expected in
        ["a mount at /tmp already", "sets PYTHONDONTWRITEBYTECODE already", "the manifest has no container other"]
    {
        assert!(told.contains(expected), "{expected} is not in {told}");
    }
}

#[test]
fn each_container_has_volumes_of_its_own() {
    let (spec, _) =
        advised(&[write("open", "/tmp/a", json!({})), write("open", "/tmp/a", json!({"container": {"name": "side"}}))]);
    assert_eq!(
        (&spec["volumes"][0]["name"], &spec["volumes"][1]["name"]),
        (&json!("rosentry-app-tmp"), &json!("rosentry-side-tmp"))
    );
}

#[test]
fn a_path_that_no_mount_can_have_is_told_and_not_rendered() {
    for path in ["/a:b/c", "/a\\xff/c", "/a\\x0ab/c", "a/b"] {
        let (spec, told) = advised(&[write("open", path, json!({}))]);
        assert!(spec.is_null() && told.contains("gets no mount"), "{path}: {told}");
    }
}

#[test]
fn the_kubelet_expands_nothing_in_a_copied_path() {
    let (spec, _) = advised(&[write("mknod", "/opt/$(HOME)/x", json!({}))]);
    assert_eq!(spec["initContainers"][0]["command"][2], "/opt/$$(HOME)/.");
    assert_eq!(mounts(&spec)[0].0, "/opt/$(HOME)");
}

#[test]
fn a_flood_of_names_is_kept_in_bounds_and_still_makes_its_mount() {
    let events: Vec<_> = (0..3000).map(|n| write("open", &format!("/tmp/{n}"), json!({}))).collect();
    let (spec, told) = advised(&events);
    assert_eq!(mounts(&spec), [("/tmp", None)]);
    assert!(told.contains("2997 times more"), "{told}");
    let events: Vec<_> =
        (0..3000).map(|n| write("open", &format!("/s/{n}/x"), json!({"file": {"flags": ["O_EXCL"]}}))).collect();
    let (spec, told) = advised(&events);
    assert_eq!(mounts(&spec), [("/s", Some("s"))]);
    assert!(told.contains("1976 more writes are not looked at"), "{told}");
}

/// Paths and names as hostile programs choose them.
fn hostile() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        "[a-z]{1,3}",
        any::<String>(),
        "[\n\r\u{85}\u{2028}:#&*'\"%{}$() -]{0,6}",
        Just("tmp".to_owned()),
        Just("etc".to_owned()),
        Just("..".to_owned()),
        Just(".npm".to_owned()),
        Just("__pycache__".to_owned()),
        Just("\\xff".to_owned()),
    ];
    proptest::collection::vec(name, 0..5).prop_map(|names| format!("/{}", names.join("/")))
}

proptest! {
    #[test]
    fn whatever_events_say_the_patch_is_yaml_and_mounts_only_what_may_be(
        writes in proptest::collection::vec(
            (hostile(), proptest::sample::select(vec!["open", "mkdir", "rename", "chmod", "unlink", "link"]), hostile(), any::<bool>()),
            1..12,
        ),
        names in proptest::collection::vec(prop_oneof![Just("app".to_owned()), any::<String>()], 3),
    ) {
        let events: Vec<_> = writes.iter().map(|(path, operation, second, observed)| {
            let kind = if *observed { "write_observed" } else { "write_denied" };
            let file = json!({"new_path": second, "flags": if path.len() % 2 == 0 { json!(["O_CREAT"]) } else { json!(["O_EXCL"]) }});
            let change = json!({
                "kind": kind, "file": file, "process": {"exe": second, "cwd": path}, "container": {"name": names[0], "image": second},
                "pod": {"namespace": names[1], "workload": names[2]},
            });
            write(operation, path, change)
        }).collect();
        let report = report(&events, None);
        let yaml = report.yaml();
        let read: Vec<Value> = serde_saphyr::from_multiple(&yaml).unwrap_or_else(|error| panic!("{error}: {yaml}"));
        let expected: Vec<Value> = report.json()["workloads"].as_array().unwrap().iter().map(|one| one["patch"].clone()).collect();
        prop_assert_eq!(read.into_iter().filter(|one| !one.is_null()).collect::<Vec<_>>(),
            expected.iter().filter(|one| !one.is_null()).cloned().collect::<Vec<_>>());
        for patch in expected {
            for container in patch["spec"]["template"]["spec"]["containers"].as_array().into_iter().flatten() {
                let mut places = std::collections::BTreeSet::new();
                for mount in container["volumeMounts"].as_array().into_iter().flatten() {
                    let at = mount["mountPath"].as_str().unwrap();
                    prop_assert!(path::mountable(at).is_ok() && sealed::Sealed::of(at) == sealed::Sealed::No, "{at}");
                    prop_assert!(places.insert(at.to_owned()), "{at} twice");
                }
            }
        }
    }
}
