//! The report for a person.

use std::io::{self, Write};

use super::check::{Check, Report, Status};
use crate::{
    cli::terminal::{Cell, Output, Style},
    kernel::serving::Serving,
};

const NAME_WIDTH: usize = 12;
const STATUS_WIDTH: usize = 8;
const OPERATION_WIDTH: usize = 13;

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
    if !report.serving.is_empty() {
        wide_row(output, &heading("OPERATION"), &heading("SEEN BY"))?;
        for (operation, points) in by_operation(&report.serving) {
            wide_row(output, &Cell::new(Style::Plain, operation), &Cell::new(Style::Plain, &points))?;
        }
        output.blank()?;
    }
    output.paragraph(&Cell::new(style(report.status()), conclusion))
}

fn row<W: Write>(output: &mut Output<W>, name: &Cell, status: &Cell, found: &Cell) -> io::Result<()> {
    let found_width = output.width() - NAME_WIDTH - STATUS_WIDTH - 2 * 2;
    output.row(&[(name, NAME_WIDTH), (status, STATUS_WIDTH), (found, found_width)])
}

fn wide_row<W: Write>(output: &mut Output<W>, name: &Cell, points: &Cell) -> io::Result<()> {
    let points_width = output.width() - OPERATION_WIDTH - 2;
    output.row(&[(name, OPERATION_WIDTH), (points, points_width)])
}

/// In the order in which the names came.
type ByName<T> = Vec<(&'static str, T)>;

/// Each operation with what serves it: `fexit at do_mkdirat; tracepoint at sys_exit`.
fn by_operation(serving: &[Serving]) -> Vec<(&'static str, String)> {
    let mut all: ByName<ByName<Vec<&'static str>>> = Vec::new();
    for &Serving { surface: _, operation, hook, point } in serving {
        let hooks = entry(&mut all, operation);
        let points = entry(hooks, hook);
        if !points.contains(&point) {
            points.push(point);
        }
    }
    let told = |(hook, points): (_, Vec<_>)| format!("{hook} at {}", points.join(", "));
    all.into_iter()
        .map(|(operation, hooks)| (operation, hooks.into_iter().map(told).collect::<Vec<_>>().join("; ")))
        .collect()
}

/// What stands at `key`, which is added where it is new.
fn entry<'a, T: Default>(list: &'a mut ByName<T>, key: &'static str) -> &'a mut T {
    let at = list.iter().position(|(of, _)| *of == key).unwrap_or_else(|| {
        list.push((key, T::default()));
        list.len() - 1
    });
    &mut list[at].1
}

const fn style(status: Status) -> Style {
    match status {
        Status::Ok => Style::Green,
        Status::Degraded => Style::Yellow,
        Status::Missing => Style::Red,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_told_once_with_all_that_serves_it() {
        let row = |surface, operation, hook, point| Serving { surface, operation, hook, point };
        let serving = [
            row("writes_x86_64", "mkdir", "fexit", "do_mkdirat"),
            row("writes_ia32", "mkdir", "fexit", "do_mkdirat"),
            row("writes_x86_64", "setxattr", "fexit", "path_setxattr"),
            row("writes_io_uring", "setxattr", "tracepoint", "io_uring_complete"),
        ];
        let expected = [
            ("mkdir", "fexit at do_mkdirat".to_owned()),
            ("setxattr", "fexit at path_setxattr; tracepoint at io_uring_complete".to_owned()),
        ];
        assert_eq!(by_operation(&serving), expected);
    }
}
