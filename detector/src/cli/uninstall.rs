//! `rosentry uninstall`: removes what agents have left in the kernel for those that come after them.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use crate::kernel::pins::{self, Pins};

/// Remove the programs, counts and records that a killed or stopped agent has left for the next one.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// The folder that the agent was given with --pin.
    #[arg(long, value_name = "PATH", default_value = pins::DEFAULT)]
    pin: PathBuf,
}

/// Removes it.
pub fn main(args: &Args) -> ExitCode {
    match uninstall(&args.pin) {
        Ok(said) => super::told(writeln!(io::stdout(), "{said}")),
        Err(sentence) => super::cannot(&sentence),
    }
}

fn uninstall(path: &Path) -> Result<String, pins::PinError> {
    if !path.exists() {
        return Ok(format!("nothing is left: there is no {}", path.display()));
    }
    let links = Pins::open(path)?.uninstall()?;
    Ok(format!("{links} programs detached, and {} removed", path.display()))
}
