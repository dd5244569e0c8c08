//! rosentry's own chores, run as `cargo xtask COMMAND`; one file of `commands/` each.
//!
//! Exit codes: 0 done, 1 a check said no, 2 it could not be done, with one sentence on stderr that says what to do. `demo`
//! and `test` end with the exit code of the program that they become.

use std::{ffi::OsString, process::ExitCode};

use clap::{Parser, Subcommand};

mod commands;
mod deploy;
mod image;
mod kernel_object;
mod linker;
mod packages;
mod privilege;
mod process;
mod programs;
mod requirements;
mod toolchain;
mod vm;
mod workspace;

use workspace::Workspace;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "rosentry's own chores")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Install or build whatever the other commands need and this machine lacks
    Setup,
    /// Build the kernel programs and target/release/rosentry
    Build {
        /// Build the kernel programs alone: enough for plain `cargo check` and `cargo test`
        #[arg(long)]
        kernel_only: bool,
    },
    /// Set up, build, and run `rosentry demo` as root
    Demo {
        /// Arguments for `rosentry demo`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Set up, and run all tests, those on the kernel and on containerd included, as root
    Test {
        /// Arguments for `cargo nextest run`, such as a filter
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Run the tests of the kernel side inside Debian's kernels in QEMU
    TestVm {
        /// The kernel to run in; all of them when it is not given
        #[arg(long = "kernel")]
        kernels: Vec<vm::kernel::Series>,
        /// Run only tests whose name contains one of these
        filters: Vec<String>,
    },
    /// Give whatever reads hostile bytes to libFuzzer
    Fuzz {
        /// The target; each in turn when it is not given
        target: Option<String>,
        /// How long a target runs, seconds
        #[arg(long, default_value_t = 60)]
        seconds: u32,
    },
    /// Measure what rosentry costs
    Bench {
        #[command(subcommand)]
        bench: commands::bench::Bench,
    },
    /// Make the container image: an OCI archive, reproducible, with its SBOM beside it
    Image {
        /// What it is to run on; arm64 is prepared and untested
        #[arg(long, value_enum, default_value_t = image::Architecture::Amd64)]
        arch: image::Architecture,
    },
    /// Render the plain manifests, Prometheus' rules and the README's table of values from the Helm chart
    Render {
        /// Write nothing, and end with 1 where a file is not what the chart renders
        #[arg(long)]
        check: bool,
    },
    /// Check format, clippy with warnings denied on both targets, and licences where cargo-deny is installed
    Lint,
}

fn main() -> ExitCode {
    let workspace = Workspace::locate();
    let done = match Arguments::parse().chore {
        Chore::Setup => commands::setup::run(&workspace),
        Chore::Build { kernel_only } => commands::build::run(&workspace, kernel_only),
        Chore::Demo { arguments } => commands::demo::run(&workspace, &arguments),
        Chore::Test { arguments } => commands::test::run(&workspace, &arguments),
        Chore::TestVm { kernels, filters } => commands::test_vm::run(&workspace, &kernels, &filters),
        Chore::Fuzz { target, seconds } => commands::fuzz::run(&workspace, target.as_deref(), seconds),
        Chore::Bench { bench } => commands::bench::run(&workspace, &bench),
        Chore::Image { arch } => commands::image::run(&workspace, arch),
        Chore::Render { check } => commands::render::run(&workspace, check),
        Chore::Lint => commands::lint::run(&workspace),
    };
    done.unwrap_or_else(|error| {
        eprintln!("cargo xtask: {error:#}");
        ExitCode::from(2)
    })
}
