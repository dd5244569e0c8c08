//! Whether the kernel takes the programs: they are loaded and attached as the agent would, and detached at once.

use std::time::Instant;

use super::check::{Check, Coverage};
use crate::kernel::{Sensor, plan, serving::Serving};

/// What came of it.
pub(super) struct Hooks {
    pub check: Check,
    pub coverage: Coverage,
    pub serving: Vec<Serving>,
}

/// Must be called within a tokio runtime.
pub(super) fn examine() -> Hooks {
    let start = Instant::now();
    match Sensor::attach(plan::Hooks::Auto) {
        Ok((sensor, _stream, _counters)) => {
            let loaded = start.elapsed();
            let programs = sensor.verified().len();
            let instructions: Option<u32> = sensor.verified().iter().map(|verified| verified.instructions).sum();
            let instructions = instructions.map(|count| format!(", {count} instructions verified")).unwrap_or_default();
            let coverage: Coverage = sensor.coverage().iter().copied().collect();
            let serving = sensor.serving().to_vec();
            let mode = sensor.mode();
            let start = Instant::now();
            drop(sensor);
            let limit = if coverage.get(plan::KERNEL_PATHS) == Some(&true) { "" } else { RACING };
            let found = format!(
                "{}: {programs} programs loaded and attached in {} ms{instructions}, detached in {} ms{limit}",
                mode,
                loaded.as_millis(),
                start.elapsed().as_millis()
            );
            Hooks { check: Check::ok("hooks", found), coverage, serving }
        }
        Err(error) => {
            let coverage = plan::surfaces().map(|surface| (surface, false)).collect();
            let mend = "mend what is missing above; where nothing is, report this with the kernel's version";
            Hooks { check: Check::missing("hooks", error.to_string(), mend), coverage, serving: Vec::new() }
        }
    }
}

/// What the tracepoints can't know.
const RACING: &str = "; paths are read after the call, so a program that rewrites one meanwhile has the other told";
