//! How events go out, with what they count: the first of its kind, its repeats, and what is known by its number alone.

use detector_common::record::RecordKind;

use super::{
    ledger::Missing,
    notes,
    pipeline::Pipeline,
    repeats::{First, Repeated, Told},
    verdict::HOST,
};
use crate::{
    cli::config::Scope,
    finding::{Event, event::Kind, operation::refine},
    identity::Lookup,
    kernel::{
        attempt::{Attempt, Standing},
        kept::Mark,
    },
};

impl Pipeline {
    /// Tells of repeats of a refused write.
    pub(super) fn tell_again(&self, repeated: &Repeated<'_>) {
        let &Repeated { cgroup_id, operation, count, .. } = repeated;
        self.ledger.told(cgroup_id, operation, count);
        self.send_again(Kind::WriteDenied, repeated, Some(Mark { cgroup_id, operation, count, origin: None }));
    }

    /// Tells of repeats of a write that succeeded.
    pub(super) fn observe_again(&self, repeated: &Repeated<'_>) {
        self.send_again(Kind::WriteObserved, repeated, None);
    }

    fn send_again(&self, kind: Kind, repeated: &Repeated<'_>, mark: Option<Mark>) {
        if let Told::Ignored(reason) | Told::Unknown(reason) = repeated.told {
            self.metrics.ignored(kind, reason, repeated.count);
            if let Some(mark) = mark {
                self.settle(mark);
            }
        } else if let Some(event) = repeated.event() {
            self.put(&event, mark);
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
            self.put(&notes::missing(&lookup, missing), Some(mark));
        }
    }

    /// Says what an event means, counts it and hands it to the sinks.
    pub fn judge_and_send(&self, mut event: Event) {
        self.rules.judge(&mut event);
        self.put(&event, None);
    }

    /// Counts an event, and hands it to the sinks, which may wait for [`flush`](super::outbox::Outbox::flush).
    fn put(&self, event: &Event, mark: Option<Mark>) {
        self.metrics.count(event);
        self.outbox.put(event, mark);
    }

    /// Sends the event of an attempt, unless an agent before has; whether its repeats are to be told.
    pub(super) fn tell(&self, attempt: &Attempt, event: &Event) -> bool {
        let mark = mark(attempt);
        match attempt.standing {
            Standing::New => self.put(event, Some(mark)),
            Standing::Told => {}
            // It is of a kernel side that is gone.
            Standing::Left(count) => {
                self.ledger.told(mark.cgroup_id, mark.operation, mark.count);
                self.put(&Event { count, ..event.clone() }, Some(mark));
                return false;
            }
        }
        true
    }

    /// Counts an attempt that is none of rosentry's business.
    pub(super) fn ignore(&self, attempt: &Attempt, reason: &'static str) {
        self.ignore_as(attempt, reason, Told::Ignored(reason));
    }

    /// The same, of whose repeats this is to become.
    pub(super) fn ignore_as(&self, attempt: &Attempt, reason: &'static str, told: Told) {
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
    pub(super) fn keep(&self, attempt: &Attempt, told: Told) {
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
}

/// What the first event of an attempt counts.
fn mark(attempt: &Attempt) -> Mark {
    let times = if let Standing::Left(count) = attempt.standing { count } else { 1 };
    let count = if attempt.kind == RecordKind::WriteDenied { times } else { 0 };
    Mark { cgroup_id: attempt.cgroup_id, operation: refine(attempt), count, origin: attempt.origin }
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
