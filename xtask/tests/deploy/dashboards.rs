//! The dashboards: whole, linked with each other and with the runbooks. A real Prometheus answers their queries in the tests of
//! the agent, end to end.

use std::{collections::BTreeSet, fs};

use serde_json::Value;

use super::{rules::alert_names, support::files};

fn dashboards() -> Vec<(String, Value)> {
    let files = files("deploy/charts/rosentry/dashboards", ".json");
    let parsed = files.iter().map(|path| {
        let text = fs::read_to_string(path).expect("the dashboard can be read");
        (
            path.file_stem().expect("a name").to_string_lossy().into_owned(),
            serde_json::from_str(&text).expect("it is JSON"),
        )
    });
    parsed.collect()
}

#[test]
fn there_is_one_for_each_kind_of_reader() {
    let names: Vec<String> = dashboards().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["debug", "executive", "oncall"]);
    for (name, dashboard) in dashboards() {
        assert_eq!(dashboard["uid"], format!("rosentry-{name}"));
        assert_eq!(dashboard["id"], Value::Null, "an id would replace somebody else's dashboard");
    }
}

#[test]
fn each_panel_has_a_place_a_title_and_the_chosen_source_of_data() {
    for (name, dashboard) in dashboards() {
        let panels = dashboard["panels"].as_array().expect("it has panels");
        let ids: BTreeSet<String> = panels.iter().map(|panel| panel["id"].to_string()).collect();
        assert_eq!(ids.len(), panels.len(), "{name}");
        let mut taken = BTreeSet::new();
        for panel in panels {
            assert!(panel["title"].as_str().is_some_and(|title| !title.is_empty()), "{name}: {panel}");
            let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().expect("a number"));
            assert!(x + w <= 24, "{name}: {}", panel["title"]);
            for cell in (x..x + w).flat_map(|column| (y..y + h).map(move |row| (column, row))) {
                assert!(taken.insert(cell), "{name}: {} lies on another panel", panel["title"]);
            }
            for target in panel["targets"].as_array().into_iter().flatten() {
                assert_eq!(target["datasource"]["uid"], "${datasource}", "{name}: {}", panel["title"]);
            }
        }
    }
}

#[test]
fn variables_are_those_that_the_queries_use() {
    for (name, dashboard) in dashboards() {
        let variables = dashboard["templating"]["list"].as_array().expect("it has variables");
        let names: Vec<&str> = variables.iter().filter_map(|variable| variable["name"].as_str()).collect();
        let text = dashboard["panels"].to_string();
        for variable in &names {
            assert!(
                text.contains(&format!("${variable}")) || text.contains(&format!("${{{variable}}}")),
                "{name}: {variable}"
            );
        }
        for asked in ["datasource", "cluster", "namespace", "workload"] {
            assert!(names.contains(&asked), "{name} has no variable {asked}");
        }
        for used in ["$cluster", "$namespace", "$workload", "$node"] {
            assert!(!text.contains(used) || names.contains(&&used[1..]), "{name} has no variable {used}");
        }
    }
}

#[test]
fn what_is_recorded_by_workload_is_shown_of_the_chosen_workloads() {
    for (name, dashboard) in dashboards() {
        for panel in dashboard["panels"].as_array().expect("it has panels") {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let query = target["expr"].as_str().expect("a target has a query");
                for series in query.split("cluster_namespace_workload").skip(1) {
                    let selected = series.split_once('{').and_then(|(_, labels)| labels.split_once('}'));
                    let labels = selected.unwrap_or_else(|| panic!("{name}: {query} selects nothing")).0;
                    for variable in ["cluster", "namespace", "workload"] {
                        let heeded = format!("{variable}=~\"${variable}\"");
                        assert!(labels.contains(&heeded), "{name}: {}: {query}", panel["title"]);
                    }
                }
            }
        }
    }
}

#[test]
fn they_lead_to_one_another_and_to_runbooks_that_exist() {
    let alerts = alert_names();
    for (name, dashboard) in dashboards() {
        let links = dashboard["links"].as_array().expect("it has links");
        assert!(links.iter().any(|link| link["type"] == "dashboards" && link["includeVars"] == true), "{name}");
        let text = dashboard.to_string();
        for after in text.split("/docs/runbooks/").skip(1) {
            let page = after.split('"').next().unwrap_or_default();
            let alert = page.trim_end_matches(".md");
            assert!(page.is_empty() || page.contains("${") || alerts.contains(alert), "{name} leads to {page}");
        }
    }
}
