//! From records to events: asks the identity room whose they are, the finding room what they mean, and sends them out.
//!
//! Never waits: what is not known yet is held back and looked at again. What comes at once goes on at once, a few at a time: a look
//! into a container's root costs mostly the way there.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use detector_common::record::RecordKind;

use super::{
    ancestry::Ancestry,
    escaped::Escaped,
    held::Held,
    ledger::Ledger,
    outbox::Outbox,
    repeats::{Repeats, Told},
    resolve::{Answered, Resolver, Subject},
    verdict::{FOREIGN, HOST, NOT_ON_ROOT, UNKNOWN, Verdict},
};
use crate::{
    cli::config::Scope,
    clock,
    export::Metrics,
    finding::{
        Event, Sighting, assess,
        event::{Mount, PlaceKind},
        questions,
        rules::RuleSet,
    },
    identity::{Identity, model::Container},
    kernel::{
        attempt::{Attempt, Standing},
        kept::Kept,
        stream::Record,
    },
};

/// Attempts that go on at once, at most: what is asked of those of one container is answered within one deadline.
const AT_ONCE: usize = 64;

/// An attempt that becomes an event, and whose it is.
struct Case {
    attempt: Box<Attempt>,
    container: Option<Arc<Container>>,
    cgroup_path: Option<Arc<str>>,
    /// Why nobody can be named, where it is so.
    unattributed: Option<&'static str>,
}

/// What the rooms are made of.
pub struct Pipeline {
    /// Whose.
    pub identity: Identity,
    /// Follows symbolic links in a container's root.
    pub resolver: Arc<Resolver>,
    /// Executables of ancestors.
    pub ancestry: Ancestry,
    /// Processes that left their container's cgroup.
    pub escaped: Escaped,
    /// The way out.
    pub outbox: Outbox,
    /// What is counted on the way.
    pub metrics: Arc<Metrics>,
    /// What events mean.
    pub rules: RuleSet,
    /// What is reported.
    pub scope: Scope,
    /// What waits.
    pub held: Held,
    /// What was told once.
    pub repeats: Repeats,
    /// The same of writes that succeeded; none where learning mode is off.
    pub observed: Option<Repeats>,
    /// What was told of each cgroup, against what the kernel has counted.
    pub ledger: Ledger,
    /// What an agent after this one will know; none where nothing is pinned.
    pub kept: Option<Arc<Kept>>,
    /// Whether paths are worth the time to look into a container's root; not when the agent ends.
    pub follow_links: bool,
    /// How long ago the last record was, when it was taken.
    pub lag: Duration,
}

impl Pipeline {
    /// Takes records in the order of their time.
    pub async fn take(&mut self, records: &mut Vec<Record>) {
        let now = Instant::now();
        if records.is_empty() {
            self.lag = Duration::ZERO;
        }
        // First, so that what a container did stays in order.
        self.release(now).await;
        let mut attempts = Vec::new();
        for record in records.drain(..) {
            match record {
                Record::CgroupCreated { id, path, time_ns: _ } => {
                    self.attempts(&mut attempts, now).await;
                    self.identity.cgroup_created(id, &path);
                }
                Record::CgroupRemoved { id, time_ns: _ } => {
                    self.attempts(&mut attempts, now).await;
                    self.cgroup_removed(id);
                }
                Record::Attempt(attempt) => {
                    attempts.push(attempt);
                    if attempts.len() >= AT_ONCE {
                        self.attempts(&mut attempts, now).await;
                    }
                }
            }
        }
        self.attempts(&mut attempts, now).await;
        self.outbox.flush();
    }

    fn cgroup_removed(&self, id: u64) {
        self.identity.cgroup_removed(id);
        self.repeats.forget(id, |repeated| self.tell_again(repeated));
        if let Some(observed) = &self.observed {
            observed.forget(id, |repeated| self.observe_again(repeated));
        }
        self.ledger.gone(id);
    }

    /// Whether there may be repeats to tell of.
    pub fn has_repeats(&self) -> bool {
        !self.repeats.is_empty() || self.observed.as_ref().is_some_and(|observed| !observed.is_empty())
    }

    /// Tells of the repeats since the last time.
    pub fn sweep(&self) {
        self.repeats.sweep(|repeated| self.tell_again(repeated));
        if let Some(observed) = &self.observed {
            observed.sweep(|repeated| self.observe_again(repeated));
        }
        self.outbox.flush();
    }

    /// Tells of all repeats that are left; how many there were of what was never told.
    pub fn finish(&self) -> u64 {
        let observed = self.observed.as_ref();
        self.repeats.finish(|repeated| self.tell_again(repeated))
            + observed.map_or(0, |observed| observed.finish(|repeated| self.observe_again(repeated)))
    }

    /// Looks again at what waits.
    pub async fn release(&mut self, now: Instant) {
        if self.held.is_empty() {
            return;
        }
        let identity = &self.identity;
        let released = self.held.release(now, |attempt| !matches!(Verdict::of(identity, attempt), Verdict::Wait));
        let judged = released.into_iter().map(|attempt| (Verdict::at_last(identity, &attempt), attempt)).collect();
        self.conclude(judged).await;
    }

    /// Sends out all that waits, as far as it is known.
    pub async fn release_all(&mut self) {
        let end_of_time = Instant::now() + Duration::from_secs(3600);
        self.release(end_of_time).await;
    }

    /// Takes attempts, and leaves none.
    #[expect(clippy::vec_box, reason = "they go on one by one, each some kilobytes")]
    async fn attempts(&mut self, attempts: &mut Vec<Box<Attempt>>, now: Instant) {
        let Some(last) = attempts.last() else { return };
        self.lag = clock::since_boot().saturating_sub(Duration::from_nanos(last.time_ns));
        let mut judged = Vec::with_capacity(attempts.len());
        for attempt in attempts.drain(..) {
            match Verdict::of(&self.identity, &attempt) {
                Verdict::Wait => {
                    let oldest = self.held.hold(attempt, now).into_iter();
                    judged.extend(oldest.map(|oldest| (Verdict::at_last(&self.identity, &oldest), oldest)));
                }
                verdict => judged.push((verdict, attempt)),
            }
        }
        self.conclude(judged).await;
    }

    /// Reports the attempts, or ignores them.
    async fn conclude(&mut self, judged: Vec<(Verdict, Box<Attempt>)>) {
        let mut cases: Vec<Case> =
            judged.into_iter().filter_map(|(verdict, attempt)| self.case(verdict, attempt)).collect();
        while !cases.is_empty() {
            let later = cases.split_off(cases.len().min(AT_ONCE));
            let answered = self.look(&cases).await;
            for (case, resolved) in cases.iter().zip(answered) {
                self.report(case, resolved);
            }
            self.outbox.flush();
            cases = later;
        }
    }

    /// What is to be told; what is none of rosentry's business is counted.
    fn case(&mut self, verdict: Verdict, attempt: Box<Attempt>) -> Option<Case> {
        let (mut container, cgroup_path, mut unattributed) = match verdict {
            Verdict::Ignore(reason) => {
                self.ignore(&attempt, reason);
                return None;
            }
            Verdict::Report { container, cgroup_path, unattributed } => (container, cgroup_path, unattributed),
            // What waits was held back.
            Verdict::Wait => return None,
        };
        // A cgroup may be called like a container's, or be nested deeper than anybody can look, to be taken for no one's.
        if container.is_none() && matches!(unattributed, None | Some(FOREIGN | UNKNOWN)) {
            container = self.escaped.container_of(&attempt, || self.identity.containers());
            unattributed = unattributed.filter(|_| container.is_none());
        }
        let is_observed = attempt.kind == RecordKind::WriteObserved;
        match (&container, unattributed) {
            (None, None) if is_observed || self.scope == Scope::Containers => self.ignore(&attempt, HOST),
            (None, Some(FOREIGN)) if is_observed => self.ignore(&attempt, FOREIGN),
            (None, Some(reason)) if is_observed => self.ignore_as(&attempt, reason, Told::Unknown(reason)),
            _ => return Some(Case { attempt, container, cgroup_path, unattributed }),
        }
        None
    }

    /// Where the paths of some attempts lead.
    async fn look(&self, cases: &[Case]) -> Vec<Answered> {
        if !self.follow_links {
            return vec![[None, None]; cases.len()];
        }
        let asker =
            |Case { attempt, container, .. }: &Case| (Subject::of(attempt, container.as_deref()), questions(attempt));
        self.resolver.resolve(cases.iter().map(asker).collect(), self.lag).await
    }

    /// Tells of an attempt; of a write that succeeded if it is on the root filesystem of its container.
    fn report(&mut self, case: &Case, resolved: Answered) {
        let event = self.event(case, resolved);
        let &Case { ref attempt, unattributed, .. } = case;
        if attempt.kind == RecordKind::WriteObserved && !is_on_root(&event) {
            self.ignore(attempt, NOT_ON_ROOT);
            return;
        }
        if let Some(reason) = unattributed
            && attempt.standing == Standing::New
        {
            self.metrics.unattributed(reason);
        }
        if self.tell(attempt, &event) {
            let first = Box::new(event);
            let told = if unattributed.is_some() { Told::Unattributed(first) } else { Told::Event(first) };
            self.keep(attempt, told);
        }
    }

    fn event(&mut self, case: &Case, resolved: Answered) -> Event {
        let Case { attempt, container, cgroup_path, .. } = case;
        let (container, cgroup_path) = (container.as_ref(), cgroup_path.as_deref());
        let mut event = assess(&Sighting { attempt, container, cgroup_path, resolved, clock: clock::now() });
        if let Some(process) = &mut event.process {
            let now = Instant::now();
            for (told, ancestor) in process.ancestors.iter_mut().zip(&attempt.process.ancestors) {
                told.exe = self.ancestry.exe(ancestor, now);
            }
        }
        self.rules.judge(&mut event);
        event
    }
}

/// Whether a write hit a root filesystem.
fn is_on_root(event: &Event) -> bool {
    matches!(&event.mount, Some(Mount::Place(place)) if place.kind == PlaceKind::Rootfs)
}
