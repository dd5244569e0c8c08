//! The binary `rosentry`.

use std::process::ExitCode;

fn main() -> ExitCode {
    detector::cli::main()
}
