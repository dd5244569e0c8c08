//! The command line: what was asked for, and what to say where that can't be understood.

pub mod advise;
pub mod completions;
pub mod config;
pub mod demo;
pub mod doctor;
pub mod node;
pub mod posture;
pub mod rules;
pub mod run;
pub mod select;
pub mod terminal;
pub mod timeline;
pub mod uninstall;
pub mod verify;
pub mod view;

use std::{ffi::OsString, io::Write, process::ExitCode};

use clap::{Parser, Subcommand, error::ErrorKind};
use clap_complete::Shell;

use self::config::{RunConfig, Settings};

/// Does what the process's arguments ask for.
pub fn main() -> ExitCode {
    match parse(std::env::args_os(), |name| std::env::var_os(name)) {
        Ok(Command::Run(config)) => run::main(*config),
        Ok(Command::Demo(args)) => demo::main(&args),
        Ok(Command::Doctor(args)) => doctor::main(&args),
        Ok(Command::Posture(args)) => posture::main(&args),
        Ok(Command::Timeline(args)) => timeline::main(&args),
        Ok(Command::Advise(args)) => advise::main(&args),
        Ok(Command::Verify(args)) => verify::main(&args),
        Ok(Command::Rules(args)) => rules::main(&args),
        Ok(Command::View(args)) => view::main(&args),
        Ok(Command::Uninstall(args)) => uninstall::main(&args),
        Ok(Command::Completions(shell)) => told(completions::main(shell, &mut std::io::stdout())),
        Err(Stop::Text(text)) => told(std::io::stdout().write_all(text.as_bytes())),
        Err(Stop::Refused(sentence)) => cannot(&sentence),
    }
}

/// After something was printed to stdout; a reader that has seen enough is no failure.
fn told(result: std::io::Result<()>) -> ExitCode {
    match result {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            cannot(&format_args!("can't write to stdout: {error}"))
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Says in one sentence on stderr why it could not be done.
fn cannot(sentence: &dyn std::fmt::Display) -> ExitCode {
    terminal::complain(sentence);
    ExitCode::from(2)
}

/// Diagnostics go to stderr, as `ROSENTRY_LOG` says (`debug`, `detector=trace`; default `info`).
fn log_to_stderr() {
    use std::io::IsTerminal;
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_env("ROSENTRY_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    // Fails only where somebody has set one before.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colour).with_writer(std::io::stderr).try_init();
}

/// What was asked for, checked.
#[derive(Debug)]
pub enum Command {
    /// The node agent.
    Run(Box<RunConfig>),
    /// A demonstration on this machine.
    Demo(demo::Args),
    /// What this node allows.
    Doctor(doctor::Args),
    /// Where this node's containers may write.
    Posture(Box<posture::Args>),
    /// Whether a record is as it was written.
    Verify(verify::Args),
    /// Whether rules are sound, and what they say.
    Rules(rules::Args),
    /// What happened, over several streams.
    Timeline(Box<timeline::Args>),
    /// The mounts that workloads need.
    Advise(Box<advise::Args>),
    /// An event stream for a person.
    View(Box<view::Args>),
    /// Remove what agents have left in the kernel.
    Uninstall(uninstall::Args),
    /// Completions for a shell.
    Completions(Shell),
}

/// Why there is no command to do.
#[derive(Debug, thiserror::Error)]
pub enum Stop {
    /// A text was asked for, such as the help: it goes to stdout, and all is well.
    #[error("{0}")]
    Text(String),
    /// It can't be done: one sentence that says what to do, for stderr; exit code 2.
    #[error("{0}")]
    Refused(String),
}

/// rosentry, the read-only sentry: sees every write that a container's read-only root refuses and every try to change
/// mounts, and names the pod that did it.
#[derive(Debug, Parser)]
#[command(name = "rosentry", version, max_term_width = 100, subcommand_required = true)]
struct CommandLine {
    #[command(subcommand)]
    command: CommandArgs,
}

#[derive(Debug, Subcommand)]
enum CommandArgs {
    /// Run the node agent: events to stdout, metrics over HTTP, diagnostics to stderr.
    ///
    /// Each option can also stand in the TOML file that --config names, under its name, and in the environment, as ROSENTRY_
    /// and its name in capitals. An option outweighs the environment, the environment the file.
    Run(Box<Settings>),
    Demo(demo::Args),
    Doctor(doctor::Args),
    Posture(Box<posture::Args>),
    Verify(verify::Args),
    Rules(rules::Args),
    Timeline(Box<timeline::Args>),
    Advise(Box<advise::Args>),
    View(Box<view::Args>),
    Uninstall(uninstall::Args),
    /// Print completions for a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
}

/// What the arguments (the first is the program's name) and the environment ask for. Reads the file that --config names.
///
/// # Errors
/// With what to print instead, and where.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<Command, Stop> {
    let line = CommandLine::try_parse_from(arguments).map_err(|error| stop(&error))?;
    Ok(match line.command {
        CommandArgs::Run(settings) => {
            let checked = config::load(*settings, environment);
            Command::Run(Box::new(checked.map_err(|error| Stop::Refused(error.to_string()))?))
        }
        CommandArgs::Demo(args) => Command::Demo(args),
        CommandArgs::Doctor(args) => Command::Doctor(args),
        CommandArgs::Posture(args) => Command::Posture(args),
        CommandArgs::Verify(args) => Command::Verify(args),
        CommandArgs::Rules(args) => Command::Rules(args),
        CommandArgs::Timeline(args) => Command::Timeline(args),
        CommandArgs::Advise(args) => Command::Advise(args),
        CommandArgs::View(args) => Command::View(args),
        CommandArgs::Uninstall(args) => Command::Uninstall(args),
        CommandArgs::Completions { shell } => Command::Completions(shell),
    })
}

fn stop(error: &clap::Error) -> Stop {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Stop::Text(error.to_string()),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => Stop::Refused(
            "a command is missing: run, demo, doctor, posture, view, timeline, advise, rules, verify, uninstall or completions; `rosentry --help` says what they do"
                .to_owned(),
        ),
        _ => Stop::Refused(format!("{}; `rosentry --help` says more", sentence(error))),
    }
}

/// clap's paragraphs as one sentence: what is wrong, and its tip.
fn sentence(error: &clap::Error) -> String {
    let text = error.to_string();
    let mut parts = Vec::new();
    for paragraph in text.split("\n\n") {
        let words = paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
        if let Some(wrong) = words.strip_prefix("error: ") {
            parts.push(wrong.to_owned());
        } else if let Some(tip) = words.strip_prefix("tip: ") {
            parts.push(tip.to_owned());
        }
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Command, Stop> {
        parse(std::iter::once("rosentry").chain(arguments.iter().copied()).map(OsString::from), |_| None)
    }

    fn refusal(arguments: &[&str]) -> String {
        match parsed(arguments) {
            Err(Stop::Refused(sentence)) => sentence,
            other => panic!("{arguments:?}: {other:?}"),
        }
    }

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        <CommandLine as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn each_command_is_understood() {
        assert!(matches!(parsed(&["run"]), Ok(Command::Run(_))));
        assert!(matches!(parsed(&["demo"]), Ok(Command::Demo(_))));
        assert!(matches!(parsed(&["doctor", "--format", "json"]), Ok(Command::Doctor(_))));
        assert!(matches!(parsed(&["posture", "--events", "a.json", "--format", "json"]), Ok(Command::Posture(_))));
        assert!(matches!(parsed(&["verify", "-", "a.json"]), Ok(Command::Verify(_))));
        assert!(matches!(parsed(&["rules", "check", "rules.toml"]), Ok(Command::Rules(_))));
        assert!(matches!(parsed(&["view", "-f", "--pod", "prod/web", "a.json"]), Ok(Command::View(_))));
        assert!(matches!(parsed(&["timeline", "--format", "html", "-o", "t.html"]), Ok(Command::Timeline(_))));
        assert!(matches!(parsed(&["advise", "--workload", "prod/web", "a.json"]), Ok(Command::Advise(_))));
        assert!(matches!(parsed(&["completions", "bash"]), Ok(Command::Completions(Shell::Bash))));
    }

    #[test]
    fn a_mistake_is_told_in_one_line_with_a_way_on() {
        for (arguments, expected) in [
            (&["run", "--hook", "auto"][..], "'--hooks'"),
            (&["run", "--scope", "pods"], "containers, all"),
            (&["fly"], "'fly'"),
            (&["doctor", "--format", "xml"], "text, json"),
            (&["completions"], "<SHELL>"),
            (&["verify"], "<FILE>"),
            (&["verify", "--part", "--all", "x"], "'--all'"),
            (&["advise", "--workload", "web"], "NAMESPACE/WORKLOAD"),
            (&["view", "--pod", "web"], "NAMESPACE/POD"),
            (&["view", "--min-severity", "bad"], "info, low, medium"),
            (&["view", "--kind", "write"], "write_denied, mount_attempt"),
            (&["view", "--since", "yesterday"], "2026-01-02"),
            (&[], "run, demo, doctor"),
        ] {
            let sentence = refusal(arguments);
            assert!(sentence.contains(expected), "{sentence}");
            assert!(sentence.contains("rosentry --help"), "{sentence}");
            assert!(!sentence.contains('\n'), "{sentence}");
        }
    }

    #[test]
    fn help_and_version_are_no_mistakes() {
        for arguments in [&["--help"][..], &["run", "--help"], &["--version"]] {
            assert!(matches!(parsed(arguments), Err(Stop::Text(_))), "{arguments:?}");
        }
    }
}
