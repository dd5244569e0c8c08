//! Which events somebody wants to see.

use jiff::{SignedDuration, Timestamp, civil::DateTime, tz::TimeZone};

use super::event::{Event, Time};
use crate::finding::event::{Kind, Severity};

/// Which events are wanted: those that fit all of this. Of a list that is empty, all fit; else those that fit one of it.
#[derive(Clone, Debug)]
pub struct Filter {
    /// Pods.
    pub pods: Vec<PodName>,
    /// Containers: names, or beginnings of ids.
    pub containers: Vec<String>,
    /// Nodes.
    pub nodes: Vec<String>,
    /// Kinds.
    pub kinds: Vec<Kind>,
    /// The least severity.
    pub min_severity: Severity,
    /// Not before.
    pub since: Option<Time>,
    /// Before.
    pub until: Option<Time>,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            pods: Vec::new(),
            containers: Vec::new(),
            nodes: Vec::new(),
            kinds: Vec::new(),
            min_severity: Severity::Info,
            since: None,
            until: None,
        }
    }
}

impl Filter {
    /// Whether an event is wanted.
    pub fn takes(&self, event: &Event<'_>) -> bool {
        event.severity >= self.min_severity
            && (self.kinds.is_empty() || event.kind().is_some_and(|kind| self.kinds.contains(&kind)))
            && self.takes_time_and_node(event)
            && (self.pods.is_empty() || self.pods.iter().any(|pod| pod.names(event)))
            && (self.containers.is_empty() || self.containers.iter().any(|container| names_container(container, event)))
    }

    /// Whether an event of this time and node could be: what is asked of a node's whole record.
    pub fn takes_time_and_node(&self, event: &Event<'_>) -> bool {
        self.since.is_none_or(|since| event.time >= since)
            && self.until.is_none_or(|until| event.first_time() < until)
            && self.takes_node(&event.node)
    }

    /// Whether events of this node are wanted.
    pub fn takes_node(&self, node: &str) -> bool {
        self.nodes.is_empty() || self.nodes.iter().any(|wanted| wanted == node)
    }
}

fn names_container(wanted: &str, event: &Event<'_>) -> bool {
    event.container.as_ref().is_some_and(|container| {
        container.name.as_deref() == Some(wanted) || (wanted.len() >= ID_PREFIX_MIN && container.id.starts_with(wanted))
    })
}

/// Shorter, a beginning of an id would more often be a name.
const ID_PREFIX_MIN: usize = 8;

/// A pod, or all pods of a workload: `prod/web-abc12-x`, `prod/web`; all of a namespace: `prod/`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PodName {
    namespace: String,
    /// None: every pod of the namespace.
    name: Option<String>,
}

impl PodName {
    /// Reads `NS/NAME` or `NS/`.
    ///
    /// # Errors
    /// With what it should have been.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.contains('/') => Ok(Self {
                namespace: namespace.to_owned(),
                name: Some(name.to_owned()).filter(|name| !name.is_empty()),
            }),
            _ => Err("it should be NAMESPACE/POD, NAMESPACE/WORKLOAD, or NAMESPACE/ for all of it".to_owned()),
        }
    }

    fn names(&self, event: &Event<'_>) -> bool {
        event.pod.as_ref().is_some_and(|pod| {
            *pod.namespace == *self.namespace
                && self.name.as_deref().is_none_or(|name| *pod.name == *name || *pod.workload == *name)
        })
    }
}

/// Reads a point in time: RFC 3339, a date with or without a time (in UTC), or how long before `now`: `90s`, `15m`, `2h`, `1d`, with
/// `ago` or a sign or without.
///
/// # Errors
/// With what it should have been.
pub fn moment(text: &str, now: Timestamp) -> Result<Time, String> {
    let ago = || {
        let text = text.strip_suffix("ago").map_or(text, str::trim_end);
        let span = match text.strip_suffix('d').and_then(|days| days.parse::<i64>().ok()) {
            Some(days) => SignedDuration::try_from_hours(days.checked_mul(24)?)?,
            None => text.parse().ok()?,
        };
        // A sign says the same: nobody asks for what is yet to come.
        now.checked_sub(span.unsigned_abs()).ok()
    };
    let civil = || text.parse::<DateTime>().ok()?.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp());
    let found = text.parse::<Timestamp>().ok().or_else(civil).or_else(ago);
    found.map(Time).ok_or_else(|| {
        "it should be a time (2026-01-02T03:04:05Z, 2026-01-02) or how long ago (15m, 2h, 1d)".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        export::{
            native::NativeEncoder,
            testing::{start, touch},
        },
        finding::Event as Finding,
    };

    fn takes(filter: &Filter, event: &Finding) -> bool {
        let mut line = Vec::new();
        NativeEncoder::new("n1").encode(event, &mut line).unwrap();
        filter.takes(&Event::parse(line.trim_ascii_end()).unwrap())
    }

    fn pod(text: &str) -> Filter {
        Filter { pods: vec![PodName::parse(text).unwrap()], ..Filter::default() }
    }

    #[test]
    fn a_pod_is_found_by_its_name_its_workload_and_its_namespace() {
        for (wanted, taken) in [
            ("prod/web-abc12-x", true),
            ("prod/web", true),
            ("prod/", true),
            ("prod/we", false),
            ("test/web", false),
            ("test/", false),
        ] {
            assert_eq!(takes(&pod(wanted), &touch()), taken, "{wanted}");
        }
        assert!(!takes(&pod("prod/"), &start()), "the agent is of no pod");
    }

    #[test]
    fn what_names_no_pod_is_refused() {
        for text in ["web", "/web", "a/b/c", ""] {
            assert!(PodName::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_container_is_found_by_its_name_and_by_the_beginning_of_its_id() {
        let container = |text: &str| Filter { containers: vec![text.to_owned()], ..Filter::default() };
        for (wanted, taken) in [("app", true), ("cccccccc", true), ("cccc", false), ("ap", false), ("ccccccccd", false)]
        {
            assert_eq!(takes(&container(wanted), &touch()), taken, "{wanted}");
        }
    }

    #[test]
    fn severity_kind_and_node_each_leave_out_what_does_not_fit() {
        let all = Filter::default();
        assert!(takes(&all, &touch()) && takes(&all, &start()));
        assert!(takes(&Filter { min_severity: Severity::Low, ..all.clone() }, &touch()));
        assert!(!takes(&Filter { min_severity: Severity::Medium, ..all.clone() }, &touch()));
        let kinds = vec![Kind::MountAttempt, Kind::Agent];
        assert!(!takes(&Filter { kinds: kinds.clone(), ..all.clone() }, &touch()));
        assert!(takes(&Filter { kinds, ..all.clone() }, &start()));
        assert!(!takes(&Filter { nodes: vec!["n2".to_owned()], ..all }, &touch()));
    }

    #[test]
    fn a_span_of_time_has_its_beginning_and_not_its_end() {
        // The touch is at 2026-01-02T03:04:05.123456789Z.
        let span = |since: &str, until: &str| {
            let time = |text: &str| Some(moment(text, Timestamp::UNIX_EPOCH).unwrap());
            Filter { since: time(since), until: time(until), ..Filter::default() }
        };
        assert!(takes(&span("2026-01-02T03:04:05.123456789Z", "2026-01-03"), &touch()));
        assert!(!takes(&span("2026-01-02T03:04:05.123456790Z", "2026-01-03"), &touch()));
        assert!(!takes(&span("2026-01-01", "2026-01-02T03:04:05.123456789Z"), &touch()));
    }

    #[test]
    fn a_time_is_told_in_several_ways() {
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        for (text, expected) in [
            ("2026-01-02T05:04:05+02:00", "2026-01-02T03:04:05Z"),
            ("2026-01-02 01:00", "2026-01-02T01:00:00Z"),
            ("2026-01-02", "2026-01-02T00:00:00Z"),
            ("15m", "2026-01-02T02:49:05Z"),
            ("1h30m", "2026-01-02T01:34:05Z"),
            ("2d", "2025-12-31T03:04:05Z"),
            ("2h ago", "2026-01-02T01:04:05Z"),
            ("2 hours ago", "2026-01-02T01:04:05Z"),
            ("2d ago", "2025-12-31T03:04:05Z"),
            ("-2h", "2026-01-02T01:04:05Z"),
            ("-2d", "2025-12-31T03:04:05Z"),
        ] {
            assert_eq!(moment(text, now).unwrap().0.to_string(), expected, "{text}");
        }
        for text in ["", "ago", "yesterday", "200000000000000d", "99999999999999d", "2026-13-01"] {
            assert!(moment(text, now).is_err(), "{text}");
        }
    }
}
