//! From plans to the strategic merge patch of a workload.

use std::collections::BTreeSet;

use super::{
    evidence::{Name, Workload},
    path::{is_at_or_below, slug},
    plan::{Fill, Mount, Plan, plan},
    pod_spec::{PodSpec, way},
    yaml::Node,
};
use crate::report::printable::printable;

/// The longest name of a volume or a container (RFC 1123, a label).
const LABEL_MAX: usize = 63;
/// Where an init container has the volume.
const FILL_AT: &str = "/rosentry-fill";

/// Advice for one workload.
#[derive(Debug)]
pub struct Advice {
    /// The workload.
    pub name: Name,
    /// The patch; none where no mount or variable mends anything.
    pub patch: Option<Node>,
    /// What to know of it: sentences.
    pub notes: Vec<String>,
}

/// Items of a list, each with its comments.
type Items = Vec<(Vec<String>, Node)>;
/// Members, each with its comments.
type Members = Vec<(Vec<String>, &'static str, Node)>;

/// Advice for a workload.
pub fn advise(name: &Name, evidence: &Workload, spec: Option<&PodSpec>) -> Advice {
    let mut draft = Draft { spec, taken: BTreeSet::new(), volumes: Vec::new(), fills: Vec::new(), notes: Vec::new() };
    if let Some(spec) = spec {
        draft.taken.extend(spec.names().into_iter().map(str::to_owned));
    }
    let (mut containers, mut init_containers) = (Vec::new(), Vec::new());
    for (container, of) in &evidence.containers {
        let found = spec.map(|spec| spec.container(container));
        let list = match found {
            Some(None) => {
                draft.notes.push(format!(
                    "the manifest has no container {}: nothing is rendered for it",
                    printable(container)
                ));
                continue;
            }
            Some(Some((list, _))) => list,
            None => "containers",
        };
        if !is_label(container) {
            draft.notes.push(format!("{} is no container's name: nothing is rendered for it", printable(container)));
            continue;
        }
        let mut plan = plan(of);
        draft.respect(container, &mut plan);
        draft.notes.extend(std::mem::take(&mut plan.notes).into_iter().map(|note| format!("{container}: {note}")));
        let filled = draft.fills.len();
        let node = draft.container(container, of.image.as_deref(), plan);
        if list == "initContainers" && draft.fills.len() > filled {
            draft
                .notes
                .push(format!("{container}: it is an init container; move those that fill its mounts before it"));
        }
        if let Some(node) = node {
            (if list == "containers" { &mut containers } else { &mut init_containers }).push((Vec::new(), node));
        }
    }
    let Draft { volumes, fills, notes, .. } = draft;
    let init_containers: Items = fills.into_iter().chain(init_containers).collect();
    let is_name = is_subdomain(&name.workload) && is_subdomain(&name.namespace);
    let mut advice = Advice { name: name.clone(), patch: None, notes };
    if !is_name {
        advice.notes.push("this is no workload's name: nothing is rendered for it".to_owned());
    } else if !containers.is_empty() || !init_containers.is_empty() {
        let mut pod: Members = Vec::new();
        for (member, items) in [("initContainers", init_containers), ("containers", containers), ("volumes", volumes)] {
            if !items.is_empty() {
                pod.push((Vec::new(), member, Node::Items(items)));
            }
        }
        advice.patch = Some(object(name, evidence, spec, pod));
    }
    advice
}

/// The API group and version of a kind that has pods.
pub fn api_version(kind: &str) -> &'static str {
    match kind {
        "Job" | "CronJob" => "batch/v1",
        "Pod" => "v1",
        _ => "apps/v1",
    }
}

/// The kind of object that is patched: the manifest's, else what the pods' labels tell, else unknown.
pub fn kind<'a>(evidence: &Workload, spec: Option<&'a PodSpec>) -> Option<&'a str> {
    spec.map(|spec| spec.kind.as_str()).or(evidence.kind)
}

fn object(name: &Name, evidence: &Workload, spec: Option<&PodSpec>, pod: Members) -> Node {
    let mut members: Members = Vec::new();
    let kind = kind(evidence, spec);
    if let Some(kind) = kind {
        let version = spec.map_or_else(|| api_version(kind), |spec| spec.api_version.as_str());
        members.push((Vec::new(), "apiVersion", Node::text(version)));
        members.push((Vec::new(), "kind", Node::text(kind)));
        let metadata = [
            ("name", Node::text(spec.map_or(name.workload.as_str(), |spec| spec.name.as_str()))),
            ("namespace", Node::text(name.namespace.as_str())),
        ];
        members.push((Vec::new(), "metadata", Node::members(metadata)));
    }
    let (first, rest) = way(kind.unwrap_or("Deployment")).split_first().unwrap_or((&"spec", &[]));
    let inner = rest.iter().rev().fold(Node::Members(pod), |node, member| Node::members([(*member, node)]));
    members.push((Vec::new(), first, inner));
    Node::Members(members)
}

struct Draft<'a> {
    spec: Option<&'a PodSpec>,
    /// Names that are taken.
    taken: BTreeSet<String>,
    volumes: Items,
    fills: Items,
    notes: Vec<String>,
}

impl Draft<'_> {
    /// Leaves out what the manifest has already.
    fn respect(&mut self, name: &str, plan: &mut Plan) {
        let Some((_, container)) = self.spec.and_then(|spec| spec.container(name)) else { return };
        plan.mounts.retain(|mount| {
            let around =
                container.mounts().filter(|(at, _)| is_at_or_below(&mount.at, at)).max_by_key(|(at, _)| at.len());
            match around {
                None => true,
                Some((at, readonly)) => {
                    let how = if readonly {
                        "read-only: mount it without readOnly"
                    } else {
                        "and writable: these events are older"
                    };
                    self.notes.push(format!("{name}: the manifest has a mount at {at} already, {how}"));
                    false
                }
            }
        });
        plan.variables.retain(|variable, of| {
            let is_set = container.sets(variable);
            if is_set {
                self.notes
                    .push(format!("{name}: the manifest sets {variable} already; the advice would be {}", of.value));
            }
            !is_set
        });
    }

    fn container(&mut self, name: &str, image: Option<&str>, plan: Plan) -> Option<Node> {
        let mut mounts: Items = Vec::new();
        let mut kinds: Vec<(&'static str, Vec<&Mount>)> = Vec::new();
        let image = self.spec.and_then(|spec| spec.container(name)).and_then(|(_, of)| of.image()).or(image);
        for mount in &plan.mounts {
            if mount.fill != Fill::Nothing && image.is_none() {
                self.notes.push(format!(
                    "{name}: {} is not mounted, for the image to copy its files from is not known",
                    mount.at
                ));
                continue;
            }
            match kinds.iter_mut().find(|(volume, _)| *volume == mount.data.volume) {
                Some((_, of)) => of.push(mount),
                None => kinds.push((mount.data.volume, vec![mount])),
            }
        }
        for (kind, of) in kinds {
            let Some(first) = of.first() else { continue };
            let volume = self.free(&format!("rosentry-{}-{kind}", cut(name, LABEL_MAX - 24)));
            let medium = first.data.memory.then(|| (Vec::new(), "medium", Node::text("Memory")));
            let size = (Vec::new(), "sizeLimit", Node::text(first.data.size));
            let empty_dir = Node::Members(medium.into_iter().chain([size]).collect());
            let node = Node::members([("name", Node::text(volume.as_str())), ("emptyDir", empty_dir)]);
            self.volumes.push((vec![format!("{name}: {}", first.data.note)], node));
            // What is copied gets a folder that the copying user makes, as only its owner may set its mode and times.
            let is_one = of.len() == 1 && first.fill == Fill::Nothing;
            let mut used = BTreeSet::new();
            for mount in of {
                let below = (!is_one).then(|| unique(&slug(&mount.at), &mut used));
                let mut members =
                    vec![("name", Node::text(volume.as_str())), ("mountPath", Node::text(mount.at.as_str()))];
                members.extend(below.clone().map(|below| ("subPath", Node::text(below))));
                let members = members.into_iter().map(|(name, node)| (Vec::new(), name, node)).collect();
                let why = mount.why.iter().filter(|sentence| **sentence != mount.data.note).cloned().collect();
                mounts.push((why, Node::Members(members)));
                if let (Some(image), Some(below), true) = (image, below, mount.fill != Fill::Nothing) {
                    self.fill(name, image, &volume, &below, mount);
                }
            }
        }
        let variables: Items = plan
            .variables
            .into_iter()
            .map(|(variable, of)| {
                (of.why, Node::members([("name", Node::text(variable)), ("value", Node::text(escaped(&of.value)))]))
            })
            .collect();
        let mut members: Members = vec![(Vec::new(), "name", Node::text(name))];
        for (member, items) in [("env", variables), ("volumeMounts", mounts)] {
            if !items.is_empty() {
                members.push((Vec::new(), member, Node::Items(items)));
            }
        }
        (members.len() > 1).then_some(Node::Members(members))
    }

    /// An init container of the same image, which copies what the mount would hide.
    fn fill(&mut self, container: &str, image: &str, volume: &str, below: &str, mount: &Mount) {
        let to = format!("{FILL_AT}/{below}");
        let (command, what) = if mount.fill == Fill::File {
            let script = "cp -Pp \"$1\" \"$2\" 2>/dev/null || : >\"$2\"";
            (
                vec!["sh".to_owned(), "-c".to_owned(), script.to_owned(), "sh".to_owned(), escaped(&mount.at), to],
                "makes the file, a copy of the image's where it has one (wants sh and cp in the image)",
            )
        } else {
            (
                vec!["cp".to_owned(), "-RPp".to_owned(), escaped(&format!("{}/.", mount.at)), to],
                "copies what the image has there (wants cp in the image)",
            )
        };
        let volume_mount = Node::members([("name", Node::text(volume)), ("mountPath", Node::text(FILL_AT))]);
        let name = self.free(&format!("rosentry-fill-{}", cut(container, LABEL_MAX - 24)));
        let given = self.spec.and_then(|spec| spec.container(container)).and_then(|(_, of)| of.security_context());
        let (context, of_context) = match given {
            Some(context) => (Node::Given(context.clone()), Vec::new()),
            None => {
                let context =
                    [("allowPrivilegeEscalation", Node::Flag(false)), ("readOnlyRootFilesystem", Node::Flag(true))];
                (
                    Node::members(context),
                    vec![format!("give it what the securityContext of {container} says besides, runAsUser above all")],
                )
            }
        };
        let members = vec![
            (Vec::new(), "name", Node::text(name)),
            (Vec::new(), "image", Node::text(image)),
            (Vec::new(), "command", Node::texts(command)),
            (of_context, "securityContext", context),
            (Vec::new(), "volumeMounts", Node::Items(vec![(Vec::new(), volume_mount)])),
        ];
        self.fills.push((vec![format!("{}: {what}", mount.at)], Node::Members(members)));
    }

    /// A name that nothing else has.
    fn free(&mut self, wanted: &str) -> String {
        unique(wanted, &mut self.taken)
    }
}

fn unique(wanted: &str, taken: &mut BTreeSet<String>) -> String {
    let mut name = wanted.to_owned();
    let mut number = 2_u32;
    while !taken.insert(name.clone()) {
        name = format!("{wanted}-{number}");
        number += 1;
    }
    name
}

/// The kubelet expands `$(NAME)` in commands and values; `$$` stands for `$`.
fn escaped(text: &str) -> String {
    text.replace('$', "$$")
}

fn cut(label: &str, most: usize) -> &str {
    label.get(..most).unwrap_or(label).trim_end_matches('-')
}

/// A label of RFC 1123, as names of containers are.
fn is_label(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= LABEL_MAX
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// A subdomain of RFC 1123, as names of workloads are.
fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}
