//! A tool in a machine of its own: what it leaves behind in the kernel, as auditing does, is no other's. The program that measures
//! sets it up and asks it what it has seen.

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use super::{
    guest::{self, Guest},
    peer_list::{BASE, PEERS, Peer},
    sheet::{Entry, Sheet},
};
use crate::{
    packages,
    process::probe,
    vm::{
        kernel::Series,
        machine::{Line, QEMU},
        program,
    },
    workspace::Workspace,
};

const ZONE: &str = "export TZ=UTC0\n";
/// A flood with a tool that holds it up.
const SILENCE: Duration = Duration::from_secs(900);

/// What is measured of each tool.
pub struct Measurement<'a> {
    /// The subcommand of `cargo xtask bench`.
    pub name: &'a str,
    /// What the machine does once the tool is set up, for a tool and its words.
    pub job: fn(&Peer, &str) -> String,
    /// Files that it needs besides the tool's, each by the path that it has inside and where it is here.
    pub files: &'a [(PathBuf, PathBuf)],
    pub memory_mib: u32,
}

/// Where the figures of a measurement in a kernel are kept.
pub fn sheet_of(workspace: &Workspace, name: &str, series: Series) -> PathBuf {
    workspace.root().join(format!("docs/benchmarks/{name}-{}.json", series.name()))
}

impl Measurement<'_> {
    /// Measures these tools (none: all) in these kernels, and keeps the figures.
    pub fn run<T: Entry>(&self, workspace: &Workspace, kernels: &[Series], wanted: &[String]) -> Result<ExitCode> {
        let peers = named(wanted)?;
        let (program, agent) = (guest::program(workspace)?, guest::released(workspace, "rosentry", "detector")?);
        let qemu = probe(Command::new(QEMU).arg("--version"))
            .and_then(|said| said.lines().next().map(str::to_owned))
            .with_context(|| format!("{QEMU} does not tell its version"))?;
        for &series in kernels {
            let path = sheet_of(workspace, self.name, series);
            let mut sheet: Sheet<T> = Sheet::read(&path)?;
            sheet.qemu.clone_from(&qemu);
            sheet.command = format!("cargo xtask bench {}", self.name);
            for peer in &peers {
                eprintln!("{} in Linux {}", peer.name, series.name());
                let (kernel, mut tool) = self.measure::<T>(workspace, series, peer, &program, &agent)?;
                sheet.kernel = kernel;
                if peer.costs_before
                    && let Some(base) = sheet.tool(BASE)
                {
                    tool.take_base(base);
                }
                sheet.put(tool);
                // Each as it comes: a later one may fail.
                sheet.write(&path)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Runs one tool: the kernel's release, and what was measured.
    fn measure<T: Entry>(
        &self,
        workspace: &Workspace,
        series: Series,
        peer: &Peer,
        program: &Path,
        agent: &Path,
    ) -> Result<(String, T)> {
        let (version, mut others) = unpacked(workspace, peer)?;
        others.push(("/rosentry".into(), agent.to_owned()));
        others.extend_from_slice(self.files);
        let date = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
        let mut tool = T::of(peer, version, date);
        let (mut release, mut failed) = (String::new(), false);
        let job = job(peer, self.job);
        let (memory_mib, silence) = (self.memory_mib, SILENCE);
        let guest = Guest { name: self.name, program, job: &job, others: &others, memory_mib, silence };
        guest.run(workspace, series, |line| match line {
            Line::Message("kernel", said) => said.clone_into(&mut release),
            Line::Message(..) => {}
            Line::Other(text) => {
                failed |= text.starts_with("Error:");
                tool.take(text);
                // All of it, since there is nothing else to see for minutes.
                eprintln!("  {text}");
            }
        })?;
        if failed {
            bail!("not all was measured of {} in Linux {release}", peer.name);
        }
        Ok((release, tool))
    }
}

/// The tools of these names; all where none is named.
fn named(wanted: &[String]) -> Result<Vec<&'static Peer>> {
    if let Some(unknown) = wanted.iter().find(|name| PEERS.iter().all(|peer| peer.name != **name)) {
        let names: Vec<_> = PEERS.iter().map(|peer| peer.name).collect();
        bail!("there is no peer {unknown}: name one of {}", names.join(", "));
    }
    Ok(PEERS.iter().filter(|peer| wanted.is_empty() || wanted.iter().any(|name| name == peer.name)).collect())
}

/// Sets the tool up, and goes on with what is measured. Told the time zone, since a tool that looks for a file of it, where there is
/// none, would tell of that itself.
fn job(peer: &Peer, measured: fn(&Peer, &str) -> String) -> String {
    let words = [peer.name, peer.mark, peer.told, peer.command].map(quoted).join(" ");
    format!("{ZONE}{}\n{}", peer.setup, measured(peer, &words))
}

/// As one word for the shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The version of the tool, and its files by where they are inside and here.
fn unpacked(workspace: &Workspace, peer: &Peer) -> Result<(String, Vec<(PathBuf, PathBuf)>)> {
    let Some(package) = peer.packages.first() else {
        let version = if peer.command.contains("/rosentry ") { env!("CARGO_PKG_VERSION") } else { "the kernel's" };
        return Ok((version.to_owned(), Vec::new()));
    };
    let folder = workspace.target().join("vm").join(package);
    if !folder.exists() {
        packages::unpack(peer.name, peer.packages, &folder)?;
    }
    let version = packages::version(package, &folder)
        .with_context(|| format!("{} holds no {package}: remove it, so that it is fetched anew", folder.display()))?;
    let mut files: Vec<_> = peer.files.iter().map(|file| (Path::new("/").join(file), folder.join(file))).collect();
    for program in peer.programs {
        files.extend(program::with_libraries(&folder, program)?);
    }
    Ok((version, files))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_tool_reach_it_as_they_are() {
        assert_eq!(quoted("exec x 'a b' \"c\""), r#"'exec x '\''a b'\'' "c"'"#);
    }

    #[test]
    fn tools_are_measured_in_the_order_of_their_list_and_none_that_is_unknown() {
        let names = |wanted: &[&str]| -> Result<Vec<_>> {
            let wanted: Vec<String> = wanted.iter().map(ToString::to_string).collect();
            Ok(named(&wanted)?.into_iter().map(|peer| peer.name).collect())
        };
        assert_eq!(names(&["ftrace", "auditd"]).unwrap(), ["auditd", "ftrace"]);
        assert_eq!(names(&[]).unwrap().len(), PEERS.len());
        let error = names(&["falco"]).unwrap_err().to_string();
        assert!(error.contains("there is no peer falco") && error.contains("opensnoop"), "{error}");
    }
}
