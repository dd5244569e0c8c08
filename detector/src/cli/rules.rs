//! `rosentry rules`: whether a file of rules is sound, and what its rules say.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Subcommand;

use crate::{
    finding::rules::{BUILT_IN, RuleSet},
    report::{
        lines::Input,
        rules::{self, TestError, Tried},
    },
};

/// Check rules, or try them on events: which rule took which event, and why.
///
/// Rules say what a finding means: its category, severity and hint, which technique of MITRE ATT&CK it is, or that it is
/// expected.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    /// Say whether a file of rules is sound; exit 2 names file, line and what was expected.
    Check {
        /// The file.
        file: PathBuf,
    },
    /// Tell of each event what the rules say of it, and which of them.
    Test {
        /// The file of rules.
        file: PathBuf,
        /// Files of events, plain or gzip; - is standard input.
        #[arg(required = true, value_name = "EVENTS")]
        events: Vec<PathBuf>,
    },
    /// Print the built-in rules.
    BuiltIn,
}

/// Runs the command.
pub fn main(args: &Args) -> ExitCode {
    let mut out = io::stdout().lock();
    let written = match &args.what {
        What::BuiltIn => out.write_all(BUILT_IN.as_bytes()),
        What::Check { file } => match RuleSet::load(Some(file)) {
            Ok(rules) => check(&rules, file, &mut out),
            Err(error) => return super::cannot(&error),
        },
        What::Test { file, events } => match RuleSet::load(Some(file)) {
            Ok(rules) => match test(&rules, events, &mut out) {
                Ok(()) => Ok(()),
                Err(TestError::Write(error)) => Err(error),
                Err(error) => return super::cannot(&error),
            },
            Err(error) => return super::cannot(&error),
        },
    };
    super::told(written)
}

fn check(rules: &RuleSet, file: &Path, out: &mut impl Write) -> io::Result<()> {
    let all = rules.rules().len();
    let own = rules.rules().iter().filter(|rule| !rule.built_in).count();
    writeln!(out, "{}: {own} rules, tried before the {} built-in ones", Input::of(file).name(), all - own)
}

/// Tells of each input; ends with the first that can't be read.
fn test(rules: &RuleSet, events: &[PathBuf], out: &mut impl Write) -> Result<(), TestError> {
    for events in events {
        let input = Input::of(events);
        let Tried { events, expected, others, by_rule } = rules::test(rules, &input, out)?;
        writeln!(out, "{}: {events} events, {expected} of them expected; {others} other lines", input.name())
            .map_err(TestError::Write)?;
        for (rule, count) in by_rule {
            writeln!(out, "  {rule}: {count}").map_err(TestError::Write)?;
        }
    }
    Ok(())
}
