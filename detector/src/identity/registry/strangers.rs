//! The first processes of containers in namespaces of containerd that are not watched: what they do while the runtime still
//! sets their mounts up is none of the container's doing. Nothing else is kept of them.

use std::{collections::HashMap, sync::Arc};

use crate::identity::model::FirstProcess;

/// Containers that are remembered; the oldest go first.
const MAX_STRANGERS: usize = 1024;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    /// With when each was told, counted.
    by_id: HashMap<Arc<str>, (FirstProcess, u64)>,
    told: u64,
}

impl Strangers {
    /// The first process of the container.
    pub(super) fn get(&self, id: &str) -> Option<FirstProcess> {
        self.by_id.get(id).map(|(first, _)| *first)
    }

    pub(super) fn insert(&mut self, id: &str, first: FirstProcess) {
        if self.by_id.len() >= MAX_STRANGERS && !self.by_id.contains_key(id) {
            let oldest = self.by_id.iter().min_by_key(|(_, (_, told))| *told).map(|(id, _)| Arc::clone(id));
            if let Some(oldest) = oldest {
                self.by_id.remove(&oldest);
            }
        }
        self.told += 1;
        self.by_id.insert(id.into(), (first, self.told));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_remembered_and_no_more_than_there_is_room_for() {
        let mut strangers = Strangers::default();
        let first = |pid| FirstProcess { pid, start_time_ns: None };
        for pid in 0..2000 {
            strangers.insert(&pid.to_string(), first(pid));
        }
        assert_eq!(strangers.by_id.len(), MAX_STRANGERS);
        assert_eq!((strangers.get("1999"), strangers.get("0")), (Some(first(1999)), None));
    }
}
