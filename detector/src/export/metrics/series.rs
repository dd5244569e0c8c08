//! Counters by pod whose number has a limit and whose dead go after a while.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::family::Sample;
use crate::identity::model::Container;

/// The value of `namespace`, `pod` and `container` of the series that takes what finds no room of its own.
pub const OVERFLOW: &str = "_overflow";

/// How long the series of a container stay after it has gone, so that the last scrapes still see their end.
pub const LINGER: Duration = Duration::from_secs(600);

/// Bytes of a label's value, at most; Kubernetes' names are no longer.
const LABEL_MAX: usize = 253;

/// Whose series: the labels `namespace`, `pod` and `container`, empty where there is none.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Owner {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// Name of the container, its id where it has none.
    pub container: String,
}

impl Owner {
    /// The labels of a container; all empty where it is not known.
    pub fn of(container: Option<&Container>) -> Self {
        let Some(container) = container else { return Self::default() };
        let pod = container.pod.as_deref();
        Self {
            namespace: bounded(pod.map_or("", |pod| &pod.namespace)),
            pod: bounded(pod.map_or("", |pod| &pod.name)),
            container: bounded(container.name.as_deref().unwrap_or(&container.id)),
        }
    }

    fn overflow() -> Self {
        Self { namespace: OVERFLOW.to_owned(), pod: OVERFLOW.to_owned(), container: OVERFLOW.to_owned() }
    }

    /// The values of the three labels.
    pub fn labels(&self) -> [String; 3] {
        [self.namespace.clone(), self.pod.clone(), self.container.clone()]
    }

    /// Whether no container stands behind it, so that none can go.
    fn is_nobody(&self) -> bool {
        *self == Self::default() || *self == Self::overflow()
    }
}

/// A value of a label, no longer than Kubernetes' names.
pub(super) fn bounded(value: &str) -> String {
    value[..value.floor_char_boundary(LABEL_MAX)].to_owned()
}

/// Values of the labels after the owner's: names of operations and the like, of which there are few.
type Rest = Vec<&'static str>;

/// Counters by owner and some further labels.
#[derive(Debug)]
pub struct PodCounters {
    limit: usize,
    series: Mutex<Series>,
}

#[derive(Debug, Default)]
struct Series {
    counts: HashMap<(Owner, Rest), u64>,
    gone_since: HashMap<Owner, Instant>,
}

impl PodCounters {
    /// Without series, and with room for so many.
    pub fn new(limit: usize) -> Self {
        Self { limit, series: Mutex::default() }
    }

    /// Counts `by` more.
    pub fn add(&self, owner: Owner, rest: Rest, by: u64) {
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let full = series.counts.len() >= self.limit;
        let key = (owner, rest);
        if let Some(count) = series.counts.get_mut(&key) {
            *count = count.saturating_add(by);
            return;
        }
        let key = if full { (Owner::overflow(), key.1) } else { key };
        let count = series.counts.entry(key).or_default();
        *count = count.saturating_add(by);
    }

    /// Drops the series of owners that have been gone for [`LINGER`]; `live` are those that are there.
    pub fn sweep(&self, live: &HashSet<Owner>, now: Instant) {
        let series = &mut *self.series.lock().unwrap_or_else(PoisonError::into_inner);
        for (owner, _) in series.counts.keys() {
            if !owner.is_nobody() && !live.contains(owner) {
                series.gone_since.entry(owner.clone()).or_insert(now);
            }
        }
        series.gone_since.retain(|owner, _| !live.contains(owner));
        let expired = |since: &Instant| now.saturating_duration_since(*since) >= LINGER;
        series.counts.retain(|(owner, _), _| !series.gone_since.get(owner).is_some_and(expired));
        series.gone_since.retain(|_, since| !expired(since));
    }

    /// The samples for a scrape.
    pub fn samples(&self) -> Vec<Sample> {
        self.samples_with([])
    }

    /// The samples for a scrape, with counts that are not added yet to series that are there.
    pub fn samples_with(&self, more: impl IntoIterator<Item = ((Owner, Rest), u64)>) -> Vec<Sample> {
        let series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let mut added: HashMap<(Owner, Rest), u64> = HashMap::new();
        for (key, count) in more {
            let key = if series.counts.contains_key(&key) { key } else { (Owner::overflow(), key.1) };
            *added.entry(key).or_default() += count;
        }
        let sample = |(key, count): (&(Owner, Rest), &u64)| {
            let (owner, rest) = key;
            let rest = rest.iter().map(|value| (*value).to_owned());
            let count = count.saturating_add(added.get(key).copied().unwrap_or_default());
            (owner.labels().into_iter().chain(rest).collect(), count as f64)
        };
        series.counts.iter().map(sample).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::testing::sealed;

    fn owner(pod: &str) -> Owner {
        Owner { namespace: "prod".to_owned(), pod: pod.to_owned(), container: "app".to_owned() }
    }

    fn count(counters: &PodCounters, pod: &str) -> Option<f64> {
        let of_pod = |(labels, value): Sample| (labels[1] == pod).then_some(value);
        counters.samples().into_iter().find_map(of_pod)
    }

    #[test]
    fn a_container_is_told_by_its_pod_and_one_without_a_name_by_its_id() {
        assert_eq!(Owner::of(Some(&sealed())).labels(), ["prod", "web-abc12-x", "app"]);
        let plain = Container { name: None, pod: None, ..(*sealed()).clone() };
        assert_eq!(Owner::of(Some(&plain)).labels(), ["", "", &"c".repeat(64)]);
        assert_eq!(Owner::of(None).labels(), ["", "", ""]);
    }

    #[test]
    fn a_label_has_a_length() {
        let long = Container { name: Some("ü".repeat(1000)), ..(*sealed()).clone() };
        assert_eq!(Owner::of(Some(&long)).container.len(), 252);
    }

    #[test]
    fn what_finds_no_room_is_counted_in_the_overflow() {
        let counters = PodCounters::new(2);
        for pod in ["a", "b", "c", "d", "a"] {
            counters.add(owner(pod), vec!["open"], 1);
        }
        assert_eq!(count(&counters, "a"), Some(2.0));
        assert_eq!(count(&counters, "c"), None);
        assert_eq!(count(&counters, OVERFLOW), Some(2.0));
    }

    #[test]
    fn the_series_of_a_pod_stay_a_while_after_it_and_then_go() {
        let counters = PodCounters::new(10);
        counters.add(owner("a"), vec![], 1);
        counters.add(owner("b"), vec![], 1);
        counters.add(Owner::default(), vec![], 1);
        let start = Instant::now();
        let live = HashSet::from([owner("b")]);
        counters.sweep(&live, start);
        counters.sweep(&live, start + LINGER / 2);
        assert_eq!(count(&counters, "a"), Some(1.0));
        counters.sweep(&live, start + LINGER);
        assert_eq!(count(&counters, "a"), None);
        assert_eq!(count(&counters, "b"), Some(1.0));
        assert_eq!(count(&counters, ""), Some(1.0), "what nobody owns stays");
    }

    #[test]
    fn a_pod_that_is_called_as_the_overflow_goes_like_any_other() {
        let counters = PodCounters::new(1);
        counters.add(owner(OVERFLOW), vec![], 1);
        counters.add(owner("without room"), vec![], 1);
        let start = Instant::now();
        counters.sweep(&HashSet::new(), start);
        counters.sweep(&HashSet::new(), start + LINGER);
        let owners: Vec<_> = counters.samples().into_iter().map(|(labels, _)| labels).collect();
        assert_eq!(owners, [[OVERFLOW; 3].map(str::to_owned)]);
    }

    #[test]
    fn a_pod_that_comes_back_keeps_its_series() {
        let counters = PodCounters::new(10);
        counters.add(owner("a"), vec![], 1);
        let start = Instant::now();
        counters.sweep(&HashSet::new(), start);
        counters.sweep(&HashSet::from([owner("a")]), start + LINGER / 2);
        counters.sweep(&HashSet::new(), start + LINGER);
        assert_eq!(count(&counters, "a"), Some(1.0));
    }
}
