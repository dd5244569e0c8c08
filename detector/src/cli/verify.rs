//! `rosentry verify`: whether a record of events is as it was written.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use crate::report::{
    lines::Input,
    verify::{Demand, Verdict, verify},
};

/// Say whether a record is as it was written: numbers without holes, the hash chain, and how runs and files tie on to each
/// other.
///
/// Ends with 0 where every line is, with 1 where one is not and names the first, with 2 where a file can't be read. What a
/// chain can't show is told in notes: whether lines are missing at the end of a record without a stop record, or before its
/// beginning. Of ECS and OCSF the native line that each line carries is proven, and not the fields around it.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The files of one record or of several, in any order, plain or gzip; - is standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Take a part of a record, that begins anywhere.
    #[arg(long, conflicts_with = "all")]
    part: bool,
    /// Ask for all of a record: that it begins with the stream's first line and ends with a stop record.
    #[arg(long)]
    all: bool,
}

/// Runs the command.
pub fn main(args: &Args) -> ExitCode {
    let inputs: Vec<_> = args.files.iter().map(|file| Input::of(file)).collect();
    if inputs.iter().filter(|input| **input == Input::Stdin).count() > 1 {
        return super::cannot(&"standard input can be read once: give - one time");
    }
    let demand = match (args.part, args.all) {
        (true, _) => Demand::Part,
        (_, true) => Demand::All,
        _ => Demand::Usual,
    };
    let verdict = match verify(&inputs, demand) {
        Ok(verdict) => verdict,
        Err(error) => return super::cannot(&format_args!("{error}; nothing is said of the record")),
    };
    let (text, code) = match verdict {
        Verdict::Whole(whole) => (whole.to_string(), ExitCode::SUCCESS),
        Verdict::Bad(bad) => (format!("{bad}\n"), ExitCode::from(1)),
        Verdict::Lacking(what) => (format!("{what}\n"), ExitCode::from(1)),
    };
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            super::cannot(&format_args!("can't write to stdout: {error}"))
        }
        // The exit code is the answer, read or not.
        _ => code,
    }
}
