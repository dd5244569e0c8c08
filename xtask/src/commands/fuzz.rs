//! `cargo xtask fuzz`: gives whatever reads hostile bytes to libFuzzer, under AddressSanitizer.
//!
//! The sanitizer is a flag that stable compilers keep to themselves; `RUSTC_BOOTSTRAP` unlocks it, as for the kernel side.

use std::{env, fs, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result, bail};

use crate::{
    commands::setup,
    kernel_object,
    process::{attempt, outside_cargo, run as run_command},
    requirements::{Need, find_program, installed_programs},
    workspace::Workspace,
};

const CARGO_FUZZ_VERSION: &str = "0.13.2";

/// What one input may take before it counts as found: seconds, and megabytes with the sanitizer's own.
const INPUT_LIMITS: [&str; 2] = ["-timeout=10", "-rss_limit_mb=2048"];

/// Runs one target (none: each in turn) for so many seconds; exit code 1 where one has found something.
pub fn run(workspace: &Workspace, target: Option<&str>, seconds: u32) -> Result<ExitCode> {
    let targets = targets(&fs::read_to_string(workspace.root().join("fuzz/Cargo.toml"))?)?;
    let chosen: Vec<&String> = targets.iter().filter(|name| target.is_none_or(|target| target == *name)).collect();
    if chosen.is_empty() {
        bail!("there is no such target: name one of {}", targets.join(", "));
    }
    let tools = setup::ensure(workspace, Need::Build)?;
    kernel_object::build(workspace, &tools)?;
    let cargo_fuzz = ensure_cargo_fuzz(workspace)?;

    let mut found = Vec::new();
    for name in chosen {
        let mut command = outside_cargo(workspace, &cargo_fuzz);
        workspace.place(&mut command);
        command
            .current_dir(workspace.root().join("fuzz"))
            .env("RUSTC_BOOTSTRAP", "1")
            // What is built with the sanitizer is of no use to others.
            .env_remove("CARGO_TARGET_DIR")
            .args(["fuzz", "run", name, "--", &format!("-max_total_time={seconds}")])
            .args(INPUT_LIMITS);
        if !attempt("running the fuzzer", &mut command)?.success() {
            found.push(name.as_str());
        }
    }
    if found.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("fuzz: {} found something; the bytes are in fuzz/artifacts", found.join(" and "));
    Ok(ExitCode::FAILURE)
}

/// The programs that the manifest names.
fn targets(manifest: &str) -> Result<Vec<String>> {
    let manifest: toml::Table = manifest.parse()?;
    let programs = manifest.get("bin").and_then(toml::Value::as_array).context("fuzz/Cargo.toml names no program")?;
    Ok(programs.iter().filter_map(|program| Some(program.get("name")?.as_str()?.to_owned())).collect())
}

fn ensure_cargo_fuzz(workspace: &Workspace) -> Result<PathBuf> {
    let find = || {
        let installed = installed_programs().join("cargo-fuzz");
        find_program("cargo-fuzz").into_iter().next().or_else(|| installed.exists().then_some(installed))
    };
    if let Some(found) = find() {
        return Ok(found);
    }
    run_command(
        "building cargo-fuzz (a minute, once)",
        outside_cargo(workspace, env::var_os("CARGO").unwrap_or("cargo".into())).args([
            "install",
            "cargo-fuzz",
            "--version",
            CARGO_FUZZ_VERSION,
            "--locked",
        ]),
    )?;
    find().context("cargo-fuzz is built and not to be found: put cargo's bin folder on the PATH")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_targets_are_the_programs_of_the_manifest() {
        let found = targets("[package]\nname = \"x\"\n[[bin]]\nname = \"a\"\n[[bin]]\nname = \"b\"\n").unwrap();
        assert_eq!(found, ["a", "b"]);
        assert!(targets("").is_err());
    }
}
