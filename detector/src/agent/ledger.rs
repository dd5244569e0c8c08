//! What the kernel side has counted of each cgroup, set against what events have told: the difference is told, too.
//!
//! The kernel counts each refused write by cgroup and operation, whatever becomes of its record. Most are told by an event, at once
//! or with its repeats. Those that had no room in the cgroup's budget or in the ring are counted apart, and are part of
//! `rosentry_write_denied_total` with `mount="unknown"`. Should any other be missing when a cgroup has been quiet for longer than
//! anything takes to be told, it is taken to be lost, and counted in the same way: in the end the metric is what the kernel counted.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use detector_common::{budget::OPERATIONS, operation::Operation};

use super::{held, pipeline::HOST, repeats};
use crate::{
    cli::config::Scope,
    clock,
    export::{Metrics, metrics::series::Owner},
    finding::event::Kind,
    identity::{Identity, Lookup, model::Container},
    kernel::{
        counters::{Counters, SHARED, Tally},
        kept::{Kept, Told},
    },
};

/// How long anything takes to be told at most: to be held back, and to be repeated.
const SETTLED: Duration = held::PATIENCE.saturating_add(repeats::INTERVAL).saturating_add(Duration::from_secs(1));

/// Cgroups of which it is told at once what was cut.
const MOST_CUTS: usize = 64;

/// What was cut of a cgroup since the last time, for want of budget.
#[derive(Debug)]
pub struct Cut {
    /// The container, where it is known.
    pub container: Option<Arc<Container>>,
    /// The cgroup's path, where it is known.
    pub cgroup_path: Option<Arc<str>>,
    /// Its id; [`SHARED`] of several.
    pub cgroup_id: u64,
    /// Refused writes that no event tells of.
    pub writes: u64,
    /// Mount attempts that no event tells of.
    pub mounts: u64,
}

/// Refused writes that the kernel has counted, and of which nothing else is left: an agent was killed that had the rest in its memory.
#[derive(Clone, Copy, Debug)]
pub struct Missing {
    /// The cgroup's id.
    pub cgroup_id: u64,
    /// What was tried.
    pub operation: Operation,
    /// How often.
    pub count: u64,
    /// The earliest and the latest time that it can have been, nanoseconds since the Unix epoch.
    pub between: [i128; 2],
}

/// One cgroup.
#[derive(Debug)]
struct Account {
    /// What the kernel has counted when it was read last.
    tally: Tally,
    /// Refused writes that became an event, or none by choice, by operation.
    told: [u64; OPERATIONS],
    /// Those that are counted as unknown, by operation.
    unknown: [u64; OPERATIONS],
    /// Those that programs have counted which are gone, by operation.
    owed: [u64; OPERATIONS],
    /// Since when the kernel has counted nothing new.
    quiet_since: Instant,
    /// Whether the kernel has removed the cgroup.
    gone: bool,
    /// Whether the kernel counts it under its own id.
    is_counted: bool,
}

impl Account {
    fn new(now: Instant) -> Self {
        let none = [0; OPERATIONS];
        Self {
            tally: Tally::default(),
            told: none,
            unknown: none,
            owed: none,
            quiet_since: now,
            gone: false,
            is_counted: true,
        }
    }

    /// Takes what the kernel has counted by `now`; what is to be counted as unknown besides what was, by operation.
    fn settle(&mut self, mut tally: Tally, now: Instant, is_over: bool) -> [u64; OPERATIONS] {
        for (denied, owed) in tally.denied.iter_mut().zip(&self.owed) {
            *denied += owed;
        }
        if tally.denied != self.tally.denied {
            self.quiet_since = now;
        }
        self.tally = tally;
        let is_quiet = is_over || now.saturating_duration_since(self.quiet_since) >= SETTLED;
        let mut more = [0; OPERATIONS];
        for (operation, more) in more.iter_mut().enumerate() {
            let of = |counts: &[u64; OPERATIONS]| counts.get(operation).copied().unwrap_or_default();
            let missing = if is_quiet { of(&tally.denied).saturating_sub(of(&self.told)) } else { of(&tally.untold) };
            *more = missing.saturating_sub(of(&self.unknown));
        }
        more
    }

    /// Takes out of what is to be counted as unknown those whose record did get out of the kernel: they become an event.
    fn take_missing(&mut self, more: &mut [u64; OPERATIONS], operation: usize) -> u64 {
        let of = |counts: &[u64; OPERATIONS]| counts.get(operation).copied().unwrap_or_default();
        let untold = of(&self.tally.untold).saturating_sub(of(&self.unknown));
        let missing = of(more).saturating_sub(untold);
        if let (Some(more), Some(told)) = (more.get_mut(operation), self.told.get_mut(operation)) {
            *more -= missing;
            *told += missing;
        }
        missing
    }

    /// Whether something may be missing yet.
    fn is_open(&self) -> bool {
        let counts = self.tally.denied.iter().zip(&self.told).zip(&self.unknown);
        self.gone || counts.into_iter().any(|((denied, told), unknown)| *denied > told + unknown)
    }
}

#[derive(Debug, Default)]
struct Accounts {
    by_cgroup: HashMap<u64, Account>,
}

/// The accounts of all cgroups. Clones share one.
#[derive(Clone)]
pub struct Ledger {
    counters: Arc<Counters>,
    identity: Identity,
    scope: Scope,
    accounts: Arc<Mutex<Accounts>>,
    before: Option<Before>,
}

/// What an agent before this one has told, and what one after it will know.
#[derive(Clone)]
pub struct Before {
    /// Where it is kept.
    pub kept: Arc<Kept>,
    /// Since when nobody was there, and until when, nanoseconds since the Unix epoch; none where nobody was before.
    pub gap: Option<[i128; 2]>,
}

impl Ledger {
    /// Nothing told yet but `before`.
    pub fn new(counters: Arc<Counters>, identity: Identity, scope: Scope, before: Option<Before>) -> Self {
        let now = Instant::now();
        let told = before.as_ref().map_or_else(HashMap::new, |before| before.kept.told());
        let account = |(cgroup_id, Told { told, unknown, owed, cut_writes, cut_mounts })| {
            let tally = Tally { cut_writes, cut_mounts, ..Tally::default() };
            (cgroup_id, Account { tally, told, unknown, owed, ..Account::new(now) })
        };
        let accounts = Accounts { by_cgroup: told.into_iter().map(account).collect() };
        Self { counters, identity, scope, accounts: Arc::new(Mutex::new(accounts)), before }
    }

    fn accounts(&self) -> MutexGuard<'_, Accounts> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that refused writes were told, or are no event by choice.
    pub fn told(&self, cgroup_id: u64, operation: Operation, count: u64) {
        let mut accounts = self.accounts();
        let account = accounts.by_cgroup.entry(cgroup_id).or_insert_with(|| Account::new(Instant::now()));
        if let Some(told) = account.told.get_mut(operation as usize) {
            *told += count;
        }
    }

    /// Notes that a cgroup was removed: when all of it is told, it is forgotten.
    pub fn gone(&self, cgroup_id: u64) {
        if let Some(account) = self.accounts().by_cgroup.get_mut(&cgroup_id) {
            account.gone = true;
        }
    }

    /// Whether [`settle`](Self::settle) may have something to find soon, though nothing happens.
    pub fn is_open(&self) -> bool {
        self.accounts().by_cgroup.values().any(Account::is_open)
    }

    /// Reads what the kernel has counted, and counts as unknown what is known not to be told; what was cut since the last time.
    /// And what an agent before has lost: with `is_over`, when nothing more can come, all of it.
    pub fn settle(&self, metrics: &Metrics, is_over: bool) -> (Vec<Cut>, Vec<Missing>) {
        let now = Instant::now();
        let mut all_missing = Vec::new();
        let mut tallies = self.counters.tallies();
        let accounts = &mut *self.accounts();
        let mut cuts = Vec::new();
        let mut read = tallies.read();
        for (&cgroup_id, account) in &accounts.by_cgroup {
            // The programs may have seen nothing of it yet.
            if account.owed.iter().any(|count| *count > 0) {
                read.entry(cgroup_id).or_default();
            }
        }
        for account in accounts.by_cgroup.values_mut() {
            account.is_counted = false;
        }
        for (cgroup_id, mut tally) in read {
            let lookup = if cgroup_id == SHARED {
                // What is told of those that share it is told of each under its own id.
                tally.denied = tally.untold;
                Lookup::Unknown
            } else {
                self.identity.lookup(cgroup_id)
            };
            let account = accounts.by_cgroup.entry(cgroup_id).or_insert_with(|| Account::new(now));
            account.is_counted = true;
            account.gone |= cgroup_id != SHARED && matches!(lookup, Lookup::Unknown);
            let before = account.tally;
            let writes = tally.cut_writes.saturating_sub(before.cut_writes);
            let mounts = tally.cut_mounts.saturating_sub(before.cut_mounts);
            let mut more = account.settle(tally, now, is_over);
            let (container, cgroup_path) = match &lookup {
                Lookup::Container { container, cgroup_path } => (Some(container), Some(cgroup_path)),
                Lookup::Foreign { cgroup_path, .. } | Lookup::Host { cgroup_path } => (None, Some(cgroup_path)),
                Lookup::Pending { cgroup_path, .. } => (None, cgroup_path.as_ref()),
                Lookup::Unknown => (None, None),
            };
            if writes + mounts > 0 {
                cuts.push(Cut {
                    container: container.cloned(),
                    cgroup_path: cgroup_path.cloned(),
                    cgroup_id,
                    writes,
                    mounts,
                });
                if let Some(before) = &self.before {
                    before.kept.add_cut(cgroup_id, writes, mounts);
                }
            }
            let is_event = match &lookup {
                Lookup::Host { .. } => self.scope == Scope::All,
                // Asked again.
                Lookup::Pending { .. } if !is_over => continue,
                _ => true,
            };
            if let Some(Before { gap: Some([from, _]), .. }) = self.before {
                // Of those that this agent had in its memory, and that one, too.
                let between = [from - SETTLED.as_nanos().cast_signed(), clock::unix_ns()];
                for &operation in Operation::ALL {
                    let count = account.take_missing(&mut more, operation as usize);
                    if count > 0 {
                        all_missing.push(Missing { cgroup_id, operation, count, between });
                    }
                }
            }
            for (&operation, more) in Operation::ALL.iter().filter_map(|op| Some((op, *more.get(*op as usize)?))) {
                if more == 0 {
                    continue;
                }
                if let Some(unknown) = account.unknown.get_mut(operation as usize) {
                    *unknown += more;
                }
                if let Some(before) = &self.before {
                    before.kept.add_unknown(cgroup_id, operation, more);
                }
                if is_event {
                    metrics.write_denied_unknown(Owner::of(container.map(AsRef::as_ref)), operation, more);
                } else {
                    metrics.ignored(Kind::WriteDenied, HOST, more);
                }
            }
        }
        accounts.by_cgroup.retain(|&cgroup_id, account| {
            let is_over =
                (account.gone || !account.is_counted) && now.saturating_duration_since(account.quiet_since) >= SETTLED;
            if is_over {
                tallies.remove(cgroup_id);
                if let Some(before) = &self.before {
                    before.kept.forget(cgroup_id);
                }
            }
            !is_over
        });
        (shortened(cuts), all_missing)
    }
}

/// The cgroups of which most was cut, and the rest as one.
fn shortened(mut cuts: Vec<Cut>) -> Vec<Cut> {
    cuts.sort_by_key(|cut| std::cmp::Reverse(cut.writes + cut.mounts));
    if cuts.len() > MOST_CUTS {
        let rest = cuts.split_off(MOST_CUTS);
        let sum = |of: fn(&Cut) -> u64| rest.iter().map(of).sum();
        let (writes, mounts) = (sum(|cut| cut.writes), sum(|cut| cut.mounts));
        cuts.push(Cut { container: None, cgroup_path: None, cgroup_id: SHARED, writes, mounts });
    }
    cuts
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: usize = Operation::Open as usize;

    fn counted(denied: u64, untold: u64) -> Tally {
        let mut tally = Tally::default();
        tally.denied[OPEN] = denied;
        tally.untold[OPEN] = untold;
        tally
    }

    /// Settles, and takes what is found as counted.
    fn settle(account: &mut Account, tally: Tally, now: Instant) -> u64 {
        let more = account.settle(tally, now, false)[OPEN];
        account.unknown[OPEN] += more;
        more
    }

    #[test]
    fn what_the_kernel_could_not_tell_is_unknown_at_once_and_what_is_under_way_is_not() {
        let now = Instant::now();
        let mut account = Account::new(now);
        assert_eq!(settle(&mut account, counted(10, 3), now), 3);
        assert_eq!(settle(&mut account, counted(10, 3), now), 0, "it was counted");
        assert!(account.is_open(), "seven are under way");
        account.told[OPEN] = 7;
        assert!(!account.is_open());
    }

    #[test]
    fn what_is_missing_of_a_cgroup_that_has_been_quiet_for_long_is_unknown() {
        let now = Instant::now();
        let mut account = Account::new(now);
        account.told[OPEN] = 6;
        assert_eq!(settle(&mut account, counted(10, 3), now), 3);
        assert_eq!(settle(&mut account, counted(10, 3), now + SETTLED), 1);
        assert!(!account.is_open());
    }

    #[test]
    fn of_many_cgroups_the_worst_are_told_and_the_rest_as_one() {
        let cut = |cgroup_id| Cut { container: None, cgroup_path: None, cgroup_id, writes: cgroup_id, mounts: 1 };
        let short = shortened((1..=100).map(cut).collect());
        assert_eq!(short.len(), MOST_CUTS + 1);
        assert_eq!((short[0].cgroup_id, short[MOST_CUTS].cgroup_id), (100, SHARED));
        assert_eq!(short.iter().map(|cut| cut.writes).sum::<u64>(), (1..=100).sum::<u64>());
    }

    #[test]
    fn a_cgroup_that_goes_on_is_not_quiet() {
        let now = Instant::now();
        let mut account = Account::new(now);
        for second in 0..60 {
            assert_eq!(settle(&mut account, counted(10 + second, 0), now + Duration::from_secs(second)), 0);
        }
    }
}
