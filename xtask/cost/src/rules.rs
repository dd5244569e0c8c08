//! What it costs the agent to ask the built-in rules what an event means: `rules WHAT TIME`.

use std::hint::black_box;

use anyhow::Result;
use detector::finding::{
    event::Kind,
    rules::{Facts, RuleSet},
};
use rustix::time::ClockId;

use super::now;

/// Of one figure.
const TIMES: u32 = 500;
/// As long as a path can be that a record holds.
const LONG: usize = 4096;

/// Compiles them, and asks about a path as applications have it, and about a long one.
pub fn run() -> Result<()> {
    let before = now(ClockId::ThreadCPUTime);
    let rules = RuleSet::load(None)?;
    println!("rules compiled {}", (now(ClockId::ThreadCPUTime) - before).as_nanos());
    let short = "/var/log/nginx/error.log";
    let long = "/var/log/nginx".repeat(LONG / "/var/log/nginx".len());
    for path in [short, &long] {
        let facts = Facts {
            operation: Some("open"),
            paths: [Some(path.as_bytes()), None],
            in_container: true,
            ..Facts::nothing(Kind::WriteDenied)
        };
        // The first fills what the automata keep.
        black_box(rules.explain(&facts));
        let before = now(ClockId::ThreadCPUTime);
        for _ in 0..TIMES {
            black_box(rules.explain(black_box(&facts)));
        }
        let took = now(ClockId::ThreadCPUTime) - before;
        println!("rules asked_for_{}_bytes {}", path.len(), took.as_nanos() / u128::from(TIMES));
    }
    Ok(())
}
