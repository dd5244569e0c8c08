//! `cargo xtask render`: what is made of the chart.

use std::{fs, process::ExitCode};

use anyhow::{Context as _, Result};

use crate::{
    deploy::{charts::Charts, render, tools},
    workspace::Workspace,
};

/// Writes the files; with `check` it only says which of them are not as they would be written, and ends with 1 if any.
pub fn run(workspace: &Workspace, check: bool) -> Result<ExitCode> {
    let charts = Charts::new(tools::ensure(workspace)?);
    let mut stale = false;
    for (path, text) in render::rendered(workspace, &charts)? {
        let place = workspace.root().join(&path);
        if fs::read_to_string(&place).is_ok_and(|there| there == text) {
            continue;
        }
        if check {
            stale = true;
            eprintln!("{} is not what the chart renders: run `cargo xtask render`", path.display());
            continue;
        }
        if let Some(folder) = place.parent() {
            fs::create_dir_all(folder).with_context(|| format!("{} can't be made", folder.display()))?;
        }
        fs::write(&place, text).with_context(|| format!("{} can't be written", place.display()))?;
        println!("{}", path.display());
    }
    Ok(if stale { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
