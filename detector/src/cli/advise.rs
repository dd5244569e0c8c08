//! `rosentry advise`: the writable mounts that a workload needs.

use std::{
    fs,
    io::{self, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use super::{terminal::complain, timeline::is_one_of};
use crate::report::{
    advise::{self, evidence::Name, pod_spec::Manifest},
    lines::Input,
    printable::printable,
};

/// Advise the writable mounts that a workload needs, as a patch that `kubectl patch` takes: from the writes that were refused, or
/// that were observed in learning mode.
///
/// Ends with 0 where there is a patch; with 1 where there is nothing to apply, or lines were no events, which is told on stderr;
/// with 2 where it could not be done.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Files with events of any nodes in any order, plain or gzip; - is standard input, and so is none.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Of this workload alone [default: of each].
    #[arg(long, value_name = "NS/NAME", value_parser = Name::parse)]
    workload: Option<Name>,
    /// The manifest of the workload, YAML or JSON: its names, volumes, mounts and variables are respected.
    #[arg(long, value_name = "FILE")]
    pod_spec: Option<PathBuf>,
    /// How to tell it.
    #[arg(long, value_enum, default_value_t = Format::Yaml)]
    format: Format,
    /// Where to write it [default: standard output].
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// How to tell it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum Format {
    /// Patches, with the evidence as comments.
    Yaml,
    /// One JSON object.
    Json,
}

/// Runs the command.
pub fn main(args: &Args) -> ExitCode {
    let mut inputs: Vec<_> = args.files.iter().map(|file| Input::of(file)).collect();
    if inputs.is_empty() {
        if io::stdin().is_terminal() {
            return super::cannot(&"nothing to read: name files with events, or pipe a stream in");
        }
        inputs.push(Input::Stdin);
    }
    if inputs.iter().filter(|input| **input == Input::Stdin).count() > 1 {
        return super::cannot(&"standard input can be read once: give - one time");
    }
    let manifest = args.pod_spec.iter().map(|path| Input::File(path.clone()));
    let read: Vec<Input> = inputs.iter().cloned().chain(manifest).collect();
    if let Some(output) = args.output.as_deref().filter(|output| is_one_of(output, &read)) {
        return super::cannot(&format_args!("{} is one of the files to read, and stays as it is", shown(output)));
    }
    let manifest = match args.pod_spec.as_deref().map(Manifest::read).transpose() {
        Ok(manifest) => manifest,
        Err(error) => return super::cannot(&error),
    };
    let report = match advise::read(&inputs, args.workload.as_ref(), manifest.as_ref()) {
        Ok(report) => report,
        Err(error) => return super::cannot(&error),
    };
    let text = match args.format {
        Format::Yaml => report.yaml(),
        Format::Json => format!("{}\n", report.json()),
    };
    let written = match &args.output {
        None => io::stdout().write_all(text.as_bytes()),
        Some(path) => fs::write(path, &text),
    };
    match written {
        Err(error) if args.output.is_some() || error.kind() != io::ErrorKind::BrokenPipe => {
            let to = args.output.as_deref().map_or_else(|| "stdout".to_owned(), shown);
            return super::cannot(&format_args!("can't write to {to}: {error}"));
        }
        // The exit code is the answer, read or not.
        _ => {}
    }
    if report.no_events > 0 {
        complain(&format_args!("{} lines are no events", report.no_events));
    }
    if !report.has_patch() {
        let mut sentence =
            "nothing to apply: these events have no write that a mount or a variable would mend".to_owned();
        for more in report.left_out() {
            sentence.push_str("; ");
            sentence.push_str(&more);
        }
        complain(&sentence);
    }
    if report.no_events > 0 || !report.has_patch() { ExitCode::from(1) } else { ExitCode::SUCCESS }
}

fn shown(path: &Path) -> String {
    printable(&path.to_string_lossy()).into_owned()
}
