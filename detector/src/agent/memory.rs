//! Memory that was needed once, and how the C library comes by what is needed.

use std::time::{Duration, Instant};

/// What is larger than this is the kernel's again as soon as it is not needed, bytes.
#[cfg(target_env = "gnu")]
const LARGE: libc::c_int = 64 << 10;

/// Has the C library keep little for itself. To be called before there are other threads.
///
/// By itself it has an arena for each thread, of which each keeps the most that it ever needed, and it keeps ever larger blocks
/// after one was freed: on a full node that is more than what the agent holds of the pods.
pub fn keep_little() {
    #[cfg(target_env = "gnu")]
    for (parameter, value) in [(libc::M_ARENA_MAX, 1), (libc::M_MMAP_THRESHOLD, LARGE), (libc::M_TRIM_THRESHOLD, LARGE)]
    {
        // SAFETY: it takes no pointers, and there is no other thread yet that it could race with (mallopt(3)).
        let taken = unsafe { libc::mallopt(parameter, value) };
        if taken == 0 {
            tracing::debug!(parameter, "the C library does not take this setting");
        }
    }
}

/// Gives free memory back to the kernel. To read the kernel's types and load the programs takes several times what the agent
/// needs after that, and the C library would keep it for good.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointers, and may be called by any thread at any time (malloc_trim(3)).
    unsafe {
        libc::malloc_trim(0);
    }
}

/// How long after something was done the memory that it took is given back.
const INTERVAL: Duration = Duration::from_secs(10);

/// Gives back what bursts have taken: the start of many pods leaves a third more than what is kept of them.
#[derive(Debug, Default)]
pub struct Tidy {
    due: Option<Instant>,
}

impl Tidy {
    /// When [`after_work`](Self::after_work) wants to be called though nothing happens.
    pub const fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Something was done, or it is time.
    pub fn after_work(&mut self, now: Instant) {
        match self.due {
            // Not due again before something else is done: an agent at rest sleeps.
            Some(due) if now >= due => {
                give_back();
                self.due = None;
            }
            Some(_) => {}
            None => self.due = Some(now + INTERVAL),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_work_it_is_due_once() {
        let (mut tidy, now) = (Tidy::default(), Instant::now());
        tidy.after_work(now);
        tidy.after_work(now + INTERVAL / 2);
        assert_eq!(tidy.due(), Some(now + INTERVAL));
        tidy.after_work(now + INTERVAL);
        assert_eq!(tidy.due(), None);
    }
}
