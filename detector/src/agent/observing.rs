//! Learning mode: what the kernel side has to know of this node.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use tracing::info;

use crate::kernel::plan::Observing;

/// With the node's processes in `host_proc`.
pub fn of_node(host_proc: &Path) -> Observing {
    let node_mount_namespace = fs::metadata(host_proc.join("1/ns/mnt"))
        .inspect_err(|error| {
            info!("what the node itself writes is sorted out late: the mounts of pid 1 are not known: {error}")
        })
        .ok()
        // The kernel numbers namespaces by 32 bits.
        .and_then(|namespace| u32::try_from(namespace.ino()).ok());
    Observing { node_mount_namespace }
}
