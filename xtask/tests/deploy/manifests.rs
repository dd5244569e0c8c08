//! What is rendered from the chart for people without Helm.

use std::process::Command;

use serde_json::{Value, json};

use super::support::{XTASK, read, render, root, run, validate, yaml};

#[test]
fn everything_that_is_rendered_from_the_chart_is_up_to_date() {
    run(Command::new(XTASK).args(["render", "--check"]), "");
}

#[test]
fn kustomize_gives_what_the_chart_renders() {
    let mut built = kustomize("deploy/kustomize");
    built.retain(|object| object["kind"] != "Namespace");
    let rendered = render(&json!({}));
    let mut expected: Vec<Value> = rendered.documents.into_iter().filter(|object| object["kind"] != "Pod").collect();
    for object in &mut expected {
        for path in ["/metadata/labels", "/spec/template/metadata/labels"] {
            if let Some(Value::Object(labels)) = object.pointer_mut(path) {
                labels.retain(|label, _| !matches!(label.as_str(), "helm.sh/chart" | "app.kubernetes.io/managed-by"));
            }
        }
    }
    for objects in [&mut built, &mut expected] {
        objects.sort_by_key(|object| object["kind"].to_string());
    }
    assert_eq!(built, expected);
}

#[test]
fn the_namespace_admits_the_agents() {
    let built = kustomize("deploy/kustomize");
    let namespace = built.iter().find(|object| object["kind"] == "Namespace").expect("there is a namespace");
    assert_eq!(namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "privileged");
    for object in &built {
        let of =
            if object["kind"] == "Namespace" { &object["metadata"]["name"] } else { &object["metadata"]["namespace"] };
        assert_eq!(*of, namespace["metadata"]["name"], "{}", object["kind"]);
    }
    assert_eq!(validate(&[(built, "1.37")]), [(vec![], vec![])]);
}

#[test]
fn kustomize_has_the_monitoring_too() {
    let kinds: Vec<Value> =
        kustomize("deploy/kustomize/monitoring").iter().map(|object| object["kind"].clone()).collect();
    for kind in ["PodMonitor", "PrometheusRule", "ConfigMap"] {
        assert!(kinds.contains(&kind.into()), "{kinds:?}");
    }
}

#[test]
fn the_scrape_job_does_what_the_monitor_does() {
    let job = &yaml(&read("deploy/prometheus/scrape.yaml"))[0]["scrape_configs"][0];
    assert_eq!((&job["job_name"], &job["honor_labels"]), (&json!("rosentry"), &json!(true)));
    let labels: Vec<&Value> =
        job["relabel_configs"].as_array().expect("there are rules").iter().map(|rule| &rule["target_label"]).collect();
    assert!(labels.contains(&&json!("node")), "{labels:?}");
}

/// What `kubectl apply -k` would apply.
fn kustomize(folder: &str) -> Vec<Value> {
    let output = run(Command::new("kubectl").arg("kustomize").arg(root().join(folder)), "");
    yaml(&String::from_utf8(output.stdout).expect("manifests are text"))
}
