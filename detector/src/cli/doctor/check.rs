//! What the doctor says: checks, and what they come to. The JSON form is stable: it may gain members, and lose none.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::kernel::serving::Serving;

/// How a thing stands, from good to bad.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    /// As it should be.
    Ok,
    /// rosentry runs, and does less.
    Degraded,
    /// Without it rosentry cannot run.
    Missing,
}

impl Status {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Missing => "missing",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub(super) struct Check {
    /// What; never changes.
    pub name: &'static str,
    /// How it stands.
    pub status: Status,
    /// What was found.
    pub found: String,
    /// How to mend it, in one sentence; none where nothing is to be mended.
    pub mend: Option<String>,
}

impl Check {
    pub fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, status: Status::Ok, found: found.into(), mend: None }
    }

    pub fn degraded(name: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { name, status: Status::Degraded, found: found.into(), mend: Some(mend.into()) }
    }

    pub fn missing(name: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { name, status: Status::Missing, found: found.into(), mend: Some(mend.into()) }
    }
}

/// Which surfaces are seen on this node.
pub(super) type Coverage = BTreeMap<&'static str, bool>;

/// All that was looked at.
#[derive(Clone, Debug)]
pub(super) struct Report {
    pub checks: Vec<Check>,
    pub coverage: Coverage,
    /// What serves each operation; empty where nothing could be attached.
    pub serving: Vec<Serving>,
}

/// A report as it goes out.
#[derive(Serialize)]
pub(super) struct Told<'a> {
    status: &'static str,
    checks: &'a [Check],
    coverage: &'a Coverage,
    hooks: &'a [Serving],
}

impl Report {
    /// That of the worst check.
    pub fn status(&self) -> Status {
        self.checks.iter().map(|check| check.status).max().unwrap_or(Status::Ok)
    }

    pub fn told(&self) -> Told<'_> {
        let status = match self.status() {
            Status::Ok => "ok",
            Status::Degraded => "degraded",
            Status::Missing => "cannot_run",
        };
        Told { status, checks: &self.checks, coverage: &self.coverage, hooks: &self.serving }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_as_bad_as_its_worst_check_and_told_in_the_stable_form() {
        let checks = vec![Check::ok("btf", "there"), Check::degraded("containerd", "none", "start it")];
        let serving = Serving { surface: "mounts_ia32", operation: "mount", hook: "tracepoint", point: "sys_exit" };
        let report = Report { checks, coverage: Coverage::from([("mounts_ia32", true)]), serving: vec![serving] };
        assert_eq!(report.status(), Status::Degraded);
        assert_eq!(
            serde_json::to_value(report.told()).unwrap(),
            serde_json::json!({
                "status": "degraded",
                "checks": [
                    {"name": "btf", "status": "ok", "found": "there", "mend": null},
                    {"name": "containerd", "status": "degraded", "found": "none", "mend": "start it"},
                ],
                "coverage": {"mounts_ia32": true},
                "hooks": [{"surface": "mounts_ia32", "operation": "mount", "hook": "tracepoint", "point": "sys_exit"}],
            })
        );
    }

    #[test]
    fn what_misses_something_cannot_run() {
        let checks = vec![Check::missing("btf", "none", "boot another kernel"), Check::ok("kernel", "6.18")];
        let report = Report { checks, coverage: Coverage::new(), serving: Vec::new() };
        assert_eq!(serde_json::to_value(report.told()).unwrap()["status"], "cannot_run");
    }
}
