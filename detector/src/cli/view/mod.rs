//! `rosentry view`: an event stream for a person to read.

mod follow;
mod line;

use std::{
    cell::RefCell,
    io::{self, IsTerminal as _, StdoutLock, Write as _},
    path::PathBuf,
    process::ExitCode,
    rc::Rc,
};

use self::{
    follow::{Followed, Found, Watch},
    line::Layout,
};
use super::{
    select::Select,
    terminal::{columns, complain, takes_colours},
};
use crate::report::{
    event::Event,
    filter::Filter,
    lines::{Input, Line},
};

/// Show an event stream as lines for a person: when, how bad, which pod, what, by whom.
///
/// On a terminal lines have colours (unless NO_COLOR is set) and fit its width; else each event is one line, with its date.
/// Ends with 0; with 1 where lines were no events, which are told on stderr; with 2 where a file can't be read.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Files with events, plain or gzip, one after the other; - is standard input, and so is none.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Go on with what is appended to the files, also when they are rotated; of a pipe, until it ends.
    #[arg(long, short)]
    follow: bool,
    /// Tell what mends it, too.
    #[arg(long)]
    hints: bool,
    #[command(flatten)]
    select: Select,
}

/// Lines that are no events of which each is told; of the others their number is.
const COMPLAINTS_MAX: u64 = 10;

/// Bytes that are gathered before they are written.
const GATHERED: usize = 64 << 10;

/// Runs the command.
pub fn main(args: &Args) -> ExitCode {
    let mut inputs: Vec<_> = args.files.iter().map(|file| Input::of(file)).collect();
    if inputs.is_empty() {
        if io::stdin().is_terminal() {
            return super::cannot(&"nothing to show: name a file with events, or pipe a stream in");
        }
        inputs.push(Input::Stdin);
    }
    let stdins = inputs.iter().filter(|input| **input == Input::Stdin).count();
    if stdins > 1 {
        return super::cannot(&"standard input can be read once: give - one time");
    }
    let is_stream = inputs.iter().any(Input::is_stream);
    if args.follow && is_stream && inputs.len() > 1 {
        return super::cannot(&"standard input or a pipe can't be followed beside others: give it alone");
    }
    let screen = Rc::new(RefCell::new(Screen::new(args, inputs.len() > 1)));
    // A stream is followed by being read.
    let shown = if args.follow && !is_stream { follow(&inputs, &screen) } else { show(&inputs, &screen) };
    let mut screen = screen.borrow_mut();
    screen.flush();
    match shown
        .and_then(|()| screen.error.take().map_or(Ok(()), |error| Err(format!("can't write to stdout: {error}"))))
    {
        Err(sentence) => super::cannot(&sentence),
        Ok(()) => screen.finish(),
    }
}

fn show(inputs: &[Input], screen: &Rc<RefCell<Screen>>) -> Result<(), String> {
    for input in inputs {
        let unreadable = |error: io::Error| format!("{} can't be read: {error}", input.name());
        let before_read = Rc::clone(screen);
        let mut lines = input.open_telling(move || before_read.borrow_mut().flush()).map_err(unreadable)?;
        loop {
            match lines.read().map_err(unreadable)? {
                None => break,
                Some(Line::Whole(line)) => screen.borrow_mut().line(line).then_some(()),
                // It may be all there but its end.
                Some(Line::Cut(line)) => screen.borrow_mut().line(line).then_some(()),
                Some(Line::Long) => {
                    lines.pass_rest().map_err(unreadable)?;
                    None
                }
            }
            .unwrap_or_else(|| screen.borrow_mut().no_event(input, lines.number()));
            if screen.borrow().is_closed() {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn follow(inputs: &[Input], screen: &Rc<RefCell<Screen>>) -> Result<(), String> {
    let mut files = Vec::new();
    for input in inputs {
        if let Input::File(path) = input {
            let file = Followed::open(path).map_err(|error| format!("{} can't be read: {error}", input.name()))?;
            files.push((input, path, file));
        }
    }
    let untold = |error: io::Error| format!("changes of the files are not told: {error}; leave --follow out");
    let watch = Watch::of(files.iter().map(|(_, path, _)| path.as_path())).map_err(untold)?;
    loop {
        let mut any = false;
        for (input, _, file) in &mut files {
            let mut screen = screen.borrow_mut();
            let read = file.read(|number, found| {
                let is_event = match found {
                    Found::Line(line) => screen.line(line),
                    Found::Long => false,
                };
                if !is_event {
                    screen.no_event(input, number);
                }
                Ok(())
            });
            any |= read.map_err(|error| format!("{} can't be read: {error}", input.name()))?;
        }
        let mut screen = screen.borrow_mut();
        screen.flush();
        if screen.is_closed() || (!any && !watch.wait(&screen.out).map_err(untold)?) {
            return Ok(());
        }
    }
}

/// What is shown, and what could not be.
struct Screen {
    out: StdoutLock<'static>,
    text: String,
    filter: Filter,
    layout: Layout,
    /// The day of the last event, and its node.
    day: String,
    node: String,
    closed: bool,
    error: Option<io::Error>,
    /// Lines that were no events.
    others: u64,
}

impl Screen {
    fn new(args: &Args, many: bool) -> Self {
        let out = io::stdout().lock();
        let is_terminal = out.is_terminal();
        let layout = Layout {
            width: if is_terminal { columns(&out) } else { None },
            colours: takes_colours(&out),
            dates: !is_terminal,
            nodes: many,
            hints: args.hints,
        };
        Self {
            out,
            text: String::with_capacity(GATHERED * 2),
            filter: args.select.filter(),
            layout,
            day: String::new(),
            node: String::new(),
            closed: false,
            error: None,
            others: 0,
        }
    }

    /// Shows a line that is wanted; says whether it is an event.
    fn line(&mut self, line: &[u8]) -> bool {
        let Some(event) = Event::parse(line) else { return false };
        if !self.filter.takes(&event) {
            return true;
        }
        if !self.layout.dates {
            let time = format!("{:.3}", event.time.0);
            let day = line::day_of(&time);
            if self.day != day {
                day.clone_into(&mut self.day);
                line::write_day(event.time, self.layout, &mut self.text);
            }
        }
        if !self.layout.nodes && self.node != *event.node {
            // From the second node on, each line tells its own.
            self.layout.nodes = !self.node.is_empty();
            self.node = event.node.to_string();
        }
        line::write(&event, self.layout, &mut self.text);
        if self.text.len() >= GATHERED {
            self.flush();
        }
        true
    }

    fn no_event(&mut self, input: &Input, number: u64) {
        self.others += 1;
        if self.others <= COMPLAINTS_MAX {
            self.flush();
            complain(&format_args!("{}, line {number} is no event", input.name()));
        }
    }

    /// Writes what was gathered. A reader who has gone away is no error.
    fn flush(&mut self) {
        if !self.is_closed() && !self.text.is_empty() {
            match self.out.write_all(self.text.as_bytes()).and_then(|()| self.out.flush()) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.closed = true,
                Err(error) => self.error = Some(error),
            }
        }
        self.text.clear();
    }

    const fn is_closed(&self) -> bool {
        self.closed || self.error.is_some()
    }

    fn finish(&self) -> ExitCode {
        if self.others > COMPLAINTS_MAX {
            complain(&format_args!("{} more lines are no events", self.others - COMPLAINTS_MAX));
        }
        // Who went away has seen what they wanted.
        if self.others > 0 && !self.closed { ExitCode::from(1) } else { ExitCode::SUCCESS }
    }
}
