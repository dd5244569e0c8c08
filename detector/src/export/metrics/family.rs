//! Metric families whose samples are asked for at each scrape, rather than kept.

use std::collections::HashMap;

use prometheus::{
    core::{Collector, Desc},
    proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType},
};

/// One sample: the values of the labels, in the family's order, and its own.
pub type Sample = (Vec<String>, f64);

/// What answers for the samples at a scrape.
pub type Ask = Box<dyn Fn() -> Vec<Sample> + Send + Sync>;

/// What answers for the samples of several families at once: a list for each, in their order.
pub type AskAll = Box<dyn Fn() -> Vec<Vec<Sample>> + Send + Sync>;

/// A family of counters or gauges.
pub struct Family {
    shape: Shape,
    ask: Ask,
}

/// Gauges of which one look tells all.
pub struct Gauges {
    shapes: Vec<Shape>,
    ask: AskAll,
}

/// A family without its samples.
struct Shape {
    desc: Desc,
    of_type: MetricType,
}

impl Family {
    /// A family of counters.
    ///
    /// # Errors
    /// Where the name or a label is not one that Prometheus takes.
    pub fn counter(name: &str, help: &str, labels: &[&str], ask: Ask) -> prometheus::Result<Self> {
        Ok(Self { shape: Shape::new(name, help, labels, MetricType::COUNTER)?, ask })
    }

    /// A family of gauges.
    ///
    /// # Errors
    /// Where the name or a label is not one that Prometheus takes.
    pub fn gauge(name: &str, help: &str, labels: &[&str], ask: Ask) -> prometheus::Result<Self> {
        Ok(Self { shape: Shape::new(name, help, labels, MetricType::GAUGE)?, ask })
    }
}

impl Gauges {
    /// By name, help and labels.
    ///
    /// # Errors
    /// Where a name or a label is not one that Prometheus takes.
    pub fn new(families: &[(&str, &str, &[&str])], ask: AskAll) -> prometheus::Result<Self> {
        let shapes = families.iter().map(|(name, help, labels)| Shape::new(name, help, labels, MetricType::GAUGE));
        Ok(Self { shapes: shapes.collect::<Result<_, _>>()?, ask })
    }
}

impl Shape {
    fn new(name: &str, help: &str, labels: &[&str], of_type: MetricType) -> prometheus::Result<Self> {
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        Ok(Self { desc: Desc::new(name.to_owned(), help.to_owned(), labels, HashMap::new())?, of_type })
    }

    fn family(&self, samples: Vec<Sample>) -> MetricFamily {
        let mut family = MetricFamily::default();
        family.set_name(self.desc.fq_name.clone());
        family.set_help(self.desc.help.clone());
        family.set_field_type(self.of_type);
        family.set_metric(samples.into_iter().map(|sample| self.metric(sample)).collect());
        family
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
        vec![&self.shape.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        vec![self.shape.family((self.ask)())]
    }
}

impl Collector for Gauges {
    fn desc(&self) -> Vec<&Desc> {
        self.shapes.iter().map(|shape| &shape.desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.shapes.iter().zip((self.ask)()).map(|(shape, samples)| shape.family(samples)).collect()
    }
}
