//! Gauges of the containers that are there: what was declared of them, and what they are in truth.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use prometheus::Registry;

use super::{
    Containers, FlagById, SERIES_MAX, SeenById,
    family::{Family, Gauges, Sample},
    series::{Owner, bounded},
};
use crate::{
    identity::model::Container,
    posture::{Seen, is_of_interest},
};

const OF_CONTAINER: &[&str] = &["namespace", "pod", "container"];
const OF_MOUNT: &[&str] = &["namespace", "pod", "container", "mountpoint"];

/// Tells of the containers that are there.
type Told = Box<dyn Fn(&[Arc<Container>]) + Send + Sync>;

/// What is asked at a scrape.
pub(super) struct Asked {
    /// The containers that are there.
    pub containers: Containers,
    /// Whether the seal of a container is broken.
    pub seal_broken: FlagById,
    /// What is seen of them, by their ids.
    pub seen: SeenById,
    /// Is told of them once a scrape.
    pub live: Told,
}

/// Registers the gauges.
///
/// # Errors
/// None that depends on the arguments.
pub(super) fn register(registry: &Registry, asked: Asked) -> prometheus::Result<()> {
    let Asked { containers, seal_broken, seen, live } = asked;
    let containers = Arc::new(containers);
    let sealed = Arc::clone(&containers);
    registry.register(Box::new(Family::gauge(
        "rosentry_seal_broken",
        "Whether the root of a container that was declared read-only is in truth writable.",
        OF_CONTAINER,
        Box::new(move || {
            let declared = |container: &Container| container.readonly_rootfs == Some(true);
            let broken = |container: &Container| seal_broken(&container.id).filter(|_| declared(container));
            samples(&latest(&sealed()), |container| broken(container).map(truth))
        }),
    )?))?;
    registry.register(Box::new(Gauges::new(
        &[
            (
                "rosentry_container_readonly_rootfs",
                "Whether the container was declared with a read-only root filesystem.",
                OF_CONTAINER,
            ),
            ("rosentry_container_privileged", "Whether the container was declared privileged.", OF_CONTAINER),
            (
                "rosentry_container_writable_rootfs",
                "Whether the mount of the container's root is in truth writable.",
                OF_CONTAINER,
            ),
            (
                "rosentry_container_cap_sys_admin",
                "Whether a process of the container can have CAP_SYS_ADMIN.",
                OF_CONTAINER,
            ),
            (
                "rosentry_container_writable_mounts",
                "Writable mounts of the container besides its root, without those of the kernel's own filesystems.",
                OF_CONTAINER,
            ),
            ("rosentry_tmpfs_used_bytes", "Bytes in use of a tmpfs that was given to the container.", OF_MOUNT),
            ("rosentry_tmpfs_size_bytes", "The limit of that tmpfs; 0: none.", OF_MOUNT),
        ],
        Box::new(move || {
            let containers = containers();
            live(&containers);
            let (latest, seen) = (latest(&containers), seen());
            let of = |value: fn(&Seen) -> Option<f64>| samples(&latest, |it| value(seen.get(&it.id)?));
            let (used, size) = memory(&latest, &seen);
            vec![
                samples(&latest, |container| container.readonly_rootfs.map(truth)),
                samples(&latest, |container| container.privileged.map(truth)),
                of(|seen| Some(truth(!seen.root_readonly))),
                of(|seen| seen.cap_sys_admin.map(truth)),
                of(|seen| Some((seen.writable.len() + seen.beyond) as f64)),
                used,
                size,
            ]
        }),
    )?))
}

/// Containers by their labels, sandboxes left out. Of two with the same (one was restarted, and both are still there) the one
/// that started last counts.
fn latest(containers: &[Arc<Container>]) -> BTreeMap<Owner, &Container> {
    let mut latest: BTreeMap<Owner, &Container> = BTreeMap::new();
    for container in containers.iter().filter(|container| is_of_interest(container)) {
        let owner = Owner::of(Some(container));
        if latest.get(&owner).is_none_or(|earlier| earlier.started_at_unix_ns <= container.started_at_unix_ns) {
            latest.insert(owner, container);
        }
    }
    latest
}

/// A sample of each container of which the value is known. Beyond the limit no series is made: a gauge of many can't be one
/// number.
fn samples(latest: &BTreeMap<Owner, &Container>, value: impl Fn(&Container) -> Option<f64>) -> Vec<Sample> {
    let known = latest.iter().filter_map(|(owner, container)| Some((owner.labels().to_vec(), value(container)?)));
    known.take(SERIES_MAX).collect()
}

/// Of each tmpfs that was given to a container, what is used and what there is.
fn memory(latest: &BTreeMap<Owner, &Container>, seen: &HashMap<String, Seen>) -> (Vec<Sample>, Vec<Sample>) {
    let mut by_labels = BTreeMap::new();
    for (owner, container) in latest {
        let mounts = seen.get(&container.id).into_iter().flat_map(|seen| &seen.writable);
        for (point, memory) in mounts.filter_map(|mount| mount.declared_memory()) {
            // What the specification calls it: a container can't choose that.
            let labels: Vec<String> = owner.labels().into_iter().chain([bounded(point)]).collect();
            by_labels.insert(labels, memory);
        }
    }
    let told = || by_labels.iter().take(SERIES_MAX);
    let used = told().filter_map(|(labels, memory)| Some((labels.clone(), memory.used_bytes? as f64))).collect();
    let size = told().map(|(labels, memory)| (labels.clone(), memory.size_bytes as f64)).collect();
    (used, size)
}

const fn truth(value: bool) -> f64 {
    if value { 1.0 } else { 0.0 }
}
