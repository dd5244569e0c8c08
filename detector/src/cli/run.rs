//! `rosentry run`: the node agent.

use std::process::ExitCode;

use tokio::runtime::Builder;

use super::config::RunConfig;
use crate::agent::{
    self, memory,
    privileges::{self, Stage},
};

/// Events take turns on one thread, HTTP and containerd on the other.
const THREADS: usize = 2;

/// Runs the agent until it is told to stop.
pub fn main(config: RunConfig) -> ExitCode {
    super::log_to_stderr();
    memory::keep_little();
    if let Err(error) = privileges::begin() {
        return super::cannot(&format_args!(
            "the system does not let rosentry give up capabilities that it does not need: {error}; allow capset and prctl"
        ));
    }
    // What the thread that awaits the agent attaches, the others have no part in.
    let give_up = || {
        if let Err(error) = privileges::keep_for(Stage::Watching) {
            tracing::error!(%error, "a thread keeps capabilities that it does not need");
        }
    };
    let mut builder = Builder::new_multi_thread();
    let runtime = match builder.worker_threads(THREADS).on_thread_start(give_up).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return super::cannot(&format_args!("the system gives no threads to run on: {error}")),
    };
    let ended = runtime.block_on(agent::run(config));
    // A look at a filesystem that does not answer has no end, and holds up nobody's.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => super::cannot(&error),
    }
}
