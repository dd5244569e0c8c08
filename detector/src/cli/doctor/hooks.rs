//! Whether the kernel takes the programs: they are loaded and attached as the agent would, and detached at once.

use std::time::Instant;

use super::check::{Check, Coverage};
use crate::kernel::{Sensor, plan};

/// Must be called within a tokio runtime.
pub(super) fn examine() -> (Check, Coverage) {
    let start = Instant::now();
    match Sensor::attach(plan::Hooks::Auto) {
        Ok((sensor, _stream, _counters)) => {
            let loaded = start.elapsed();
            let programs = sensor.verified().len();
            let instructions: Option<u32> = sensor.verified().iter().map(|verified| verified.instructions).sum();
            let instructions = instructions.map(|count| format!(", {count} instructions verified")).unwrap_or_default();
            let coverage = sensor.coverage().iter().copied().collect();
            let mode = sensor.mode();
            let start = Instant::now();
            drop(sensor);
            let found = format!(
                "{}: {programs} programs loaded and attached in {} ms{instructions}, detached in {} ms",
                mode,
                loaded.as_millis(),
                start.elapsed().as_millis()
            );
            (Check::ok("hooks", found), coverage)
        }
        Err(error) => {
            let nothing = plan::surfaces().map(|surface| (surface, false)).collect();
            let mend = "mend what is missing above; where nothing is, report this with the kernel's version";
            (Check::missing("hooks", error.to_string(), mend), nothing)
        }
    }
}
