//! Where the parts of the node are, for the commands that look at it: options, else the environment, else the usual places.

use std::{env, path::PathBuf};

/// Where the cgroup hierarchies usually are.
pub(super) const USUAL_CGROUP: &str = "/sys/fs/cgroup";

/// The options; the variables of the environment are those of `rosentry run`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Places {
    /// Where the node's /proc is mounted [default: /proc].
    #[arg(long, value_name = "PATH")]
    pub(super) host_proc: Option<PathBuf>,
    /// Where the node's cgroup hierarchies are mounted [default: /sys/fs/cgroup].
    #[arg(long, value_name = "PATH")]
    pub(super) host_cgroup: Option<PathBuf>,
}

impl Places {
    /// The node's /proc.
    pub fn host_proc(&self) -> PathBuf {
        given(self.host_proc.as_ref(), "ROSENTRY_HOST_PROC", "/proc")
    }

    /// The node's cgroup hierarchies.
    pub fn host_cgroup(&self) -> PathBuf {
        given(self.host_cgroup.as_ref(), "ROSENTRY_HOST_CGROUP", USUAL_CGROUP)
    }
}

/// The option, else the variable where it is not empty (a chart that renders nothing leaves it so), else what is usual.
pub(super) fn given(option: Option<&PathBuf>, variable: &str, usual: &str) -> PathBuf {
    let of_environment = || env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    option.cloned().or_else(of_environment).unwrap_or_else(|| usual.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_outweighs_the_environment_and_that_the_usual_place() {
        let option = PathBuf::from("/option");
        // Cargo sets this one for every test.
        assert_eq!(given(Some(&option), "CARGO_MANIFEST_DIR", "/usual"), option);
        assert_eq!(given(None, "CARGO_MANIFEST_DIR", "/usual"), PathBuf::from(env!("CARGO_MANIFEST_DIR")));
        assert_eq!(given(None, "ROSENTRY_NO_SUCH_VARIABLE", "/usual"), PathBuf::from("/usual"));
    }
}
