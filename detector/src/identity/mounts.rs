//! Mounts that many containers have, kept once: most of what a specification says is the same in each.

use std::{collections::HashSet, sync::Arc};

use super::model::SpecMount;

/// Of fewer than this nobody looks which are used no longer.
const SMALL: usize = 256;

/// The mounts that containers have, each once.
#[derive(Debug)]
pub(super) struct Mounts {
    known: HashSet<Arc<SpecMount>>,
    /// At so many those that no container has any more are given up.
    sweep_at: usize,
}

impl Default for Mounts {
    fn default() -> Self {
        Self { known: HashSet::new(), sweep_at: SMALL }
    }
}

impl Mounts {
    /// Puts in place of each mount the one that is kept, and keeps those that are new. Holds no more than twice what the
    /// containers hold.
    pub(super) fn share(&mut self, mounts: &mut Vec<Arc<SpecMount>>) {
        for mount in mounts.iter_mut() {
            match self.known.get(&**mount) {
                Some(known) => *mount = Arc::clone(known),
                None => drop(self.known.insert(Arc::clone(mount))),
            }
        }
        mounts.shrink_to_fit();
        if self.known.len() >= self.sweep_at {
            self.known.retain(|mount| Arc::strong_count(mount) > 1);
            self.known.shrink_to(SMALL);
            self.sweep_at = SMALL.max(2 * self.known.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(destination: &str) -> Arc<SpecMount> {
        Arc::new(SpecMount {
            destination: destination.to_owned(),
            fstype: Some("bind".to_owned()),
            source: Some("/srv".into()),
            readonly: true,
            volume: None,
        })
    }

    #[test]
    fn what_two_containers_have_is_kept_once() {
        let mut mounts = Mounts::default();
        let (mut one, mut other) = (vec![mount("/proc"), mount("/data")], vec![mount("/proc"), mount("/tmp")]);
        mounts.share(&mut one);
        mounts.share(&mut other);
        assert!(Arc::ptr_eq(&one[0], &other[0]));
        assert_eq!((&*one[1], &*other[1]), (&*mount("/data"), &*mount("/tmp")), "what differs stays as it is");
    }

    #[test]
    fn what_no_container_has_any_more_is_given_up() {
        let mut mounts = Mounts::default();
        let mut stays = vec![mount("/stays")];
        mounts.share(&mut stays);
        for number in 0..100 * SMALL {
            mounts.share(&mut vec![mount(&format!("/{number}"))]);
            assert!(mounts.known.len() <= SMALL);
        }
        let mut again = vec![mount("/stays")];
        mounts.share(&mut again);
        assert!(Arc::ptr_eq(&stays[0], &again[0]));
    }
}
