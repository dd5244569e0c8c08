//! The chart: with its defaults, with every optional value, and with wrong ones.

use std::{ffi::OsString, fs};

use detector::cli::{self, Command, config::RunConfig};
use serde_json::{Value, json};

use super::support::{Rendered, lint, read, render, try_render, validate};

/// From the oldest that the chart takes to the newest whose schemas there are.
const VERSIONS: [&str; 5] = ["1.25", "1.28", "1.30", "1.33", "1.37"];

/// Custom resources, which the API's own schemas don't have.
const CUSTOM: [&str; 3] = ["PodMonitor/rosentry", "ServiceMonitor/rosentry", "PrometheusRule/rosentry"];

/// Each set of values that people set together; the first are the defaults.
fn variants() -> Vec<(&'static str, Value)> {
    vec![
        ("the defaults", json!({})),
        (
            "all of monitoring",
            json!({
                "metrics": {"cluster": "eu-1", "podMonitor": {"enabled": true, "labels": {"release": "prometheus"}, "relabelings": [{"targetLabel": "team", "replacement": "security"}], "metricRelabelings": [{"action": "labeldrop", "regex": "x"}]}},
                "prometheusRule": {"enabled": true, "labels": {"release": "prometheus"}, "alertLabels": {"team": "security"}, "enforcementTarget": 1, "productionNamespaces": "live"},
                "dashboards": {"enabled": true, "namespace": "grafana", "annotations": {"grafana_folder": "Security"}},
            }),
        ),
        ("a ServiceMonitor", json!({"metrics": {"serviceMonitor": {"enabled": true}}})),
        ("IPv6", json!({"metrics": {"address": "::", "port": 9999}})),
        ("a network policy", json!({"networkPolicy": {"enabled": true}})),
        (
            "a network policy with peers",
            json!({"networkPolicy": {"enabled": true, "from": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}], "egress": [{"ports": [{"port": 4317}]}]}}),
        ),
        (
            "K3s, SELinux, events in a file",
            json!({"containerd": {"socket": "/run/k3s/containerd/containerd.sock"}, "seLinuxOptions": {"type": "spc_t"}, "events": {"hostPath": "/var/log/rosentry"}, "config": {"json": "/var/log/rosentry/events.json"}}),
        ),
        (
            "another name, another image",
            json!({"fullnameOverride": "sentry", "nameOverride": "sentry", "commonLabels": {"owner": "sec"}, "image": {"registry": "registry.local", "tag": "2", "digest": format!("sha256:{}", "0".repeat(64))}, "imagePullSecrets": [{"name": "pull"}]}),
        ),
        (
            "nothing that can be left out",
            json!({"seccompProfile": null, "appArmorProfile": null, "resources": null, "priorityClassName": "", "tolerations": [], "nodeSelector": null, "serviceAccount": {"create": false}, "metrics": {"service": {"enabled": false}}}),
        ),
        (
            "more of everything for the pods",
            json!({"extraEnv": [{"name": "TZ", "value": "UTC"}], "extraVolumes": [{"name": "x", "emptyDir": {}}], "extraVolumeMounts": [{"name": "x", "mountPath": "/x"}], "affinity": {"nodeAffinity": {}}, "podAnnotations": {"a": "b"}, "podLabels": {"c": "d"}, "runtimeClassName": "runc", "serviceAccount": {"name": "other", "annotations": {"e": "f"}}, "seccompProfile": {"type": "Localhost", "localhostProfile": "rosentry.json"}, "appArmorProfile": {"type": "RuntimeDefault"}}),
        ),
    ]
}

#[test]
fn it_renders_and_lints_with_every_optional_value() {
    let (names, values): (Vec<_>, Vec<_>) = variants().into_iter().unzip();
    for (name, (findings, rendered)) in names.iter().zip(lint(&values).into_iter().zip(try_render(&values))) {
        assert_eq!(findings, Vec::<String>::new(), "{name}");
        assert!(rendered.is_ok_and(|rendered| !rendered.documents.is_empty()), "{name}");
    }
}

#[test]
fn its_objects_are_valid_on_each_version_of_kubernetes() {
    let mut of_version = Vec::new();
    for version in VERSIONS {
        of_version.extend(variants().into_iter().map(|(name, mut values)| {
            values["kubeVersion"] = version.into();
            (name, values, version)
        }));
    }
    let values: Vec<Value> = of_version.iter().map(|(_, values, _)| values.clone()).collect();
    let rendered = try_render(&values).into_iter().map(|rendered| rendered.expect("the values are sound").documents);
    let pairs: Vec<_> = rendered.zip(of_version.iter().map(|(_, _, version)| *version)).collect();
    for ((problems, unknown), (name, _, version)) in validate(&pairs).into_iter().zip(&of_version) {
        assert_eq!(problems, Vec::<String>::new(), "{name}, on {version}");
        assert!(unknown.iter().all(|object| CUSTOM.contains(&object.as_str())), "{name}: {unknown:?}");
    }
}

#[test]
fn wrong_values_are_refused() {
    let cases = [
        (json!({"config": {"hook": "auto"}}), "'hook'"),
        (json!({"config": {"hooks": "kprobe"}}), "/config/hooks"),
        (json!({"config": {"containerd-namespace": []}}), "/config/containerd-namespace"),
        (json!({"config": {"json": "/tmp/events"}}), "/config/json"),
        (json!({"metrics": {"port": "http"}}), "/metrics/port"),
        (json!({"metrics": {"podMonitor": {"interval": "often"}}}), "/metrics/podMonitor/interval"),
        (json!({"updateStrategy": {"rollingUpdate": {"maxSurge": 1}}}), "/updateStrategy/rollingUpdate/maxSurge"),
        (json!({"image": {"digest": "sha256:12"}}), "/image/digest"),
        (json!({"containerd": {"socket": "containerd.sock"}}), "/containerd/socket"),
        (json!({"appArmorProfile": {"type": "Localhost"}}), "localhostProfile"),
        (json!({"prometheusRule": {"enforcementTarget": 90}}), "/prometheusRule/enforcementTarget"),
        (json!({"prometheusRule": {"runbookUrl": "runbooks"}}), "/prometheusRule/runbookUrl"),
        (json!({"terminationGracePeriodSeconds": 1}), "/terminationGracePeriodSeconds"),
        (json!({"toleration": []}), "'toleration'"),
        (
            json!({"metrics": {"podMonitor": {"enabled": true}, "serviceMonitor": {"enabled": true}}}),
            "scrape every agent twice",
        ),
        (
            json!({"metrics": {"service": {"enabled": false}, "serviceMonitor": {"enabled": true}}}),
            "metrics.service.enabled",
        ),
        // Each right by itself; the agents would never become ready, or never deliver.
        (json!({"config": {"syslog": "tcp://logs:514"}}), "set events.hostPath"),
        (json!({"config": {"json": "/var/log/rosentry/events.json"}}), "set events.hostPath"),
        (
            json!({"config": {"otlp": "https://logs:4317"}, "events": {"hostPath": "/var/log/rosentry"}, "networkPolicy": {"enabled": true}}),
            "networkPolicy.egress",
        ),
        (json!({"metrics": {"address": "127.0.0.1"}}), "probes"),
    ];
    let values: Vec<Value> = cases.iter().map(|(values, _)| values.clone()).collect();
    for (rendered, (values, told)) in try_render(&values).into_iter().zip(cases) {
        let refused = rendered.err().unwrap_or_else(|| panic!("{values} is refused"));
        assert!(refused.contains(told), "{values}: {refused}");
    }
}

#[test]
fn the_agent_takes_the_configuration_that_is_rendered() {
    let config = config_of(&render(&json!({})));
    assert_eq!(config.containerd_socket.to_str(), Some("/host/containerd/containerd.sock"));
    assert_eq!(config.host_cgroup.as_deref().and_then(std::path::Path::to_str), Some("/host/cgroup"));
    assert_eq!(config.metrics_listen.to_string(), "0.0.0.0:9465");
    assert_eq!(config.containerd_namespaces, ["k8s.io"]);
    assert_eq!(config.node_name, "n1");

    let k3s = json!({
        "containerd": {"socket": "/run/k3s/containerd/k3s.sock"},
        "metrics": {"address": "::", "port": 9999},
        "config": {"containerd-namespace": ["k8s.io", "moby"], "scope": "all"},
    });
    let config = config_of(&render(&k3s));
    assert_eq!(config.containerd_socket.to_str(), Some("/host/containerd/k3s.sock"));
    assert_eq!(config.metrics_listen.to_string(), "[::]:9999");
    assert_eq!(config.containerd_namespaces, ["k8s.io", "moby"]);
}

#[test]
fn what_waits_for_a_receiver_is_kept_where_the_pod_can_write() {
    let rendered = render(&json!({"config": {"otlp": "https://logs:4317"}, "events": {"hostPath": "/srv/rosentry"}}));
    let config = rendered.all("ConfigMap").into_iter().find_map(|map| map["data"]["rosentry.toml"].as_str());
    assert!(config.is_some_and(|config| config.contains("spool-dir = \"/var/log/rosentry/spool\"")), "{config:?}");
    let mounts = agent(&rendered)["volumeMounts"].as_array().expect("the agent has mounts");
    assert!(mounts.iter().any(|mount| *mount == json!({"name": "events", "mountPath": "/var/log/rosentry"})));
}

#[test]
fn the_alert_of_missing_agents_names_the_daemonset_of_the_release() {
    let rendered = render(&json!({"fullnameOverride": "sentry", "prometheusRule": {"enabled": true}}));
    let rules = rendered.one("PrometheusRule").to_string();
    assert!(rules.contains(r#"{daemonset=\"sentry\"}"#), "{rules}");
}

#[test]
fn the_five_commands_of_the_readme_bring_metrics_rules_and_dashboards() {
    for page in ["README.md", "docs/install.md"] {
        let text = read(page).replace("\\\n", " ");
        let install =
            text.lines().find(|line| line.starts_with("helm install rosentry ")).expect("a command installs it");
        let mut values = json!({});
        let settings =
            install.split("--set ").skip(1).flat_map(|rest| rest.split(' ').next().unwrap_or_default().split(','));
        for (key, value) in settings.filter_map(|setting| setting.split_once('=')) {
            let at = key.split('.').fold(&mut values, |values, key| &mut values[key]);
            *at = serde_json::from_str(value).unwrap_or_else(|_| value.into());
        }
        let rendered = render(&values);
        for kind in ["PodMonitor", "PrometheusRule"] {
            assert_eq!(rendered.one(kind)["metadata"]["labels"]["release"], "prometheus", "{page}");
        }
        let maps = rendered.all("ConfigMap").into_iter();
        assert_eq!(maps.filter(|map| map["metadata"]["labels"]["grafana_dashboard"] == "1").count(), 3, "{page}");
    }
}

#[test]
fn rules_stand_beside_the_configuration_and_new_ones_restart_the_agents() {
    let text = "[[rule]]\nname = \"mine\"\nmatch.path = [\"/tmp/**\"]\nset.expected = true\n";
    let rendered = render(&json!({"rules": text}));
    let told = rendered.one("ConfigMap")["data"]["rules.toml"].as_str().expect("the rules are a text");
    assert_eq!(told.trim_end(), text.trim_end());
    let path = config_of(&rendered).rules.expect("the agent is told where they are");
    assert_eq!(path.to_str(), Some("/etc/rosentry/rules.toml"));
    assert!(rendered.one("ConfigMap")["data"]["rosentry.toml"].as_str().is_some_and(|text| text.contains("rules = ")));

    let none = render(&json!({}));
    assert_eq!((&none.one("ConfigMap")["data"]["rules.toml"], config_of(&none).rules), (&Value::Null, None));
    let other = render(&json!({"rules": text.replace("/tmp", "/srv")}));
    let sum = |rendered: &Rendered| {
        rendered.one("DaemonSet")["spec"]["template"]["metadata"]["annotations"]["checksum/config"].to_string()
    };
    assert!(sum(&rendered) != sum(&other) && sum(&none) != sum(&other));
}

/// The agent's own word on the file in the ConfigMap, with the arguments and the environment of the DaemonSet.
fn config_of(rendered: &Rendered) -> RunConfig {
    let file = tempfile::NamedTempFile::new().expect("a file for the configuration");
    let text = rendered.one("ConfigMap")["data"]["rosentry.toml"].as_str().expect("the configuration is a text");
    fs::write(file.path(), text).expect("the configuration is written");
    let arguments = agent(rendered)["args"].as_array().expect("the agent has arguments").iter();
    let arguments = arguments.map(|argument| match argument.as_str() {
        Some("/etc/rosentry/rosentry.toml") => file.path().as_os_str().to_owned(),
        argument => OsString::from(argument.expect("an argument is a text")),
    });
    let environment = |wanted: &str| {
        let mut variables = agent(rendered)["env"].as_array().expect("the agent has an environment").iter();
        let variable = variables.find(|variable| variable["name"] == wanted)?;
        // What comes of the pod itself has no value yet.
        Some(OsString::from(variable["value"].as_str().unwrap_or("n1")))
    };
    match cli::parse(std::iter::once("rosentry".into()).chain(arguments), environment) {
        Ok(Command::Run(config)) => *config,
        other => panic!("the agent runs: {other:?}\n{text}"),
    }
}

#[test]
fn every_setting_of_the_agent_is_a_value_or_set_by_the_chart() {
    let file = tempfile::NamedTempFile::new().expect("a file for the configuration");
    fs::write(file.path(), "no-such-key = 1\n").expect("the configuration is written");
    let arguments = ["rosentry", "run", "--config", file.path().to_str().expect("the path is a text")];
    let refusal =
        cli::parse(arguments.map(OsString::from), |_| None).expect_err("an unknown key is refused").to_string();
    let (_, keys) = refusal.split_once("the keys are ").expect("the refusal names the keys");
    let mut keys: Vec<&str> = keys.split(", ").collect();
    keys.sort_unstable();

    let schema: Value = serde_json::from_str(&read("deploy/charts/rosentry/values.schema.json")).expect("it is JSON");
    let values = schema["properties"]["config"]["properties"].as_object().expect("the settings are in the schema");
    let by_chart = ["containerd-socket", "host-cgroup", "host-proc", "metrics-listen", "node-name", "pin", "rules"];
    let mut known: Vec<&str> = values.keys().map(String::as_str).chain(by_chart).collect();
    known.sort_unstable();
    assert_eq!(known, keys);
}

#[test]
fn the_agent_has_the_least_that_it_needs() {
    let rendered = render(&json!({}));
    let pod = &rendered.one("DaemonSet")["spec"]["template"]["spec"];
    assert_eq!(pod["automountServiceAccountToken"], false);
    assert_eq!(pod["hostPID"], true);
    assert_eq!((&pod["hostNetwork"], &pod["hostIPC"]), (&Value::Null, &Value::Null));
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    let security = &agent(&rendered)["securityContext"];
    assert_eq!(security["privileged"], false);
    assert_eq!(security["allowPrivilegeEscalation"], false);
    assert_eq!(security["readOnlyRootFilesystem"], true);
    assert_eq!(security["capabilities"], json!({"drop": ["ALL"], "add": ["BPF", "PERFMON", "SYS_PTRACE"]}));
    for mount in agent(&rendered)["volumeMounts"].as_array().expect("the agent has mounts") {
        assert!(mount["readOnly"] == true || mount["name"] == "bpffs", "{mount}");
    }
    let volumes = pod["volumes"].as_array().expect("the pod has volumes");
    let bpffs = volumes.iter().find(|volume| volume["name"] == "bpffs").expect("it has a place for its programs");
    assert_eq!(bpffs["hostPath"]["path"], "/sys/fs/bpf/rosentry", "no more of it than its own folder");
}

#[test]
fn only_the_folder_of_events_is_writable_where_no_programs_are_kept() {
    let rendered = render(&json!({"events": {"hostPath": "/srv/rosentry"}, "host": {"bpffs": ""}}));
    let mounts = agent(&rendered)["volumeMounts"].as_array().expect("the agent has mounts");
    let writable: Vec<&Value> = mounts.iter().filter(|mount| mount["readOnly"] != true).collect();
    assert_eq!(writable, [&json!({"name": "events", "mountPath": "/var/log/rosentry"})]);
}

#[test]
fn it_goes_to_every_node_one_agent_at_a_time() {
    let rendered = render(&json!({}));
    let spec = &rendered.one("DaemonSet")["spec"];
    assert_eq!(spec["updateStrategy"]["rollingUpdate"], json!({"maxUnavailable": 1, "maxSurge": 0}));
    assert_eq!(spec["template"]["spec"]["tolerations"], json!([{"operator": "Exists"}]));
    assert_eq!(spec["template"]["spec"]["priorityClassName"], "system-node-critical");
}

#[test]
fn a_changed_setting_rolls_out_and_a_changed_label_of_the_monitor_does_not() {
    let checksum = |values: &Value| {
        let rendered = render(values);
        rendered.one("DaemonSet")["spec"]["template"]["metadata"]["annotations"]["checksum/config"].clone()
    };
    let default = checksum(&json!({}));
    assert_ne!(checksum(&json!({"config": {"scope": "all"}})), default);
    assert_eq!(checksum(&json!({"metrics": {"podMonitor": {"enabled": true}}})), default);
}

#[test]
fn the_pod_of_helm_test_is_no_agent() {
    let rendered = render(&json!({}));
    let selector =
        rendered.one("DaemonSet")["spec"]["selector"]["matchLabels"].as_object().expect("a selector").clone();
    let pod = rendered.one("Pod");
    let labels = &pod["metadata"]["labels"];
    assert!(selector.iter().any(|(key, value)| labels[key] != *value), "{labels}");
    let agents = &rendered.one("DaemonSet")["spec"]["template"]["metadata"]["labels"];
    assert!(selector.iter().all(|(key, value)| agents[key] == *value), "{agents}");
    // It asks with what the agents have.
    assert_eq!(pod["spec"]["containers"][0]["securityContext"], agent(&rendered)["securityContext"]);
    assert_eq!(pod["spec"]["containers"][0]["volumeMounts"], agent(&rendered)["volumeMounts"]);
}

#[test]
fn the_monitors_find_the_agents_and_keep_the_labels_of_the_series() {
    for (kind, endpoints, values) in [
        ("PodMonitor", "podMetricsEndpoints", json!({"metrics": {"podMonitor": {"enabled": true}}})),
        ("ServiceMonitor", "endpoints", json!({"metrics": {"serviceMonitor": {"enabled": true}}})),
    ] {
        let rendered = render(&values);
        let spec = &rendered.one(kind)["spec"];
        let of =
            if kind == "PodMonitor" { &rendered.one("DaemonSet")["spec"]["template"] } else { rendered.one("Service") };
        let selector = spec["selector"]["matchLabels"].as_object().expect("a selector");
        assert!(selector.iter().all(|(key, value)| of["metadata"]["labels"][key] == *value), "{kind}");
        assert_eq!(spec[endpoints][0]["honorLabels"], true);
        assert_eq!(spec[endpoints][0]["port"], "metrics");
        assert!(
            spec[endpoints][0]["relabelings"].to_string().contains(r#""replacement":"rosentry","targetLabel":"job""#)
        );
    }
}

#[test]
fn an_older_kubernetes_gets_the_apparmor_profile_as_an_annotation() {
    let key = "container.apparmor.security.beta.kubernetes.io/agent";
    let pod = |version: &str| render(&json!({"kubeVersion": version})).one("DaemonSet")["spec"]["template"].clone();
    assert_eq!(pod("1.29")["metadata"]["annotations"][key], "unconfined");
    assert_eq!(pod("1.29")["spec"]["securityContext"]["appArmorProfile"], Value::Null);
    assert_eq!(pod("1.30")["metadata"]["annotations"][key], Value::Null);
    assert_eq!(pod("1.30")["spec"]["securityContext"]["appArmorProfile"]["type"], "Unconfined");
}

#[test]
fn the_dashboards_arrive_as_they_are_with_the_label_of_grafanas_sidecar() {
    let rendered = render(&json!({"dashboards": {"enabled": true}}));
    let maps: Vec<&Value> =
        rendered.all("ConfigMap").into_iter().filter(|map| map["data"]["rosentry.toml"].is_null()).collect();
    assert_eq!(maps.len(), 3);
    for map in maps {
        assert_eq!(map["metadata"]["labels"]["grafana_dashboard"], "1");
        let (name, text) = map["data"].as_object().and_then(|data| data.iter().next()).expect("a dashboard");
        let file = name.trim_start_matches("rosentry-");
        assert_eq!(text.as_str(), Some(&*read(&format!("deploy/charts/rosentry/dashboards/{file}"))), "{file}");
    }
}

#[test]
fn the_notes_name_the_release() {
    let notes = &render(&json!({"fullnameOverride": "sentry"})).files["templates/NOTES.txt"];
    assert!(notes.contains("rollout status daemonset/sentry"), "{notes}");
}

fn agent(rendered: &Rendered) -> &Value {
    &rendered.one("DaemonSet")["spec"]["template"]["spec"]["containers"][0]
}
