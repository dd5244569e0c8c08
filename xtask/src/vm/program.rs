//! The program of a virtual machine: built by cargo, found, stripped, and the libraries that it loads.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::{
    process::{announce, probe, run},
    workspace::Workspace,
};

/// Has cargo build one program, and tells where it is.
pub fn build(workspace: &Workspace, purpose: &str, name: &str, arguments: &[&str]) -> Result<PathBuf> {
    let [program] = build_all(workspace, purpose, [name], arguments)?;
    Ok(program)
}

/// Has cargo build several programs at once, and tells where each is.
pub fn build_all<const N: usize>(
    workspace: &Workspace,
    purpose: &str,
    names: [&str; N],
    arguments: &[&str],
) -> Result<[PathBuf; N]> {
    let mut cargo = workspace.cargo();
    cargo.args(arguments).arg("--message-format=json-render-diagnostics");
    announce(purpose, &cargo);
    let output = cargo
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cargo could not be run for {purpose}"))?;
    if !output.status.success() {
        bail!("{purpose} failed: cargo ended with {}", output.status);
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let mut programs = [const { PathBuf::new() }; N];
    for (program, name) in programs.iter_mut().zip(names) {
        *program = executable_among(&messages, name).with_context(|| format!("cargo has built no program {name}"))?;
    }
    Ok(programs)
}

/// The executable that cargo's messages name for the target `name`.
fn executable_among(messages: &str, name: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["reason"] == "compiler-artifact" && message["target"]["name"] == name)
        .find_map(|message| Some(message["executable"].as_str()?.into()))
}

/// A copy of the program without what only debuggers read: a quarter of the size, to be loaded by the emulated machine.
pub fn stripped(workspace: &Workspace, program: &Path, name: &str) -> Result<PathBuf> {
    let folder = workspace.target().join("vm");
    fs::create_dir_all(&folder).with_context(|| format!("{} could not be made", folder.display()))?;
    let stripped = folder.join(name);
    run("stripping the program", Command::new("strip").arg("--strip-debug").arg("-o").arg(&stripped).arg(program))?;
    Ok(stripped)
}

/// The libraries that a program loads at its start, its interpreter among them; none for a static one.
pub fn libraries(program: &Path) -> Vec<PathBuf> {
    probe(Command::new("ldd").arg(program)).map(|printed| libraries_among(&printed)).unwrap_or_default()
}

/// Where a program of an unpacked package and its libraries, of packages unpacked there and of this machine, are inside and here.
///
/// # Errors
/// Where a library is in neither.
pub fn with_libraries(root: &Path, program: &str) -> Result<Vec<(PathBuf, PathBuf)>> {
    const FOLDERS: [&str; 2] = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];
    let here = root.join(program);
    let folders = FOLDERS.map(|folder| root.join(folder).display().to_string()).join(":");
    let printed = probe(Command::new("ldd").arg(&here).env("LD_LIBRARY_PATH", folders)).unwrap_or_default();
    if let Some(missing) = printed.lines().find(|line| line.contains("not found")) {
        bail!("{program} needs a library that its packages don't have: {}", missing.trim());
    }
    let inside =
        |path: &Path| path.strip_prefix(root).map_or_else(|_| path.to_owned(), |path| Path::new("/").join(path));
    let mut all = libraries_among(&printed);
    all.push(here);
    Ok(all.into_iter().map(|path| (inside(&path), path)).collect())
}

/// The paths in what `ldd` prints; the kernel's own library (vdso) has none.
fn libraries_among(printed: &str) -> Vec<PathBuf> {
    printed
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_is_the_one_of_the_target_and_libraries_have_none() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"detector"},"executable":null}
            {"reason":"compiler-artifact","target":{"name":"other"},"executable":"/target/other"}
            {"reason":"compiler-artifact","target":{"name":"kernel"},"executable":"/target/kernel-1"}
            {"reason":"build-finished","success":true}"#;
        assert_eq!(executable_among(messages, "kernel"), Some("/target/kernel-1".into()));
        assert_eq!(executable_among(messages, "detector"), None);
    }

    #[test]
    fn libraries_and_interpreter_are_read_from_what_ldd_prints() {
        let printed = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f10)\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x00007f20)\n";
        let expected = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(libraries_among(printed), expected.map(PathBuf::from));
        assert!(libraries_among("\tstatically linked\n").is_empty());
    }
}
