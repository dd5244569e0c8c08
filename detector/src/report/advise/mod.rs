//! The writable mounts that workloads need, from the writes that were refused, or observed on a root that is not sealed yet.
//!
//! [`evidence`] reads events, [`plan`] decides what mends a container, [`patch`] makes a strategic merge patch of it. What is known
//! of folders and programs stands in [`table`].

pub mod evidence;
mod notes;
mod patch;
mod path;
mod plan;
pub mod pod_spec;
mod sealed;
mod table;
mod yaml;

use serde_json::{Value, json};

use self::{
    evidence::{Evidence, Name},
    patch::Advice,
    pod_spec::Manifest,
};
use super::{
    event::Event,
    lines::{Input, Line},
    printable::printable,
    verify::ReadError,
};

/// Name and version of the JSON.
const SCHEMA: &str = "rosentry-advise/v1";

/// Advice for each workload, and what was left out.
#[derive(Debug)]
pub struct Report {
    advice: Vec<(Advice, Option<String>)>,
    has_manifest: bool,
    minor: u64,
    without_pod: u64,
    beyond: u64,
    /// Lines that are no events.
    pub no_events: u64,
}

/// Reads events, and advises for the workload that is wanted, or for each.
///
/// # Errors
/// Where an input can't be read.
pub fn read(inputs: &[Input], wanted: Option<&Name>, manifest: Option<&Manifest>) -> Result<Report, ReadError> {
    let mut evidence = Evidence::default();
    let mut no_events = 0;
    for input in inputs {
        let failed = |source| ReadError { input: input.name(), source };
        let mut lines = input.open().map_err(failed)?;
        loop {
            match lines.read().map_err(failed)? {
                None => break,
                Some(Line::Whole(line) | Line::Cut(line)) => match Event::parse(line) {
                    Some(event) => evidence.take(&event, wanted),
                    None => no_events += 1,
                },
                Some(Line::Long) => {
                    no_events += 1;
                    lines.pass_rest().map_err(failed)?;
                }
            }
        }
    }
    Ok(Report::of(&evidence, manifest, no_events))
}

impl Report {
    fn of(evidence: &Evidence, manifest: Option<&Manifest>, no_events: u64) -> Self {
        let advice = evidence.workloads.iter().map(|(name, workload)| {
            let spec = manifest.and_then(|manifest| manifest.of(name));
            let mut advice = patch::advise(name, workload, spec.as_ref());
            if manifest.is_some() && spec.is_none() {
                advice.notes.push("the manifest does not have this workload".to_owned());
            }
            (advice, patch::kind(workload, spec.as_ref()).map(str::to_owned))
        });
        let Evidence { minor, without_pod, beyond, .. } = evidence;
        let (minor, without_pod, beyond) = (*minor, *without_pod, *beyond);
        Self { advice: advice.collect(), has_manifest: manifest.is_some(), minor, without_pod, beyond, no_events }
    }

    /// Whether there is anything to apply.
    pub fn has_patch(&self) -> bool {
        self.advice.iter().any(|(advice, _)| advice.patch.is_some())
    }

    /// As patches: a YAML document for each workload, with the evidence as comments.
    pub fn yaml(&self) -> String {
        let mut out = String::new();
        for (advice, kind) in &self.advice {
            out.push_str("---\n");
            yaml::comment(&self.head(advice, kind.as_deref()), 0, &mut out);
            if let Some(patch) = &advice.patch {
                patch.write(0, &mut out);
            }
        }
        yaml::comment(&self.left_out(), 0, &mut out);
        out
    }

    fn head(&self, advice: &Advice, kind: Option<&str>) -> Vec<String> {
        let Name { namespace, workload } = &advice.name;
        // A CronJob is not named as its jobs are.
        let patched = advice.patch.as_ref().map(yaml::Node::json);
        let object = patched.as_ref().and_then(|patch| patch.pointer("/metadata/name")).and_then(Value::as_str);
        let object = object.unwrap_or(workload);
        let mut head = vec![match (&advice.patch, kind) {
            (None, _) => format!("{namespace}/{workload}: nothing to apply."),
            (Some(_), Some("Pod" | "Job")) => format!(
                "{namespace}/{workload}: the volumes of what runs can't be changed; apply this to its manifest \
                 (kubectl patch --local -f MANIFEST --patch-file FILE -o yaml)."
            ),
            (Some(_), Some(kind @ ("CronJob" | "Deployment" | "StatefulSet" | "DaemonSet"))) => format!(
                "{namespace}/{workload}: kubectl patch {} {object} --namespace {namespace} --patch-file FILE",
                kind.to_lowercase()
            ),
            (Some(_), Some(_)) => format!(
                "{namespace}/{workload}: kubectl knows no strategic merge for this kind: apply it to the manifest with kustomize."
            ),
            (Some(_), None) => format!(
                "{namespace}/{workload}: kubectl patch KIND {workload} --namespace {namespace} --patch-file FILE. Of which kind it \
                 is, the events don't tell; of a Pod, what is below spec.template belongs into its manifest."
            ),
        }];
        if advice.patch.is_some() && !self.has_manifest {
            head.push(
                "Events tell no volumes, variables or init containers of the pod: compare, or give its manifest with --pod-spec."
                    .to_owned(),
            );
        }
        head.extend(advice.notes.iter().map(|note| format!("- {note}")));
        head
    }

    /// What was left out, in sentences.
    pub fn left_out(&self) -> Vec<String> {
        let Self { minor, without_pod, beyond, .. } = self;
        [
            (minor, "writes of severity info, or expected by a rule, need nothing"),
            (without_pod, "writes by processes that no container of a pod is known of"),
            (beyond, "writes of further workloads and containers are left out: ask for one with --workload"),
        ]
        .into_iter()
        .filter(|(count, _)| **count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect()
    }

    /// As one JSON object.
    pub fn json(&self) -> Value {
        let workloads: Vec<Value> = self
            .advice
            .iter()
            .map(|(advice, kind)| {
                let notes: Vec<_> = advice.notes.iter().map(|note| printable(note)).collect();
                json!({
                    "namespace": advice.name.namespace, "workload": advice.name.workload, "kind": kind,
                    "patch": advice.patch.as_ref().map(yaml::Node::json), "notes": notes,
                })
            })
            .collect();
        json!({
            "schema": SCHEMA, "workloads": workloads,
            "left_out": {"minor": self.minor, "without_pod": self.without_pod, "beyond": self.beyond},
        })
    }
}

#[cfg(test)]
mod tests;
