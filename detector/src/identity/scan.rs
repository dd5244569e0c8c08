//! Keeps the tables: scans the cgroup hierarchy when a cgroup is asked for that no one told of, and forgets what is old.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::{MissedTickBehavior, interval, sleep};

use super::{
    shared::{Shared, Tables},
    status::count,
};

/// Between two scans there is at least this much time, and ten times what the last one took.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_FACTOR: u32 = 10;
/// How often the tables are looked through for what is old.
const EXPIRY: Duration = Duration::from_secs(10);

/// Scans and forgets, for ever.
pub(super) async fn keep(shared: Arc<Shared>) {
    let mut expiry = interval(EXPIRY);
    expiry.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shared.scan_wanted.notified() => {
                let scanned = Arc::clone(&shared);
                // It ends otherwise only if the runtime does.
                let Ok(took) = tokio::task::spawn_blocking(move || scan(&scanned)).await else { return };
                shared.notify();
                sleep(PAUSE.max(took * PAUSE_FACTOR)).await;
            }
            _ = expiry.tick() => {
                let now = Instant::now();
                let mut tables = shared.tables();
                let Tables { registry, cgroups } = &mut *tables;
                registry.expire(now);
                cgroups.expire(now);
            }
        }
    }
}

/// Scans the hierarchy once; returns how long that took.
pub(super) fn scan(shared: &Shared) -> Duration {
    let start = Instant::now();
    let begin = shared.tables().cgroups.begin_scan();
    let found = shared.hierarchy.scan();
    shared.tables().cgroups.end_scan(&begin, &found, Instant::now());
    count(&shared.counters.scans);
    start.elapsed()
}
