//! `cargo xtask demo`: from a fresh clone to `rosentry demo`.

use std::{ffi::OsString, process::ExitCode};

use anyhow::{Context as _, Result};

use crate::{commands::build, privilege::Privilege, process::become_program, workspace::Workspace};

/// Builds, and becomes `rosentry demo` as root.
pub fn run(workspace: &Workspace, arguments: &[OsString]) -> Result<ExitCode> {
    // Asked before the build, which would be in vain.
    let privilege = Privilege::held().context(
        "the demo loads programs into the kernel and seals a root filesystem, which only root may: run `sudo -v`, then this again",
    )?;
    build::run(workspace, false)?;
    let mut demo = privilege.command(workspace.binary(), &[]);
    demo.arg("demo").args(arguments);
    Err(become_program("running the demo", &mut demo))
}
