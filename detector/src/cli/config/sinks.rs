//! Where events go: what `--json`, `--syslog`, `--otlp` and their like come to.

use std::{path::PathBuf, time::Duration};

use bytesize::ByteSize;
use clap::{Args, ValueEnum};
use hyper::Uri;
use jiff::{Span, SpanRelativeTo};
use serde::Deserialize;

use super::{ConfigError, Settings, absolute, value};
use crate::export::sinks::{
    JsonConfig, OtlpConfig, SinksConfig, SyslogConfig, TlsConfig,
    file::{FileConfig, Fsync},
    spool::{BYTES_MIN, SpoolConfig},
};

/// The least that a file may have before it is rotated: some of the longest lines.
const FILE_BYTES_MIN: u64 = 4 << 20;

const DEFAULT_SPOOL: &str = "/var/lib/rosentry/spool";
const DEFAULT_SPOOL_BYTES: ByteSize = ByteSize::mib(256);
const DEFAULT_FILE_BYTES: ByteSize = ByteSize::mib(100);
const DEFAULT_KEEP: u32 = 5;
const DEFAULT_SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// The port of syslog over TLS (RFC 5425, 4.1).
const SYSLOG_TLS_PORT: u16 = 6514;

/// The port of OTLP over gRPC.
const OTLP_PORT: u16 = 4317;

/// The file that --json names: in a file the table `[file]`.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FileSettings {
    /// The file of --json is rotated before it is larger; 0: never [default: 100MiB].
    #[arg(long = "file-max-size", value_name = "SIZE")]
    #[serde(alias = "max_size")]
    max_size: Option<ByteSize>,
    /// The file is rotated when it is older, such as 24h or 7d [default: never].
    #[arg(long = "file-max-age", value_name = "TIME")]
    #[serde(alias = "max_age")]
    max_age: Option<String>,
    /// How many rotated files are kept [default: 5].
    #[arg(long = "file-keep", value_name = "COUNT")]
    keep: Option<u32>,
    /// When the file is synchronised with the disk [default: interval].
    #[arg(long = "file-fsync", value_enum)]
    fsync: Option<Sync>,
    /// How long after it was written it is so at the latest, with interval [default: 1s].
    #[arg(long = "file-fsync-interval", value_name = "TIME")]
    #[serde(alias = "fsync_interval")]
    fsync_interval: Option<String>,
}

/// When what was written is put where a power failure can't reach it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Sync {
    /// When the system does.
    Never,
    /// A while after it was written, at most.
    Interval,
    /// Before more is written.
    Always,
}

impl Sync {
    const fn every(self, interval: Duration) -> Fsync {
        match self {
            Self::Never => Fsync::Never,
            Self::Interval => Fsync::Interval(interval),
            Self::Always => Fsync::Always,
        }
    }
}

impl FileSettings {
    /// These settings, and where they say nothing, those.
    pub fn over(self, below: Self) -> Self {
        Self {
            max_size: self.max_size.or(below.max_size),
            max_age: self.max_age.or(below.max_age),
            keep: self.keep.or(below.keep),
            fsync: self.fsync.or(below.fsync),
            fsync_interval: self.fsync_interval.or(below.fsync_interval),
        }
    }

    fn check(self, path: PathBuf) -> Result<FileConfig, ConfigError> {
        let max_bytes = match self.max_size.unwrap_or(DEFAULT_FILE_BYTES).as_u64() {
            0 => None,
            bytes if bytes < FILE_BYTES_MIN => return Err(too_small("file-max-size", FILE_BYTES_MIN)),
            bytes => Some(bytes),
        };
        let interval = duration("file-fsync-interval", self.fsync_interval.as_deref())?;
        Ok(FileConfig {
            path,
            max_bytes,
            max_age: duration("file-max-age", self.max_age.as_deref())?,
            keep: self.keep.unwrap_or(DEFAULT_KEEP),
            fsync: self.fsync.unwrap_or(Sync::Interval).every(interval.unwrap_or(DEFAULT_SYNC_INTERVAL)),
        })
    }
}

/// Takes what the settings say of sinks.
pub fn check(settings: &mut Settings) -> Result<SinksConfig, ConfigError> {
    let json = match settings.json.take() {
        Some(path) if path.as_os_str() != "-" => JsonConfig::File(std::mem::take(&mut settings.file).check(path)?),
        _ => JsonConfig::Stdout,
    };
    let spool_bytes = settings.spool_max_bytes.unwrap_or(DEFAULT_SPOOL_BYTES).as_u64();
    if spool_bytes < BYTES_MIN {
        return Err(too_small("spool-max-bytes", BYTES_MIN));
    }
    Ok(SinksConfig {
        format: settings.format.unwrap_or_default(),
        json,
        syslog: syslog(settings)?,
        otlp: otlp(settings)?,
        spool: SpoolConfig {
            folder: absolute("spool-dir", settings.spool_dir.take())?.unwrap_or_else(|| DEFAULT_SPOOL.into()),
            max_bytes: spool_bytes,
            fsync: settings.spool_fsync.unwrap_or(Sync::Interval).every(DEFAULT_SYNC_INTERVAL),
        },
    })
}

fn syslog(settings: &mut Settings) -> Result<Option<SyslogConfig>, ConfigError> {
    let tls = TlsConfig {
        ca: settings.syslog_ca.take(),
        identity: identity("syslog-cert", settings.syslog_cert.take(), settings.syslog_key.take())?,
    };
    let Some(text) = settings.syslog.take() else {
        return alone("syslog-ca", &tls, "--syslog tls://HOST:PORT");
    };
    let wrong =
        || value("syslog", format!("`{}` is no receiver, such as tls://logs.example:6514", text.escape_default()));
    let uri: Uri = text.parse().map_err(|_| wrong())?;
    let host = host(&uri).ok_or_else(wrong)?;
    match (uri.scheme_str(), uri.port_u16()) {
        (Some("tcp"), Some(port)) => match alone("syslog-ca", &tls, "--syslog tls://HOST:PORT")? {
            None::<SyslogConfig> => Ok(Some(SyslogConfig { host, port, tls: None })),
            config => Ok(config),
        },
        (Some("tls"), port) => Ok(Some(SyslogConfig { host, port: port.unwrap_or(SYSLOG_TLS_PORT), tls: Some(tls) })),
        _ => Err(wrong()),
    }
}

fn otlp(settings: &mut Settings) -> Result<Option<OtlpConfig>, ConfigError> {
    let tls = TlsConfig {
        ca: settings.otlp_ca.take(),
        identity: identity("otlp-cert", settings.otlp_cert.take(), settings.otlp_key.take())?,
    };
    let headers = settings.otlp_header.take().unwrap_or_default();
    let Some(text) = settings.otlp.take() else {
        return alone("otlp-ca", &tls, "--otlp https://HOST:PORT");
    };
    let wrong = || value("otlp", format!("`{}` is no receiver, such as http://collector:4317", text.escape_default()));
    let uri: Uri = text.parse().map_err(|_| wrong())?;
    let host = uri.host().ok_or_else(wrong)?;
    let scheme = uri.scheme_str().filter(|scheme| matches!(*scheme, "http" | "https")).ok_or_else(wrong)?;
    if scheme == "http" {
        alone::<OtlpConfig>("otlp-ca", &tls, "--otlp https://HOST:PORT")?;
    }
    let header = |header: String| {
        let (name, text) = header
            .split_once('=')
            .ok_or_else(|| value("otlp-header", "a header is NAME=VALUE, such as authorization=Bearer …".to_owned()))?;
        Ok((name.trim().to_lowercase(), text.trim().to_owned()))
    };
    Ok(Some(OtlpConfig {
        endpoint: format!("{scheme}://{host}:{}", uri.port_u16().unwrap_or(OTLP_PORT)),
        tls,
        headers: headers.into_iter().map(header).collect::<Result<_, ConfigError>>()?,
    }))
}

/// The host of a receiver that has nothing else but a port; an address of IPv6 without its brackets.
fn host(uri: &Uri) -> Option<String> {
    let is_bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
    let host = uri.host().filter(|host| is_bare && !host.is_empty())?;
    Some(host.trim_start_matches('[').trim_end_matches(']').to_owned())
}

fn identity(
    key: &'static str,
    certificate: Option<PathBuf>,
    private_key: Option<PathBuf>,
) -> Result<Option<(PathBuf, PathBuf)>, ConfigError> {
    match (certificate, private_key) {
        (Some(certificate), Some(private_key)) => Ok(Some((certificate, private_key))),
        (None, None) => Ok(None),
        _ => Err(value(key, "a certificate and its key go together: give both, or neither".to_owned())),
    }
}

/// Refuses certificates that would not be used.
fn alone<T>(key: &'static str, tls: &TlsConfig, what: &str) -> Result<Option<T>, ConfigError> {
    if *tls == TlsConfig::default() {
        return Ok(None);
    }
    Err(value(key, format!("certificates are for TLS: say {what}, or leave them out")))
}

fn too_small(key: &'static str, least: u64) -> ConfigError {
    value(key, format!("it is too small, give at least {}", ByteSize(least).display().iec()))
}

/// A time that is longer than none, in the words of jiff: `90s`, `1h 30m`, `7d`.
fn duration(key: &'static str, text: Option<&str>) -> Result<Option<Duration>, ConfigError> {
    let Some(text) = text else { return Ok(None) };
    let span = text.parse::<Span>().ok();
    let duration = span.and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()).ok());
    match duration.and_then(|duration| Duration::try_from(duration).ok()).filter(|duration| !duration.is_zero()) {
        Some(duration) => Ok(Some(duration)),
        None => Err(value(key, format!("`{}` is no time, such as 30s, 24h or 7d", text.escape_default()))),
    }
}
