//! `rosentry doctor`: what this node allows, and how to mend what is missing.
//!
//! It looks, loads the programs as the agent would, and leaves nothing behind.

mod check;
mod containerd;
mod doors;
mod hooks;
mod node;
mod text;

use std::{io, path::PathBuf, process::ExitCode};

use self::{
    check::{Report, Status},
    containerd::USUAL_SOCKET,
    hooks::Hooks,
};
use super::{
    node::{Places, given},
    terminal::{Stdout, complain},
};

/// Say what this node allows, and how to mend what is missing.
///
/// Ends with 0 where rosentry can do all that it is able to, with 1 where it can do a part of it, with 2 where it cannot run.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// How to tell it.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// The socket of containerd [default: /run/containerd/containerd.sock].
    #[arg(long, value_name = "PATH")]
    containerd_socket: Option<PathBuf>,
    #[command(flatten)]
    places: Places,
    /// Makes a 32-bit call and ends; for a process that the doctor starts.
    #[arg(long, hide = true)]
    call_ia32: bool,
}

/// How to tell it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum Format {
    /// For a person.
    Text,
    /// One JSON object, for a program.
    Json,
}

/// Runs the command.
pub fn main(args: &Args) -> ExitCode {
    if args.call_ia32 {
        return doors::call_ia32();
    }
    match examine(args).and_then(|report| tell(&report, args.format).map(|()| report.status())) {
        Ok(Status::Ok) => ExitCode::SUCCESS,
        Ok(Status::Degraded) => ExitCode::from(1),
        Ok(Status::Missing) => ExitCode::from(2),
        Err(error) => {
            complain(&format!("the system refuses what the doctor needs: {error}"));
            ExitCode::from(2)
        }
    }
}

fn examine(args: &Args) -> io::Result<Report> {
    let (host_proc, host_cgroup) = (args.places.host_proc(), args.places.host_cgroup());
    let socket = given(args.containerd_socket.as_ref(), "ROSENTRY_CONTAINERD_SOCKET", USUAL_SOCKET);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let Hooks { check, coverage, serving } = hooks::examine();
        let checks = vec![
            node::kernel(),
            node::btf(),
            node::lockdown(),
            node::capabilities(),
            node::tracefs(),
            node::cgroup2(&host_proc, &host_cgroup),
            node::pids(&host_proc),
            containerd::examine(&socket).await,
            check,
            doors::ia32(),
            doors::io_uring(&coverage),
        ];
        Ok(Report { checks, coverage, serving })
    })
}

fn tell(report: &Report, format: Format) -> io::Result<()> {
    let mut output = Stdout::new();
    match format {
        Format::Text => text::tell(report, &mut output),
        Format::Json => {
            let mut line = serde_json::to_vec(&report.told())?;
            line.push(b'\n');
            output.bytes(&line)
        }
    }
}
