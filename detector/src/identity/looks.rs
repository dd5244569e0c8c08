//! Looks at the node's disks, which may never answer: so many at a time, each on a thread of its own.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};

/// Looks at a time. One that hangs keeps its thread for good, so this is how many threads a hung disk can use up.
const AT_A_TIME: usize = 4;

/// See the module.
#[derive(Debug)]
pub(super) struct Looks {
    places: Arc<Semaphore>,
}

impl Default for Looks {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(AT_A_TIME)) }
    }
}

impl Looks {
    /// What `look` finds; none where it has not found it within `patience`, or did not begin because others hang.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        patience: Duration,
        look: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let looked = async {
            let place = Arc::clone(&self.places).acquire_owned().await.ok()?;
            let look = move || {
                let found = look();
                drop(place);
                found
            };
            spawn_blocking(look).await.ok()
        };
        timeout(patience, looked).await.ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    };

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn looks_that_hang_take_a_few_threads_and_no_more() {
        let looks = Looks::default();
        let (answer, answered) = mpsc::channel::<()>();
        let (answered, begun) = (Arc::new(Mutex::new(answered)), Arc::new(AtomicUsize::new(0)));
        for _ in 0..10 * AT_A_TIME {
            let (answered, begun) = (Arc::clone(&answered), Arc::clone(&begun));
            let hang = move || {
                begun.fetch_add(1, Ordering::Relaxed);
                let _ = answered.lock().unwrap().recv();
            };
            assert_eq!(looks.run(Duration::ZERO, hang).await, None);
        }
        drop(answer);
        assert_eq!(looks.run(LONG, || "found").await, Some("found"), "as soon as the disk answers again");
        let all = looks.places.acquire_many(u32::try_from(AT_A_TIME).unwrap()).await;
        assert!(all.is_ok());
        assert_eq!(begun.load(Ordering::Relaxed), AT_A_TIME);
    }

    #[tokio::test]
    async fn a_look_that_fails_gives_its_place_back() {
        let looks = Looks::default();
        for _ in 0..2 * AT_A_TIME {
            assert_eq!(looks.run::<()>(LONG, || panic!("as a test wants it")).await, None);
        }
        assert_eq!(looks.run(LONG, || "found").await, Some("found"));
    }
}
