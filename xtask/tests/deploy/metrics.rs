//! The names of metrics and labels: what dashboards, rules and runbooks ask for is what the agent gives.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use serde_json::Value;

use super::support::{files, read, root, yaml};

/// Labels that the scrape configuration gives every series, and those that rules make.
const LABELS_OF_THE_SCRAPE: [&str; 8] =
    ["cluster", "node", "job", "instance", "namespace", "pod", "container", "workload"];

/// What others export: Prometheus itself, and kube-state-metrics.
const OF_OTHERS: [(&str, &[&str]); 8] = [
    ("up", &[]),
    ("ALERTS", &["alertname", "alertstate", "severity"]),
    ("scrape_samples_scraped", &[]),
    ("kube_pod_container_status_waiting_reason", &["reason"]),
    ("kube_pod_init_container_status_waiting_reason", &["reason"]),
    ("kube_daemonset_status_desired_number_scheduled", &["daemonset"]),
    ("kube_daemonset_status_number_available", &["daemonset"]),
    ("kube_daemonset_status_updated_number_scheduled", &["daemonset"]),
];

/// The table of `docs/metrics.md`: labels by name.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let text = read("docs/metrics.md");
    let rows = text.lines().filter(|line| line.starts_with("| `rosentry_"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let labels = cells[3].split(',').map(|label| label.trim().to_owned()).filter(|label| !label.is_empty());
        (cells[1].trim_matches('`').to_owned(), labels.collect())
    })
    .collect()
}

#[test]
fn every_metric_that_is_documented_is_exported_and_the_other_way_round() {
    let sources: String = files("detector/src/export/metrics", ".rs")
        .iter()
        .filter(|path| !path.ends_with("tests.rs"))
        .map(|path| fs::read_to_string(path).expect("the source can be read"))
        .collect();
    let literals: BTreeSet<&str> =
        sources.split('"').filter(|part| part.starts_with("rosentry_") && !part.contains(' ')).collect();
    let documented = documented();
    assert_eq!(literals, documented.keys().map(String::as_str).collect());
}

/// Every query of the dashboards and the rules, with where it is.
pub fn queries() -> Vec<(String, String)> {
    let mut queries = Vec::new();
    for path in files("deploy/charts/rosentry/dashboards", ".json") {
        let text = fs::read_to_string(&path).expect("the dashboard can be read");
        let dashboard: Value = serde_json::from_str(&text).expect("it is JSON");
        let name = dashboard["title"].to_string();
        for panel in dashboard["panels"].as_array().expect("it has panels") {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let query = target["expr"].as_str().expect("a target has a query");
                queries.push((format!("{name}, {}", panel["title"]), query.to_owned()));
            }
        }
        for variable in dashboard["templating"]["list"].as_array().expect("it has variables") {
            if let Some(query) = variable["definition"].as_str() {
                queries.push((format!("{name}, {}", variable["name"]), query.to_owned()));
            }
        }
    }
    for rule in rules() {
        let name = rule["alert"].as_str().or(rule["record"].as_str()).expect("a rule has a name");
        queries.push((name.to_owned(), rule["expr"].as_str().expect("a rule has an expression").to_owned()));
    }
    queries
}

/// Every rule.
pub fn rules() -> Vec<Value> {
    let file = &yaml(&read("deploy/prometheus/rosentry.rules.yaml"))[0];
    let groups = file["groups"].as_array().expect("there are groups").iter();
    groups.flat_map(|group| group["rules"].as_array().expect("a group has rules").clone()).collect()
}

#[test]
fn every_metric_and_label_that_is_asked_for_exists() {
    let documented = documented();
    let recorded: BTreeSet<String> =
        rules().iter().filter_map(|rule| Some(rule["record"].as_str()?.to_owned())).collect();
    let of_anything: BTreeSet<&str> = documented.values().flatten().map(String::as_str).collect();
    let mut asked = 0;
    let runbooks = files("docs/runbooks", ".md").into_iter().map(|path| {
        let text = fs::read_to_string(&path).expect("the runbook can be read");
        (path.display().to_string(), text)
    });
    for (place, text) in queries().into_iter().chain(runbooks) {
        for (name, labels) in selectors(&text) {
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
            let known: Vec<&str> = if let Some(labels) = documented.get(name).or_else(|| documented.get(base)) {
                labels.iter().map(String::as_str).chain(["le"]).collect()
            } else if let Some((_, labels)) = OF_OTHERS.iter().find(|(other, _)| *other == name) {
                labels.to_vec()
            } else if recorded.contains(name) {
                of_anything.iter().copied().collect()
            } else {
                panic!("{place} asks for {name}, which nobody exports");
            };
            for label in labels {
                let exists = known.contains(&label) || LABELS_OF_THE_SCRAPE.contains(&label);
                assert!(exists, "{place} asks for the label {label} of {name}, which it has not");
            }
            asked += 1;
        }
    }
    assert!(asked > 100, "{asked} selectors");
}

/// The metrics in a text, with the labels that are asked for of each.
fn selectors(text: &str) -> Vec<(&str, Vec<&str>)> {
    let is_name = |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | ':');
    let mut selectors = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find(is_name) {
        rest = &rest[start..];
        let end = rest.find(|character| !is_name(character)).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        rest = after;
        let is_ours = name.contains("rosentry") && name.contains(['_', ':']) && !name.starts_with("rosentry_d");
        if !(is_ours || OF_OTHERS.iter().any(|(other, _)| *other == name && (*other != "up" || after.starts_with('{'))))
        {
            continue;
        }
        let mut labels = Vec::new();
        if let Some((inside, _)) = after.strip_prefix('{').and_then(|after| after.split_once('}')) {
            for matcher in inside.split(", ").flat_map(|part| part.split("\",")) {
                labels.extend(matcher.split(['=', '!']).next().map(str::trim).filter(|label| !label.is_empty()));
            }
        }
        selectors.push((name, labels));
    }
    selectors
}

#[test]
fn selectors_are_found_in_queries() {
    let query =
        r#"sum by (kind) (rate(rosentry_kernel_events_total{cluster=~"$c", kind!="x,y"}[5m])) / a:rosentry_b:c"#;
    let expected = [("rosentry_kernel_events_total", vec!["cluster", "kind"]), ("a:rosentry_b:c", vec![])];
    assert_eq!(selectors(query), expected);
}

#[test]
fn the_metrics_of_the_documentation_are_those_of_the_readme() {
    let readme = read("README.md");
    for name in documented().into_keys() {
        assert!(readme.contains(&name), "README.md does not name {name}");
    }
    assert!(root().join("docs/metrics.md").exists());
}
