//! The objects within an event's line: file, mount, process, container, pod, cgroup.

#[cfg(test)]
use schemars::JsonSchema;
use serde::{Serialize, Serializer};

use super::{Text, Time, Word, bytes, string, text};
use crate::{
    finding::{
        event::{Cgroup, Effect, File, Mount, MountAttempt, Place, PlaceKind, Process, Resolution},
        seal::{Breach, Cause},
    },
    identity::model::{Container, Pod},
};

#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema), schemars(rename = "File"))]
pub(super) struct FileLine<'a> {
    path: Option<Text<'a>>,
    requested: Option<Text<'a>>,
    flags: &'a [String],
    new_path: Option<Text<'a>>,
    resolved: Option<Word<Resolution>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    link_target: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    xattr: Option<Text<'a>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    truncated: &'a [&'static str],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    unreadable: &'a [&'static str],
}

#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema), schemars(rename = "Mount"))]
#[serde(untagged)]
pub(super) enum MountLine<'a> {
    Place {
        kind: Word<PlaceKind>,
        point: Option<Text<'a>>,
        fstype: Option<Text<'a>>,
        volume: Option<VolumeLine<'a>>,
        declared_readonly: Option<bool>,
        id: Option<u64>,
        flags: Option<Vec<&'static str>>,
        super_flags: Option<Vec<&'static str>>,
        resolved: Option<Word<Resolution>>,
    },
    Attempt {
        target: Option<Text<'a>>,
        source: Option<Text<'a>>,
        fstype: Option<Text<'a>>,
        flags: &'a [String],
        effect: Word<Effect>,
        requested: Option<Text<'a>>,
        resolved: Option<Word<Resolution>>,
        options: Option<Text<'a>>,
        #[serde(skip_serializing_if = "<[_]>::is_empty")]
        truncated: &'a [&'static str],
        #[serde(skip_serializing_if = "<[_]>::is_empty")]
        unreadable: &'a [&'static str],
    },
    Seal {
        kind: Word<PlaceKind>,
        point: Text<'a>,
        fstype: Text<'a>,
        volume: Option<VolumeLine<'a>>,
        declared_readonly: bool,
        effect: Word<Effect>,
        cause: Option<Word<Cause>>,
    },
}

#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema), schemars(rename = "Volume"))]
pub(super) struct VolumeLine<'a> {
    #[serde(rename = "type")]
    kind: Text<'a>,
    name: Text<'a>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema), schemars(rename = "Process"))]
pub(super) struct ProcessLine<'a> {
    pid: u32,
    tid: u32,
    ppid: u32,
    container_pid: u32,
    uid: u32,
    gid: u32,
    comm: Text<'a>,
    exe: Option<Text<'a>>,
    args: Vec<Text<'a>>,
    cwd: Option<Text<'a>>,
    start_time: Time,
    cap_sys_admin: bool,
    ancestors: Vec<AncestorLine<'a>>,
    user_ns_level: u32,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    truncated: &'a [&'static str],
}

#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema), schemars(rename = "Ancestor"))]
pub(super) struct AncestorLine<'a> {
    pid: u32,
    comm: Text<'a>,
    exe: Option<Text<'a>>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema), schemars(rename = "Container"))]
pub(super) struct ContainerLine<'a> {
    id: Text<'a>,
    name: Option<Text<'a>>,
    image: Option<Text<'a>>,
    image_digest: Option<Text<'a>>,
    readonly_rootfs: Option<bool>,
    privileged: Option<bool>,
    started_at: Option<Time>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema), schemars(rename = "Pod"))]
pub(super) struct PodLine<'a> {
    namespace: Text<'a>,
    name: Text<'a>,
    uid: Text<'a>,
    workload: Text<'a>,
    #[cfg_attr(test, schemars(with = "std::collections::BTreeMap<String, String>"))]
    labels: Labels<'a>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema), schemars(rename = "Cgroup"))]
pub(super) struct CgroupLine<'a> {
    id: u64,
    path: Option<Text<'a>>,
}

struct Labels<'a>(&'a Pod);

impl Serialize for Labels<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.labels.iter().map(|(key, value)| (text(key), text(value))))
    }
}

impl<'a> From<&'a File> for FileLine<'a> {
    fn from(file: &'a File) -> Self {
        let File { path, requested, flags, new_path, link_target, xattr, mode, resolved, truncated, unreadable } = file;
        FileLine {
            path: bytes(path),
            requested: bytes(requested),
            flags,
            new_path: bytes(new_path),
            resolved: resolved.map(Word),
            mode: mode.map(|mode| format!("{mode:04o}")),
            link_target: bytes(link_target),
            xattr: bytes(xattr),
            truncated,
            unreadable,
        }
    }
}

impl<'a> From<&'a Mount> for MountLine<'a> {
    fn from(mount: &'a Mount) -> Self {
        match mount {
            Mount::Place(Place { kind, point, fstype, volume, declared_readonly, facts }) => MountLine::Place {
                kind: Word(*kind),
                point: bytes(point),
                fstype: bytes(fstype),
                volume: volume.as_ref().map(|volume| VolumeLine { kind: text(&volume.kind), name: text(&volume.name) }),
                declared_readonly: *declared_readonly,
                id: facts.map(|facts| facts.id),
                flags: facts.map(|facts| facts.flags.of_mount()),
                super_flags: facts.map(|facts| facts.flags.of_superblock()),
                resolved: facts.map(|facts| Word(facts.told_by)),
            },
            Mount::Attempt(MountAttempt {
                target,
                requested,
                resolved,
                source,
                fstype,
                flags,
                options,
                effect,
                truncated,
                unreadable,
            }) => MountLine::Attempt {
                target: bytes(target),
                source: bytes(source),
                fstype: bytes(fstype),
                flags,
                effect: Word(*effect),
                requested: bytes(requested),
                resolved: resolved.map(Word),
                options: bytes(options),
                truncated,
                unreadable,
            },
            Mount::Seal { breach: Breach { point, fstype, effect, cause } } => MountLine::Seal {
                kind: Word(PlaceKind::Rootfs),
                point: Text(point),
                fstype: Text(fstype),
                volume: None,
                declared_readonly: true,
                effect: Word(*effect),
                cause: cause.map(Word),
            },
        }
    }
}

impl<'a> From<&'a Process> for ProcessLine<'a> {
    fn from(process: &'a Process) -> Self {
        ProcessLine {
            pid: process.pid,
            tid: process.tid,
            ppid: process.ppid,
            container_pid: process.container_pid,
            uid: process.uid,
            gid: process.gid,
            comm: Text(&process.comm),
            exe: bytes(&process.exe),
            args: process.args.iter().map(|arg| Text(arg)).collect(),
            cwd: bytes(&process.cwd),
            start_time: Time(process.start_time_unix_ns),
            cap_sys_admin: process.cap_sys_admin,
            ancestors: process
                .ancestors
                .iter()
                .map(|ancestor| AncestorLine {
                    pid: ancestor.pid,
                    comm: Text(&ancestor.comm),
                    exe: bytes(&ancestor.exe),
                })
                .collect(),
            user_ns_level: process.user_ns_level,
            truncated: &process.truncated,
        }
    }
}

impl<'a> From<&'a Container> for ContainerLine<'a> {
    fn from(container: &'a Container) -> Self {
        ContainerLine {
            id: text(&container.id),
            name: string(container.name.as_deref()),
            image: string(container.image.as_deref()),
            image_digest: string(container.image_digest.as_deref()),
            readonly_rootfs: container.readonly_rootfs,
            privileged: container.privileged,
            started_at: container.started_at_unix_ns.map(Time),
        }
    }
}

impl<'a> From<&'a Pod> for PodLine<'a> {
    fn from(pod: &'a Pod) -> Self {
        PodLine {
            namespace: text(&pod.namespace),
            name: text(&pod.name),
            uid: text(&pod.uid),
            workload: text(&pod.workload),
            labels: Labels(pod),
        }
    }
}

impl<'a> From<&'a Cgroup> for CgroupLine<'a> {
    fn from(cgroup: &'a Cgroup) -> Self {
        CgroupLine { id: cgroup.id, path: string(cgroup.path.as_deref()) }
    }
}
