//! Memory that was needed once.

use std::time::{Duration, Instant};

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
