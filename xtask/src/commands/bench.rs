//! `cargo xtask bench`: what rosentry costs, and whether that is within its limits.

mod beside;
mod budget;
mod guest;
mod peer_list;
mod peers;
mod proof;
mod publish;
mod publish_real;
mod real;
mod report;
mod sheet;
mod svg;

use std::{fmt::Display, process::ExitCode, time::Duration};

use anyhow::Result;
use clap::Subcommand;

use self::{guest::Guest, report::Report};
use crate::{
    vm::{
        kernel::Series,
        machine::{Line, MEMORY_MIB},
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
    /// What rosentry and other tools cost a build, nginx under wrk and redis under its benchmark, each in a machine of its own,
    /// counted in the same way; kept in docs/benchmarks
    Real {
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
    /// What it costs the agent to compile the built-in rules and to ask them about a path; in the same way
    Rules,
    /// What each kind of hook costs by itself, with a program that only looks at a result; in the same way
    Hooks {
        /// The kernel to measure in; all of them when it is not given
        #[arg(long = "kernel")]
        kernels: Vec<Series>,
    },
    /// Refused writes by four processes as fast as this machine allows: whether every count says the same number, and what it
    /// costs the agent and its other containers. Ends with 1 where a claim is broken, as those that follow do
    Flood {
        /// In all
        #[arg(long, default_value_t = 20_000_000)]
        writes: u64,
    },
    /// Containers that live for milliseconds and are refused one write each, 20 at a time: whether each is told with its pod
    Pods {
        /// In all
        #[arg(long, default_value_t = 1000)]
        containers: usize,
    },
    /// A node full of read-only pods: the agent's memory, and how soon a refused write is told when little happens
    Known {
        /// Pods of one container each
        #[arg(long, default_value_t = 250)]
        pods: usize,
    },
    /// A receiver of syslog that is away twice, under 1 000 different refused writes a second: whether every event arrives
    Outage {
        /// Seconds that it is away
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
    /// The agent under load for long: whether its memory stays flat. With --chaos, containerd, the receiver and the agent are killed
    /// now and then: whether the record stays whole, and nothing is lost that is not said to be
    Soak {
        /// How long
        #[arg(long, default_value_t = 3)]
        minutes: u64,
        /// Kill at random, from this seed
        #[arg(long, value_name = "SEED")]
        chaos: Option<u64>,
    },
}

/// One figure takes seconds at most.
const SILENCE: Duration = Duration::from_secs(120);

/// Runs one benchmark and prints its tables.
pub fn run(workspace: &Workspace, bench: &Bench) -> Result<ExitCode> {
    let words = |words: &[&dyn Display]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
    let (kernels, job) = match bench {
        Bench::Cost { kernels } => (kernels, "/program 2>&1\n"),
        Bench::Learning { kernels } => (kernels, "/program learning 2>&1\n"),
        Bench::Hooks { kernels } => (kernels, "/program bare 2>&1\n"),
        Bench::Peers { kernels, peers } => return peers::run(workspace, or_all(kernels), peers),
        Bench::Real { kernels, peers } => return real::run(workspace, or_all(kernels), peers),
        Bench::Rules => return rules(workspace),
        Bench::Report { check } => return publish::run(workspace, *check),
        Bench::Flood { writes } => return proof::run(workspace, &words(&[&"flood", &"--writes", writes])),
        Bench::Pods { containers } => return proof::run(workspace, &words(&[&"pods", &"--containers", containers])),
        Bench::Known { pods } => return proof::run(workspace, &words(&[&"known", &"--pods", pods])),
        Bench::Outage { seconds } => return proof::run(workspace, &words(&[&"outage", &"--seconds", seconds])),
        Bench::Soak { minutes, chaos } => {
            let mut words = words(&[&"soak", &"--minutes", minutes]);
            words.extend(chaos.iter().flat_map(|seed| ["--chaos".to_owned(), seed.to_string()]));
            return proof::run(workspace, &words);
        }
    };
    let kernels = or_all(kernels);
    let program = guest::program(workspace)?;
    let guest = Guest { name: "cost", program: &program, job, others: &[], memory_mib: MEMORY_MIB, silence: SILENCE };

    let mut all_held = true;
    for &series in kernels {
        let mut report = Report::default();
        guest.run(workspace, series, |line| report.take(line))?;
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

/// Prints what the program says of the rules. They know nothing of a kernel: one will do.
fn rules(workspace: &Workspace) -> Result<ExitCode> {
    let program = guest::program(workspace)?;
    let job = "/program rules 2>&1\n";
    let guest = Guest { name: "rules", program: &program, job, others: &[], memory_mib: MEMORY_MIB, silence: SILENCE };
    guest.run(workspace, Series::V6_12, |line| {
        if let Line::Other(text) = line {
            println!("{text}");
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The kernels that are asked for, all where none is.
fn or_all(kernels: &[Series]) -> &[Series] {
    if kernels.is_empty() { &[Series::V6_1, Series::V6_12] } else { kernels }
}
