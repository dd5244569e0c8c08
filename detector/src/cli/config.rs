//! The settings of `rosentry run`: raw as they were given ([`Settings`]), and checked ([`RunConfig`]).
//!
//! An option outweighs the environment, the environment the file, the file the default.

mod sinks;

use std::{
    ffi::OsString,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use bytesize::ByteSize;
use clap::{Args, Parser, ValueEnum};
use serde::Deserialize;

use self::sinks::{FileSettings, Sync};
use crate::{
    export::{format::Format, sinks::SinksConfig},
    kernel::plan::Hooks,
};

/// Settings from one place, unchecked.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Settings {
    /// A TOML file with any of these settings.
    #[arg(long, value_name = "PATH")]
    #[serde(skip)]
    pub(super) config: Option<PathBuf>,
    /// How to watch the kernel [default: auto].
    #[arg(long, value_enum)]
    hooks: Option<Hooks>,
    /// The folder in a bpffs where programs, counts and records outlive a killed agent, or `off`
    /// [default: /sys/fs/bpf/rosentry, where that can be had].
    #[arg(long, value_name = "PATH|off")]
    pin: Option<PathBuf>,
    /// Leave the programs attached at SIGTERM, for the agent that comes next; `rosentry uninstall` removes them.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    #[serde(alias = "keep_pins")]
    keep_pins: Option<bool>,
    /// Whose events to report [default: containers].
    #[arg(long, value_enum)]
    scope: Option<Scope>,
    /// The socket of containerd [default: /run/containerd/containerd.sock].
    #[arg(long, value_name = "PATH")]
    #[serde(alias = "containerd_socket")]
    pub(super) containerd_socket: Option<PathBuf>,
    /// A namespace of containerd, repeatable [default: k8s.io].
    #[arg(long, value_name = "NS", value_delimiter = ',')]
    #[serde(alias = "containerd_namespace")]
    pub(super) containerd_namespace: Option<Vec<String>>,
    /// The name of this node [default: NODE_NAME of the environment, then the host's name].
    #[arg(long, value_name = "NAME")]
    #[serde(alias = "node_name")]
    pub(super) node_name: Option<String>,
    /// Where the node's /proc is mounted [default: /proc].
    #[arg(long, value_name = "PATH")]
    #[serde(alias = "host_proc")]
    pub(super) host_proc: Option<PathBuf>,
    /// Where the node's cgroup2 hierarchy is mounted [default: where the mount table says].
    #[arg(long, value_name = "PATH")]
    #[serde(alias = "host_cgroup")]
    pub(super) host_cgroup: Option<PathBuf>,
    /// The file that events are appended to, or - for stdout [default: -].
    #[arg(long, value_name = "PATH|-")]
    json: Option<PathBuf>,
    /// A TOML file of rules, tried before the built-in ones; `rosentry rules` checks it.
    #[arg(long, value_name = "PATH")]
    rules: Option<PathBuf>,
    /// The format of events [default: native].
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Where metrics and health are served [default: 127.0.0.1:9465].
    #[arg(long, value_name = "ADDR")]
    #[serde(alias = "metrics_listen")]
    metrics_listen: Option<String>,
    /// A receiver of syslog, over TCP or TLS.
    #[arg(long, value_name = "tcp://HOST:PORT|tls://HOST:PORT")]
    syslog: Option<String>,
    /// The authorities that vouch for the receiver of syslog, PEM [default: the system's].
    #[arg(long, value_name = "PATH")]
    #[serde(alias = "syslog_ca")]
    syslog_ca: Option<PathBuf>,
    /// Our certificate for the receiver of syslog, PEM.
    #[arg(long, value_name = "PATH")]
    #[serde(alias = "syslog_cert")]
    syslog_cert: Option<PathBuf>,
    /// The key of that certificate, PEM.
    #[arg(long, value_name = "PATH")]
    #[serde(alias = "syslog_key")]
    syslog_key: Option<PathBuf>,
    /// A receiver of OTLP logs, over gRPC [port by default: 4317].
    #[arg(long, value_name = "http(s)://HOST:PORT")]
    otlp: Option<String>,
    /// The authorities that vouch for the receiver of OTLP, PEM [default: the system's].
    #[arg(long, value_name = "PATH")]
    #[serde(alias = "otlp_ca")]
    otlp_ca: Option<PathBuf>,
    /// Our certificate for the receiver of OTLP, PEM.
    #[arg(long, value_name = "PATH")]
    #[serde(alias = "otlp_cert")]
    otlp_cert: Option<PathBuf>,
    /// The key of that certificate, PEM.
    #[arg(long, value_name = "PATH")]
    #[serde(alias = "otlp_key")]
    otlp_key: Option<PathBuf>,
    /// A header for the receiver of OTLP, such as a token, repeatable; best in a file that others can't read.
    #[arg(long, value_name = "NAME=VALUE", value_delimiter = ',')]
    #[serde(alias = "otlp_header")]
    otlp_header: Option<Vec<String>>,
    /// The folder for what is not delivered to receivers yet [default: /var/lib/rosentry/spool].
    #[arg(long, value_name = "PATH")]
    #[serde(alias = "spool_dir")]
    spool_dir: Option<PathBuf>,
    /// What each receiver's spool may take [default: 256MiB].
    #[arg(long, value_name = "SIZE")]
    #[serde(alias = "spool_max_bytes")]
    spool_max_bytes: Option<ByteSize>,
    /// When the spool is synchronised with the disk [default: interval, of a second].
    #[arg(long, value_enum)]
    #[serde(alias = "spool_fsync")]
    spool_fsync: Option<Sync>,
    #[command(flatten)]
    #[serde(default)]
    file: FileSettings,
    /// Learning mode: also report which folders of a root filesystem containers write [default: false].
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    #[serde(alias = "observe_writes")]
    observe_writes: Option<bool>,
}

/// The settings that a file and the environment can name, as they are spelt on the command line. Those that begin with `file-`
/// stand in the table `[file]` of a file.
const KEYS: &[&str] = &[
    "hooks",
    "scope",
    "containerd-socket",
    "containerd-namespace",
    "node-name",
    "host-proc",
    "host-cgroup",
    "pin",
    "keep-pins",
    "json",
    "rules",
    "format",
    "metrics-listen",
    "syslog",
    "syslog-ca",
    "syslog-cert",
    "syslog-key",
    "otlp",
    "otlp-ca",
    "otlp-cert",
    "otlp-key",
    "otlp-header",
    "spool-dir",
    "spool-max-bytes",
    "spool-fsync",
    "file-max-size",
    "file-max-age",
    "file-keep",
    "file-fsync",
    "file-fsync-interval",
    "observe-writes",
];

/// Whose events are reported.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Those of containers.
    Containers,
    /// Those of every process on the node.
    All,
}

/// Where programs, counts and records outlive the agent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Pin {
    /// Nowhere.
    Off,
    /// At the usual place, if it can be had.
    Default,
    /// There.
    Asked(PathBuf),
}

impl Pin {
    /// As given.
    ///
    /// # Errors
    /// Where it is no absolute path.
    pub(super) fn check(given: Option<PathBuf>) -> Result<Self, ConfigError> {
        match given {
            None => Ok(Self::Default),
            Some(path) if path.as_os_str() == "off" => Ok(Self::Off),
            path => Ok(absolute("pin", path)?.map_or(Self::Default, Self::Asked)),
        }
    }
}

/// What `rosentry run` is to do, checked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RunConfig {
    /// How to watch the kernel.
    pub hooks: Hooks,
    /// Where programs outlive the agent.
    pub pin: Pin,
    /// Whether they stay at SIGTERM.
    pub keep_pins: bool,
    /// Whose events are reported.
    pub scope: Scope,
    /// The socket of containerd.
    pub containerd_socket: PathBuf,
    /// The namespaces of containerd, at least one.
    pub containerd_namespaces: Vec<String>,
    /// The name of this node.
    pub node_name: String,
    /// Where the node's /proc is mounted.
    pub host_proc: PathBuf,
    /// Where the node's cgroup2 hierarchy is mounted; none: to be found.
    pub host_cgroup: Option<PathBuf>,
    /// The user's rules.
    pub rules: Option<PathBuf>,
    /// Where events go.
    pub sinks: SinksConfig,
    /// Where metrics and health are served.
    pub metrics_listen: SocketAddr,
    /// Whether writes to a root filesystem that succeed are reported, too.
    pub observe_writes: bool,
}

/// What is wrong with the settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("the config file {path} can't be read: {source}; name another with --config, or leave it out")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is not as it should be.
    #[error("{path}, line {line}: {problem}")]
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong there.
        problem: String,
    },
    /// A variable of the environment is not as it should be.
    #[error("the environment's {variable}: {problem}")]
    Environment {
        /// Its name.
        variable: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A setting has a value that makes no sense.
    #[error("{key}: {problem}")]
    Value {
        /// The setting.
        key: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

/// Takes the options, the environment and the file that either names, and checks what they come to.
///
/// # Errors
/// With the first thing that is wrong, and where.
pub fn load(options: Settings, environment: impl Fn(&str) -> Option<OsString>) -> Result<RunConfig, ConfigError> {
    // A chart that renders nothing leaves an empty variable behind.
    let environment = |name: &str| environment(name).filter(|value| !value.is_empty());
    let mut settings = options.over(from_environment(&environment)?);
    let path = settings.config.take().or_else(|| environment("ROSENTRY_CONFIG").map(PathBuf::from));
    if let Some(path) = path {
        settings = settings.over(from_file(&path)?);
    }
    check(settings, || environment("NODE_NAME"))
}

impl Settings {
    /// These settings, and where they say nothing, those.
    fn over(self, below: Self) -> Self {
        Self {
            config: self.config.or(below.config),
            hooks: self.hooks.or(below.hooks),
            pin: self.pin.or(below.pin),
            keep_pins: self.keep_pins.or(below.keep_pins),
            scope: self.scope.or(below.scope),
            containerd_socket: self.containerd_socket.or(below.containerd_socket),
            containerd_namespace: self.containerd_namespace.or(below.containerd_namespace),
            node_name: self.node_name.or(below.node_name),
            host_proc: self.host_proc.or(below.host_proc),
            host_cgroup: self.host_cgroup.or(below.host_cgroup),
            json: self.json.or(below.json),
            rules: self.rules.or(below.rules),
            format: self.format.or(below.format),
            metrics_listen: self.metrics_listen.or(below.metrics_listen),
            syslog: self.syslog.or(below.syslog),
            syslog_ca: self.syslog_ca.or(below.syslog_ca),
            syslog_cert: self.syslog_cert.or(below.syslog_cert),
            syslog_key: self.syslog_key.or(below.syslog_key),
            otlp: self.otlp.or(below.otlp),
            otlp_ca: self.otlp_ca.or(below.otlp_ca),
            otlp_cert: self.otlp_cert.or(below.otlp_cert),
            otlp_key: self.otlp_key.or(below.otlp_key),
            otlp_header: self.otlp_header.or(below.otlp_header),
            spool_dir: self.spool_dir.or(below.spool_dir),
            spool_max_bytes: self.spool_max_bytes.or(below.spool_max_bytes),
            spool_fsync: self.spool_fsync.or(below.spool_fsync),
            file: self.file.over(below.file),
            observe_writes: self.observe_writes.or(below.observe_writes),
        }
    }
}

/// One variable of the environment, understood as the option of its name.
#[derive(Parser)]
#[command(no_binary_name = true, disable_help_flag = true)]
struct Variable {
    #[command(flatten)]
    settings: Settings,
}

fn from_environment(environment: &impl Fn(&str) -> Option<OsString>) -> Result<Settings, ConfigError> {
    let mut settings = Settings::default();
    for key in KEYS {
        let variable = format!("ROSENTRY_{}", key.replace('-', "_").to_uppercase());
        let Some(value) = environment(&variable) else { continue };
        let mut option = OsString::from(format!("--{key}="));
        option.push(&value);
        let understood = Variable::try_parse_from([option])
            .map_err(|error| ConfigError::Environment { variable, problem: super::sentence(&error) })?;
        settings = settings.over(understood.settings);
    }
    Ok(settings)
}

fn from_file(path: &Path) -> Result<Settings, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    toml::from_str(&text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let message = error.message().trim_end();
        let unknown = message.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next());
        let problem = match unknown {
            Some(key) => {
                let keys: Vec<_> = KEYS.iter().map(|key| key.replacen("file-", "file.", 1)).collect();
                format!("unknown key `{key}`; the keys are {}", keys.join(", "))
            }
            None => message.replace('\n', "; "),
        };
        ConfigError::File { path: path.to_owned(), line: before.matches('\n').count() + 1, problem }
    })
}

fn check(mut settings: Settings, node_name: impl Fn() -> Option<OsString>) -> Result<RunConfig, ConfigError> {
    let sinks = sinks::check(&mut settings)?;
    // The form in which the CRI tools name a socket.
    let socket =
        settings.containerd_socket.map(|path| match path.to_str().and_then(|path| path.strip_prefix("unix://")) {
            Some(path) => PathBuf::from(path),
            None => path,
        });
    let default_socket = || PathBuf::from("/run/containerd/containerd.sock");
    Ok(RunConfig {
        hooks: settings.hooks.unwrap_or(Hooks::Auto),
        pin: Pin::check(settings.pin)?,
        keep_pins: settings.keep_pins.unwrap_or(false),
        scope: settings.scope.unwrap_or(Scope::Containers),
        containerd_socket: absolute("containerd-socket", socket)?.unwrap_or_else(default_socket),
        containerd_namespaces: check_namespaces(settings.containerd_namespace)?,
        node_name: check_node_name(settings.node_name, node_name)?,
        host_proc: absolute("host-proc", settings.host_proc)?.unwrap_or_else(|| PathBuf::from("/proc")),
        host_cgroup: absolute("host-cgroup", settings.host_cgroup)?,
        rules: settings.rules,
        sinks,
        metrics_listen: check_address(settings.metrics_listen.as_deref().unwrap_or("127.0.0.1:9465"))?,
        observe_writes: settings.observe_writes.unwrap_or(false),
    })
}

fn absolute(key: &'static str, path: Option<PathBuf>) -> Result<Option<PathBuf>, ConfigError> {
    match path {
        Some(path) if !path.is_absolute() => Err(value(key, format!("{} is no absolute path", path.display()))),
        path => Ok(path),
    }
}

const fn value(key: &'static str, problem: String) -> ConfigError {
    ConfigError::Value { key, problem }
}

/// The names that containerd takes (`pkg/identifiers` and `pkg/namespaces`, 1.6): letters and digits with single `.`, `_`
/// or `-` between them, 76 bytes at most.
fn check_namespaces(given: Option<Vec<String>>) -> Result<Vec<String>, ConfigError> {
    let mut namespaces = Vec::new();
    for namespace in given.unwrap_or_else(|| vec!["k8s.io".to_owned()]) {
        let is_word = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if namespace.len() > 76 || !namespace.split(['.', '_', '-']).all(is_word) {
            let problem = format!("`{}` is no name of a namespace, such as k8s.io", namespace.escape_default());
            return Err(ConfigError::Value { key: "containerd-namespace", problem });
        }
        if !namespaces.contains(&namespace) {
            namespaces.push(namespace);
        }
    }
    if namespaces.is_empty() {
        let problem = "name at least one namespace, such as k8s.io".to_owned();
        return Err(ConfigError::Value { key: "containerd-namespace", problem });
    }
    Ok(namespaces)
}

fn check_node_name(
    given: Option<String>,
    of_environment: impl Fn() -> Option<OsString>,
) -> Result<String, ConfigError> {
    let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
    let name = given.or_else(|| of_environment().map(|name| name.to_string_lossy().into_owned())).unwrap_or_else(host);
    if name.trim().is_empty() {
        let problem = "the node has no name: give it one with --node-name".to_owned();
        return Err(ConfigError::Value { key: "node-name", problem });
    }
    Ok(name)
}

fn check_address(given: &str) -> Result<SocketAddr, ConfigError> {
    given.parse().map_err(|_| ConfigError::Value {
        key: "metrics-listen",
        problem: format!("`{}` is no address with a port, such as 127.0.0.1:9465 or [::]:9465", given.escape_default()),
    })
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
