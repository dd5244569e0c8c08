//! Looks at the node's containers when somebody wants to know, on a thread of its own: a look may wait for a filesystem that a
//! container has mounted, and a scrape must not.

use std::{
    collections::HashMap,
    io,
    path::Path,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::Builder,
    time::{Duration, Instant},
};

use crate::{
    identity::{Identity, model::Container},
    posture::{Looker, Seen, is_of_interest},
};

/// How long one waits for a look at all containers. What was seen last is told instead, if it is not too old.
const PATIENCE: Duration = Duration::from_secs(1);
/// For how long what was seen last is told without another look: whoever asks without a pause costs no more than one who asks now and then.
const FRESH: Duration = Duration::from_secs(1);
/// When what was seen last is worth nothing any more.
const STALE: Duration = Duration::from_secs(60);

/// By the container's id, what was seen of it.
pub type ById = Arc<HashMap<String, Seen>>;

/// The looks; they end when this is dropped.
pub struct Postures {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    rounds: Mutex<Rounds>,
    changed: Condvar,
}

#[derive(Default)]
struct Rounds {
    /// Rounds that were asked for, that have begun, and that are done.
    wanted: u64,
    begun: u64,
    done: u64,
    stopped: bool,
    last: Option<(Instant, ById)>,
}

impl Postures {
    /// Makes ready to look at the containers that `identity` knows.
    ///
    /// # Errors
    /// Where no thread can be had.
    pub fn start(host_proc: &Path, identity: &Identity) -> io::Result<Self> {
        let identity = identity.clone();
        let looker = Looker::new(host_proc);
        let look = move || {
            let containers = identity.containers();
            let look =
                |container: &Arc<Container>| Some((container.id.clone(), looker.look(container).ok()?.counted()));
            Arc::new(containers.iter().filter(|container| is_of_interest(container)).filter_map(look).collect())
        };
        Self::with(look)
    }

    fn with(look: impl Fn() -> ById + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        Builder::new().name("rosentry-looks".to_owned()).spawn(move || of_thread.serve(&look))?;
        Ok(Self { shared })
    }

    /// What is seen of each container now, or was within the last second. Waits a second at most.
    pub fn ask(&self) -> impl Fn() -> ById + Send + Sync + use<> {
        let shared = Arc::clone(&self.shared);
        move || shared.ask(FRESH, PATIENCE, STALE)
    }
}

impl Shared {
    fn ask(&self, fresh: Duration, patience: Duration, stale: Duration) -> ById {
        let mut rounds = self.rounds.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, seen)) = rounds.last.as_ref().filter(|(at, _)| at.elapsed() < fresh) {
            return Arc::clone(seen);
        }
        // One that goes on has seen some containers before this was asked.
        let round = rounds.begun + 1;
        rounds.wanted = rounds.wanted.max(round);
        self.changed.notify_all();
        let is_done = |rounds: &mut Rounds| rounds.done < round && !rounds.stopped;
        let waited = self.changed.wait_timeout_while(rounds, patience, is_done);
        let (rounds, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let last = rounds.last.as_ref().filter(|(at, _)| at.elapsed() < stale);
        last.map(|(_, seen)| Arc::clone(seen)).unwrap_or_default()
    }

    fn serve(&self, look: &dyn Fn() -> ById) {
        let mut rounds = self.rounds.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let idle = |rounds: &mut Rounds| rounds.wanted <= rounds.begun && !rounds.stopped;
            rounds = self.changed.wait_while(rounds, idle).unwrap_or_else(PoisonError::into_inner);
            if rounds.stopped {
                return;
            }
            rounds.begun += 1;
            drop(rounds);
            let seen = look();
            rounds = self.rounds.lock().unwrap_or_else(PoisonError::into_inner);
            rounds.done = rounds.begun;
            rounds.last = Some((Instant::now(), seen));
            self.changed.notify_all();
        }
    }
}

impl Drop for Postures {
    fn drop(&mut self) {
        self.shared.rounds.lock().unwrap_or_else(PoisonError::into_inner).stopped = true;
        self.shared.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::posture::tests::seen;

    const SOON: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn each_who_asks_gets_what_is_seen_after_he_asked() {
        let rounds = Mutex::new(0);
        let postures = Postures::with(move || {
            let mut rounds = rounds.lock().unwrap();
            *rounds += 1;
            Arc::new(HashMap::from([(rounds.to_string(), seen())]))
        })
        .unwrap();
        for round in ["1", "2", "3"] {
            assert!(postures.shared.ask(Duration::ZERO, LONG, LONG).contains_key(round));
        }
        assert!(postures.shared.ask(LONG, LONG, LONG).contains_key("3"), "it is fresh, and nobody looks again");
    }

    #[test]
    fn a_look_that_hangs_keeps_nobody_and_what_was_seen_before_is_told_until_it_is_stale() {
        let (go_on, may_go_on) = mpsc::channel::<()>();
        let postures = Postures::with(move || {
            let _ = may_go_on.recv();
            Arc::new(HashMap::from([("app".to_owned(), seen())]))
        })
        .unwrap();
        assert!(postures.shared.ask(Duration::ZERO, SOON, LONG).is_empty(), "nothing was seen yet");
        go_on.send(()).unwrap();
        go_on.send(()).unwrap();
        assert!(postures.shared.ask(Duration::ZERO, LONG, LONG).contains_key("app"));
        assert!(postures.shared.ask(Duration::ZERO, SOON, LONG).contains_key("app"), "as it was seen last");
        assert!(postures.shared.ask(Duration::ZERO, SOON, Duration::ZERO).is_empty(), "nobody knows how it is by now");
    }
}
