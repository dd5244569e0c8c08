//! How many events there were when: counts by severity in equal spans, which widen as the record grows.

use serde::{Serialize, Serializer, ser::SerializeStruct as _};

use crate::{finding::event::Severity, report::event::Time};

/// Spans at most.
const SPANS_MAX: usize = 512;

/// Counts of each severity, by span.
#[derive(Clone, Debug, Default)]
pub struct Density {
    /// Seconds since the Unix epoch, a multiple of `width_s`.
    begin_s: i64,
    width_s: i64,
    spans: Vec<[u64; Severity::ALL.len()]>,
}

impl Density {
    /// Counts so many at a time.
    pub fn add(&mut self, time: Time, severity: Severity, count: u64) {
        let second = time.0.as_second();
        if self.spans.is_empty() {
            self.width_s = 1;
            self.begin_s = second;
            self.spans.push(Default::default());
        }
        loop {
            let at = (second - self.begin_s).div_euclid(self.width_s);
            let last = self.spans.len() as i64 - 1;
            if at.max(last) - at.min(0) >= SPANS_MAX as i64 {
                self.widen();
                continue;
            }
            if at < 0 {
                self.spans.splice(0..0, std::iter::repeat_n(Default::default(), at.unsigned_abs() as usize));
                self.begin_s += at * self.width_s;
                continue;
            }
            let at = at as usize;
            if at >= self.spans.len() {
                self.spans.resize(at + 1, Default::default());
            }
            let place = &mut self.spans[at][severity as usize];
            *place = place.saturating_add(count);
            return;
        }
    }

    /// Doubles the spans.
    fn widen(&mut self) {
        let wider = self.width_s * 2;
        let odd = self.begin_s.rem_euclid(wider) != 0;
        self.begin_s -= if odd { self.width_s } else { 0 };
        let skipped = odd.then(Default::default);
        let all: Vec<_> = skipped.into_iter().chain(self.spans.drain(..)).collect();
        self.spans = all
            .chunks(2)
            .map(|pair| {
                let mut sum: [u64; Severity::ALL.len()] = pair[0];
                for (place, more) in sum.iter_mut().zip(pair.get(1).into_iter().flatten()) {
                    *place = place.saturating_add(*more);
                }
                sum
            })
            .collect();
        self.width_s = wider;
    }
}

impl Serialize for Density {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { begin_s, width_s, spans } = self;
        let mut object = serializer.serialize_struct("Density", 3)?;
        object.serialize_field("begin_unix_s", begin_s)?;
        object.serialize_field("span_s", width_s)?;
        object.serialize_field("counts", spans)?;
        object.end()
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> Time {
        Time(Timestamp::from_second(second).unwrap())
    }

    #[test]
    fn what_is_close_in_time_is_counted_together_and_by_severity() {
        let mut density = Density::default();
        for (second, severity) in
            [(100, Severity::Low), (100, Severity::High), (102, Severity::Low), (99, Severity::Low)]
        {
            density.add(at(second), severity, 2);
        }
        assert_eq!((density.begin_s, density.width_s), (99, 1));
        assert_eq!(density.spans, [[0, 2, 0, 0, 0], [0, 2, 0, 2, 0], [0; 5], [0, 2, 0, 0, 0]]);
    }

    proptest! {
        #[test]
        fn every_event_is_counted_once_in_the_span_of_its_time_and_spans_are_bounded(
            seconds in proptest::collection::vec(prop_oneof![0_i64..2000, -377705000000_i64..253402000000], 1..200)
        ) {
            let mut density = Density::default();
            for second in &seconds {
                density.add(at(*second), Severity::Low, 1);
            }
            prop_assert!(density.spans.len() <= SPANS_MAX);
            let counted: u64 = density.spans.iter().flatten().sum();
            prop_assert_eq!(counted, seconds.len() as u64);
            for (number, span) in density.spans.iter().enumerate() {
                let begin = density.begin_s + number as i64 * density.width_s;
                let within = seconds.iter().filter(|second| (begin..begin + density.width_s).contains(second)).count();
                prop_assert_eq!(span[1], within as u64);
            }
        }
    }
}
