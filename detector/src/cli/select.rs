//! Which events are asked for: the options that `view` and `timeline` share.

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use jiff::Timestamp;

use crate::{
    finding::event::{Kind, Severity},
    report::{
        event::Time,
        filter::{Filter, PodName, moment},
    },
};

/// Which events.
#[derive(Clone, Debug, clap::Args)]
pub struct Select {
    /// Of this pod, of the pods of this workload, or of this namespace (NS/); repeatable.
    #[arg(long = "pod", value_name = "NS/NAME", value_parser = PodName::parse)]
    pods: Vec<PodName>,
    /// Of the container with this name or this beginning of an id, 8 digits at least; repeatable.
    #[arg(long = "container", value_name = "ID")]
    containers: Vec<String>,
    /// Of this node; repeatable.
    #[arg(long = "node", value_name = "NODE")]
    nodes: Vec<String>,
    /// Of this kind; repeatable.
    #[arg(long = "kind", value_name = "KIND", value_parser = named(Kind::ALL, Kind::name))]
    kinds: Vec<Kind>,
    /// As severe as this, or more.
    #[arg(long, value_name = "SEVERITY", default_value = "info", value_parser = named(Severity::ALL, Severity::name))]
    min_severity: Severity,
    /// Not before this time (2026-01-02T03:04:05Z, 2026-01-02), or not longer ago than this (15m, 2h, 1d).
    #[arg(long, value_name = "TIME", value_parser = time, allow_hyphen_values = true)]
    since: Option<Time>,
    /// Before this time, told as --since is.
    #[arg(long, value_name = "TIME", value_parser = time, allow_hyphen_values = true)]
    until: Option<Time>,
}

impl Select {
    /// The filter that was asked for.
    pub fn filter(&self) -> Filter {
        let Self { pods, containers, nodes, kinds, min_severity, since, until } = self.clone();
        Filter { pods, containers, nodes, kinds, min_severity, since, until }
    }
}

fn time(text: &str) -> Result<Time, String> {
    moment(text, Timestamp::now())
}

fn named<T: Copy + Send + Sync + 'static>(
    all: &'static [T],
    name: fn(T) -> &'static str,
) -> impl clap::builder::TypedValueParser<Value = T> {
    PossibleValuesParser::new(all.iter().map(|one| name(*one)))
        .try_map(move |chosen| all.iter().copied().find(|one| name(*one) == chosen).ok_or("there is no such word"))
}
