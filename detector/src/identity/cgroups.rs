//! The cgroups by id: those that are there, and for a minute those that were, since records come after the fact.
//!
//! Filled by the kernel's word of each cgroup made and removed, and by scans of the hierarchy: one at the start, and one
//! when an id is asked for that is not here. Nothing here blocks; the scan itself is done elsewhere.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{hierarchy::Scan, model::Container};

/// How long a removed cgroup is kept.
const KEEP_REMOVED: Duration = Duration::from_secs(60);
/// How long it is believed that an id is unknown.
const KEEP_ABSENT: Duration = Duration::from_secs(60);
/// Ids asked for that are being looked for, or were not found.
const MAX_ABSENT: usize = 4096;

/// The table of cgroups.
#[derive(Debug)]
pub(super) struct Cgroups {
    known: HashMap<u64, Cgroup>,
    absent: HashMap<u64, Absent>,
    /// The most that `known` may hold.
    limit: usize,
    /// Counts up with every use; the age of an entry is told by it.
    clock: u64,
    /// How many were given up for room.
    evicted: u64,
}

/// A cgroup.
#[derive(Clone, Debug)]
pub(super) struct Cgroup {
    /// Absolute in the hierarchy.
    pub path: Arc<str>,
    /// Whose it was, where another container has come to its path since.
    pub former_owner: Option<Arc<Container>>,
    removed: Option<Instant>,
    made: u64,
    used: u64,
}

/// What is known of an id that is not in the table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Absent {
    /// Asked for; no scan has been made since.
    Sought,
    /// A scan that began after it was asked for has not found it.
    NotFound(Instant),
}

/// The answer to a miss.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Miss {
    /// A scan has to be made.
    Scan,
    /// It does not exist, or no longer.
    NotFound,
}

/// The state of the table as a scan begins.
#[derive(Debug)]
pub(super) struct ScanBegin {
    clock: u64,
    sought: Vec<u64>,
}

impl Cgroups {
    pub(super) fn new(limit: usize) -> Self {
        Self { known: HashMap::new(), absent: HashMap::new(), limit, clock: 0, evicted: 0 }
    }

    /// The kernel has made a cgroup.
    pub(super) fn created(&mut self, id: u64, path: &str) {
        self.absent.remove(&id);
        self.insert(id, path);
    }

    /// The kernel has removed a cgroup.
    pub(super) fn removed(&mut self, id: u64, now: Instant) {
        if let Some(cgroup) = self.known.get_mut(&id) {
            cgroup.removed.get_or_insert(now);
        }
    }

    /// The cgroup of this id.
    pub(super) fn get(&mut self, id: u64) -> Option<&Cgroup> {
        self.clock += 1;
        let cgroup = self.known.get_mut(&id)?;
        cgroup.used = self.clock;
        Some(cgroup)
    }

    /// What to do about an id that [`get`](Self::get) does not know.
    pub(super) fn miss(&mut self, id: u64, now: Instant) -> Miss {
        match self.absent.get(&id) {
            Some(Absent::NotFound(_)) => Miss::NotFound,
            Some(Absent::Sought) => Miss::Scan,
            None if self.absent.len() < MAX_ABSENT => {
                self.absent.insert(id, Absent::Sought);
                Miss::Scan
            }
            None => {
                self.forget_absent(now);
                Miss::NotFound
            }
        }
    }

    /// To be called before a scan.
    pub(super) fn begin_scan(&self) -> ScanBegin {
        let sought = self.absent.iter().filter(|(_, absent)| **absent == Absent::Sought).map(|(id, _)| *id).collect();
        ScanBegin { clock: self.clock, sought }
    }

    /// Takes what a scan has found, and learns of removals that no one told.
    pub(super) fn end_scan(&mut self, begin: &ScanBegin, scan: &Scan, now: Instant) {
        let mut new: Vec<&(u64, String)> = scan.cgroups.iter().filter(|(id, _)| !self.known.contains_key(id)).collect();
        // Those that someone waits for come first: the others get what room there is.
        new.sort_by_key(|(id, _)| !self.absent.contains_key(id));
        for (id, path) in new {
            if self.absent.remove(id).is_some() || self.known.len() < self.limit {
                self.insert(*id, path);
            }
        }
        for id in &begin.sought {
            if let Some(absent) = self.absent.get_mut(id) {
                *absent = Absent::NotFound(now);
            }
        }
        if !scan.complete {
            return;
        }
        let found: HashSet<u64> = scan.cgroups.iter().map(|(id, _)| *id).collect();
        for (id, cgroup) in &mut self.known {
            if cgroup.made <= begin.clock && !found.contains(id) {
                cgroup.removed.get_or_insert(now);
            }
        }
    }

    /// Forgets what went long ago.
    pub(super) fn expire(&mut self, now: Instant) {
        self.known.retain(|_, cgroup| {
            cgroup.removed.is_none_or(|removed| now.saturating_duration_since(removed) < KEEP_REMOVED)
        });
        self.forget_absent(now);
    }

    /// Writes down whose the removed cgroups are that `is_its` picks by their path, before the path gets a new owner.
    pub(super) fn keep_owner(&mut self, owner: &Arc<Container>, is_its: impl Fn(&str) -> bool) {
        for cgroup in self.known.values_mut() {
            if cgroup.removed.is_some() && cgroup.former_owner.is_none() && is_its(&cgroup.path) {
                cgroup.former_owner = Some(Arc::clone(owner));
            }
        }
    }

    /// How many are held, removed ones included.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// How many were given up for room.
    pub(super) const fn evicted(&self) -> u64 {
        self.evicted
    }

    fn insert(&mut self, id: u64, path: &str) {
        self.clock += 1;
        if self.known.len() >= self.limit && !self.known.contains_key(&id) {
            self.make_room();
        }
        let cgroup =
            Cgroup { path: path.into(), former_owner: None, removed: None, made: self.clock, used: self.clock };
        self.known.insert(id, cgroup);
    }

    /// Gives up a sixteenth: removed ones first, then those not used for longest. Who is asked for again is found again
    /// by a scan.
    fn make_room(&mut self) {
        let count = (self.limit / 16).max(1);
        let mut by_age: Vec<(bool, u64, u64)> =
            self.known.iter().map(|(id, cgroup)| (cgroup.removed.is_none(), cgroup.used, *id)).collect();
        by_age.sort_unstable();
        for (_, _, id) in by_age.into_iter().take(count) {
            self.known.remove(&id);
            self.evicted += 1;
        }
    }

    fn forget_absent(&mut self, now: Instant) {
        self.absent.retain(|_, absent| match absent {
            Absent::Sought => true,
            Absent::NotFound(at) => now.saturating_duration_since(*at) < KEEP_ABSENT,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(cgroups: impl IntoIterator<Item = (u64, String)>) -> Scan {
        Scan { cgroups: cgroups.into_iter().collect(), complete: true }
    }

    fn path(cgroups: &mut Cgroups, id: u64) -> Option<String> {
        cgroups.get(id).map(|cgroup| cgroup.path.to_string())
    }

    #[test]
    fn a_removed_cgroup_is_known_for_a_minute() {
        let mut cgroups = Cgroups::new(16);
        let start = Instant::now();
        cgroups.created(7, "/a");
        cgroups.removed(7, start);
        cgroups.expire(start + Duration::from_secs(59));
        assert_eq!(path(&mut cgroups, 7).as_deref(), Some("/a"));
        cgroups.expire(start + Duration::from_secs(61));
        assert_eq!(path(&mut cgroups, 7), None);
    }

    #[test]
    fn the_table_never_grows_beyond_its_limit_and_keeps_what_is_in_use() {
        let mut cgroups = Cgroups::new(32);
        cgroups.created(1, "/in-use");
        for id in 2..10_000 {
            cgroups.created(id, "/flood");
            assert!(cgroups.get(1).is_some());
            assert!(cgroups.len() <= 32);
        }
        assert_eq!(cgroups.evicted(), 9_999 - cgroups.len() as u64);
    }

    #[test]
    fn room_is_made_of_removed_cgroups_first() {
        let mut cgroups = Cgroups::new(32);
        for id in 0..32 {
            cgroups.created(id, "/a");
        }
        cgroups.removed(30, Instant::now());
        cgroups.removed(31, Instant::now());
        cgroups.created(32, "/b");
        assert!(cgroups.get(30).is_none() && cgroups.get(31).is_none());
        assert!((0..30).all(|id| cgroups.get(id).is_some()));
    }

    #[test]
    fn an_id_that_no_scan_finds_is_not_looked_for_again_and_again() {
        let mut cgroups = Cgroups::new(16);
        let now = Instant::now();
        assert_eq!(cgroups.miss(7, now), Miss::Scan);
        let begin = cgroups.begin_scan();
        // Asked for while the scan was under way: it says nothing of this one.
        assert_eq!(cgroups.miss(8, now), Miss::Scan);
        cgroups.end_scan(&begin, &scan([(1, "/".into())]), now);
        assert_eq!(cgroups.miss(7, now), Miss::NotFound);
        assert_eq!(cgroups.miss(8, now), Miss::Scan);
        cgroups.expire(now + Duration::from_secs(61));
        assert_eq!(cgroups.miss(7, now), Miss::Scan);
    }

    #[test]
    fn a_scan_finds_what_was_missed_and_notices_what_went() {
        let mut cgroups = Cgroups::new(16);
        let start = Instant::now();
        cgroups.created(1, "/went");
        assert_eq!(cgroups.miss(2, start), Miss::Scan);
        let begin = cgroups.begin_scan();
        cgroups.created(3, "/made-meanwhile");
        cgroups.end_scan(&begin, &scan([(2, "/found".into())]), start);
        cgroups.expire(start + Duration::from_secs(61));
        assert_eq!(path(&mut cgroups, 1), None);
        assert_eq!(path(&mut cgroups, 2).as_deref(), Some("/found"));
        assert_eq!(path(&mut cgroups, 3).as_deref(), Some("/made-meanwhile"));
    }

    #[test]
    fn a_tree_larger_than_the_table_still_yields_the_one_asked_for() {
        let mut cgroups = Cgroups::new(16);
        let now = Instant::now();
        assert_eq!(cgroups.miss(99, now), Miss::Scan);
        let begin = cgroups.begin_scan();
        cgroups.end_scan(&begin, &scan((1..100).map(|id| (id, format!("/{id}")))), now);
        assert_eq!(path(&mut cgroups, 99).as_deref(), Some("/99"));
        assert!(cgroups.len() <= 16);
    }

    #[test]
    fn ids_that_do_not_exist_take_bounded_memory() {
        let mut cgroups = Cgroups::new(16);
        for id in (0..).take(2 * MAX_ABSENT) {
            cgroups.miss(id, Instant::now());
        }
        assert_eq!(cgroups.absent.len(), MAX_ABSENT);
    }
}
