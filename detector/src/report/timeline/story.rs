//! What came of an incident, in a few phases: refused writes, tries to unseal, a broken seal, writes after it.

use serde::Serialize;

use super::step::{Step, severity, time};
use crate::{
    finding::event::{Effect, Kind, Severity},
    report::event::Time,
};

/// What a phase is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Writes were refused.
    WritesRefused,
    /// A try to make something read-only writable, or to put a writable mount over it, that failed.
    UnsealFailed,
    /// A mount that does neither, whatever its result.
    OtherMounts,
    /// Something read-only was made writable.
    Unsealed,
    /// A writable mount was put over a part of a sealed root.
    Shadowed,
    /// The root of a container that was declared read-only is writable.
    SealBroken,
    /// Writes that went through.
    Written,
    /// The seal is whole again.
    SealMended,
    /// A kind of event that this version does not know.
    Other,
}

impl What {
    /// What a step is.
    pub fn of(step: &Step) -> Self {
        let succeeded = step.outcome.as_deref() == Some("succeeded");
        match step.known_kind {
            Some(Kind::WriteDenied) => Self::WritesRefused,
            Some(Kind::WriteObserved) => Self::Written,
            Some(Kind::SealBroken) => Self::SealBroken,
            Some(Kind::SealMended) => Self::SealMended,
            Some(Kind::MountAttempt) => match (step.effect, succeeded) {
                (Some(Effect::Unseal), true) => Self::Unsealed,
                (Some(Effect::Shadow), true) => Self::Shadowed,
                (Some(Effect::Unseal | Effect::Shadow), false) => Self::UnsealFailed,
                _ => Self::OtherMounts,
            },
            Some(Kind::Agent) | None => Self::Other,
        }
    }

    /// In words, of so many.
    pub const fn words(self, count: u64) -> &'static str {
        match (self, count == 1) {
            (Self::WritesRefused, true) => "write refused",
            (Self::WritesRefused, false) => "writes refused",
            (Self::UnsealFailed, true) => "try to unseal failed",
            (Self::UnsealFailed, false) => "tries to unseal failed",
            (Self::OtherMounts, true) => "other change of mounts",
            (Self::OtherMounts, false) => "other changes of mounts",
            (Self::Unsealed, true) => "unseal succeeded",
            (Self::Unsealed, false) => "unseals succeeded",
            (Self::Shadowed, true) => "writable mount over the sealed root",
            (Self::Shadowed, false) => "writable mounts over the sealed root",
            (Self::SealBroken, true) => "broken seal",
            (Self::SealBroken, false) => "broken seals",
            (Self::Written, true) => "write went through",
            (Self::Written, false) => "writes went through",
            (Self::SealMended, true) => "mended seal",
            (Self::SealMended, false) => "mended seals",
            (Self::Other, true) => "other event",
            (Self::Other, false) => "other events",
        }
    }
}

/// All steps of one kind.
#[derive(Clone, Debug, Serialize)]
pub struct Phase {
    /// What they are.
    pub what: What,
    /// The first of them.
    #[serde(serialize_with = "time")]
    pub first_time: Time,
    /// The last of them.
    #[serde(serialize_with = "time")]
    pub last_time: Time,
    /// Attempts.
    pub count: u64,
    /// The worst.
    #[serde(serialize_with = "severity")]
    pub severity: Severity,
}

/// Takes a step in. The phases stay in the order in which they began.
pub fn tell(story: &mut Vec<Phase>, step: &Step) {
    let what = What::of(step);
    match story.iter_mut().find(|phase| phase.what == what) {
        Some(phase) => {
            phase.first_time = phase.first_time.min(step.first_time);
            phase.last_time = phase.last_time.max(step.last_time);
            phase.count = phase.count.saturating_add(step.count);
            phase.severity = phase.severity.max(step.severity);
        }
        None => story.push(Phase {
            what,
            first_time: step.first_time,
            last_time: step.last_time,
            count: step.count,
            severity: step.severity,
        }),
    }
    story.sort_by_key(|phase| phase.first_time);
}
