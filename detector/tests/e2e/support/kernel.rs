//! What this kernel has loaded, so that a test can tell what the agent left in it.

use std::{collections::BTreeSet, time::Duration};

use aya::programs::loaded_programs;

use super::patiently;

/// The kernel frees programs after a grace period, fexit trampolines last.
const RELEASE_DEADLINE: Duration = Duration::from_secs(10);

/// The BPF programs that are loaded at one moment, by the kernel's ids, which are never used twice.
pub struct Programs(BTreeSet<u32>);

impl Programs {
    pub fn loaded() -> Self {
        // A program may go between the listing and the look at it.
        Self(loaded_programs().flatten().map(|program| program.id()).collect())
    }

    /// How many there are now that were not there then.
    pub fn more_now(&self) -> usize {
        Self::loaded().0.difference(&self.0).count()
    }

    /// Fails the test if programs stay that were not there before.
    pub async fn nothing_more_is_attached(&self) {
        patiently(RELEASE_DEADLINE, "the kernel has no more programs than before", async || self.more_now() == 0).await;
    }
}
