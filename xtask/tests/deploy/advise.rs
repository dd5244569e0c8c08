//! What `rosentry advise` gives: kubectl takes it, and what comes of it is what Kubernetes' schemas allow.

use std::{fs, path::Path, process::Command};

use detector::report::{
    advise::{self, pod_spec::Manifest},
    lines::Input,
};
use serde_json::{Value, json};

use super::support::{run, validate, yaml};

/// The versions of Kubernetes whose schemas are asked.
const VERSIONS: &[&str] = &["1.25", "1.28", "1.30", "1.33", "1.37"];

/// A refused write, as far as advice needs one; the pod's labels are those of the kind's controller.
fn event(kind: &str, operation: &str, path: &str, category: &str, flags: &[&str]) -> Value {
    let (name, labels) = match kind {
        "Deployment" => ("web-5d4f-x2x7p", json!({"pod-template-hash": "5d4f"})),
        "StatefulSet" => ("web-0", json!({"statefulset.kubernetes.io/pod-name": "web-0"})),
        "DaemonSet" => ("web-x2x7p", json!({"controller-revision-hash": "5d4f"})),
        _ => ("web", json!({})),
    };
    json!({
        "schema": "rosentry/v1", "seq": 1, "time": "2026-01-02T03:04:05.123456789Z", "node": "n1", "kind": "write_denied",
        "operation": operation, "outcome": "denied", "errno": "EROFS", "count": 1, "severity": "low", "category": category,
        "file": {"path": path, "flags": flags}, "mount": {"kind": "rootfs", "point": "/"},
        "process": {"pid": 7, "comm": "a\nb: [", "exe": "/usr/bin/a'\"b"},
        "container": {"id": "c", "name": "app", "image": "docker.io/library/nginx:1"},
        "pod": {"namespace": "prod", "name": name, "workload": "web", "labels": labels},
    })
}

/// Every kind of mend: volumes on disk and in memory, one with several folders, copies of a folder and of a file, variables.
fn events(kind: &str) -> Vec<Value> {
    let anew = ["O_RDWR", "O_CREAT", "O_EXCL"];
    let temporary = event(kind, "open", "/tmp/a # b", "temp_file", &anew);
    let mut events = vec![temporary];
    for path in ["/var/cache/nginx/client_temp", "/var/cache/nginx/proxy_temp", "/var/cache/fontconfig"] {
        events.push(event(kind, "mkdir", path, "cache", &[]));
    }
    events.push(event(kind, "open", "/run/nginx.pid", "pid_file", &["O_RDWR", "O_CREAT"]));
    events.push(event(kind, "open", "/etc/nginx/conf.d/sedAbCdEf", "config", &anew));
    events.push(event(kind, "open", "/etc/app.conf", "config", &["O_WRONLY", "O_TRUNC"]));
    events.push(event(kind, "open", "/srv/$(HOME)/ü # -/x", "other", &anew));
    events.push(event(kind, "mkdir", "/.npm", "cache", &[]));
    events.push(event(kind, "open", "/usr/lib/python3/__pycache__/x.pyc", "cache", &anew));
    events
}

/// An object of this kind without anything that is advised.
fn object(kind: &str) -> Value {
    let mut pod = json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {
            "containers": [{
                "name": "app", "image": "nginx:1", "securityContext": {"readOnlyRootFilesystem": true},
                "volumeMounts": [{"name": "conf", "mountPath": "/conf"}],
            }],
            "volumes": [{"name": "conf", "configMap": {"name": "conf"}}],
        },
    });
    let metadata = json!({"name": "web", "namespace": "prod"});
    let selector = json!({"matchLabels": {"app": "web"}});
    match kind {
        "Pod" => json!({"apiVersion": "v1", "kind": kind, "metadata": metadata, "spec": pod["spec"]}),
        "CronJob" => {
            pod["spec"]["restartPolicy"] = "Never".into();
            let spec = json!({"schedule": "@daily", "jobTemplate": {"spec": {"template": pod}}});
            json!({"apiVersion": "batch/v1", "kind": kind, "metadata": metadata, "spec": spec})
        }
        "StatefulSet" => {
            let spec = json!({"serviceName": "web", "selector": selector, "template": pod});
            json!({"apiVersion": "apps/v1", "kind": kind, "metadata": metadata, "spec": spec})
        }
        _ => {
            json!({"apiVersion": "apps/v1", "kind": kind, "metadata": metadata, "spec": {"selector": selector, "template": pod}})
        }
    }
}

/// What kubectl makes of the object with the patch that is advised for it.
fn patched(folder: &Path, kind: &str, with_manifest: bool) -> Value {
    let object = object(kind);
    let [manifest, record, patch] = ["object.json", "events.json", "patch.yaml"].map(|name| folder.join(name));
    fs::write(&manifest, object.to_string()).expect("the manifest is written");
    let lines: String = events(kind).iter().map(|event| format!("{event}\n")).collect();
    fs::write(&record, lines).expect("the events are written");
    let spec = with_manifest.then(|| Manifest::read(&manifest).expect("the manifest is read"));
    let report = advise::read(&[Input::File(record)], None, spec.as_ref()).expect("the events are read");
    fs::write(&patch, report.yaml()).expect("the patch is written");
    let mut kubectl = Command::new("kubectl");
    kubectl
        .args(["patch", "--local", "--type", "strategic", "-o", "json", "-f"])
        .arg(&manifest)
        .arg("--patch-file")
        .arg(&patch);
    let output = run(&mut kubectl, "");
    serde_json::from_slice(&output.stdout).expect("kubectl answers in JSON")
}

#[test]
fn what_is_advised_is_a_patch_that_kubectl_takes_and_the_schemas_allow() {
    let folder = tempfile::tempdir().expect("a folder");
    // Of these the labels tell the kind; of the others only a manifest does.
    let told = ["Deployment", "StatefulSet", "DaemonSet"].map(|kind| (kind, false));
    let given = ["Deployment", "StatefulSet", "DaemonSet", "CronJob", "Pod"].map(|kind| (kind, true));
    let mut objects = Vec::new();
    for (kind, with_manifest) in told.into_iter().chain(given) {
        let object = patched(folder.path(), kind, with_manifest);
        let pod = match kind {
            "Pod" => &object["spec"],
            "CronJob" => &object["spec"]["jobTemplate"]["spec"]["template"]["spec"],
            _ => &object["spec"]["template"]["spec"],
        };
        let app = &pod["containers"][0];
        let mut mounts: Vec<&str> = app["volumeMounts"]
            .as_array()
            .expect("mounts")
            .iter()
            .filter_map(|mount| mount["mountPath"].as_str())
            .collect();
        mounts.sort_unstable();
        let expected = [
            "/conf",
            "/etc/app.conf",
            "/etc/nginx/conf.d",
            "/rosentry/npm",
            "/run",
            "/srv/$(HOME)/ü # -",
            "/tmp",
            "/var/cache",
            "/var/cache/nginx",
        ];
        assert_eq!(mounts, expected, "{kind}");
        assert_eq!(app["securityContext"]["readOnlyRootFilesystem"], true, "what was there stays");
        assert_eq!(pod["containers"].as_array().map(Vec::len), Some(1));
        assert_eq!(pod["initContainers"].as_array().map(Vec::len), Some(2), "{kind}");
        let volumes = pod["volumes"].as_array().expect("volumes");
        for mount in app["volumeMounts"].as_array().expect("mounts") {
            assert_eq!(volumes.iter().filter(|volume| volume["name"] == mount["name"]).count(), 1, "{kind}: {mount}");
        }
        objects.push(object);
    }
    let pairs: Vec<_> = VERSIONS.iter().map(|version| (objects.clone(), *version)).collect();
    for (version, (problems, unknown)) in VERSIONS.iter().zip(validate(&pairs)) {
        assert_eq!((problems, unknown), (vec![], vec![]), "Kubernetes {version}");
    }
}

#[test]
fn several_workloads_are_several_documents() {
    let folder = tempfile::tempdir().expect("a folder");
    let record = folder.path().join("events.json");
    let mut other = event("Deployment", "open", "/tmp/x", "temp_file", &["O_CREAT"]);
    other["pod"]["namespace"] = "test".into();
    let lines = format!("{}\n{other}\n", event("Deployment", "open", "/tmp/x", "temp_file", &["O_CREAT"]));
    fs::write(&record, lines).expect("the events are written");
    let report = advise::read(&[Input::File(record)], None, None).expect("the events are read");
    let documents = yaml(&report.yaml());
    let namespaces: Vec<&Value> = documents.iter().map(|document| &document["metadata"]["namespace"]).collect();
    assert_eq!(namespaces, ["prod", "test"]);
}
