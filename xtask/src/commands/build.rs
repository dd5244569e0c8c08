//! `cargo xtask build`: the kernel object first, then the agent that embeds it.

use std::process::ExitCode;

use anyhow::Result;

use crate::{commands::setup, kernel_object, process::run as run_command, requirements::Need, workspace::Workspace};

/// Sets up what a build needs, and builds.
pub fn run(workspace: &Workspace, kernel_only: bool) -> Result<ExitCode> {
    let tools = setup::ensure(workspace, Need::Build)?;
    kernel_object::build(workspace, &tools)?;
    if !kernel_only {
        run_command("building rosentry", workspace.cargo().args(["build", "--release", "--package", "detector"]))?;
    }
    Ok(ExitCode::SUCCESS)
}
