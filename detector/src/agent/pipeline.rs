//! From records to events: asks the identity room whose they are, the finding room what they mean, and sends them out.
//!
//! Never waits: what is not known yet is held back and looked at again.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use detector_common::record::RecordKind;

use super::{
    ancestry::Ancestry,
    escaped::Escaped,
    held::Held,
    ledger::{Ledger, Missing},
    notes,
    outbox::Outbox,
    repeats::{First, Repeated, Repeats, Told},
    resolve::{Resolver, Subject},
};
use crate::{
    cli::config::Scope,
    clock,
    export::Metrics,
    finding::{
        Event, Sighting, assess,
        event::{Kind, Mount, PlaceKind},
        is_runtime_setup,
        operation::refine,
        questions,
        rules::RuleSet,
    },
    identity::{
        Identity, Lookup,
        model::{Container, TaskState},
    },
    kernel::{
        attempt::{Attempt, Standing},
        kept::{Kept, Mark},
        stream::Record,
    },
};

/// Why nobody can be named: the container is of a namespace or a runtime that is not watched.
const FOREIGN: &str = "foreign_container";
/// Why nobody can be named: nobody knows the cgroup.
const UNKNOWN: &str = "unknown_cgroup";
/// Why it is none of rosentry's business: no container did it.
pub const HOST: &str = "host_process";
/// Why a write that succeeded is none of rosentry's business: it went to a volume, or to another mount than the root.
const NOT_ON_ROOT: &str = "not_on_root";

/// What becomes of an attempt.
enum Verdict {
    /// It is an event: of this container, or of none.
    Report { container: Option<Arc<Container>>, cgroup_path: Option<Arc<str>>, unattributed: Option<&'static str> },
    /// It is none of rosentry's business, for this reason.
    Ignore(&'static str),
    /// Nobody can say yet.
    Wait,
}

impl Verdict {
    const fn unattributed(reason: &'static str, cgroup_path: Option<Arc<str>>) -> Self {
        Self::Report { container: None, cgroup_path, unattributed: Some(reason) }
    }
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
        for record in records.drain(..) {
            match record {
                Record::CgroupCreated { id, path, time_ns: _ } => self.identity.cgroup_created(id, &path),
                Record::CgroupRemoved { id, time_ns: _ } => {
                    self.identity.cgroup_removed(id);
                    self.repeats.forget(id, |repeated| self.tell_again(repeated));
                    if let Some(observed) = &self.observed {
                        observed.forget(id, |repeated| self.observe_again(repeated));
                    }
                    self.ledger.gone(id);
                }
                Record::Attempt(attempt) => {
                    self.lag = clock::since_boot().saturating_sub(Duration::from_nanos(attempt.time_ns));
                    self.attempt(attempt, now).await;
                }
            }
        }
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
    }

    /// Tells of all repeats that are left; how many there were of what was never told.
    pub fn finish(&self) -> u64 {
        let observed = self.observed.as_ref();
        self.repeats.finish(|repeated| self.tell_again(repeated))
            + observed.map_or(0, |observed| observed.finish(|repeated| self.observe_again(repeated)))
    }

    fn tell_again(&self, repeated: &Repeated<'_>) {
        let &Repeated { cgroup_id, operation, count, .. } = repeated;
        self.ledger.told(cgroup_id, operation, count);
        self.send_again(Kind::WriteDenied, repeated, Some(Mark { cgroup_id, operation, count, origin: None }));
    }

    fn observe_again(&self, repeated: &Repeated<'_>) {
        self.send_again(Kind::WriteObserved, repeated, None);
    }

    fn send_again(&self, kind: Kind, repeated: &Repeated<'_>, mark: Option<Mark>) {
        if let Told::Ignored(reason) | Told::Unknown(reason) = repeated.told {
            self.metrics.ignored(kind, reason, repeated.count);
            if let Some(mark) = mark {
                self.settle(mark);
            }
        } else if let Some(event) = repeated.event() {
            self.send_marked(event, mark);
        }
    }

    /// Notes what becomes no line.
    fn settle(&self, mark: Mark) {
        if let Some(kept) = &self.kept {
            kept.settle(mark);
        }
    }

    /// Tells of refused writes of which nothing but their number is known.
    pub fn tell_missing(&self, missing: &Missing) {
        let &Missing { cgroup_id, operation, count, .. } = missing;
        let mark = Mark { cgroup_id, operation, count, origin: None };
        let lookup = self.identity.lookup(cgroup_id);
        if matches!(lookup, Lookup::Host { .. }) && self.scope == Scope::Containers {
            self.metrics.ignored(Kind::WriteDenied, HOST, count);
            self.settle(mark);
        } else {
            self.send_marked(notes::missing(&lookup, missing), Some(mark));
        }
    }

    /// Says what an event means, counts it and sends it out.
    pub fn judge_and_send(&self, mut event: Event) {
        self.rules.judge(&mut event);
        self.send(event);
    }

    /// Counts an event and sends it out.
    pub fn send(&self, event: Event) {
        self.send_marked(event, None);
    }

    fn send_marked(&self, event: Event, mark: Option<Mark>) {
        self.metrics.count(&event);
        self.outbox.send_marked(event, mark);
    }

    /// Looks again at what waits.
    pub async fn release(&mut self, now: Instant) {
        if self.held.is_empty() {
            return;
        }
        let identity = &self.identity;
        let released = self.held.release(now, |attempt| !matches!(judge(identity, attempt), Verdict::Wait));
        for attempt in released {
            self.conclude(&attempt).await;
        }
    }

    /// Sends out all that waits, as far as it is known.
    pub async fn release_all(&mut self) {
        let end_of_time = Instant::now() + Duration::from_secs(3600);
        self.release(end_of_time).await;
    }

    async fn attempt(&mut self, attempt: Box<Attempt>, now: Instant) {
        if matches!(judge(&self.identity, &attempt), Verdict::Wait) {
            for oldest in self.held.hold(attempt, now) {
                self.conclude(&oldest).await;
            }
        } else {
            self.conclude(&attempt).await;
        }
    }

    /// Reports the attempt with what is known now, or ignores it.
    async fn conclude(&mut self, attempt: &Attempt) {
        let verdict = match judge(&self.identity, attempt) {
            Verdict::Wait => self.out_of_patience(attempt),
            verdict => verdict,
        };
        match verdict {
            Verdict::Ignore(reason) => self.ignore(attempt, reason),
            Verdict::Report { container, cgroup_path, unattributed } => {
                let (mut container, mut unattributed) = (container, unattributed);
                // A cgroup may be called like a container's, or be nested deeper than anybody can look, to be taken for no one's.
                if container.is_none() && matches!(unattributed, None | Some(FOREIGN | UNKNOWN)) {
                    container = self.escaped.container_of(attempt, || self.identity.containers());
                    unattributed = unattributed.filter(|_| container.is_none());
                }
                let outside = unattributed.is_none() && container.is_none();
                if attempt.kind == RecordKind::WriteObserved {
                    self.observe(attempt, container.as_ref(), unattributed).await;
                    return;
                }
                if outside && self.scope == Scope::Containers {
                    self.ignore(attempt, HOST);
                    return;
                }
                let event = self.event(attempt, container.as_ref(), cgroup_path.as_deref()).await;
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
            // `out_of_patience` never waits.
            Verdict::Wait => {}
        }
    }

    /// Tells a write that succeeded, if it is on the root filesystem of a container that is known.
    async fn observe(
        &mut self,
        attempt: &Attempt,
        container: Option<&Arc<Container>>,
        unattributed: Option<&'static str>,
    ) {
        match (container, unattributed) {
            (None, None) => self.ignore(attempt, HOST),
            (None, Some(FOREIGN)) => self.ignore(attempt, FOREIGN),
            (None, Some(reason)) => self.ignore_as(attempt, reason, Told::Unknown(reason)),
            (Some(_), _) => {
                let event = self.event(attempt, container, None).await;
                if !is_on_root(&event) {
                    self.ignore(attempt, NOT_ON_ROOT);
                } else if self.tell(attempt, &event) {
                    self.keep(attempt, Told::Event(Box::new(event)));
                }
            }
        }
    }

    /// Sends the event of an attempt, unless an agent before has; whether its repeats are to be told.
    fn tell(&self, attempt: &Attempt, event: &Event) -> bool {
        let mark = mark(attempt);
        match attempt.standing {
            Standing::New => self.send_marked(event.clone(), Some(mark)),
            Standing::Told => {}
            // It is of a kernel side that is gone.
            Standing::Left(count) => {
                self.ledger.told(mark.cgroup_id, mark.operation, mark.count);
                self.send_marked(Event { count, ..event.clone() }, Some(mark));
                return false;
            }
        }
        true
    }

    fn ignore(&self, attempt: &Attempt, reason: &'static str) {
        self.ignore_as(attempt, reason, Told::Ignored(reason));
    }

    fn ignore_as(&self, attempt: &Attempt, reason: &'static str, told: Told) {
        let mark = mark(attempt);
        let ignored = |count| {
            if let Some(kind) = kind_of(attempt) {
                self.metrics.ignored(kind, reason, count);
            }
        };
        match attempt.standing {
            Standing::New => {
                ignored(1);
                self.settle(mark);
            }
            Standing::Told => {}
            Standing::Left(count) => {
                ignored(count);
                self.ledger.told(mark.cgroup_id, mark.operation, mark.count);
                self.settle(mark);
                return;
            }
        }
        self.keep(attempt, told);
    }

    /// Notes that a write was told, and what of, for its repeats.
    fn keep(&self, attempt: &Attempt, told: Told) {
        let operation = refine(attempt);
        let first = |id| First { id, cgroup_id: attempt.cgroup_id, operation, time_ns: attempt.time_ns, told };
        match attempt.kind {
            RecordKind::WriteDenied => {
                if attempt.standing == Standing::New {
                    self.ledger.told(attempt.cgroup_id, operation, 1);
                }
                if let Some(id) = attempt.fold {
                    self.repeats.keep(first(id), |repeated| self.tell_again(repeated));
                }
            }
            RecordKind::WriteObserved => {
                if let (Some(observed), Some(id)) = (&self.observed, attempt.fold) {
                    observed.keep(first(id), |repeated| self.observe_again(repeated));
                }
            }
            RecordKind::MountAttempt | RecordKind::CgroupCreated | RecordKind::CgroupRemoved => {}
        }
    }

    async fn event(
        &mut self,
        attempt: &Attempt,
        container: Option<&Arc<Container>>,
        cgroup_path: Option<&str>,
    ) -> Event {
        let resolved = if self.follow_links {
            let subject = Subject::of(attempt, container.map(AsRef::as_ref));
            self.resolver.resolve(&subject, questions(attempt), self.lag).await
        } else {
            [None, None]
        };
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

    /// The verdict about what nobody could say in time.
    fn out_of_patience(&self, attempt: &Attempt) -> Verdict {
        match self.identity.lookup(attempt.cgroup_id) {
            // containerd has not spoken of a first process, so the container has run nothing: a start that takes its time.
            Lookup::Container { container, .. }
                if container.task == TaskState::Unseen && attempt.process.has_not_executed() =>
            {
                Verdict::Ignore("runtime_setup_unconfirmed")
            }
            Lookup::Container { container, cgroup_path } => {
                Verdict::Report { container: Some(container), cgroup_path: Some(cgroup_path), unattributed: None }
            }
            Lookup::Pending { cgroup_path, .. } => {
                let reason = if self.identity.status().up { "no_answer" } else { "containerd_down" };
                Verdict::unattributed(reason, cgroup_path)
            }
            Lookup::Foreign { cgroup_path, .. } => Verdict::unattributed(FOREIGN, Some(cgroup_path)),
            Lookup::Host { cgroup_path } => {
                Verdict::Report { container: None, cgroup_path: Some(cgroup_path), unattributed: None }
            }
            Lookup::Unknown => Verdict::unattributed(UNKNOWN, None),
        }
    }
}

/// What the first event of an attempt counts.
fn mark(attempt: &Attempt) -> Mark {
    let times = if let Standing::Left(count) = attempt.standing { count } else { 1 };
    let count = if attempt.kind == RecordKind::WriteDenied { times } else { 0 };
    Mark { cgroup_id: attempt.cgroup_id, operation: refine(attempt), count, origin: attempt.origin }
}

fn judge(identity: &Identity, attempt: &Attempt) -> Verdict {
    match identity.lookup(attempt.cgroup_id) {
        Lookup::Container { container, cgroup_path } => {
            if attempt.kind != RecordKind::WriteDenied {
                let is_outside = parent_is_outside(identity, attempt, &container.id);
                if is_runtime_setup(attempt, container.first_process(), is_outside) {
                    return Verdict::Ignore("runtime_setup");
                }
                if container.task == TaskState::Unseen && attempt.process.has_not_executed() {
                    // The runtime's set-up, as soon as containerd says which process is the container's first.
                    return Verdict::Wait;
                }
            }
            Verdict::Report { container: Some(container), cgroup_path: Some(cgroup_path), unattributed: None }
        }
        Lookup::Pending { .. } => Verdict::Wait,
        Lookup::Foreign { container_id, cgroup_path, first } => {
            if attempt.kind != RecordKind::WriteDenied {
                if is_runtime_setup(attempt, first, parent_is_outside(identity, attempt, &container_id)) {
                    return Verdict::Ignore("runtime_setup");
                }
                if first.is_none() && attempt.process.has_not_executed() {
                    // containerd may say so of a container that it has in a namespace which is not watched.
                    return Verdict::Wait;
                }
            }
            Verdict::unattributed(FOREIGN, Some(cgroup_path))
        }
        Lookup::Host { cgroup_path } => {
            Verdict::Report { container: None, cgroup_path: Some(cgroup_path), unattributed: None }
        }
        Lookup::Unknown => Verdict::unattributed(UNKNOWN, None),
    }
}

/// What an attempt would be as an event.
const fn kind_of(attempt: &Attempt) -> Option<Kind> {
    match attempt.kind {
        RecordKind::WriteDenied => Some(Kind::WriteDenied),
        RecordKind::WriteObserved => Some(Kind::WriteObserved),
        RecordKind::MountAttempt => Some(Kind::MountAttempt),
        RecordKind::CgroupCreated | RecordKind::CgroupRemoved => None,
    }
}

/// Whether a write hit a root filesystem.
fn is_on_root(event: &Event) -> bool {
    matches!(&event.mount, Some(Mount::Place(place)) if place.kind == PlaceKind::Rootfs)
}

/// Whether the process's parent is known to be in no cgroup of the container.
fn parent_is_outside(identity: &Identity, attempt: &Attempt, container_id: &str) -> bool {
    let Some(cgroup_id) = attempt.process.parent_cgroup_id else { return false };
    match identity.lookup(cgroup_id) {
        Lookup::Host { .. } => true,
        Lookup::Container { container: of_parent, .. } => of_parent.id != container_id,
        Lookup::Pending { .. } | Lookup::Foreign { .. } | Lookup::Unknown => false,
    }
}
