//! A virtual machine whose clock counts instructions, in which a program measures and prints what it has measured.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Result, bail};

use crate::{
    commands::setup,
    kernel_object,
    requirements::Need,
    vm::{
        initramfs,
        kernel::Series,
        machine::{End, Line, Machine, Time},
        program,
    },
    workspace::Workspace,
};

/// The package and program that runs inside.
const PROGRAM: &str = "rosentry-cost";

/// What the program needs of the kernel that Debian has as a module.
const MODULES: &[&str] = &["overlay"];

/// One measurement.
pub struct Guest<'a> {
    /// What is measured, a word that becomes the name of a file.
    pub name: &'a str,
    /// The program that measures, as [`program`] built it.
    pub program: &'a Path,
    /// What the machine does: a piece of shell script.
    pub job: &'a str,
    /// Other files, each by the path that it has inside and where it is here.
    pub others: &'a [(PathBuf, PathBuf)],
    pub memory_mib: u32,
    /// For how long it may say nothing before it counts as hung.
    pub silence: Duration,
}

impl Guest<'_> {
    /// Measures in one kernel, and hands on each line as it comes.
    ///
    /// # Errors
    /// Where the machine did not come to its end, with its last lines.
    pub fn run(&self, workspace: &Workspace, series: Series, on_line: impl FnMut(Line<'_>)) -> Result<()> {
        let &Guest { name, program, job, others, memory_mib, silence } = self;
        let kernel = series.image(workspace)?;
        let modules = series.modules(workspace, MODULES)?;
        let initramfs = workspace.target().join(format!("vm/{name}-{}.cpio", series.name()));
        initramfs::write(&initramfs, &initramfs::Contents { program, job, others, words: &[], modules: &modules })?;
        let time = Time::Instructions;
        match (Machine { kernel: &kernel, initramfs: &initramfs, memory_mib, time, silence }).run(on_line)? {
            End::Done => Ok(()),
            End::Early(lines) | End::Silent(lines) => {
                bail!("{name} in Linux {} did not come to its end:\n{}", series.name(), lines.join("\n"))
            }
        }
    }
}

/// Builds the program that measures, with the kernel's programs in it.
pub fn program(workspace: &Workspace) -> Result<PathBuf> {
    let tools = setup::ensure(workspace, Need::VirtualMachine)?;
    kernel_object::build(workspace, &tools)?;
    released(workspace, PROGRAM, PROGRAM)
}

/// Builds a program of this package as it is shipped, without what only a debugger reads.
pub fn released(workspace: &Workspace, name: &str, package: &str) -> Result<PathBuf> {
    let build = ["build", "--release", "--package", package];
    let built = program::build(workspace, "building what is measured", name, &build)?;
    program::stripped(workspace, &built, name)
}
