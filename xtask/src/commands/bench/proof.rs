//! The benchmarks on this machine: the release build of the agent beside a real containerd, watched by the program `proof`
//! of the agent's package, which shares the end-to-end tests' lab.

use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::{
    commands::{build, setup},
    privilege::Privilege,
    process::attempt,
    requirements::Need,
    vm::program,
    workspace::Workspace,
};

/// Builds both, and runs one proof; `arguments` are the program's.
pub fn run(workspace: &Workspace, arguments: &[String]) -> Result<ExitCode> {
    // Asked before the build, which would be in vain.
    let privilege = Privilege::held().context(
        "this loads programs into the kernel and starts containerd, which only root may: run `sudo -v`, then this again",
    )?;
    setup::ensure(workspace, Need::Test)?;
    build::run(workspace, false)?;
    // In the dev profile, as the tests are, whose crates it shares; what is measured is the agent.
    let arguments_of_cargo = ["test", "--package", "detector", "--bench", "proof", "--no-run"];
    let proof = program::build(workspace, "building what watches the agent", "proof", &arguments_of_cargo)?;
    let mut command = privilege.command(proof, &[]);
    command.arg("--program").arg(workspace.binary()).args(arguments);
    let status = attempt("measuring", &mut command)?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}
