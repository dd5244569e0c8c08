//! `rosentry timeline`: what happened, over the streams of one node or of several.

mod text;

use std::{
    fs::{self, File},
    io::{self, BufWriter, IsTerminal as _, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use super::{
    select::Select,
    terminal::{Output, Stdout, complain},
};
use crate::report::{
    lines::Input,
    printable::printable,
    timeline::{Limits, Timeline, html},
};

/// Tell what happened: the streams of one node or of several merged by time, as incidents with their steps, processes, pods,
/// images, and the gaps of the record.
///
/// Ends with 0; with 1 where lines were no events, which are told on stderr; with 2 where it could not be done.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Files with events of any nodes in any order, plain or gzip; - is standard input, and so is none.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    select: Select,
    /// How to tell it.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Where to write it [default: standard output].
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// How to tell it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum Format {
    /// For a terminal.
    Text,
    /// One JSON object.
    Json,
    /// One page by itself, to hand on.
    Html,
}

/// Characters of a line in a file.
const FILE_WIDTH: usize = 120;

/// Incidents and steps that a page has; a browser draws and lists each.
const PAGE: Limits = Limits { incidents: 250, steps: 128, bytes: 16 << 20 };

/// Runs the command.
pub fn main(args: &Args) -> ExitCode {
    let mut inputs: Vec<_> = args.files.iter().map(|file| Input::of(file)).collect();
    if inputs.is_empty() {
        if io::stdin().is_terminal() {
            return super::cannot(&"nothing to tell: name files with events, or pipe a stream in");
        }
        inputs.push(Input::Stdin);
    }
    if inputs.iter().filter(|input| **input == Input::Stdin).count() > 1 {
        return super::cannot(&"standard input can be read once: give - one time");
    }
    if let Some(output) = args.output.as_deref().filter(|output| is_one_of(output, &inputs)) {
        let name = output.to_string_lossy();
        return super::cannot(&format_args!("{} is one of the files to read, and stays as it is", printable(&name)));
    }
    let limits = if args.format == Format::Html { PAGE } else { Limits::default() };
    let mut timeline = match Timeline::read(&inputs, &args.select.filter(), limits) {
        Ok(timeline) => timeline,
        Err(error) => return super::cannot(&error),
    };
    for (file, line) in &timeline.no_events {
        complain(&format_args!("{file}, line {line} is no event"));
    }
    let others = timeline.lines_left_out.saturating_sub(timeline.no_events.len() as u64);
    if others > 0 {
        complain(&format_args!("{others} more lines are no events"));
    }
    let told = match &args.output {
        None => tell(&mut timeline, args.format, &mut Stdout::new()),
        Some(path) => File::create(path).and_then(|file| {
            let mut file = BufWriter::new(file);
            tell(&mut timeline, args.format, &mut Output::to(&mut file, FILE_WIDTH, false))?;
            file.flush()
        }),
    };
    match told {
        Err(error) => {
            let to = args.output.as_deref().map_or("stdout".into(), |path| path.to_string_lossy());
            super::cannot(&format_args!("can't write to {}: {error}", printable(&to)))
        }
        Ok(()) if timeline.lines_left_out > 0 => ExitCode::from(1),
        Ok(()) => ExitCode::SUCCESS,
    }
}

/// Whether it would be written over what is to be read: evidence.
pub(super) fn is_one_of(output: &Path, inputs: &[Input]) -> bool {
    let id = |path: &Path| fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()));
    let Some(written) = id(output) else { return false };
    // A device is no evidence.
    let is_file = output.is_file();
    is_file && inputs.iter().any(|input| matches!(input, Input::File(path) if id(path) == Some(written)))
}

fn tell<W: io::Write>(timeline: &mut Timeline, format: Format, output: &mut Output<W>) -> io::Result<()> {
    match format {
        Format::Text => text::tell(timeline, output),
        Format::Json => {
            let mut json = serde_json::to_vec(timeline)?;
            json.push(b'\n');
            output.bytes(&json)
        }
        Format::Html => output.bytes(html::page(timeline)?.as_bytes()),
    }
}
