//! `cargo xtask bench peers`: what rosentry costs and sees beside other tools, in one kernel and by the same program.
//!
//! A machine for each tool: what it leaves behind in the kernel, as auditing does, is no other's.

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use super::{
    MODULES, PROGRAM,
    peer_list::{BASE, PEERS, Peer},
    sheet::{Sheet, Tool},
};
use crate::{
    commands::setup,
    kernel_object, packages,
    process::probe,
    requirements::Need,
    vm::{
        initramfs,
        kernel::Series,
        machine::{End, Line, Machine, QEMU, Time},
        program,
    },
    workspace::Workspace,
};

/// A compiler such as bpftrace's is large.
const MEMORY_MIB: u32 = 2048;
const ZONE: &str = "export TZ=UTC0\n";
/// A flood with a tool that holds it up.
const SILENCE: Duration = Duration::from_secs(900);
/// What is flooded: kind, processes, writes in all.
const FLOODS: [(&str, u32, u32); 4] =
    [("again", 1, 40_000), ("again", 4, 40_000), ("new", 1, 40_000), ("new", 4, 40_000)];

/// Where the figures of a kernel are kept.
pub fn sheet_of(workspace: &Workspace, series: Series) -> PathBuf {
    workspace.root().join(format!("docs/benchmarks/peers-{}.json", series.name()))
}

/// Measures these tools (none: all) in these kernels.
pub fn run(workspace: &Workspace, kernels: &[Series], wanted: &[String]) -> Result<ExitCode> {
    if let Some(unknown) = wanted.iter().find(|name| PEERS.iter().all(|peer| peer.name != **name)) {
        let names: Vec<_> = PEERS.iter().map(|peer| peer.name).collect();
        bail!("there is no peer {unknown}: name one of {}", names.join(", "));
    }
    let tools = setup::ensure(workspace, Need::VirtualMachine)?;
    kernel_object::build(workspace, &tools)?;
    let built = |name, package| {
        let build = ["build", "--release", "--package", package];
        let built = program::build(workspace, "building what is measured", name, &build)?;
        program::stripped(workspace, &built, name)
    };
    let (program, agent) = (built(PROGRAM, PROGRAM)?, built("rosentry", "detector")?);
    let qemu = probe(Command::new(QEMU).arg("--version"))
        .and_then(|said| said.lines().next().map(str::to_owned))
        .with_context(|| format!("{QEMU} does not tell its version"))?;
    for &series in kernels {
        let path = sheet_of(workspace, series);
        let mut sheet = Sheet::read(&path)?;
        sheet.qemu.clone_from(&qemu);
        "cargo xtask bench peers".clone_into(&mut sheet.command);
        for peer in PEERS.iter().filter(|peer| wanted.is_empty() || wanted.iter().any(|name| name == peer.name)) {
            eprintln!("{} in Linux {}", peer.name, series.name());
            let (kernel, mut tool) = measure(workspace, series, peer, &program, &agent)?;
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

/// Runs one tool in a machine of its own: the kernel's release, and what was measured.
fn measure(workspace: &Workspace, series: Series, peer: &Peer, program: &Path, agent: &Path) -> Result<(String, Tool)> {
    let kernel = series.image(workspace)?;
    let modules = series.modules(workspace, MODULES)?;
    let (version, mut others) = unpacked(workspace, peer)?;
    others.push(("/rosentry".into(), agent.to_owned()));
    let initramfs = workspace.target().join(format!("vm/peers-{}.cpio", series.name()));
    let contents = initramfs::Contents { program, job: &job(peer), others: &others, words: &[], modules: &modules };
    initramfs::write(&initramfs, &contents)?;

    let date = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
    let mut tool = Tool { name: peer.name.to_owned(), version, date, sees: peer.sees.to_owned(), ..Tool::default() };
    let (mut release, mut failed) = (String::new(), false);
    let machine = Machine {
        kernel: &kernel,
        initramfs: &initramfs,
        memory_mib: MEMORY_MIB,
        time: Time::Instructions,
        silence: SILENCE,
    };
    let end = machine.run(|line| match line {
        Line::Message("kernel", said) => said.clone_into(&mut release),
        Line::Message(..) => {}
        Line::Other(text) => {
            failed |= text.starts_with("Error:");
            if !tool.take(text) {
                eprintln!("  {text}");
            }
        }
    })?;
    match end {
        End::Done if failed => bail!("not all was measured of {} in Linux {release}", peer.name),
        End::Done => {
            if !peer.tells_refused {
                (tool.attempts, tool.told, tool.said_lost) = (0, 0, 0);
            }
            Ok((release, tool))
        }
        End::Early(lines) | End::Silent(lines) => {
            bail!("{} in Linux {} did not come to its end:\n{}", peer.name, series.name(), lines.join("\n"))
        }
    }
}

/// What the machine does: sets the tool up, measures, and floods. Told the time zone, since a tool that looks for a file of it, where
/// there is none, would tell of that itself.
fn job(peer: &Peer) -> String {
    let words = [peer.name, peer.mark, peer.told, peer.command].map(quoted).join(" ");
    let mut job = format!("{ZONE}{}\n/program beside {words} 2>&1\n", peer.setup);
    for (kind, processes, writes) in FLOODS.into_iter().filter(|_| peer.tells_refused) {
        job += &format!("/program flood {kind} {processes} {writes} {words} 2>&1\n");
    }
    job
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
    fn a_tool_that_does_not_tell_of_refused_writes_is_not_flooded() {
        let floods = |name: &str| {
            let peer = PEERS.iter().find(|peer| peer.name == name).unwrap();
            job(peer).matches("/program flood").count()
        };
        assert_eq!((floods("mountsnoop"), floods("auditd")), (0, FLOODS.len()));
    }
}
