//! `cargo xtask test`: all tests, the last words being those of the test runner.
//!
//! They run in the dev profile: the crates compile in about half the time of the release profile, `lint` shares its build
//! scripts and macros, overflow checks and debug assertions are on, and no release build is needed, as cargo gives the tests
//! a `rosentry` of their own.

use std::{
    ffi::OsString,
    fs,
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result};

use crate::{
    commands::setup,
    deploy, kernel_object,
    privilege::Privilege,
    process::{become_program, run as run_command},
    programs,
    requirements::Need,
    workspace::Workspace,
};

/// The crates with a library of their own, which alone can have doc-tests.
const LIBRARIES: [&str; 2] = ["detector", "detector-common"];

/// Sets up, builds the kernel programs, and becomes the test runner; `arguments` are for it.
pub fn run(workspace: &Workspace, arguments: &[OsString]) -> Result<ExitCode> {
    // Asked before the set-up and the build, which would be in vain.
    let privilege = Privilege::held().context(
        "the tests load programs into the kernel and start containerd, which only root may: run `sudo -v`, then this again",
    )?;
    let tools = setup::ensure(workspace, Need::Test)?;
    let nextest = setup::ensure_nextest(workspace)?;
    deploy::tools::ensure(workspace)?;
    // The tests that run them say what is missing; the others need none.
    if let Err(error) = programs::ensure(workspace) {
        eprintln!("  {error:#}");
    }
    kernel_object::build(workspace, &tools)?;

    let cargo = workspace.cargo();
    // A filter is for the runner, which knows no doc-tests.
    if arguments.is_empty() {
        run_doc_tests(workspace)?;
    }
    let mut runner = Command::new(nextest);
    workspace.place(&mut runner);
    runner
        .env("CARGO", cargo.get_program())
        .args(["nextest", "run", "--workspace", "--exclude", "detector-ebpf"])
        .args(arguments);
    if privilege == Privilege::Sudo {
        // The build stays the user's, the test programs alone run as root.
        runner.env(runner_variable(&tools.compiler.version.host), "sudo -n -E");
    }
    Err(become_program("running the tests", &mut runner))
}

fn run_doc_tests(workspace: &Workspace) -> Result<()> {
    for library in LIBRARIES {
        if has_doc_test(&workspace.root().join(library).join("src")) {
            run_command(
                "running the examples in the documentation",
                workspace.cargo().args(["test", "--doc", "--package", library]),
            )?;
        }
    }
    Ok(())
}

/// The variable that tells cargo and nextest what to start a target's programs with.
fn runner_variable(host: &str) -> String {
    format!("CARGO_TARGET_{}_RUNNER", host.to_uppercase().replace('-', "_"))
}

/// Whether a source file beneath this folder has an example that rustdoc would run.
fn has_doc_test(folder: &Path) -> bool {
    let Ok(entries) = fs::read_dir(folder) else {
        return false;
    };
    entries.filter_map(Result::ok).any(|entry| {
        let path = entry.path();
        if path.is_dir() {
            return has_doc_test(&path);
        }
        path.extension().is_some_and(|extension| extension == "rs")
            && fs::read_to_string(&path).is_ok_and(|source| contains_doc_test(&source))
    })
}

fn contains_doc_test(source: &str) -> bool {
    let mut inside = false;
    source
        .lines()
        .filter_map(|line| {
            let line = line.trim_start();
            line.strip_prefix("///").or_else(|| line.strip_prefix("//!"))
        })
        .filter_map(|line| line.trim_start().strip_prefix("```"))
        .any(|language| {
            // Fences come in pairs; only the opening one says what is in it.
            inside = !inside;
            inside
                && language
                    .split(',')
                    .map(str::trim)
                    .all(|word| ["", "rust", "no_run", "should_panic", "compile_fail"].contains(&word))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_example_that_rustdoc_would_run_is_a_doc_test() {
        assert!(contains_doc_test("/// ```\n/// assert!(true);\n/// ```\n"));
        assert!(contains_doc_test("    //! ```rust,no_run\n"));
    }

    #[test]
    fn text_in_a_fence_is_no_doc_test_and_neither_is_a_closing_fence() {
        assert!(!contains_doc_test("//! ```text\n//! picture\n//! ```\n"));
        assert!(!contains_doc_test("/// ```json\n/// {}\n/// ```\n/// ```ignore\n/// ```\n"));
        assert!(!contains_doc_test("let fence = \"```\";\n"));
    }

    #[test]
    fn the_runner_variable_is_the_one_that_cargo_reads() {
        assert_eq!(runner_variable("x86_64-unknown-linux-gnu"), "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER");
    }
}
