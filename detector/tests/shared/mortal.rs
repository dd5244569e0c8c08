//! Processes that do not outlive the test that starts them: one that is killed, by a time limit say, can't stop them.

use std::{os::unix::process::CommandExt as _, process::Command};

use rustix::process::{Signal, set_parent_process_death_signal};

/// Has the kernel kill the process when the thread that starts it ends.
pub fn ends_with_its_test(command: &mut Command) {
    // SAFETY: a system call, which is all that may be done between fork and exec.
    unsafe { command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?)) };
}
