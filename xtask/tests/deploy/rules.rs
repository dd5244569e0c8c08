//! Rules and alerts: sound, tested in both directions, with all that a person who is woken needs.

use std::{collections::BTreeSet, process::Command};

use serde_json::Value;

use super::{
    metrics::rules,
    support::{files, read, root, run, yaml},
};

fn alerts() -> Vec<Value> {
    rules().into_iter().filter(|rule| rule["alert"].is_string()).collect()
}

/// Names of alerts.
pub fn alert_names() -> BTreeSet<String> {
    alerts().iter().map(|alert| alert["alert"].as_str().expect("an alert has a name").to_owned()).collect()
}

#[test]
fn promtool_takes_the_rules() {
    run(
        Command::new("promtool").args(["check", "rules"]).arg(root().join("deploy/prometheus/rosentry.rules.yaml")),
        "",
    );
}

#[test]
fn every_alert_fires_when_it_must_and_is_silent_when_it_must() {
    let tests = files("deploy/prometheus/tests", ".test.yaml");
    run(Command::new("promtool").args(["test", "rules"]).args(&tests), "");

    let (mut firing, mut silent) = (BTreeSet::new(), BTreeSet::new());
    for path in tests {
        let file = &yaml(&std::fs::read_to_string(path).expect("the tests can be read"))[0];
        for test in file["tests"].as_array().expect("there are tests") {
            for check in test["alert_rule_test"].as_array().expect("a test has checks") {
                let name = check["alertname"].as_str().expect("a check names an alert").to_owned();
                let fires = check["exp_alerts"].as_array().is_some_and(|alerts| !alerts.is_empty());
                if fires {
                    firing.insert(name)
                } else {
                    silent.insert(name)
                };
            }
        }
    }
    assert_eq!(firing, alert_names());
    assert_eq!(silent, alert_names());
}

#[test]
fn every_alert_says_how_bad_what_and_where_to_read_on() {
    for alert in alerts() {
        let name = alert["alert"].as_str().expect("an alert has a name");
        let severity = alert["labels"]["severity"].as_str();
        assert!(matches!(severity, Some("critical" | "warning")), "{name}: {severity:?}");
        for annotation in ["summary", "description"] {
            let text = alert["annotations"][annotation].as_str().unwrap_or_default();
            assert!(text.ends_with('.'), "{name}: {annotation}: {text}");
        }
        let runbook = alert["annotations"]["runbook_url"].as_str().unwrap_or_default();
        assert!(runbook.ends_with(&format!("/docs/runbooks/{name}.md")), "{name}: {runbook}");
    }
}

#[test]
fn only_what_cannot_wait_pages() {
    let pages: BTreeSet<String> = alerts()
        .iter()
        .filter(|alert| alert["labels"]["severity"] == "critical")
        .map(|alert| alert["alert"].as_str().expect("an alert has a name").to_owned())
        .collect();
    let expected = [
        "RosentryAgentAbsent",
        "RosentryPodCannotStart",
        "RosentryRemountAttempt",
        "RosentrySealBroken",
        "RosentryUnsealSucceeded",
    ];
    assert_eq!(pages, expected.map(str::to_owned).into());
}

#[test]
fn prometheus_takes_the_example_that_finds_the_agents() {
    let mut config = yaml(&read("deploy/prometheus/scrape.yaml"))[0].clone();
    // Debian's build lacks the discovery by Kubernetes, which stands for what it finds.
    let job = config["scrape_configs"][0].as_object_mut().expect("there is a job");
    let discovery = job.remove("kubernetes_sd_configs").expect("the agents are found by Kubernetes");
    assert_eq!(discovery, serde_json::json!([{"role": "pod", "namespaces": {"names": ["rosentry"]}}]));
    job.insert("static_configs".to_owned(), serde_json::json!([{"targets": ["10.0.0.1:9465"]}]));
    let folder = tempfile::tempdir().expect("a folder");
    // JSON is YAML too.
    std::fs::write(folder.path().join("scrape.yaml"), config.to_string()).expect("the configuration is written");
    let rules = "rosentry.rules.yaml";
    std::fs::copy(root().join("deploy/prometheus").join(rules), folder.path().join(rules))
        .expect("the rules are there");
    run(Command::new("promtool").args(["check", "config"]).arg(folder.path().join("scrape.yaml")), "");
}

#[test]
fn alertmanager_takes_its_example_and_pages_for_what_is_critical() {
    let config = root().join("deploy/prometheus/alertmanager.yaml");
    run(Command::new("amtool").arg("check-config").arg(&config), "");
    for (severity, receiver) in [("critical", "pages"), ("warning", "tickets")] {
        let mut route = Command::new("amtool");
        route.args(["config", "routes", "test", "--verify.receivers", receiver, "--config.file"]).arg(&config);
        run(route.args(["alertname=RosentrySealBroken", &format!("severity={severity}")]), "");
    }
}

#[test]
fn alertmanagers_example_names_alerts_that_exist() {
    let text = read("deploy/prometheus/alertmanager.yaml");
    assert!(yaml(&text)[0]["route"].is_object());
    let is_name = |character: char| character.is_ascii_alphabetic();
    let named =
        text.split(|character| !is_name(character)).filter(|word| word.starts_with("Rosentry") && word.len() > 8);
    let named: BTreeSet<String> = named.map(str::to_owned).collect();
    assert!(named.len() > 3 && named.is_subset(&alert_names()), "{named:?}");
}
