//! The report for a person.

use std::io::{self, Write};

use super::check::{Check, Report, Status};
use crate::cli::terminal::{Cell, Output, Style};

const NAME_WIDTH: usize = 12;
const STATUS_WIDTH: usize = 8;

pub(super) fn tell<W: Write>(report: &Report, output: &mut Output<W>) -> io::Result<()> {
    let conclusion = match report.status() {
        Status::Ok => "This node allows all that rosentry does.",
        Status::Degraded => "rosentry runs on this node, with gaps.",
        Status::Missing => "rosentry cannot run on this node.",
    };
    let heading = |text| Cell::new(Style::Bold, text);
    row(output, &heading("CHECK"), &heading("STATUS"), &heading("FOUND"))?;
    for check in &report.checks {
        let Check { name, status, found, mend } = check;
        row(
            output,
            &Cell::new(Style::Plain, name),
            &Cell::new(style(*status), status.name()),
            &Cell::new(Style::Plain, found),
        )?;
        if let Some(mend) = mend {
            let mend = Cell::new(style(*status), "mend:").and(Style::Plain, mend);
            row(output, &Cell::default(), &Cell::default(), &mend)?;
        }
    }
    output.blank()?;
    let surfaces = |seen: bool| {
        let names: Vec<_> = report.coverage.iter().filter(|(_, is)| **is == seen).map(|(name, _)| *name).collect();
        if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
    };
    output.paragraph(&heading("Seen:").and(Style::Plain, &surfaces(true)))?;
    output.paragraph(&heading("Not seen:").and(Style::Plain, &surfaces(false)))?;
    output.blank()?;
    output.paragraph(&Cell::new(style(report.status()), conclusion))
}

fn row<W: Write>(output: &mut Output<W>, name: &Cell, status: &Cell, found: &Cell) -> io::Result<()> {
    let found_width = output.width() - NAME_WIDTH - STATUS_WIDTH - 2 * 2;
    output.row(&[(name, NAME_WIDTH), (status, STATUS_WIDTH), (found, found_width)])
}

const fn style(status: Status) -> Style {
    match status {
        Status::Ok => Style::Green,
        Status::Degraded => Style::Yellow,
        Status::Missing => Style::Red,
    }
}
