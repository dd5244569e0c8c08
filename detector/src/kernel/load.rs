//! Loading and attaching, and errors that say what to do.

use aya::{
    Btf, Ebpf, EbpfError, EbpfLoader,
    maps::{MapError, PerCpuArray, RingBuf},
    programs::{BtfTracePoint, ProgramError},
};
use aya_log::EbpfLogger;
use detector_common::{budget::ROWS, uring::MembersTable};
use tracing::{debug, info, warn};

use crate::error_chain::chain;

use super::{
    counters::{Counters, Tallies},
    folds::{self, Folds},
    functions::Functions,
    layout::{self, Layout, LayoutError},
    plan::{self, Attachment, Group, Hooks, Observing},
    preflight::{self, Capability},
    serving::{Attached, Serving, serving},
    shared::Shared,
    stream::Stream,
};

/// Why the kernel side is not attached.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// This process may not load programs.
    #[error(
        "rosentry lacks {}: run it as root or grant it",
        .0.iter().map(|capability| format!("{} ({})", capability.name, capability.why)).collect::<Vec<_>>().join(" and ")
    )]
    Capabilities(Vec<Capability>),
    /// The kernel's structures are not known.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The object was refused before its programs were loaded.
    #[error("the kernel refuses rosentry's maps: {}", chain(.0))]
    Object(#[from] EbpfError),
    /// A program was refused.
    #[error("the kernel refuses the program {program} on the tracepoint {tracepoint}: {reason}")]
    Program {
        /// The program.
        program: &'static str,
        /// Where it was to go.
        tracepoint: &'static str,
        /// What the kernel said, in one line, and what to do where that is known.
        reason: String,
    },
    /// A program was refused at a kernel function.
    #[error("the kernel refuses the program {program} at the function {function}: {reason}")]
    Function {
        /// The program.
        program: &'static str,
        /// Where it was to go.
        function: &'static str,
        /// What the kernel said, in one line, and what to do where that is known.
        reason: String,
    },
    /// Kernel functions were asked for, and none can have a program.
    #[error("this node can't be watched at kernel functions: {0}; use `--hooks auto` or `--hooks tracepoint`")]
    NoFunctions(String),
    /// A map of the object is not there or not as expected: object and binary don't belong together.
    #[error("the kernel object does not belong to this binary ({0}): build both with `cargo xtask build`")]
    Mismatch(String),
    /// The rings could not be watched, or the kernel's memory not be shared.
    #[error("cannot reach the kernel's rings and tables: {0}")]
    Rings(#[from] std::io::Error),
}

/// What the verifier did with a program.
#[derive(Clone, Debug)]
pub struct Verified {
    /// The program.
    pub program: &'static str,
    /// Instructions that the verifier went through; at a million it gives up. None before kernel 5.16.
    pub instructions: Option<u32>,
}

/// The attached programs. Dropping it detaches them.
pub struct Sensor {
    /// Dropped first, and all at once.
    functions: Option<Functions>,
    /// Keeps the other links.
    ebpf: Ebpf,
    verified: Vec<Verified>,
    coverage: Vec<(&'static str, bool)>,
    serving: Vec<Serving>,
}

/// The map that counts repeats of writes that succeed.
const OBSERVED: &str = "OBSERVED";

/// The object for the kernel, built by `cargo xtask build`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/rosentry-bpf"));

impl Sensor {
    /// Loads and attaches. Must be called within a tokio runtime.
    ///
    /// Minimum kernel: 5.17 (`bpf_loop`) with BTF; proven on 6.1, 6.12 and 6.18.
    ///
    /// # Errors
    /// See [`KernelError`]; nothing stays attached then.
    pub fn attach(hooks: Hooks) -> Result<(Self, Stream, Counters), KernelError> {
        Self::attach_as(hooks, &[], None)
    }

    /// The same, in learning mode where `observing` is there.
    ///
    /// # Errors
    /// See [`KernelError`]; nothing stays attached then.
    pub fn attach_observing(
        hooks: Hooks,
        observing: Option<Observing>,
    ) -> Result<(Self, Stream, Counters), KernelError> {
        Self::attach_as(hooks, &[], observing)
    }

    /// The same, as if the kernel lacked the functions of the points whose programs at the exit are `left_out`
    /// ([`Point::exit`](super::points::Point::exit)).
    ///
    /// # Errors
    /// See [`KernelError`]; nothing stays attached then.
    pub fn attach_without(hooks: Hooks, left_out: &[&str]) -> Result<(Self, Stream, Counters), KernelError> {
        Self::attach_as(hooks, left_out, None)
    }

    fn attach_as(
        hooks: Hooks,
        left_out: &[&str],
        observing: Option<Observing>,
    ) -> Result<(Self, Stream, Counters), KernelError> {
        if let Some(effective) = preflight::effective_capabilities() {
            let missing = preflight::missing_capabilities(effective, preflight::REQUIRED);
            if !missing.is_empty() {
                return Err(KernelError::Capabilities(missing));
            }
        }
        let layout = layout::read()?;
        let log_level =
            if tracing::enabled!(tracing::Level::DEBUG) { log::Level::Debug } else { log::Level::Warn } as u8;
        // Whoever can guess it can call helpers, and needs no key.
        let gate_key = u64::from(std::process::id()) << 32
            | u64::from(std::time::UNIX_EPOCH.elapsed().map_or(0, |time| time.subsec_nanos()));
        let secret = folds::secret()?;
        let node_mount_namespace = observing.and_then(|observing| observing.node_mount_namespace).unwrap_or_default();
        let members = layout.io_uring.unwrap_or(MembersTable::UNSET);
        let mut loader = EbpfLoader::new();
        if observing.is_none() {
            // No program is loaded that would use it.
            loader.map_max_entries(OBSERVED, 1);
        }
        let mut ebpf = loader
            .override_global("NODE_MOUNT_NAMESPACE", &node_mount_namespace, true)
            .override_global("OFFSETS", &layout.offsets, true)
            .override_global("URING_MEMBERS", &members, true)
            .override_global("GATE_KEY", &gate_key, true)
            .override_global("FOLD_SECRET", &*secret, true)
            .override_global(aya_log::LEVEL, &log_level, false)
            .load(OBJECT)?;
        // It has a copy of the kernel's types, some 25 MiB, and the programs need another.
        drop(loader);
        let mismatch = |map: &str| KernelError::Mismatch(format!("map {map} is missing"));
        let map_error = |error: MapError| KernelError::Mismatch(chain(&error));
        let mut ring = |name: &str| {
            let map = ebpf.take_map(name).ok_or_else(|| mismatch(name))?;
            RingBuf::try_from(map).map_err(map_error)
        };
        let (writes, urgent, cgroups) = (ring("WRITES")?, ring("URGENT")?, ring("CGROUPS")?);
        let counters = ebpf.take_map("COUNTERS").ok_or_else(|| mismatch("COUNTERS"))?;
        let counters = PerCpuArray::try_from(counters).map_err(map_error)?;
        let denied = ebpf.take_map("DENIED").ok_or_else(|| mismatch("DENIED"))?;
        let denied = PerCpuArray::try_from(denied).map_err(map_error)?;
        // These stay: a map that is mapped is not open thereby, and the programs are loaded with it.
        let map = |name: &str| ebpf.map(name).ok_or_else(|| mismatch(name));
        let folds = Folds::new(map("FOLD")?).map_err(map_error)?;
        let observed = observing.map(|_| Folds::new(map(OBSERVED)?).map_err(map_error)).transpose()?;
        let rows = Shared::of_map(map("CGROUP_ROWS")?, ROWS as usize).map_err(map_error)?;
        let tallies = Tallies::new(rows, denied);
        let logger = EbpfLogger::init(&mut ebpf).map_err(|error| KernelError::Mismatch(chain(&error)))?;
        let stream = Stream::new(writes, urgent, cgroups, folds, observed, logger)?;

        let btf = Btf::from_sys_fs()
            .map_err(|error| LayoutError::Malformed { path: layout::BTF_PATH.into(), reason: chain(&error) })?;
        let mut sensor =
            Self { functions: None, ebpf, verified: Vec::new(), coverage: Vec::new(), serving: Vec::new() };
        // First, so that no event comes before its cgroup could be known.
        sensor.attach_groups(&btf, &[plan::CGROUPS], &layout)?;
        if hooks != Hooks::Tracepoint {
            match Functions::attach(&mut sensor.ebpf, &btf, &layout.places, left_out) {
                Ok(functions) => sensor.functions = Some(functions),
                Err(KernelError::Function { reason, .. }) if hooks == Hooks::Fexit => {
                    return Err(KernelError::NoFunctions(reason));
                }
                Err(error @ KernelError::Function { .. }) => info!("the tracepoints are used: {error}"),
                Err(error) => return Err(error),
            }
        }
        let mut reporting = Vec::new();
        match &mut sensor.functions {
            None => sensor.attach_groups(&btf, &[plan::IO_URING, plan::SYSCALLS], &layout)?,
            Some(functions) => {
                functions.announce(&mut sensor.ebpf)?;
                reporting.append(&mut functions.reporting);
                sensor.verified.append(&mut functions.verified);
                let needed = functions.need_no_tracepoint();
                for (not_needed, group) in needed.into_iter().zip([plan::SYSCALLS, plan::IO_URING]) {
                    if not_needed {
                        sensor.coverage.extend(group.surfaces.iter().map(|&surface| (surface, true)));
                    } else {
                        sensor.attach_groups(&btf, &[group], &layout)?;
                    }
                }
            }
        }
        if observing.is_some() {
            sensor.attach_groups(&btf, &[plan::OBSERVE], &layout)?;
            sensor.coverage.extend(plan::NOT_OBSERVED.map(|surface| (surface, false)));
        }
        let functions = sensor.functions.as_ref();
        // What falls back has the limits of the tracepoints.
        let at_functions = functions.is_some_and(|functions| functions.need_no_tracepoint()[0]);
        sensor.coverage.extend(plan::limits(at_functions));
        sensor.coverage.push((plan::KERNEL_MOUNTS, functions.is_some_and(Functions::tell_mounts)));
        sensor.serving = serving(&Attached {
            functions: functions.map_or(&[], |functions| &functions.attached),
            covered: functions.map_or([0; 2], Functions::covered),
            io_uring: sensor.coverage.contains(&("writes_io_uring", true)),
        });
        Ok((sensor, stream, Counters::new(counters, tallies, reporting)))
    }

    fn attach_groups(&mut self, btf: &Btf, groups: &[Group], layout: &Layout) -> Result<(), KernelError> {
        for group in groups {
            let known = group.surfaces != plan::IO_URING.surfaces || layout.io_uring.is_some();
            let seen = known && self.attach_group(btf, group)?;
            self.coverage.extend(group.surfaces.iter().map(|&surface| (surface, seen)));
        }
        Ok(())
    }

    /// The name of the mode.
    pub const fn mode(&self) -> &'static str {
        if self.functions.is_some() { "fexit" } else { "tracepoint" }
    }

    /// Whether the group is attached; an optional one need not be.
    fn attach_group(&mut self, btf: &Btf, group: &Group) -> Result<bool, KernelError> {
        let mut attached = Vec::new();
        for attachment in group.attachments {
            match attach(&mut self.ebpf, btf, attachment) {
                Ok(instructions) => {
                    debug!(program = attachment.program, ?instructions, "attached");
                    attached.push(Verified { program: attachment.program, instructions });
                }
                Err(error) if group.optional => {
                    warn!("{} is not seen: {error}", group.surfaces.join(", "));
                    for Verified { program, .. } in attached {
                        if let Err(error) = find(&mut self.ebpf, program)?.unload() {
                            debug!(program, %error, "could not be detached");
                        }
                    }
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        self.verified.append(&mut attached);
        Ok(true)
    }

    /// Every surface that rosentry knows of, and whether it is seen on this kernel.
    pub fn coverage(&self) -> &[(&'static str, bool)] {
        &self.coverage
    }

    /// What serves each operation.
    pub fn serving(&self) -> &[Serving] {
        &self.serving
    }

    /// Detaches one program, for tests, which show by it that nothing else sees what it sees. Whether it was attached. At a kernel
    /// function it takes its entry along, and waits until it is gone.
    ///
    /// # Errors
    /// Where there is no such program.
    #[doc(hidden)]
    pub fn detach(&mut self, program: &str) -> Result<bool, KernelError> {
        if self.functions.as_mut().is_some_and(|functions| functions.detach(program)) {
            return Ok(true);
        }
        let is_tracepoint = plan::TRACEPOINT.iter().flat_map(|group| group.attachments);
        if !is_tracepoint.into_iter().any(|attachment| attachment.program == program) {
            return Ok(false);
        }
        Ok(find(&mut self.ebpf, program)?.unload().is_ok())
    }

    /// What the verifier did with each program.
    pub fn verified(&self) -> &[Verified] {
        &self.verified
    }
}

/// The program of the object by its name.
fn find<'a>(ebpf: &'a mut Ebpf, program: &str) -> Result<&'a mut BtfTracePoint, KernelError> {
    ebpf.program_mut(program)
        .ok_or_else(|| KernelError::Mismatch(format!("program {program} is missing")))?
        .try_into()
        .map_err(|error: ProgramError| KernelError::Mismatch(chain(&error)))
}

fn attach(ebpf: &mut Ebpf, btf: &Btf, attachment: &Attachment) -> Result<Option<u32>, KernelError> {
    let &Attachment { program, tracepoints } = attachment;
    let loaded = find(ebpf, program)?;
    let mut tracepoint = "";
    let mut result = Ok(());
    for name in tracepoints {
        tracepoint = name;
        result = loaded.load(name, btf);
        // An older or newer kernel may have it by the next name.
        if !matches!(result, Err(ProgramError::Btf(_))) {
            break;
        }
    }
    let refused = |error: ProgramError| KernelError::Program { program, tracepoint, reason: explain(&error) };
    result.map_err(refused)?;
    loaded.attach().map_err(refused)?;
    Ok(loaded.info().ok().and_then(|info| info.verified_instruction_count()))
}

/// One line of what the kernel said, with what to do where that is known.
pub(super) fn explain(error: &ProgramError) -> String {
    use rustix::io::Errno;
    let errno = match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            debug!(%log, "the verifier's log");
            let last = fault(&log);
            if let (Some(line), Some(libc::EACCES)) = (last, io_error.raw_os_error()) {
                return format!("{line}; please report it with the kernel version");
            }
            io_error.raw_os_error()
        }
        ProgramError::SyscallError(error) => error.io_error.raw_os_error(),
        _ => None,
    };
    match errno.map(Errno::from_raw_os_error) {
        // What the programs read of the kernel is withheld then, by one errno or another.
        Some(Errno::PERM | Errno::INVAL) if locked_down() => {
            "the kernel's lockdown is at `confidentiality`, which forbids it; boot with `lockdown=integrity`".to_owned()
        }
        Some(Errno::PERM) => {
            "it is not permitted; check the capabilities of this process and its seccomp profile".to_owned()
        }
        Some(Errno::INVAL) => {
            "the kernel lacks this type of program; it must be 5.17 or newer with CONFIG_BPF_EVENTS=y".to_owned()
        }
        _ => chain(error),
    }
}

/// Whether the kernel keeps its memory secret from programs (kernel 5.4, `security/lockdown/lockdown.c`).
fn locked_down() -> bool {
    std::fs::read_to_string("/sys/kernel/security/lockdown").is_ok_and(|levels| levels.contains("[confidentiality]"))
}

/// The verifier's last words before its statistics: they name the fault.
fn fault(log: &str) -> Option<&str> {
    const STATISTICS: [&str; 3] = ["processed ", "stack depth ", "verification time "];
    log.lines().rev().find(|line| !line.is_empty() && !STATISTICS.iter().any(|start| line.starts_with(start)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fault_stands_before_the_verifiers_statistics() {
        let log = "12: (79) r1 = *(u64 *)(r2 +0)\nR2 invalid mem access 'scalar'\nverification time 3400 usec\n\
            stack depth 160+0+16\nprocessed 88 insns (limit 1000000) max_states_per_insn 0\n\n";
        assert_eq!(fault(log), Some("R2 invalid mem access 'scalar'"));
        assert_eq!(fault("processed 0 insns (limit 1000000)\n"), None);
    }
}
