//! A metric family whose samples are asked for at each scrape, rather than kept.

use std::collections::HashMap;

use prometheus::{
    core::{Collector, Desc},
    proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType},
};

/// One sample: the values of the labels, in the family's order, and its own.
pub type Sample = (Vec<String>, f64);

/// What answers for the samples at a scrape.
pub type Ask = Box<dyn Fn() -> Vec<Sample> + Send + Sync>;

/// A family of counters or gauges.
pub struct Family {
    desc: Desc,
    of_type: MetricType,
    ask: Ask,
}

impl Family {
    /// A family of counters.
    ///
    /// # Errors
    /// Where the name or a label is not one that Prometheus takes.
    pub fn counter(name: &str, help: &str, labels: &[&str], ask: Ask) -> prometheus::Result<Self> {
        Self::new(name, help, labels, MetricType::COUNTER, ask)
    }

    /// A family of gauges.
    ///
    /// # Errors
    /// Where the name or a label is not one that Prometheus takes.
    pub fn gauge(name: &str, help: &str, labels: &[&str], ask: Ask) -> prometheus::Result<Self> {
        Self::new(name, help, labels, MetricType::GAUGE, ask)
    }

    fn new(name: &str, help: &str, labels: &[&str], of_type: MetricType, ask: Ask) -> prometheus::Result<Self> {
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        Ok(Self { desc: Desc::new(name.to_owned(), help.to_owned(), labels, HashMap::new())?, of_type, ask })
    }

    fn metric(&self, (values, value): Sample) -> Metric {
        let pair = |(name, value): (&String, String)| {
            let mut pair = LabelPair::default();
            pair.set_name(name.clone());
            pair.set_value(value);
            pair
        };
        let mut metric = Metric::from_label(self.desc.variable_labels.iter().zip(values).map(pair).collect());
        if self.of_type == MetricType::COUNTER {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        metric
    }
}

impl Collector for Family {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut family = MetricFamily::default();
        family.set_name(self.desc.fq_name.clone());
        family.set_help(self.desc.help.clone());
        family.set_field_type(self.of_type);
        family.set_metric((self.ask)().into_iter().map(|sample| self.metric(sample)).collect());
        vec![family]
    }
}
