//! The fexit mode: loads and attaches the programs of each point, finds what the kernel lacks, and detaches without delay.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use aya::{
    Btf, Ebpf,
    programs::{FEntry, FExit, Program, ProgramError, ProgramFd},
};
use detector_common::syscalls::SYSCALLS;
use tracing::{debug, warn};

use crate::error_chain::chain;

use super::{
    links,
    load::{KernelError, Verified, explain},
    pins::{Build, Links},
    plan::{self, Group},
    points::{self, GATE, MOUNTS, Place, Point},
};

/// The attached programs. Dropping them detaches them.
pub(super) struct Functions {
    links: Vec<(&'static Point, &'static str, OwnedFd)>,
    /// The points that are attached, with the function of each.
    pub(super) attached: Vec<(&'static Point, &'static str)>,
    /// That of the program which the others report to.
    gate: Option<OwnedFd>,
    pub(super) verified: Vec<Verified>,
    /// The programs without which a write is not told, for what they have missed.
    pub(super) reporting: Vec<(&'static str, OwnedFd)>,
    missing: Vec<&'static Point>,
}

impl Functions {
    /// Attaches what the kernel allows, without the points whose programs at the exit are `left_out`.
    ///
    /// # Errors
    /// Where it allows none at all, as under lockdown. Nothing stays attached then.
    pub(super) fn attach(
        ebpf: &mut Ebpf,
        btf: &Btf,
        places: &[(&'static Point, Place)],
        left_out: &[&str],
    ) -> Result<Self, KernelError> {
        let mut functions = Self {
            links: Vec::new(),
            attached: Vec::new(),
            gate: None,
            verified: Vec::new(),
            reporting: Vec::new(),
            missing: Vec::new(),
        };
        // First: the others report to it.
        let (program, function) = GATE;
        functions.gate = Some(functions.attach_entry(ebpf, btf, program, function)?);
        functions.watch_misses(program, find::<FEntry>(ebpf, program)?.fd());
        for &(point, place) in places {
            let attached = match place {
                Place::NotNeeded => continue,
                _ if left_out.contains(&point.exit) => Err("it is left out".to_owned()),
                Place::Missing => Err(format!("this kernel has no {} as it was known", point.functions[0].name)),
                Place::Function(function) => functions
                    .attach_point(ebpf, btf, point, function)
                    .map(|()| functions.attached.push((point, function)))
                    .map_err(|error| error.to_string()),
            };
            if let Err(reason) = attached {
                warn!("{}: {reason}", consequence(point));
                functions.missing.push(point);
            }
        }
        let detached = functions.leave_out_what_falls_back();
        links::detach(detached.into_iter().map(|(_, _, link)| link).collect());
        Ok(functions)
    }

    /// Those that were attached by an agent before, in the same way: none where they were not.
    pub(super) fn adopt(places: &[(&'static Point, Place)], links: &mut Links, build: &Build) -> Option<Self> {
        let (gate, _) = GATE;
        let mut functions = Self {
            links: Vec::new(),
            attached: Vec::new(),
            gate: Some(links.remove(gate)?),
            verified: Vec::new(),
            reporting: Vec::new(),
            missing: Vec::new(),
        };
        for &(point, place) in places {
            let link = match place {
                Place::NotNeeded => continue,
                Place::Missing => None,
                Place::Function(function) => links.remove(point.exit).map(|link| (function, link)),
            };
            match link {
                Some((function, link)) => {
                    let entry = point.entry.and_then(|entry| Some((entry, links.remove(entry)?)));
                    functions.links.extend(entry.map(|(name, link)| (point, name, link)));
                    functions.links.push((point, point.exit, link));
                    functions.attached.push((point, function));
                }
                None => functions.missing.push(point),
            }
        }
        let names = functions.links.iter().map(|&(_, name, _)| name).chain([gate]);
        functions.reporting = names.filter_map(|name| Some((name, build.program(name).ok()?))).collect();
        Some(functions)
    }

    /// Pins all that an agent after this one needs.
    pub(super) fn pin(&self, build: &Build) -> io::Result<()> {
        for (_, name, link) in &self.links {
            build.pin_link(name, link)?;
        }
        if let Some(gate) = &self.gate {
            build.pin_link(GATE.0, gate)?;
        }
        self.reporting.iter().try_for_each(|(name, program)| build.pin_program(name, program))
    }

    /// Leaves the programs attached where they are pinned.
    pub(super) fn close(mut self) {
        self.links.clear();
        self.gate = None;
    }

    /// Takes off what another point does not do for all of its operation.
    fn leave_out_what_falls_back(&mut self) -> Vec<(&'static Point, &'static str, OwnedFd)> {
        // What another reports for all of an operation must not be reported here for a part of it.
        let [covered, _] = self.covered();
        let falls_back = |point: &Point| point.operations.iter().any(|&operation| covered >> operation as u8 & 1 == 0);
        self.attached.retain(|(point, _)| !falls_back(point));
        let (detached, kept) = self.links.drain(..).partition::<Vec<_>, _>(|(point, ..)| falls_back(point));
        self.links = kept;
        detached
    }

    fn attach_point(
        &mut self,
        ebpf: &mut Ebpf,
        btf: &Btf,
        point: &'static Point,
        function: &'static str,
    ) -> Result<(), KernelError> {
        let mut links = Vec::new();
        // The entry first: an exit without it would report a call without its path.
        if let Some(name) = point.entry {
            links.push((point, name, self.attach_entry(ebpf, btf, name, function)?));
        }
        let name = point.exit;
        if let Some(Program::FEntry(_)) = ebpf.program(name) {
            links.push((point, name, self.attach_entry(ebpf, btf, name, function)?));
            self.links.append(&mut links);
            return Ok(());
        }
        let refused = |error: ProgramError| refusal(name, function, &error);
        let program: &mut FExit = find(ebpf, name)?;
        program.load(function, btf).map_err(refused)?;
        links.push((point, name, attach(program.fd(), name, function)?));
        self.verified.push(verified(name, program.info().ok()));
        let fd = program.fd();
        // Without the others something is not told, but nothing is lost.
        if !point.operations.is_empty() {
            self.watch_misses(name, fd);
        }
        self.links.append(&mut links);
        debug!(function, "attached");
        Ok(())
    }

    fn attach_entry(
        &mut self,
        ebpf: &mut Ebpf,
        btf: &Btf,
        name: &'static str,
        function: &'static str,
    ) -> Result<OwnedFd, KernelError> {
        let refused = |error: ProgramError| refusal(name, function, &error);
        let program: &mut FEntry = find(ebpf, name)?;
        program.load(function, btf).map_err(refused)?;
        let link = attach(program.fd(), name, function)?;
        self.verified.push(verified(name, program.info().ok()));
        Ok(link)
    }

    /// Has the program's misses counted as losses.
    fn watch_misses(&mut self, name: &'static str, program: Result<&ProgramFd, ProgramError>) {
        let descriptor = program.ok().and_then(|program| program.as_fd().try_clone_to_owned().ok());
        self.reporting.extend(descriptor.map(|descriptor| (name, descriptor)));
    }

    /// Detaches the programs of one point, named by that at its exit, and waits until they are gone; whether they were attached.
    pub(super) fn detach(&mut self, exit: &str) -> bool {
        let (detached, kept) = self.links.drain(..).partition::<Vec<_>, _>(|(point, ..)| point.exit == exit);
        self.links = kept;
        !detached.is_empty()
    }

    /// The bit sets of operations that need no tracepoint: of syscalls, of io_uring.
    pub(super) fn covered(&self) -> [u64; 2] {
        [points::covered(&self.missing, false), points::covered(&self.missing, true)]
    }

    /// Whether the kernel itself tells which mount has refused.
    pub(super) fn tell_mounts(&self) -> bool {
        self.attached.iter().any(|(point, _)| point.exit == MOUNTS.exit)
    }

    /// Whether each operation is seen without the tracepoint at the exit of syscalls, and without those of io_uring.
    fn need_no_tracepoint(&self) -> [bool; 2] {
        let [syscalls, io_uring] = self.covered();
        let has = |bits: u64, operation: u8| bits >> operation & 1 != 0;
        [
            SYSCALLS.iter().all(|row| has(syscalls, row.call.operation)),
            SYSCALLS.iter().filter(|row| row.io_uring.is_some()).all(|row| has(io_uring, row.call.operation)),
        ]
    }

    /// Whether they see all that the programs of this group would.
    pub(super) fn stands_for(&self, group: &Group) -> bool {
        let [syscalls, io_uring] = self.need_no_tracepoint();
        group.surfaces == plan::SYSCALLS.surfaces && syscalls || group.surfaces == plan::IO_URING.surfaces && io_uring
    }
}

impl Drop for Functions {
    fn drop(&mut self) {
        links::detach(self.links.drain(..).map(|(_, _, link)| link).chain(self.gate.take()).collect());
    }
}

fn attach(
    program: Result<&ProgramFd, ProgramError>,
    name: &'static str,
    function: &'static str,
) -> Result<OwnedFd, KernelError> {
    let refused = |reason: String| KernelError::Function { program: name, function, reason };
    let program = program.map_err(|error| refusal(name, function, &error))?;
    links::attach(program.as_fd()).map_err(|error| refused(error.to_string()))
}

fn find<'a, T>(ebpf: &'a mut Ebpf, program: &str) -> Result<&'a mut T, KernelError>
where
    &'a mut T: TryFrom<&'a mut Program, Error = ProgramError>,
{
    ebpf.program_mut(program)
        .ok_or_else(|| KernelError::Mismatch(format!("program {program} is missing")))?
        .try_into()
        .map_err(|error: ProgramError| KernelError::Mismatch(chain(&error)))
}

fn refusal(program: &'static str, function: &'static str, error: &ProgramError) -> KernelError {
    let errno = match error {
        ProgramError::LoadError { io_error, .. } => io_error.raw_os_error(),
        ProgramError::SyscallError(error) => error.io_error.raw_os_error(),
        _ => None,
    };
    // That this process has the capabilities was seen before.
    let reason = if errno == Some(libc::EPERM) {
        "the kernel does not permit it, as some don't under lockdown".to_owned()
    } else {
        explain(error)
    };
    KernelError::Function { program, function, reason }
}

fn verified(program: &'static str, info: Option<aya::programs::ProgramInfo>) -> Verified {
    Verified { program, instructions: info.and_then(|info| info.verified_instruction_count()) }
}

/// What it means that the point is not attached.
fn consequence(point: &Point) -> String {
    if point.operations.is_empty() {
        return "which mount refuses a write is looked up after the call".to_owned();
    }
    let operations: Vec<_> = point.operations.iter().map(|operation| operation.name()).collect();
    format!("{} falls back to the tracepoints", operations.join(", "))
}
