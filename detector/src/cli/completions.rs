//! `rosentry completions`: the command line, told to a shell.

use std::io::{self, Write};

use clap::CommandFactory;
use clap_complete::Shell;

/// Writes the completions for the shell to `out`.
///
/// # Errors
/// Where `out` takes them not.
pub fn main(shell: Shell, out: &mut dyn Write) -> io::Result<()> {
    // clap_complete panics where it can't write: into memory it can.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut super::CommandLine::command(), "rosentry", &mut script);
    out.write_all(&script)?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_learns_the_commands_and_their_options() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            main(shell, &mut script).unwrap();
            let script = String::from_utf8(script).unwrap();
            for word in ["doctor", "containerd-socket", "tracepoint"] {
                assert!(script.contains(word), "{word} is missing for {shell}");
            }
        }
    }
}
