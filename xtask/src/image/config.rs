//! How the image is run, and what it says of itself.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::Architecture;
use crate::{
    process::{outside_cargo, probe},
    workspace::Workspace,
};

/// The program's folder, and nothing else.
const PATH: &str = "/usr/bin";

/// In one sentence.
const DESCRIPTION: &str =
    "The read-only sentry: sees every write that a read-only root refuses, and every try to change mounts";

/// What labels and history tell of the source.
#[derive(Clone, Debug)]
pub struct Source {
    /// Version of rosentry.
    pub version: String,
    /// The commit; none outside of a checkout.
    pub revision: Option<String>,
    /// When the commit was made, seconds since the Unix epoch: the only time in the image.
    pub created_unix_s: i64,
}

impl Source {
    /// Of the checkout; `SOURCE_DATE_EPOCH` outweighs the commit's time
    /// (<https://reproducible-builds.org/specs/source-date-epoch/>).
    ///
    /// # Errors
    /// Where that variable is no number.
    pub fn of(workspace: &Workspace) -> Result<Self> {
        let git = |arguments: &[&str]| {
            let told = probe(outside_cargo(workspace, "git").arg("-C").arg(workspace.root()).args(arguments))?;
            Some(told.trim().to_owned()).filter(|told| !told.is_empty())
        };
        let time = std::env::var("SOURCE_DATE_EPOCH").ok().or_else(|| git(&["log", "-1", "--format=%ct"]));
        let created_unix_s =
            time.map_or(Ok(0), |time| time.parse()).context("SOURCE_DATE_EPOCH is no number of seconds")?;
        Ok(Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: git(&["rev-parse", "HEAD"]),
            created_unix_s,
        })
    }

    /// RFC 3339.
    pub fn created(&self) -> String {
        jiff::Timestamp::from_second(self.created_unix_s).map_or_else(|_| String::new(), |time| time.to_string())
    }

    /// The labels that registries and tools read
    /// (<https://github.com/opencontainers/image-spec/blob/v1.1.0/annotations.md>).
    pub fn labels(&self) -> Value {
        let mut labels = json!({
            "org.opencontainers.image.title": "rosentry",
            "org.opencontainers.image.description": DESCRIPTION,
            "org.opencontainers.image.version": self.version,
            "org.opencontainers.image.created": self.created(),
            "org.opencontainers.image.source": env!("CARGO_PKG_REPOSITORY"),
            "org.opencontainers.image.licenses": env!("CARGO_PKG_LICENSE"),
        });
        if let Some(revision) = &self.revision {
            labels["org.opencontainers.image.revision"] = revision.as_str().into();
        }
        labels
    }
}

/// The image's configuration (<https://github.com/opencontainers/image-spec/blob/v1.1.0/config.md>); `diff_id` is the digest of the
/// layer before it was compressed.
pub fn config(source: &Source, architecture: Architecture, diff_id: &str) -> Value {
    json!({
        "created": source.created(),
        "architecture": architecture.oci(),
        "os": "linux",
        "config": {
            // With the three capabilities that the DaemonSet adds; without them root is nobody here.
            "User": "0:0",
            "Env": [format!("PATH={PATH}")],
            "Entrypoint": ["rosentry"],
            "Cmd": ["run"],
            "WorkingDir": "/",
            "ExposedPorts": {"9465/tcp": {}},
            "StopSignal": "SIGTERM",
            "Labels": source.labels(),
        },
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created": source.created(), "created_by": "cargo xtask image"}],
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// The last stage of the Dockerfile, one instruction a line.
    fn dockerfile() -> Vec<String> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/Dockerfile");
        let text = fs::read_to_string(path).expect("the Dockerfile can be read").replace("\\\n", " ");
        let (_, last) = text.rsplit_once("FROM scratch\n").expect("its last stage begins with nothing");
        last.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }

    #[test]
    fn the_dockerfile_runs_the_program_as_this_image_does() {
        let source = Source { version: env!("CARGO_PKG_VERSION").to_owned(), revision: None, created_unix_s: 0 };
        let config = config(&source, Architecture::Amd64, "sha256:0")["config"].clone();
        let list = |member: &str| config[member].to_string().replace("\",\"", "\", \"");
        let text = |member: &str| config[member].as_str().expect("a text").to_owned();
        let port = config["ExposedPorts"].as_object().and_then(|ports| ports.keys().next()).expect("a port");
        let instructions = dockerfile();
        for expected in [
            format!("USER {}", text("User")),
            format!("ENV {}", config["Env"][0].as_str().expect("a variable")),
            format!("WORKDIR {}", text("WorkingDir")),
            format!("EXPOSE {port}"),
            format!("STOPSIGNAL {}", text("StopSignal")),
            format!("ENTRYPOINT {}", list("Entrypoint")),
            format!("CMD {}", list("Cmd")),
        ] {
            assert!(instructions.contains(&expected), "{expected} is not in {instructions:#?}");
        }
        let labels = instructions.iter().find(|line| line.starts_with("LABEL ")).expect("it has labels");
        for (name, value) in source.labels().as_object().expect("there are labels") {
            let value = value.as_str().expect("a label is a text");
            let expected = if name.ends_with(".created") { "${CREATED}" } else { value };
            assert!(labels.contains(&format!("{name}=\"{expected}\"")), "{name} is not in {labels}");
        }
    }
}
