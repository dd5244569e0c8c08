//! `rosentry run`: the node agent.

use std::process::ExitCode;

use tokio::runtime::Builder;

use super::config::RunConfig;
use crate::agent;

/// Events take turns on one thread, HTTP and containerd on the other.
const THREADS: usize = 2;

/// Runs the agent until it is told to stop.
pub fn main(config: RunConfig) -> ExitCode {
    super::log_to_stderr();
    let runtime = match Builder::new_multi_thread().worker_threads(THREADS).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return super::cannot(&format_args!("the system gives no threads to run on: {error}")),
    };
    match runtime.block_on(agent::run(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => super::cannot(&error),
    }
}
