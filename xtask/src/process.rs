//! Running other programs: each is announced with its purpose, shares our terminal, and is named when it fails.

use std::{
    env,
    ffi::{OsStr, OsString},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::workspace::Workspace;

/// A command whose environment is that of the shell, as far as it can be told: without what the cargo that runs us has set for
/// us alone, which would lead another compiler to this one's libraries and to this package's name.
pub fn outside_cargo(workspace: &Workspace, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(is_set_for_one_package) {
            command.env_remove(name);
        }
    }
    if let Some(paths) = env::var_os("LD_LIBRARY_PATH") {
        match without_cargo_libraries(&paths, workspace.target()) {
            Some(rest) => command.env("LD_LIBRARY_PATH", rest),
            None => command.env_remove("LD_LIBRARY_PATH"),
        };
    }
    command
}

fn is_set_for_one_package(name: &str) -> bool {
    name.starts_with("CARGO_PKG_")
        || [
            "CARGO",
            "CARGO_MANIFEST_DIR",
            "CARGO_MANIFEST_PATH",
            "CARGO_BIN_NAME",
            "CARGO_CRATE_NAME",
            "CARGO_PRIMARY_PACKAGE",
            "RUST_RECURSION_COUNT",
        ]
        .contains(&name)
}

/// `LD_LIBRARY_PATH` without the target directory and the toolchain's libraries, which `cargo run` puts in front.
fn without_cargo_libraries(paths: &OsStr, target: &Path) -> Option<OsString> {
    let paths: Vec<PathBuf> = env::split_paths(paths).collect();
    // `cargo run` adds <sysroot>/lib/rustlib/<host>/lib and <sysroot>/lib.
    let rustlibs: Vec<&Path> =
        paths.iter().filter_map(|path| path.ancestors().nth(2)).filter(|path| path.ends_with("lib/rustlib")).collect();
    let of_toolchain =
        |path: &Path| rustlibs.iter().any(|rustlib| path.starts_with(rustlib) || rustlib.parent() == Some(path));
    let rest: Vec<&PathBuf> = paths
        .iter()
        .filter(|path| !path.as_os_str().is_empty())
        .filter(|path| !path.starts_with(target))
        .filter(|path| !of_toolchain(path))
        .collect();
    if rest.is_empty() {
        return None;
    }
    env::join_paths(rest).ok()
}

/// Announces and runs a command; a failure names it.
pub fn run(purpose: &str, command: &mut Command) -> Result<()> {
    let status = attempt(purpose, command)?;
    if !status.success() {
        bail!("{purpose} failed: `{}` ended with {status}", shown(command));
    }
    Ok(())
}

/// Announces and runs a command whose failure is an answer.
pub fn attempt(purpose: &str, command: &mut Command) -> Result<ExitStatus> {
    announce(purpose, command);
    command.stdin(Stdio::null()).status().with_context(|| could_not_run(command))
}

/// Announces a command and becomes it, so that its signals, its last lines and its exit code are ours. Returns only an error.
pub fn become_program(purpose: &str, command: &mut Command) -> anyhow::Error {
    announce(purpose, command);
    let error = command.exec();
    anyhow::Error::new(error).context(could_not_run(command))
}

/// Runs a command without a word: what it wrote to stdout where it went well, else `None`.
pub fn probe(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Says what is run, and what for.
pub fn announce(purpose: &str, command: &Command) {
    eprintln!("+ {purpose}: {}", shown(command));
}

fn could_not_run(command: &Command) -> String {
    format!("`{}` could not be run", shown(command))
}

/// The command as one would type it; arguments with blanks are quoted.
fn shown(command: &Command) -> String {
    let words = [command.get_program()].into_iter().chain(command.get_args());
    let words: Vec<String> = words
        .map(|word| match word.to_string_lossy() {
            word if word.is_empty() || word.contains([' ', '"', '\'']) => format!("{word:?}"),
            word => word.into_owned(),
        })
        .collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_one_would_type_it() {
        let mut command = Command::new("cargo");
        command.args(["test", "two words", ""]);
        assert_eq!(shown(&command), r#"cargo test "two words" """#);
    }

    #[test]
    fn a_failed_command_is_named_with_its_purpose() {
        let error =
            run("asking for the impossible", &mut Command::new("false")).expect_err("`false` fails").to_string();
        assert!(error.starts_with("asking for the impossible failed: `false`"), "{error}");
    }

    #[test]
    fn the_libraries_that_cargo_run_adds_are_taken_away_and_the_users_own_stay() {
        let added = "/src/target/debug:/src/target/debug/deps:/rust/stable/lib/rustlib/x86_64-unknown-linux-gnu/lib:/rust/stable/lib";
        assert_eq!(without_cargo_libraries(added.as_ref(), Path::new("/src/target")), None);
        let with_own = format!("{added}:/opt/own/lib");
        assert_eq!(without_cargo_libraries(with_own.as_ref(), Path::new("/src/target")), Some("/opt/own/lib".into()));
    }

    #[test]
    fn what_cargo_sets_for_this_package_is_no_business_of_other_compilers() {
        assert!(is_set_for_one_package("CARGO_PKG_NAME"));
        assert!(is_set_for_one_package("CARGO"));
        assert!(!is_set_for_one_package("CARGO_HOME"));
        assert!(!is_set_for_one_package("CARGO_TARGET_DIR"));
    }
}
