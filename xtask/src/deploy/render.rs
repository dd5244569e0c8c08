//! What is rendered from the chart: the plain manifests, Prometheus' rules, and the table in the chart's README.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde_json::json;

use super::{charts::Charts, readme};
use crate::workspace::Workspace;

/// The namespace of the plain manifests.
const NAMESPACE: &str = "rosentry";

/// The head of every rendered file.
const HEAD: &str = "# Rendered from deploy/charts/rosentry by `cargo xtask render`; change it there.\n";

/// Labels that speak of Helm, which has no part in what becomes of the plain manifests.
const HELM_LABELS: [&str; 2] = ["helm.sh/chart:", "app.kubernetes.io/managed-by:"];

/// The chart.
pub fn chart(workspace: &Workspace) -> PathBuf {
    workspace.root().join("deploy/charts/rosentry")
}

/// All rendered files, by their path in the workspace.
///
/// # Errors
/// What Helm says against the chart.
pub fn rendered(workspace: &Workspace, charts: &Charts) -> Result<BTreeMap<PathBuf, String>> {
    let chart = chart(workspace);
    let mut rendered = BTreeMap::new();
    let kustomize = Path::new("deploy/kustomize");

    let plain = charts.files(&chart, NAMESPACE, &json!({}))?;
    for name in ["configmap", "daemonset", "service", "serviceaccount"] {
        rendered.insert(kustomize.join(name).with_extension("yaml"), manifest(&plain, name)?);
    }
    let monitored = json!({
        "metrics": {"podMonitor": {"enabled": true}},
        "prometheusRule": {"enabled": true},
        "dashboards": {"enabled": true},
    });
    let monitored = charts.files(&chart, NAMESPACE, &monitored)?;
    for name in ["podmonitor", "prometheusrule", "dashboards"] {
        rendered.insert(kustomize.join("monitoring").join(name).with_extension("yaml"), manifest(&monitored, name)?);
    }

    let rule = manifest(&monitored, "prometheusrule")?;
    let (_, groups) = rule.split_once("\nspec:\n").context("the PrometheusRule has a specification")?;
    rendered.insert("deploy/prometheus/rosentry.rules.yaml".into(), format!("{HEAD}{}", outdented(groups)));

    let readme_path = chart.join("README.md");
    let readme =
        fs::read_to_string(&readme_path).with_context(|| format!("{} can't be read", readme_path.display()))?;
    let source = fs::read_to_string(chart.join("values.yaml")).context("the chart's values can't be read")?;
    let values = charts.documents(&source)?.into_iter().next().context("the chart has values")?;
    rendered.insert("deploy/charts/rosentry/README.md".into(), readme::with_values(&readme, &source, &values)?);
    Ok(rendered)
}

fn manifest(files: &BTreeMap<String, String>, name: &str) -> Result<String> {
    let text = files.get(&format!("templates/{name}.yaml")).with_context(|| format!("the chart renders no {name}"))?;
    let mut manifest = String::from(HEAD);
    for line in text.trim().lines() {
        if !HELM_LABELS.iter().any(|label| line.trim_start().starts_with(label)) {
            manifest.push_str(line.trim_end());
            manifest.push('\n');
        }
    }
    Ok(manifest)
}

/// Without the two blanks by which a specification stands further in.
fn outdented(text: &str) -> String {
    text.lines().map(|line| format!("{}\n", line.strip_prefix("  ").unwrap_or(line))).collect()
}
