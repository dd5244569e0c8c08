//! `rosentry uninstall`: removes what agents have left in the kernel for those that come after them.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use super::node::given;
use crate::kernel::pins::{self, Pins};

/// Remove the programs, counts and records that a killed or stopped agent has left for the next one.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// The folder that the agent was given with --pin [default: the variable ROSENTRY_PIN, else /sys/fs/bpf/rosentry].
    #[arg(long, value_name = "PATH")]
    pin: Option<PathBuf>,
}

/// Removes it.
pub fn main(args: &Args) -> ExitCode {
    match uninstall(&given(args.pin.as_ref(), "ROSENTRY_PIN", pins::DEFAULT)) {
        Ok(said) => super::told(writeln!(io::stdout(), "{said}")),
        Err(sentence) => super::cannot(&sentence),
    }
}

fn uninstall(path: &Path) -> Result<String, pins::PinError> {
    if path.as_os_str() == "off" {
        return Ok("nothing is left: this agent keeps nothing (--pin off)".to_owned());
    }
    // Whoever may not look there is told so: what is not seen may be there all the same.
    let is_there = || path.try_exists().map_err(|source| pins::PinError::System { path: path.to_owned(), source });
    if !is_there()? {
        return Ok(format!("nothing is left: there is no {}", path.display()));
    }
    let links = Pins::open(path)?.uninstall()?;
    let folder = path.display();
    Ok(if is_there()? {
        format!("{links} programs detached; {folder} itself could not be removed")
    } else {
        format!("{links} programs detached, and {folder} removed")
    })
}
