//! `cargo xtask bench real`: what rosentry and other tools cost programs that do real work, in a sealed container.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::{beside::Measurement, peer_list::Peer, sheet::Entry};
use crate::{
    packages::{self, files_in},
    vm::{kernel::Series, program},
    workspace::Workspace,
};

/// Of its figures' files.
pub const NAME: &str = "real";
/// The image is in memory, with a compiler and its libraries.
const MEMORY_MIB: u32 = 4096;
/// Where the image of the container is put together inside.
const IMAGE: &str = "/image";

/// Debian's packages of what works, and of its libraries.
const PACKAGES: &[&str] = &[
    "rustc",
    "libstd-rust-1.63",
    "libstd-rust-dev",
    "libllvm14",
    "libedit2",
    "libxml2",
    "libz3-4",
    "libicu72",
    "libbsd0",
    "librust-itoa-dev",
    "nginx",
    "nginx-common",
    "wrk",
    "libluajit-5.1-2",
    "redis-server",
    "redis-tools",
    "libjemalloc2",
    "liblua5.1-0",
    "liblzf1",
    "libhiredis0.14",
    "lua-cjson",
    "lua-bitop",
];
const PROGRAMS: [&str; 5] =
    ["usr/bin/rustc", "usr/sbin/nginx", "usr/bin/wrk", "usr/bin/redis-server", "usr/bin/redis-benchmark"];
/// Folders of which each file is needed whose name begins so: what is compiled, the crates that it needs, and what is served.
const FOLDERS: [(&str, &str); 5] = [
    ("usr/share/cargo/registry/itoa-1.0.1/src", ""),
    ("usr/lib/rustlib/x86_64-unknown-linux-gnu/lib", "libcore-"),
    ("usr/lib/rustlib/x86_64-unknown-linux-gnu/lib", "libcompiler_builtins-"),
    ("usr/lib/rustlib/x86_64-unknown-linux-gnu/lib", "librustc_std_workspace_core-"),
    ("usr/share/nginx/html", "index.html"),
];

/// One tool, and the programs that worked beside it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Worked {
    pub name: String,
    /// Of its package; of rosentry its own.
    pub version: String,
    /// The day on which it was measured, UTC.
    pub date: String,
    /// By the work.
    pub work: BTreeMap<String, Runs>,
}

/// Instructions from the start of a run to its end, or of one request, a figure a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Runs {
    /// In the same machine, before the tool was started.
    pub nothing: Vec<f64>,
    /// Beside it.
    pub with: Vec<f64>,
}

impl Runs {
    /// How much longer it takes beside the tool, percent of the median without.
    pub fn slower(&self) -> f64 {
        (median(&self.with) / median(&self.nothing) - 1.0) * 100.0
    }

    /// What lies between the fastest and the slowest run of the same kind, percent of their median: the greater of both kinds.
    pub fn spread(&self) -> f64 {
        let of = |runs: &[f64]| {
            let ends = runs.iter().fold((f64::INFINITY, 0.0), |(least, most), &run| (run.min(least), run.max(most)));
            (ends.1 - ends.0) / median(runs) * 100.0
        };
        of(&self.nothing).max(of(&self.with))
    }
}

/// The one in the middle; of an even number the lower of both.
pub fn median(runs: &[f64]) -> f64 {
    let mut sorted = runs.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}

impl Entry for Worked {
    fn of(peer: &Peer, version: String, date: String) -> Self {
        Self { name: peer.name.to_owned(), version, date, work: BTreeMap::new() }
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn take(&mut self, line: &str) -> bool {
        let ["real", name, work, which, run] = line.split_whitespace().collect::<Vec<_>>()[..] else { return false };
        let Ok(run) = run.parse() else { return false };
        if name != self.name {
            return false;
        }
        let runs = self.work.entry(work.to_owned()).or_default();
        match which {
            "without" => runs.nothing.push(run),
            "with" => runs.with.push(run),
            _ => return false,
        }
        true
    }

    fn take_base(&mut self, base: &Self) {
        for (work, runs) in &mut self.work {
            if let Some(of_base) = base.work.get(work) {
                runs.nothing.clone_from(&of_base.nothing);
            }
        }
    }
}

/// Measures beside these tools (none: all) in these kernels.
pub fn run(workspace: &Workspace, kernels: &[Series], wanted: &[String]) -> Result<ExitCode> {
    let files = image(workspace)?;
    Measurement { name: NAME, job, files: &files, memory_mib: MEMORY_MIB }.run::<Worked>(workspace, kernels, wanted)
}

/// nginx looks its user up, and all three talk over the loopback interface.
fn job(_peer: &Peer, words: &str) -> String {
    format!(
        "ifconfig lo 127.0.0.1 up
mkdir -p {IMAGE}/etc
printf 'root:x:0:0::/:/bin/sh\\nnobody:x:65534:65534::/:/bin/sh\\n' > {IMAGE}/etc/passwd
printf 'root:x:0:\\nnogroup:x:65534:\\n' > {IMAGE}/etc/group
/program real {words} 2>&1
"
    )
}

/// The files of the image, by where they are inside and here.
fn image(workspace: &Workspace) -> Result<Vec<(PathBuf, PathBuf)>> {
    let root = workspace.target().join("vm").join(NAME);
    if !root.exists() {
        packages::unpack("what works", PACKAGES, &root)?;
    }
    let mut files = Vec::new();
    for program in PROGRAMS {
        files.extend(program::with_libraries(&root, program)?);
    }
    for (folder, beginning) in FOLDERS {
        for here in files_in(&root.join(folder)) {
            let name = here.file_name().unwrap_or_default();
            // A file behind a link, too.
            if here.is_file() && name.to_string_lossy().starts_with(beginning) {
                files.push((Path::new("/").join(folder).join(name), here));
            }
        }
    }
    for (inside, _) in &mut files {
        *inside = Path::new(IMAGE).join(inside.strip_prefix("/").unwrap_or(inside));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_counts_for_what_it_was_of_and_another_tools_for_nothing() {
        let mut worked = Worked { name: "ftrace".to_owned(), ..Worked::default() };
        let lines = ["real ftrace build without 100.0", "real ftrace build with 103.0", "real ftrace nginx with 5.5"];
        assert!(lines.iter().all(|line| worked.take(line)));
        assert_eq!(worked.work["build"], Runs { nothing: vec![100.0], with: vec![103.0] });
        for other in ["real auditd build with 1.0", "real ftrace build then 1.0", "real ftrace build with soon", "real"]
        {
            assert!(!worked.take(other), "{other}");
        }
    }

    #[test]
    fn the_slow_down_is_that_of_the_medians_and_the_spread_that_of_the_kind_that_has_more_of_it() {
        let runs = Runs { nothing: vec![1010.0, 990.0, 1000.0], with: vec![1030.0, 1200.0, 1020.0] };
        assert!((runs.slower() - 3.0).abs() < 1e-9, "{}", runs.slower());
        assert!((runs.spread() - 180.0 / 1030.0 * 100.0).abs() < 1e-9, "{}", runs.spread());
    }

    #[test]
    fn what_costs_before_it_begins_is_compared_with_a_machine_without_it() {
        let of = |nothing, with| Worked {
            work: BTreeMap::from([("build".to_owned(), Runs { nothing: vec![nothing], with: vec![with] })]),
            ..Worked::default()
        };
        let mut audited = of(120.0, 121.0);
        audited.take_base(&of(100.0, 100.0));
        assert_eq!(audited, of(100.0, 121.0));
    }
}
