//! The report for a program: docs/posture.md tells of every member.

use serde_json::{Map, Value, json};

use super::{Ready, Report, Row};
use crate::{
    export::escape::escape,
    identity::model::Volume,
    posture::{Seen, Writable},
};

/// Name and version of the JSON.
pub(super) const SCHEMA: &str = "rosentry-posture/v1";

pub(super) fn object(report: &Report) -> Value {
    let Report { node, time, rows, has_record: _ } = report;
    let containers: Vec<Value> = rows.iter().map(container).collect();
    json!({
        "schema": SCHEMA, "time": format!("{time:.9}"), "node": text(node.as_bytes()), "containers": containers,
    })
}

fn container(row: &Row) -> Value {
    let Row { container, seen, ready: can_be_sealed } = row;
    let pod = container.pod.as_deref();
    json!({
        "namespace": pod.map(|pod| text(pod.namespace.as_bytes())),
        "pod": pod.map(|pod| text(pod.name.as_bytes())),
        "workload": pod.map(|pod| text(pod.workload.as_bytes())),
        "container": container.name.as_ref().map(|name| text(name.as_bytes())),
        "id": text(container.id.as_bytes()),
        "image": container.image.as_deref().map(|image| text(image.as_bytes())),
        "declared_readonly": container.readonly_rootfs,
        "privileged": container.privileged,
        "seen": seen.as_ref().ok().map(of_seen),
        "unseen": seen.as_ref().err().map(|why| why.name()),
        "ready": ready(can_be_sealed),
    })
}

fn of_seen(seen: &Seen) -> Value {
    let Seen { root_readonly, root_fstype, breaches, writable, beyond, cap_sys_admin } = seen;
    let breaches = breaches.iter().map(
        |breach| json!({"point": text(&breach.point), "fstype": text(&breach.fstype), "effect": breach.effect.name()}),
    );
    json!({
        "root": {"readonly": root_readonly, "fstype": text(root_fstype)},
        "sealed": seen.is_sealed(),
        "breaches": breaches.collect::<Vec<_>>(),
        "writable_mounts": writable.iter().map(mount).collect::<Vec<_>>(),
        "writable_mounts_beyond": beyond,
        "cap_sys_admin": cap_sys_admin,
    })
}

fn mount(mount: &Writable) -> Value {
    let volume = |Volume { kind, name }: &Volume| json!({"type": text(kind.as_bytes()), "name": text(name.as_bytes())});
    json!({
        "point": text(&mount.point),
        "fstype": text(&mount.fstype),
        "declared": mount.declared.is_some(),
        "volume": mount.volume.as_ref().map(volume),
        "size_bytes": mount.own_memory().map(|memory| memory.size_bytes),
        "used_bytes": mount.own_memory().and_then(|memory| memory.used_bytes),
    })
}

fn ready(ready: &Ready) -> Value {
    match ready {
        Ready::Declared => json!({"answer": "declared"}),
        Ready::Yes { since, until } => {
            json!({"answer": "yes", "since": since.to_string(), "until": until.to_string()})
        }
        Ready::No(writes) => {
            let folders: Map<String, Value> =
                writes.folders.iter().map(|(folder, count)| (folder.clone(), json!(count))).collect();
            json!({"answer": "no", "writes": writes.count, "folders": folders, "elsewhere": writes.elsewhere})
        }
        Ready::Unknown(why) => json!({"answer": "unknown", "why": why}),
    }
}

/// Bytes of the outside world as events tell them.
fn text(bytes: &[u8]) -> String {
    escape(bytes).into_owned()
}
