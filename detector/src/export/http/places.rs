//! How many connections there are, of all and of each address.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// So many places.
pub(super) struct Places {
    most: usize,
    most_of_peer: usize,
    /// By address; there is none without a place.
    taken: Mutex<HashMap<IpAddr, usize>>,
}

/// A place; given back when it is dropped.
pub(super) struct Place {
    places: Arc<Places>,
    peer: IpAddr,
}

impl Places {
    /// All are free.
    pub(super) fn new(most: usize, most_of_peer: usize) -> Arc<Self> {
        Arc::new(Self { most, most_of_peer, taken: Mutex::default() })
    }

    /// A place for a connection from this address; none where all are taken, or it has its share.
    pub(super) fn take(self: &Arc<Self>, peer: IpAddr) -> Option<Place> {
        // One address has two forms where a socket takes both versions of the protocol.
        let peer = peer.to_canonical();
        let mut taken = self.lock();
        let of_peer = taken.get(&peer).copied().unwrap_or(0);
        if of_peer >= self.most_of_peer || taken.values().sum::<usize>() >= self.most {
            return None;
        }
        taken.insert(peer, of_peer + 1);
        Some(Place { places: Arc::clone(self), peer })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        match taken.get_mut(&self.peer) {
            Some(of_peer) if *of_peer > 1 => *of_peer -= 1,
            _ => drop(taken.remove(&self.peer)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    #[test]
    fn an_address_has_its_share_and_leaves_the_rest_to_others() {
        let places = Places::new(3, 2);
        let held: Vec<_> = (0..3).map(|_| places.take(ONE)).collect();
        assert_eq!(held.iter().flatten().count(), 2);
        assert!(places.take("::ffff:10.0.0.1".parse().unwrap()).is_none(), "the same address in its other form");
        let others = places.take(OTHER);
        assert!(others.is_some());
        assert!(places.take(OTHER).is_none(), "all are taken");
        drop(held);
        assert!(places.take(OTHER).is_some(), "what was given back can be had again");
        drop(others);
        assert!(places.lock().is_empty(), "who holds none is forgotten");
    }
}
