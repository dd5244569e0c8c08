//! `cargo xtask setup`: what the other commands need and this machine lacks is installed or built.
//!
//! Each thing is looked for itself, no stamp file is believed; so a second run finds all in less than a second, and a machine
//! that lost something gets it back.

use std::{env, fs, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result, bail};

use crate::{
    deploy, linker, packages,
    process::{outside_cargo, run as run_command},
    programs,
    requirements::{Need, find_program, installed_programs, unmet},
    toolchain::{self, Compiler},
    workspace::Workspace,
};

/// The release of cargo-nextest to build where there is none; it builds with Rust 1.95.
const NEXTEST_VERSION: &str = "0.9.143";

/// The LLVM of Debian's compiler, for what has to be installed before that compiler can be asked.
const DEBIAN_LLVM_MAJOR: u32 = 22;

/// Where neither rustup nor Debian can help.
const NO_SOURCES: &str = "no compiler here has the sources of `core`, which the kernel programs are built with: run `rustup component add rust-src`";

/// What `build` needs to be told about this machine.
pub struct Tools {
    /// The compiler of the kernel programs.
    pub compiler: Compiler,
    /// The bpf-linker that links what this compiler makes.
    pub linker: PathBuf,
}

/// Sets up everything.
pub fn run(workspace: &Workspace) -> Result<ExitCode> {
    let tools = ensure(workspace, Need::VirtualMachine)?;
    let nextest = ensure_nextest(workspace)?;
    deploy::tools::ensure(workspace)?;
    programs::ensure(workspace)?;
    println!(
        "all set: rustc {} ({}) and {} for the kernel programs, {} for the tests",
        tools.compiler.version.release,
        if tools.compiler.is_debian() { "Debian's" } else { "the active one" },
        tools.linker.display(),
        nextest.display()
    );
    Ok(ExitCode::SUCCESS)
}

/// Makes sure of what a command needs; says nothing where all is there.
///
/// # Errors
/// One sentence that names what to do by hand.
pub fn ensure(workspace: &Workspace, need: Need) -> Result<Tools> {
    ensure_components(workspace, need);
    let mut compiler = Compiler::for_kernel(workspace)?;
    if compiler.is_none() {
        toolchain::add_components(workspace, &["rust-src"]);
        compiler = Compiler::for_kernel(workspace)?;
    }
    if compiler.is_none() && find_program("apt-get").is_empty() {
        bail!(NO_SOURCES);
    }
    let working_linker = |compiler: &Compiler| linker::find(workspace, compiler);
    let found = compiler.as_ref().and_then(working_linker);

    packages::install(&missing_packages(need, compiler.as_ref(), found.is_some()))?;
    if let Some(still) = unmet(need).first() {
        bail!(
            "{} is still missing, which is needed for {}: install what Debian calls {}",
            still.program(),
            still.purpose,
            still.package
        );
    }
    let compiler = match compiler {
        Some(compiler) => compiler,
        None => Compiler::for_kernel(workspace)?.context(NO_SOURCES)?,
    };
    let linker = match found.or_else(|| working_linker(&compiler)) {
        Some(linker) => linker,
        None => linker::install(workspace, &compiler)?,
    };
    Ok(Tools { compiler, linker })
}

/// The Debian packages to install: of the table, for a compiler where there is none, for its clippy where that is asked for, and
/// to build the linker where none works.
fn missing_packages(need: Need, compiler: Option<&Compiler>, linker_works: bool) -> Vec<String> {
    let mut missing = Vec::new();
    for requirement in unmet(need) {
        eprintln!("  {} is missing, for {}", requirement.program(), requirement.purpose);
        missing.push(requirement.package.to_owned());
    }
    if compiler.is_none() {
        eprintln!("  no compiler has the sources of `core`, for the kernel programs; taking Debian's");
        missing.extend(toolchain::DEBIAN_PACKAGES.map(str::to_owned));
    }
    if need == Need::Lint && compiler.is_none_or(Compiler::is_debian) && !Compiler::debian_has_clippy() {
        eprintln!("  Debian's compiler has no clippy, for the lint of the kernel programs");
        missing.push(toolchain::DEBIAN_CLIPPY.to_owned());
    }
    if !linker_works {
        eprintln!("  no bpf-linker works with this compiler, for the kernel programs; building one");
        let llvm_major = compiler.map_or(DEBIAN_LLVM_MAJOR, |compiler| compiler.version.llvm_major);
        missing.extend(
            linker::build_requirements(llvm_major)
                .into_iter()
                .filter(|(file, _)| !fs::exists(file).unwrap_or(false))
                .map(|(_, package)| package),
        );
    }
    missing
}

/// The parts of rustup's toolchain that `lint` runs. It says by itself which of its checks a machine can't run.
fn ensure_components(workspace: &Workspace, need: Need) {
    let missing: Vec<&str> = [("cargo-clippy", "clippy"), ("cargo-fmt", "rustfmt")]
        .into_iter()
        .filter(|(program, _)| need == Need::Lint && find_program(program).is_empty())
        .map(|(_, component)| component)
        .collect();
    if !missing.is_empty() {
        toolchain::add_components(workspace, &missing);
    }
}

/// The test runner, built where there is none.
pub fn ensure_nextest(workspace: &Workspace) -> Result<PathBuf> {
    let find = || {
        let installed = installed_programs().join("cargo-nextest");
        find_program("cargo-nextest").into_iter().next().or_else(|| installed.exists().then_some(installed))
    };
    if let Some(nextest) = find() {
        return Ok(nextest);
    }
    run_command(
        "building cargo-nextest (a few minutes, once)",
        outside_cargo(workspace, env::var_os("CARGO").unwrap_or("cargo".into()))
            // It waits for tests most of the time; optimised, it would take three times as long to build.
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0")
            .args(["install", "cargo-nextest", "--version", NEXTEST_VERSION, "--locked"])
            .args(["--no-default-features", "--features", "default-no-update"]),
    )?;
    find().context("cargo-nextest is built and not to be found: put cargo's bin folder on the PATH")
}
