//! What the program inside has said, and the tables of it.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, bail};

use super::budget;
use crate::vm::machine::Line;

/// The name of the state to compare with.
pub const NOTHING: &str = "nothing";

/// What the program inside has said.
#[derive(Debug, Default)]
pub struct Report {
    kernel: String,
    /// In the order in which they came.
    figures: Vec<Figure>,
    /// Milliseconds of an emulated processor that does a thousand million instructions a second, by the kind of hooks.
    pub armed: Vec<(String, f64)>,
    /// The same, to detach.
    pub detached: Vec<(String, f64)>,
    /// What it said besides, such as why it stopped.
    other: Vec<String>,
    /// Whether it said that it could not go on.
    failed: bool,
}

/// Instructions per operation.
#[derive(Clone, Debug, PartialEq)]
struct Figure {
    hooks: String,
    operation: String,
    /// Of the thread that does it.
    alone: f64,
    /// Of all that ran meanwhile, the reader among it.
    all: f64,
}

impl Report {
    /// Takes a line of the machine's console.
    pub fn take(&mut self, line: Line<'_>) {
        match line {
            Line::Message("kernel", release) => release.clone_into(&mut self.kernel),
            Line::Message(..) => {}
            Line::Other(text) => match text.split_whitespace().collect::<Vec<_>>().as_slice() {
                ["cost", rest @ ..] if let Some(figure) = figure(rest) => self.figures.push(figure),
                ["armed", hooks, milliseconds] => self.armed.extend(time(hooks, milliseconds)),
                ["detached", hooks, milliseconds] => self.detached.extend(time(hooks, milliseconds)),
                words => {
                    self.failed |= words.first() == Some(&"Error:");
                    self.other.push(text.to_owned());
                }
            },
        }
    }

    /// What the operation costs the thread that does it, with these hooks.
    pub fn alone(&self, hooks: &str, operation: &str) -> Option<f64> {
        self.figure(hooks, operation).map(|figure| figure.alone)
    }

    fn figure(&self, hooks: &str, operation: &str) -> Option<&Figure> {
        self.figures.iter().find(|figure| figure.hooks == hooks && figure.operation == operation)
    }

    /// The figures, with what is attached compared to nothing.
    pub fn costs(&self) -> Result<String> {
        let mut table = format!("Linux {}, instructions per operation\n\n", self.kernel);
        table.push_str("| operation | attached | nothing | with it | more | more, with the reader's work |\n");
        table.push_str("| --- | --- | --- | --- | --- | --- |\n");
        let mut rows = 0;
        for figure in self.figures.iter().filter(|figure| figure.hooks != NOTHING) {
            let Some(base) = self.figure(NOTHING, &figure.operation) else { continue };
            let (more, more_of_all) = (figure.alone - base.alone, figure.all - base.all);
            writeln!(
                table,
                "| {} | {} | {:.0} | {:.0} | {more:+.0} | {more_of_all:+.0} |",
                figure.operation.replace('_', " "),
                figure.hooks,
                base.alone,
                figure.alone,
            )
            .context("a table could not be written")?;
            rows += 1;
        }
        if rows == 0 || self.failed {
            bail!("not all was measured in Linux {}: {}", self.kernel, self.other.join("\n"));
        }
        Ok(table)
    }

    /// Every limit with what was measured, and whether all are held.
    pub fn budgets(&self) -> Result<(String, bool)> {
        let mut table = format!("Linux {}, limits\n\n| what | at most | measured | |\n", self.kernel);
        table.push_str("| --- | --- | --- | --- |\n");
        let mut all_held = true;
        for verdict in budget::judge(self) {
            let word = if verdict.held { "held" } else { "BROKEN" };
            let measured = verdict.measured.as_deref().unwrap_or("not measured");
            writeln!(table, "| {} | {} | {measured} | {word} |", verdict.of, verdict.limit)
                .context("a table could not be written")?;
            all_held &= verdict.held;
        }
        Ok((table, all_held))
    }
}

fn figure(words: &[&str]) -> Option<Figure> {
    let [hooks, operation, alone, all] = words else { return None };
    Some(Figure {
        hooks: (*hooks).to_owned(),
        operation: (*operation).to_owned(),
        alone: alone.parse().ok()?,
        all: all.parse().ok()?,
    })
}

fn time(hooks: &str, milliseconds: &str) -> Option<(String, f64)> {
    Some((hooks.to_owned(), milliseconds.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(lines: &[&str]) -> Report {
        let mut report = Report::default();
        report.take(Line::Message("kernel", "6.1.0-1-cloud-amd64"));
        for line in lines {
            report.take(Line::Other(line));
        }
        report
    }

    #[test]
    fn the_table_tells_how_much_more_an_operation_costs_than_with_nothing_attached() {
        let report = report(&[
            "cost nothing getppid 337.0 338.0",
            "cost tracepoint getppid 449.4 451.0",
            "armed tracepoint 812.6",
        ]);
        let costs = report.costs().unwrap();
        assert!(costs.contains("| getppid | tracepoint | 337 | 449 | +112 | +113 |"), "{costs}");
        let (budgets, all_held) = report.budgets().unwrap();
        assert!(
            budgets.contains("| getppid, tracepoint | +150 instructions | +112 instructions | held |"),
            "{budgets}"
        );
        assert!(budgets.contains("| from start to armed, tracepoint | 3000 million instructions | 813"), "{budgets}");
        assert!(!all_held, "most was not measured");
    }

    #[test]
    fn a_program_that_did_not_measure_all_is_an_error_with_what_it_said() {
        let said = ["cost nothing getppid 337.0 338.0", "cost fexit getppid 337.0 338.0"];
        assert!(report(&said).costs().is_ok());
        let error =
            report(&[&said[..], &["Error: it could not be attached"]].concat()).costs().unwrap_err().to_string();
        assert!(error.contains("could not be attached"), "{error}");
        report(&["what else it says"]).costs().unwrap_err();
    }
}
