//! The demo for a person: each call beside what the kernel answered and what rosentry saw.

use std::{
    io::{self, Write},
    time::Duration,
};

use super::{
    attempts::{Call, Wanted},
    witness::{Answer, effect_of, shown_path},
};
use crate::{
    cli::terminal::{Cell, Output, Style},
    export::escape::escape,
    finding::{
        Event,
        errno::Errno,
        event::{Effect, Kind, Mount},
    },
};

/// The longest answer is an errno of nine letters.
const KERNEL_WIDTH: usize = 9;
/// Of a line, what the attempts get.
const ATTEMPT_SHARE: usize = 36;

/// How many calls were answered in which way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    /// Seen, as they should be.
    pub right: usize,
    /// Not seen, as they should be.
    pub nothing: usize,
    /// Of calls that this kernel does not have.
    pub absent: usize,
}

/// The table, on its way out.
pub(super) struct Table<'a, W> {
    output: &'a mut Output<W>,
    attempt_width: usize,
    seen_width: usize,
}

impl<'a, W: Write> Table<'a, W> {
    pub fn new(output: &'a mut Output<W>) -> Self {
        let attempt_width = output.width() * ATTEMPT_SHARE / 100;
        let seen_width = output.width() - attempt_width - KERNEL_WIDTH - 2 * 2;
        Self { output, attempt_width, seen_width }
    }

    pub fn head(&mut self, hooks: &str, kernel: &str) -> io::Result<()> {
        let text = format!(
            "A root filesystem is sealed read-only, in a mount namespace and a cgroup of its own. rosentry watches by its \
             {hooks} hooks on kernel {kernel}."
        );
        self.output.paragraph(&Cell::new(Style::Plain, &text))?;
        self.output.blank()?;
        let heading = |text| Cell::new(Style::Bold, text);
        self.line(&heading("ATTEMPT"), &heading("KERNEL"), &heading("ROSENTRY SAW"))
    }

    pub fn call(&mut self, call: &Call, result: i64, answer: &Answer) -> io::Result<()> {
        let told = match Errno::of_result(result) {
            None => {
                Cell::new(if matches!(call.wanted, Wanted::Mount(..)) { Style::Yellow } else { Style::Plain }, "done")
            }
            Some(errno) => Cell::new(Style::Plain, &errno.name()),
        };
        let seen = match answer {
            Answer::Right(event) => told_of(event),
            Answer::Nothing => Cell::new(Style::Dim, "nothing, rightly"),
            Answer::Wrong(None, how) => Cell::new(Style::Red, how),
            Answer::Wrong(Some(event), how) => Cell::new(Style::Red, &format!("{how}:")).join(told_of(event)),
        };
        self.line(&Cell::new(Style::Plain, call.tells), &told, &seen)
    }

    pub fn absent(&mut self, call: &Call) -> io::Result<()> {
        let seen = Cell::new(Style::Dim, "left out: this kernel does not have it");
        self.line(&Cell::new(Style::Dim, call.tells), &Cell::new(Style::Dim, "-"), &seen)
    }

    pub fn unasked(&mut self, event: &Event) -> io::Result<()> {
        let seen = Cell::new(Style::Red, "without an attempt:").join(told_of(event));
        self.line(&Cell::default(), &Cell::default(), &seen)
    }

    pub fn foot(&mut self, tally: Tally, faults: usize, took: Duration) -> io::Result<()> {
        let Tally { right, nothing, absent } = tally;
        let asked = right + faults;
        let style = if faults == 0 { Style::Green } else { Style::Red };
        let mut text = format!(" {right} of {asked} attempts, each once;");
        text.push_str(&format!(" {nothing} others, that the seal does not refuse, made no event."));
        if absent > 0 {
            text.push_str(&format!(" {absent} left out."));
        }
        text.push_str(&format!(" It took {:.1} s.", took.as_secs_f32()));
        self.output.blank()?;
        self.output.paragraph(&Cell::new(style, "seen").and(Style::Plain, &text))
    }

    fn line(&mut self, attempt: &Cell, kernel: &Cell, seen: &Cell) -> io::Result<()> {
        self.output.row(&[(attempt, self.attempt_width), (kernel, KERNEL_WIDTH), (seen, self.seen_width)])
    }
}

/// Kind, operation, path, flags, effect, process.
fn told_of(event: &Event) -> Cell {
    let kind = if event.kind == Kind::WriteDenied { Style::Cyan } else { Style::Yellow };
    let mut cell = Cell::new(kind, event.kind.name());
    if let Some(operation) = event.operation {
        cell = cell.and(Style::Plain, operation.name());
    }
    if let Some(path) = shown_path(event) {
        cell = cell.and(Style::Bold, &path);
    }
    if let Some(effect) = effect_of(event).filter(|effect| *effect != Effect::None) {
        let style = if effect == Effect::Unseal { Style::Red } else { Style::Yellow };
        cell = cell.and(style, effect.name());
    }
    let flags = match (&event.file, &event.mount) {
        (Some(file), _) => file.flags.as_slice(),
        (None, Some(Mount::Attempt(mount))) => mount.flags.as_slice(),
        _ => &[],
    };
    cell = cell.and(Style::Dim, &flags.join(" "));
    match &event.process {
        Some(process) => {
            let by = format!("by {}[{}]", escape(&process.comm), process.pid);
            cell.unbroken(Style::Plain, &by)
        }
        None => cell,
    }
}
