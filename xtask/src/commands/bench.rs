//! `cargo xtask bench`: what rosentry costs, and whether that is within its limits.

mod budget;
mod peer_list;
mod peers;
mod publish;
mod report;
mod sheet;
mod svg;

use std::{path::Path, process::ExitCode, time::Duration};

use anyhow::{Result, bail};
use clap::Subcommand;

use self::report::Report;
use crate::{
    commands::setup,
    kernel_object,
    requirements::Need,
    vm::{
        initramfs,
        kernel::Series,
        machine::{End, MEMORY_MIB, Machine, Time},
        program,
    },
    workspace::Workspace,
};

/// What can be measured.
#[derive(Clone, Debug, Subcommand)]
pub enum Bench {
    /// Instructions per operation, counted by QEMU inside Debian's kernels, and held against their limits; the same from run to
    /// run to a percent. Ends with 1 where a limit is broken
    Cost {
        /// The kernel to measure in; all of them when it is not given
        #[arg(long = "kernel")]
        kernels: Vec<Series>,
    },
    /// What learning mode costs whoever writes to a root that is not sealed, beside what the tracepoints do; in the same way
    Learning {
        /// The kernel to measure in; all of them when it is not given
        #[arg(long = "kernel")]
        kernels: Vec<Series>,
    },
    /// What rosentry and other tools cost and see, each in a machine of its own, counted in the same way; kept in docs/benchmarks
    Peers {
        /// The kernel to measure in; all of them when it is not given
        #[arg(long = "kernel")]
        kernels: Vec<Series>,
        /// The tool to measure; all of them when it is not given
        #[arg(long = "peer")]
        peers: Vec<String>,
    },
    /// Write docs/benchmarks anew: tables and pictures of the figures that are kept there
    Report {
        /// Write nothing, and end with 1 where a file is not what the figures say
        #[arg(long)]
        check: bool,
    },
    /// What each kind of hook costs by itself, with a program that only looks at a result; in the same way
    Hooks {
        /// The kernel to measure in; all of them when it is not given
        #[arg(long = "kernel")]
        kernels: Vec<Series>,
    },
}

/// The package and program that runs inside.
const PROGRAM: &str = "rosentry-cost";

/// What the program needs of the kernel that Debian has as a module.
const MODULES: &[&str] = &["overlay"];

/// One figure takes seconds at most.
const SILENCE: Duration = Duration::from_secs(120);

/// Runs one benchmark and prints its tables.
pub fn run(workspace: &Workspace, bench: &Bench) -> Result<ExitCode> {
    let (kernels, job) = match bench {
        Bench::Cost { kernels } => (kernels, "/program 2>&1\n"),
        Bench::Learning { kernels } => (kernels, "/program learning 2>&1\n"),
        Bench::Hooks { kernels } => (kernels, "/program bare 2>&1\n"),
        Bench::Peers { kernels, peers } => return peers::run(workspace, or_all(kernels), peers),
        Bench::Report { check } => return publish::run(workspace, *check),
    };
    let kernels = or_all(kernels);
    let tools = setup::ensure(workspace, Need::VirtualMachine)?;
    kernel_object::build(workspace, &tools)?;
    let built =
        program::build(workspace, "building what is measured", PROGRAM, &["build", "--release", "--package", PROGRAM])?;
    let program = program::stripped(workspace, &built, PROGRAM)?;

    let mut all_held = true;
    for &series in kernels {
        let report = measure(workspace, series, &program, job)?;
        println!("{}", report.costs()?);
        if let Bench::Cost { .. } = bench {
            let (budgets, held) = report.budgets()?;
            println!("{budgets}");
            all_held &= held;
        }
    }
    if let Bench::Cost { .. } = bench {
        println!("bench cost: {}", if all_held { "all limits are held" } else { "a limit is broken" });
    }
    Ok(if all_held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The kernels that are asked for, all where none is.
fn or_all(kernels: &[Series]) -> &[Series] {
    if kernels.is_empty() { &[Series::V6_1, Series::V6_12] } else { kernels }
}

/// Runs the program in one kernel.
fn measure(workspace: &Workspace, series: Series, program: &Path, job: &str) -> Result<Report> {
    let kernel = series.image(workspace)?;
    let initramfs = workspace.target().join(format!("vm/cost-{}.cpio", series.name()));
    let modules = series.modules(workspace, MODULES)?;
    initramfs::write(&initramfs, &initramfs::Contents { program, job, others: &[], words: &[], modules: &modules })?;
    let mut report = Report::default();
    let machine = Machine {
        kernel: &kernel,
        initramfs: &initramfs,
        memory_mib: MEMORY_MIB,
        time: Time::Instructions,
        silence: SILENCE,
    };
    match machine.run(|line| report.take(line))? {
        End::Done => Ok(report),
        End::Early(lines) | End::Silent(lines) => {
            bail!("the measurement in Linux {} did not come to its end:\n{}", series.name(), lines.join("\n"))
        }
    }
}
