//! `cargo xtask lint`: format, clippy with warnings denied on both targets, and licences.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::{
    commands::setup,
    kernel_object,
    process::attempt,
    requirements::{Need, find_program},
    workspace::Workspace,
};

/// Runs all checks, so that one run tells everything; exit code 1 when one says no.
pub fn run(workspace: &Workspace) -> Result<ExitCode> {
    let tools = setup::ensure(workspace, Need::Lint)?;
    // The agent's build script wants the object, and clippy runs build scripts.
    kernel_object::build(workspace, &tools)?;

    let mut failed = Vec::new();
    let mut check = |purpose: &'static str, command: &mut Command| -> Result<()> {
        if !attempt(purpose, command)?.success() {
            failed.push(purpose);
        }
        Ok(())
    };
    check("checking the format", workspace.cargo().args(["fmt", "--all", "--check"]))?;
    check(
        "clippy on the host's crates",
        workspace
            .cargo()
            .args(["clippy", "--workspace", "--exclude", "detector-ebpf", "--all-targets"])
            .args(["--", "--deny", "warnings"]),
    )?;
    match kernel_object::clippy(workspace, &tools) {
        Some(mut clippy) => check("clippy on the kernel programs", clippy.args(["--", "--deny", "warnings"]))?,
        None => eprintln!("  no clippy on the kernel programs: it is not installed beside their compiler"),
    }
    if find_program("cargo-deny").is_empty() {
        eprintln!("  no check of licences, sources and advisories: cargo-deny is not installed");
    } else {
        check("checking licences and sources", deny(workspace).args(["check", "licenses", "bans", "sources"]))?;
        // Known flaws are looked up in a database that is fetched; out of reach, it says nothing of our dependencies.
        if attempt("fetching the database of advisories", deny(workspace).args(["fetch", "db"]))?.success() {
            check("checking advisories", deny(workspace).args(["check", "advisories"]))?;
        } else {
            eprintln!("  no check of advisories: their database is out of reach");
        }
    }

    if failed.is_empty() {
        eprintln!("lint: all checks passed");
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("lint: {} said no", failed.join(" and "));
    Ok(ExitCode::FAILURE)
}

fn deny(workspace: &Workspace) -> Command {
    let mut command = workspace.cargo();
    command.arg("deny");
    command
}
