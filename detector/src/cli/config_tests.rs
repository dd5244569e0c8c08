//! Tests of [`super`].

use std::{collections::HashMap, io::Write, time::Duration};

use proptest::prelude::*;
use tempfile::NamedTempFile;

use super::*;
use crate::export::sinks::{
    JsonConfig, OtlpConfig, SyslogConfig, TlsConfig,
    file::{FileConfig, Fsync},
    spool::SpoolConfig,
};

fn options(arguments: &[&str]) -> Settings {
    Variable::try_parse_from(arguments).unwrap().settings
}

fn file(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn loaded(arguments: &[&str], environment: &[(&str, &str)]) -> Result<RunConfig, ConfigError> {
    let environment: HashMap<_, _> = environment.iter().copied().collect();
    load(options(arguments), |name| environment.get(name).map(OsString::from))
}

fn refusal(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    loaded(arguments, environment).unwrap_err().to_string()
}

#[test]
fn the_defaults_are_those_of_the_contract() {
    let config = loaded(&[], &[("NODE_NAME", "n1")]).unwrap();
    assert_eq!(
        config,
        RunConfig {
            hooks: Hooks::Auto,
            pin: Pin::Default,
            keep_pins: false,
            scope: Scope::Containers,
            containerd_socket: "/run/containerd/containerd.sock".into(),
            containerd_namespaces: vec!["k8s.io".to_owned()],
            node_name: "n1".to_owned(),
            host_proc: "/proc".into(),
            host_cgroup: None,
            rules: None,
            sinks: SinksConfig {
                format: Format::Native,
                json: JsonConfig::Stdout,
                syslog: None,
                otlp: None,
                spool: SpoolConfig {
                    folder: "/var/lib/rosentry/spool".into(),
                    max_bytes: 256 << 20,
                    fsync: Fsync::Interval(Duration::from_secs(1)),
                },
            },
            metrics_listen: "127.0.0.1:9465".parse().unwrap(),
            observe_writes: false,
        }
    );
}

#[test]
fn every_setting_can_stand_on_the_command_line_in_the_environment_and_in_the_file() {
    let values = [
        ("hooks", "tracepoint"),
        ("scope", "all"),
        ("containerd-socket", "/run/c.sock"),
        ("containerd-namespace", "moby"),
        ("node-name", "n7"),
        ("host-proc", "/host/proc"),
        ("host-cgroup", "/host/cgroup"),
        ("pin", "/bpf/x"),
        ("keep-pins", "true"),
        ("json", "/var/log/e.json"),
        ("rules", "/etc/rules.toml"),
        ("format", "ecs"),
        ("metrics-listen", "[::1]:1"),
        ("syslog", "tls://logs.example:7000"),
        ("syslog-ca", "/s/ca"),
        ("syslog-cert", "/s/cert"),
        ("syslog-key", "/s/key"),
        ("otlp", "https://[::1]:7001"),
        ("otlp-ca", "/o/ca"),
        ("otlp-cert", "/o/cert"),
        ("otlp-key", "/o/key"),
        ("otlp-header", "Authorization=Bearer x"),
        ("spool-dir", "/spool"),
        ("spool-max-bytes", "5MiB"),
        ("spool-fsync", "always"),
        ("file-max-size", "6MB"),
        ("file-max-age", "2d"),
        ("file-keep", "9"),
        ("file-fsync", "interval"),
        ("file-fsync-interval", "1m 30s"),
        ("observe-writes", "true"),
    ];
    assert_eq!(values.map(|(key, _)| key), KEYS);
    let expected = RunConfig {
        hooks: Hooks::Tracepoint,
        pin: Pin::Asked("/bpf/x".into()),
        keep_pins: true,
        scope: Scope::All,
        containerd_socket: "/run/c.sock".into(),
        containerd_namespaces: vec!["moby".to_owned()],
        node_name: "n7".to_owned(),
        host_proc: "/host/proc".into(),
        host_cgroup: Some("/host/cgroup".into()),
        rules: Some("/etc/rules.toml".into()),
        sinks: SinksConfig {
            format: Format::Ecs,
            json: JsonConfig::File(FileConfig {
                path: "/var/log/e.json".into(),
                max_bytes: Some(6_000_000),
                max_age: Some(Duration::from_secs(2 * 24 * 3600)),
                keep: 9,
                fsync: Fsync::Interval(Duration::from_secs(90)),
            }),
            syslog: Some(SyslogConfig {
                host: "logs.example".to_owned(),
                port: 7000,
                tls: Some(TlsConfig { ca: Some("/s/ca".into()), identity: Some(("/s/cert".into(), "/s/key".into())) }),
            }),
            otlp: Some(OtlpConfig {
                endpoint: "https://[::1]:7001".to_owned(),
                tls: TlsConfig { ca: Some("/o/ca".into()), identity: Some(("/o/cert".into(), "/o/key".into())) },
                headers: vec![("authorization".to_owned(), "Bearer x".to_owned())],
            }),
            spool: SpoolConfig { folder: "/spool".into(), max_bytes: 5 << 20, fsync: Fsync::Always },
        },
        metrics_listen: "[::1]:1".parse().unwrap(),
        observe_writes: true,
    };

    let flags = values.map(|(key, value)| format!("--{key}={value}"));
    assert_eq!(loaded(&flags.each_ref().map(String::as_str), &[]).unwrap(), expected);

    let variables = values.map(|(key, value)| (format!("ROSENTRY_{}", key.replace('-', "_").to_uppercase()), value));
    let variables = variables.each_ref().map(|(name, value)| (name.as_str(), *value));
    assert_eq!(loaded(&[], &variables).unwrap(), expected);

    for separator in ['-', '_'] {
        let member = |(key, value): &(&str, &str)| {
            let key = key.strip_prefix("file-").unwrap_or(key).replace('-', &separator.to_string());
            match key.as_str() {
                "observe-writes" | "observe_writes" | "keep-pins" | "keep_pins" | "keep" => {
                    format!("{key} = {value}\n")
                }
                "containerd-namespace" | "containerd_namespace" | "otlp-header" | "otlp_header" => {
                    format!("{key} = [\"{value}\"]\n")
                }
                _ => format!("{key} = \"{value}\"\n"),
            }
        };
        let (of_file, others): (Vec<_>, Vec<_>) = values.iter().partition(|(key, _)| key.starts_with("file-"));
        let members = |of: Vec<&(&str, &str)>| of.into_iter().map(member).collect::<String>();
        let text = format!("{}[file]\n{}", members(others), members(of_file));
        let file = file(&text);
        let path = file.path().to_str().unwrap();
        assert_eq!(loaded(&["--config", path], &[]).unwrap(), expected);
        assert_eq!(loaded(&[], &[("ROSENTRY_CONFIG", path)]).unwrap(), expected);
    }
}

#[test]
fn every_option_but_the_file_itself_is_a_key() {
    let command = <Variable as clap::CommandFactory>::command();
    let options = command.get_arguments().filter_map(clap::Arg::get_long).filter(|option| *option != "config");
    let options: std::collections::BTreeSet<_> = options.collect();
    assert_eq!(options, KEYS.iter().copied().collect());
}

#[test]
fn repeated_namespaces_are_all_taken_once() {
    let config = loaded(&["--containerd-namespace", "k8s.io", "--containerd-namespace=moby,k8s.io"], &[]).unwrap();
    assert_eq!(config.containerd_namespaces, ["k8s.io", "moby"]);
}

#[test]
fn the_node_is_named_by_the_option_the_environment_or_the_host() {
    let environment = [("NODE_NAME", "n1")];
    assert_eq!(loaded(&["--node-name", "n2"], &environment).unwrap().node_name, "n2");
    assert_eq!(loaded(&[], &environment).unwrap().node_name, "n1");
    let host = loaded(&[], &[("NODE_NAME", "")]).unwrap().node_name;
    assert_eq!(host, rustix::system::uname().nodename().to_str().unwrap());
}

#[test]
fn an_empty_variable_says_nothing() {
    assert_eq!(loaded(&[], &[("ROSENTRY_SCOPE", ""), ("ROSENTRY_CONFIG", "")]).unwrap().scope, Scope::Containers);
}

#[test]
fn an_unknown_key_is_told_with_file_line_and_the_known_keys() {
    let file = file("# ours\nscope = \"all\"\nhoks = \"auto\"\n");
    let path = file.path().to_str().unwrap();
    let refusal = refusal(&["--config", path], &[]);
    let expected = format!("{path}, line 3: unknown key `hoks`; the keys are hooks, scope, containerd-socket, ");
    assert!(refusal.starts_with(&expected), "{refusal}");
}

#[test]
fn a_mistake_in_the_file_is_told_with_its_line() {
    for (text, line, problem) in [
        ("scope = \"all\"\n\nhooks = \"kprobe\"\n", 3, "kprobe"),
        ("scope = all\n", 1, ""),
        ("\nobserve-writes = \"no\"\n", 2, "boolean"),
        ("containerd-namespace = \"moby\"\n", 1, "sequence"),
    ] {
        let file = file(text);
        let refusal = refusal(&["--config", file.path().to_str().unwrap()], &[]);
        assert!(refusal.contains(&format!(", line {line}: ")) && refusal.contains(problem), "{refusal}");
        assert!(!refusal.contains('\n'), "{refusal}");
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let refusal = refusal(&["--config", "/no/such.toml"], &[]);
    assert!(refusal.contains("/no/such.toml") && refusal.contains("--config"), "{refusal}");
}

#[test]
fn a_mistake_in_the_environment_names_the_variable() {
    let refusal = refusal(&[], &[("ROSENTRY_SCOPE", "pods")]);
    assert!(refusal.starts_with("the environment's ROSENTRY_SCOPE: "), "{refusal}");
    assert!(refusal.contains("containers, all"), "{refusal}");
}

#[test]
fn learning_mode_is_on_where_the_option_says_nothing_more_and_off_where_it_says_so() {
    let on = |arguments: &[&str], environment: &[(&str, &str)]| loaded(arguments, environment).unwrap().observe_writes;
    assert!(on(&["--observe-writes"], &[]));
    assert!(!on(&["--observe-writes=false"], &[("ROSENTRY_OBSERVE_WRITES", "true")]));
}

#[test]
fn values_that_make_no_sense_are_refused_with_an_example() {
    for (arguments, expected) in [
        (&["--metrics-listen", "9465"][..], "such as 127.0.0.1:9465"),
        (&["--containerd-namespace", "a b"], "such as k8s.io"),
        (&["--containerd-namespace", ""], "such as k8s.io"),
        (&["--host-proc", "proc"], "no absolute path"),
        (&["--containerd-socket", "c.sock"], "no absolute path"),
        (&["--node-name", " "], "--node-name"),
        (&["--syslog", "logs.example:514"], "such as tls://"),
        (&["--syslog", "udp://logs.example:514"], "such as tls://"),
        (&["--syslog", "tcp://logs.example"], "such as tls://"),
        (&["--syslog", "tls://a:1/path"], "such as tls://"),
        (&["--syslog", "tcp://a:1", "--syslog-ca", "/ca"], "say --syslog tls://"),
        (&["--syslog-ca", "/ca"], "say --syslog tls://"),
        (&["--syslog", "tls://a:1", "--syslog-cert", "/c"], "give both"),
        (&["--otlp", "collector:4317"], "such as http://"),
        (&["--otlp", "ftp://collector:4317"], "such as http://"),
        (&["--otlp", "http://a", "--otlp-ca", "/ca"], "say --otlp https://"),
        (&["--otlp", "http://a", "--otlp-header", "token"], "NAME=VALUE"),
        (&["--spool-dir", "spool"], "no absolute path"),
        (&["--spool-max-bytes", "1MiB"], "at least 4.0 MiB"),
        (&["--json", "/e", "--file-max-size", "1k"], "at least 4.0 MiB"),
        (&["--json", "/e", "--file-max-age", "soon"], "such as 30s, 24h or 7d"),
        (&["--json", "/e", "--file-max-age=-1h"], "such as 30s, 24h or 7d"),
    ] {
        let refusal = refusal(arguments, &[]);
        assert!(refusal.contains(expected), "{refusal}");
    }
}

#[test]
fn ports_of_receivers_may_be_left_out_where_there_is_a_usual_one() {
    let sinks = |arguments: &[&str]| loaded(arguments, &[]).unwrap().sinks;
    assert_eq!(sinks(&["--syslog", "tls://[fd00::1]"]).syslog.unwrap().host, "fd00::1");
    assert_eq!(sinks(&["--syslog", "tls://logs"]).syslog.unwrap().port, 6514);
    assert_eq!(sinks(&["--otlp", "http://collector"]).otlp.unwrap().endpoint, "http://collector:4317");
}

#[test]
fn a_size_of_zero_means_that_a_file_is_never_rotated() {
    let config = loaded(&["--json", "/e", "--file-max-size", "0"], &[]).unwrap();
    assert!(matches!(config.sinks.json, JsonConfig::File(FileConfig { max_bytes: None, max_age: None, .. })));
}

#[test]
fn a_socket_may_be_named_as_the_cri_tools_do() {
    let config = loaded(&["--containerd-socket", "unix:///run/c.sock"], &[]).unwrap();
    assert_eq!(config.containerd_socket, Path::new("/run/c.sock"));
}

proptest! {
    #[test]
    fn the_option_outweighs_the_environment_and_that_the_file(
        option in proptest::option::of("[a-z]{1,8}"),
        variable in proptest::option::of("[a-z]{1,8}"),
        in_file in proptest::option::of("[a-z]{1,8}"),
    ) {
        let text = in_file.as_ref().map_or(String::new(), |name| format!("node-name = \"{name}\"\n"));
        let file = file(&text);
        let mut arguments = vec!["--config", file.path().to_str().unwrap()];
        if let Some(name) = &option {
            arguments.extend(["--node-name", name.as_str()]);
        }
        let mut environment = vec![("NODE_NAME", "fallback")];
        if let Some(name) = &variable {
            environment.push(("ROSENTRY_NODE_NAME", name.as_str()));
        }
        let expected = option.clone().or(variable.clone()).or(in_file.clone()).unwrap_or("fallback".to_owned());
        prop_assert_eq!(loaded(&arguments, &environment).unwrap().node_name, expected);
    }
}
