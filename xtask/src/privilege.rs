//! Root, or a way to it that asks for no password.

use std::{ffi::OsStr, fs, os::unix::fs::MetadataExt as _, process::Command};

use crate::process::probe;

/// How this process may do what only root may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privilege {
    /// It is root.
    Root,
    /// `sudo` lets it, without a password.
    Sudo,
}

impl Privilege {
    /// What this process has; `None` where neither holds.
    pub fn held() -> Option<Self> {
        // A process's own folder in procfs belongs to its effective user.
        if fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0) {
            return Some(Self::Root);
        }
        probe(Command::new("sudo").args(["-n", "true"])).map(|_| Self::Sudo)
    }

    /// A command that runs `program` as root, with the given variables besides what sudo leaves of the environment.
    pub fn command(self, program: impl AsRef<OsStr>, variables: &[(&str, &str)]) -> Command {
        match self {
            Self::Root => {
                let mut command = Command::new(program);
                command.envs(variables.iter().copied());
                command
            }
            Self::Sudo => {
                let mut command = Command::new("sudo");
                command.args(["-n", "env"]);
                command.args(variables.iter().map(|(name, value)| format!("{name}={value}")));
                command.arg(program);
                command
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sudo_carries_the_variables_over_on_its_command_line() {
        let command = Privilege::Sudo.command("apt-get", &[("DEBIAN_FRONTEND", "noninteractive")]);
        let words: Vec<_> = command.get_args().collect();
        assert_eq!(command.get_program(), "sudo");
        assert_eq!(words, ["-n", "env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
    }
}
