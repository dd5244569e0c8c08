//! `cargo xtask bench`: what rosentry costs.

use std::{fmt::Write as _, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;

use crate::{
    commands::setup,
    kernel_object,
    requirements::Need,
    vm::{
        initramfs,
        kernel::Series,
        machine::{End, Line, Machine, Time},
        program,
    },
    workspace::Workspace,
};

/// What can be measured.
#[derive(Clone, Debug, Subcommand)]
pub enum Bench {
    /// Instructions per operation, counted by QEMU inside Debian's kernels; the same from run to run to a percent
    Cost {
        /// The kernel to measure in; all of them when it is not given
        #[arg(long = "kernel")]
        kernels: Vec<Series>,
    },
}

/// The package and program that runs inside.
const PROGRAM: &str = "rosentry-cost";

/// One figure takes seconds at most.
const SILENCE: Duration = Duration::from_secs(120);

/// Runs one benchmark and prints a table.
pub fn run(workspace: &Workspace, bench: &Bench) -> Result<ExitCode> {
    let Bench::Cost { kernels } = bench;
    let tools = setup::ensure(workspace, Need::VirtualMachine)?;
    kernel_object::build(workspace, &tools)?;
    let built =
        program::build(workspace, "building what is measured", PROGRAM, &["build", "--release", "--package", PROGRAM])?;
    let program = program::stripped(workspace, &built, PROGRAM)?;
    let initramfs = workspace.target().join("vm/cost.cpio");
    initramfs::write(&initramfs, &initramfs::Contents { program: &program, job: "/program 2>&1\n", words: &[] })?;

    let kernels = if kernels.is_empty() { &[Series::V6_1, Series::V6_12] } else { kernels.as_slice() };
    for &series in kernels {
        let kernel = series.image(workspace)?;
        let mut report = Report::default();
        let machine = Machine { kernel: &kernel, initramfs: &initramfs, time: Time::Instructions, silence: SILENCE };
        match machine.run(|line| report.take(line))? {
            End::Done => println!("{}", report.table()?),
            End::Early(lines) | End::Silent(lines) => {
                bail!("the measurement in Linux {} did not come to its end:\n{}", series.name(), lines.join("\n"))
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What the program inside has said.
#[derive(Debug, Default)]
struct Report {
    kernel: String,
    /// In the order in which they came.
    figures: Vec<Figure>,
    /// Milliseconds of an emulated processor that does a thousand million instructions a second.
    armed: Vec<(String, f64)>,
    /// What it said besides, such as why it stopped.
    other: Vec<String>,
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
    fn take(&mut self, line: Line<'_>) {
        match line {
            Line::Message("kernel", release) => release.clone_into(&mut self.kernel),
            Line::Message(..) => {}
            Line::Other(text) => match text.split_whitespace().collect::<Vec<_>>().as_slice() {
                ["cost", rest @ ..] if let Some(figure) = figure(rest) => self.figures.push(figure),
                ["armed", hooks, milliseconds] => {
                    self.armed.extend(milliseconds.parse().ok().map(|armed| ((*hooks).to_owned(), armed)));
                }
                _ => self.other.push(text.to_owned()),
            },
        }
    }

    /// The figures, with what is attached compared to nothing.
    fn table(&self) -> Result<String> {
        let mut table = format!("Linux {}, instructions per operation\n\n", self.kernel);
        table.push_str("| operation | attached | nothing | with it | more | more, with the reader's work |\n");
        table.push_str("| --- | --- | --- | --- | --- | --- |\n");
        let mut rows = 0;
        for figure in self.figures.iter().filter(|figure| figure.hooks != NOTHING) {
            let Some(base) =
                self.figures.iter().find(|base| base.hooks == NOTHING && base.operation == figure.operation)
            else {
                continue;
            };
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
        if rows == 0 {
            bail!("nothing was measured in Linux {}: {}", self.kernel, self.other.join("\n"));
        }
        for (hooks, armed) in &self.armed {
            write!(table, "\nfrom start to armed, {hooks}: {armed:.0} million instructions")
                .context("a table could not be written")?;
        }
        Ok(table)
    }
}

/// The name of the state to compare with.
const NOTHING: &str = "nothing";

fn figure(words: &[&str]) -> Option<Figure> {
    let [hooks, operation, alone, all] = words else { return None };
    Some(Figure {
        hooks: (*hooks).to_owned(),
        operation: (*operation).to_owned(),
        alone: alone.parse().ok()?,
        all: all.parse().ok()?,
    })
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
        let table = report(&[
            "cost nothing getppid 337.0 338.0",
            "cost tracepoint getppid 449.4 451.0",
            "armed tracepoint 812.6",
        ])
        .table()
        .unwrap();
        assert!(table.contains("| getppid | tracepoint | 337 | 449 | +112 | +113 |"), "{table}");
        assert!(table.contains("armed, tracepoint: 813 million"), "{table}");
    }

    #[test]
    fn a_program_that_measured_nothing_is_an_error_with_what_it_said() {
        let error = report(&["Error: rosentry's programs could not be attached"]).table().unwrap_err().to_string();
        assert!(error.contains("could not be attached"), "{error}");
    }
}
