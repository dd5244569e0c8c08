//! What is claimed, what was measured, and whether that is the same: a line each.

use std::{fmt::Display, time::Duration};

/// The claims of one run.
#[derive(Debug, Default)]
pub struct Claims {
    broken: usize,
}

impl Claims {
    /// Prints a figure that nothing is claimed of.
    pub fn note(&self, what: &str, measured: impl Display) {
        println!("      {what}: {measured}");
    }

    /// Prints a claim with what was measured.
    pub fn check(&mut self, what: &str, measured: impl Display, held: bool) {
        self.broken += usize::from(!held);
        println!("{} {what}: {measured}", if held { "held " } else { "BROKE" });
    }

    /// Whether all were held.
    pub fn are_held(&self) -> bool {
        println!("{}", if self.broken == 0 { "all claims are held" } else { "a claim is broken" });
        self.broken == 0
    }
}

/// The value that so many hundredths of them don't exceed. Sorts them.
pub fn quantile(values: &mut [Duration], hundredths: usize) -> Duration {
    values.sort_unstable();
    let at = (values.len() * hundredths).div_ceil(100).max(1) - 1;
    values.get(at).copied().unwrap_or_default()
}

/// Half, 99 of a hundred, and the worst, in milliseconds.
pub fn spread(values: &mut [Duration]) -> String {
    let [half, most, worst] = [50, 99, 100].map(|hundredths| quantile(values, hundredths).as_secs_f64() * 1e3);
    format!("p50 {half:.2} ms, p99 {most:.2} ms, worst {worst:.2} ms, of {}", values.len())
}

/// In MiB.
pub fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
