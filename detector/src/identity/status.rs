//! How the identity room fares: whether containerd answers, and what could not be known, counted.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::SystemTime,
};

use super::runtime::Version;

/// A look at the identity room.
#[derive(Clone, Debug)]
pub struct Status {
    /// Whether containerd answers.
    pub up: bool,
    /// Whether all containers are known that there were when the connection was made.
    pub synced: bool,
    /// Since when containerd does not answer; none while it does.
    pub down_since: Option<SystemTime>,
    /// What containerd said it is, the last time it answered.
    pub version: Option<Version>,
    /// Whether the whole cgroup hierarchy is seen; see [`Hierarchy::is_whole`](super::Hierarchy::is_whole).
    pub hierarchy_whole: bool,
    /// Counted since the start.
    pub counts: Counts,
}

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What was counted since the start.
        #[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
        pub struct Counts {
            $($(#[$doc])* pub $name: u64,)*
            /// Cgroups held now, removed ones included.
            pub cgroups: u64,
            /// Cgroups that were given up for room.
            pub cgroups_evicted: u64,
            /// Containers held now, deleted ones included.
            pub containers: u64,
            /// Containers that found no room.
            pub containers_refused: u64,
            /// Lookups of an id that nobody was asked for, since too many were being asked for; they wait.
            pub lookups_deferred: u64,
        }

        impl Counts {
            /// Those that only grow, by their names.
            pub fn by_name(&self) -> Vec<(&'static str, u64)> {
                let &Self {
                    $($name,)*
                    cgroups: _,
                    cgroups_evicted,
                    containers: _,
                    containers_refused,
                    lookups_deferred,
                } = self;
                vec![
                    $((stringify!($name), $name),)*
                    ("cgroups_evicted", cgroups_evicted),
                    ("containers_refused", containers_refused),
                    ("lookups_deferred", lookups_deferred),
                ]
            }
        }

        /// The counters that are added to while no lock is held.
        #[derive(Debug, Default)]
        pub(super) struct Counters {
            $(pub $name: AtomicU64,)*
        }

        impl Counters {
            /// As they stand now; what the tables count themselves is left at 0.
            pub(super) fn read(&self) -> Counts {
                Counts { $($name: self.$name.load(Ordering::Relaxed),)* ..Counts::default() }
            }
        }
    };
}

counts! {
    /// Connections to containerd that were made.
    connections,
    /// Events of containerd.
    events,
    /// Events that could not be read.
    events_malformed,
    /// Records of containers that were read.
    records,
    /// Records that were not read since they are too large, or containerd refused.
    records_refused,
    /// OCI specs that are malformed or too large.
    specs_malformed,
    /// Calls to containerd that ended without an answer.
    calls_failed,
    /// Requests for a container that found the queue full; they are made again when the container is looked up again.
    requests_dropped,
    /// Scans of the cgroup hierarchy.
    scans,
}

/// Adds one.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
