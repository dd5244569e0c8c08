//! `cargo xtask bench flood|pods|known|outage|soak`: proves what is claimed of the agent, with a real containerd and the release build.
//!
//! Beside the end-to-end tests, whose lab it uses, since it takes minutes and measures time. Needs what they need: root,
//! containerd, runc, busybox-static and gcc. Ends with 1 where a claim does not hold.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a measurement stops at the first thing that is not as it should be"
)]

mod claims;
mod flood;
mod known;
mod lives;
mod outage;
mod pods;
mod receiver;
mod soak;
#[expect(dead_code, reason = "the tests use all of it")]
#[path = "../../tests/e2e/support/mod.rs"]
mod support;
mod watched;
mod work;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

#[derive(Parser)]
struct Arguments {
    /// The agent's program.
    #[arg(long)]
    program: PathBuf,
    #[command(subcommand)]
    proof: Proof,
}

#[derive(Subcommand)]
enum Proof {
    /// Refused writes by four processes as fast as the machine allows.
    Flood {
        #[arg(long, default_value_t = 20_000_000)]
        writes: u64,
    },
    /// Containers that live for milliseconds.
    Pods {
        #[arg(long, default_value_t = 1000)]
        containers: usize,
    },
    /// A node full of pods.
    Known {
        #[arg(long, default_value_t = 250)]
        pods: usize,
    },
    /// A receiver that is away twice.
    Outage {
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
    /// For long; with a seed, with kills.
    Soak {
        #[arg(long, default_value_t = 3)]
        minutes: u64,
        #[arg(long)]
        chaos: Option<u64>,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let Arguments { program, proof } = Arguments::parse();
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("      load of the machine when this began: {}", load.trim());
    let measured = async {
        match proof {
            Proof::Flood { writes } => flood::run(&program, writes).await,
            Proof::Pods { containers } => pods::run(&program, containers).await,
            Proof::Known { pods } => known::run(&program, pods).await,
            Proof::Outage { seconds } => outage::run(&program, seconds).await,
            Proof::Soak { minutes, chaos } => soak::run(&program, minutes, chaos).await,
        }
    };
    let mut asked_to_end =
        [SignalKind::interrupt(), SignalKind::terminate()].map(|kind| signal(kind).expect("signals can be awaited"));
    let [interrupt, terminate] = &mut asked_to_end;
    // Whatever it has started and mounted goes when it is dropped.
    tokio::select! {
        held = measured => if held { ExitCode::SUCCESS } else { ExitCode::FAILURE },
        _ = interrupt.recv() => ExitCode::from(2),
        _ = terminate.recv() => ExitCode::from(2),
    }
}
