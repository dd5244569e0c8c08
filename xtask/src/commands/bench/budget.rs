//! What rosentry may cost: the limits that `cargo xtask bench cost` holds every measurement against.

use super::report::{NOTHING, Report};

/// The most that an operation may cost more than with nothing attached.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Limit {
    Instructions(f64),
    /// Of what it costs with nothing attached.
    Percent(f64),
}

/// A limit for one operation with one kind of hooks.
struct Budget {
    hooks: &'static str,
    operation: &'static str,
    limit: Limit,
}

const fn budget(hooks: &'static str, operation: &'static str, limit: Limit) -> Budget {
    Budget { hooks, operation, limit }
}

/// Unrelated calls, reading files, the first refused open of a path, and its repeats.
const BUDGETS: &[Budget] = &[
    budget("tracepoint", "getppid", Limit::Instructions(150.0)),
    budget("tracepoint", "write_writable", Limit::Instructions(150.0)),
    budget("tracepoint", "open_refused_new_path", Limit::Instructions(8_000.0)),
    budget("tracepoint", "open_refused_again", Limit::Instructions(700.0)),
    budget("fexit", "getppid", Limit::Instructions(2.0)),
    budget("fexit", "write_writable", Limit::Instructions(2.0)),
    budget("fexit", "open_close_readable", Limit::Percent(2.0)),
    budget("fexit", "open_refused_new_path", Limit::Instructions(8_000.0)),
    budget("fexit", "open_refused_again", Limit::Instructions(700.0)),
];

/// From start to armed, million instructions: three seconds of an emulated processor, which does one a nanosecond.
const ARMED: f64 = 3_000.0;
/// For the same processor, to stop.
const DETACHED: f64 = 2_000.0;

/// One limit, and what was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// What the limit is for, in words.
    pub of: String,
    /// The limit, with its unit.
    pub limit: String,
    /// What was measured, with its unit; none where it was not.
    pub measured: Option<String>,
    /// Whether it was measured and is within the limit.
    pub held: bool,
}

/// Holds what was measured against every limit.
pub fn judge(report: &Report) -> Vec<Verdict> {
    let costs = BUDGETS.iter().map(|budget| {
        let of = format!("{}, {}", budget.operation.replace('_', " "), budget.hooks);
        let base = report.alone(NOTHING, budget.operation);
        let measured = base.zip(report.alone(budget.hooks, budget.operation));
        match budget.limit {
            Limit::Instructions(most) => {
                verdict(of, measured.map(|(base, with)| with - base), most, |value| format!("{value:+.0} instructions"))
            }
            Limit::Percent(most) => {
                let more = measured.map(|(base, with)| (with - base) / base * 100.0);
                verdict(of, more, most, |value| format!("{value:+.2} %"))
            }
        }
    });
    let times = ["tracepoint", "fexit"].into_iter().flat_map(|hooks| {
        let took = |times: &[(String, f64)]| times.iter().find(|(of, _)| of == hooks).map(|&(_, took)| took);
        let text = |value: f64| format!("{value:.0} million instructions");
        [
            verdict(format!("from start to armed, {hooks}"), took(&report.armed), ARMED, text),
            verdict(format!("to stop, {hooks}"), took(&report.detached), DETACHED, text),
        ]
    });
    costs.chain(times).collect()
}

fn verdict(of: String, measured: Option<f64>, most: f64, text: impl Fn(f64) -> String) -> Verdict {
    let held = measured.is_some_and(|measured| measured <= most);
    Verdict { of, limit: text(most), measured: measured.map(text), held }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::machine::Line;

    fn report(lines: &[&str]) -> Report {
        let mut report = Report::default();
        for line in lines {
            report.take(Line::Other(line));
        }
        report
    }

    fn of<'a>(verdicts: &'a [Verdict], of: &str) -> &'a Verdict {
        verdicts.iter().find(|verdict| verdict.of == of).unwrap()
    }

    #[test]
    fn a_cost_within_its_limit_is_held_and_one_beyond_is_not() {
        let verdicts = judge(&report(&[
            "cost nothing getppid 300.0 300.0",
            "cost fexit getppid 302.0 302.0",
            "cost tracepoint getppid 450.5 450.5",
        ]));
        assert!(of(&verdicts, "getppid, fexit").held);
        let beyond = of(&verdicts, "getppid, tracepoint");
        assert!(!beyond.held, "{beyond:?}");
        assert_eq!(beyond.measured.as_deref(), Some("+150 instructions"));
    }

    #[test]
    fn a_share_is_that_of_the_cost_with_nothing_attached() {
        let lines =
            ["cost nothing open_close_readable 10000.0 10000.0", "cost fexit open_close_readable 10200.0 10200.0"];
        let share = judge(&report(&lines));
        let share = of(&share, "open close readable, fexit");
        assert_eq!((share.held, share.measured.as_deref()), (true, Some("+2.00 %")));
    }

    #[test]
    fn what_was_not_measured_is_not_held() {
        let verdicts = judge(&report(&["armed fexit 1500.0"]));
        assert!(of(&verdicts, "from start to armed, fexit").held);
        assert!(verdicts.iter().filter(|verdict| verdict.measured.is_none()).all(|verdict| !verdict.held));
        assert!(!of(&verdicts, "to stop, fexit").held);
    }
}
