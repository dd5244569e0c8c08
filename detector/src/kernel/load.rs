//! Loading and attaching, and errors that say what to do.

use aya::{
    Btf, Ebpf, EbpfError, EbpfLoader,
    maps::{MapError, PerCpuArray, RingBuf},
    programs::{BtfTracePoint, ProgramError},
};
use aya_log::EbpfLogger;
use tracing::debug;

use super::{
    counters::Counters,
    layout::{self, LayoutError},
    plan::{self, Attachment},
    preflight::{self, Capability},
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
    /// A map of the object is not there or not as expected: object and binary don't belong together.
    #[error("the kernel object does not belong to this binary ({0}): build both with `cargo xtask build`")]
    Mismatch(String),
    /// The rings could not be watched.
    #[error("cannot wait for the kernel's rings: {0}")]
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
    /// Keeps the links.
    _ebpf: Ebpf,
    verified: Vec<Verified>,
}

/// The object for the kernel, built by `cargo xtask build`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/rosentry-bpf"));

impl Sensor {
    /// Loads and attaches the tracepoint mode. Must be called within a tokio runtime.
    ///
    /// Minimum kernel: 5.17 (`bpf_loop`) with BTF; proven on 6.1, 6.12 and 6.18.
    ///
    /// # Errors
    /// See [`KernelError`]; nothing stays attached then.
    pub fn attach() -> Result<(Self, Stream, Counters), KernelError> {
        if let Some(effective) = preflight::effective_capabilities() {
            let missing = preflight::missing_capabilities(effective, preflight::REQUIRED);
            if !missing.is_empty() {
                return Err(KernelError::Capabilities(missing));
            }
        }
        let offsets = layout::offsets()?;
        let log_level =
            if tracing::enabled!(tracing::Level::DEBUG) { log::Level::Debug } else { log::Level::Warn } as u8;
        let mut ebpf = EbpfLoader::new()
            .override_global("OFFSETS", &offsets, true)
            .override_global(aya_log::LEVEL, &log_level, false)
            .load(OBJECT)?;
        let mismatch = |map: &str| KernelError::Mismatch(format!("map {map} is missing"));
        let map_error = |error: MapError| KernelError::Mismatch(chain(&error));
        let mut ring = |name: &str| {
            let map = ebpf.take_map(name).ok_or_else(|| mismatch(name))?;
            RingBuf::try_from(map).map_err(map_error)
        };
        let (writes, urgent) = (ring("WRITES")?, ring("URGENT")?);
        let counters = ebpf.take_map("COUNTERS").ok_or_else(|| mismatch("COUNTERS"))?;
        let counters = Counters::new(PerCpuArray::try_from(counters).map_err(map_error)?);
        let logger = EbpfLogger::init(&mut ebpf).map_err(|error| KernelError::Mismatch(chain(&error)))?;
        let stream = Stream::new(writes, urgent, logger)?;

        let btf = Btf::from_sys_fs()
            .map_err(|error| LayoutError::Malformed { path: layout::BTF_PATH.into(), reason: chain(&error) })?;
        let mut verified = Vec::new();
        for attachment in plan::TRACEPOINT {
            let instructions = attach(&mut ebpf, &btf, attachment)?;
            debug!(program = attachment.program, ?instructions, "attached");
            verified.push(Verified { program: attachment.program, instructions });
        }
        Ok((Self { _ebpf: ebpf, verified }, stream, counters))
    }

    /// What the verifier did with each program.
    pub fn verified(&self) -> &[Verified] {
        &self.verified
    }
}

fn attach(ebpf: &mut Ebpf, btf: &Btf, attachment: &Attachment) -> Result<Option<u32>, KernelError> {
    let &Attachment { program, tracepoint, surfaces: _ } = attachment;
    let loaded: &mut BtfTracePoint = ebpf
        .program_mut(program)
        .ok_or_else(|| KernelError::Mismatch(format!("program {program} is missing")))?
        .try_into()
        .map_err(|error: ProgramError| KernelError::Mismatch(chain(&error)))?;
    let refused = |error: ProgramError| KernelError::Program { program, tracepoint, reason: explain(&error) };
    loaded.load(tracepoint, btf).map_err(refused)?;
    loaded.attach().map_err(refused)?;
    Ok(loaded.info().ok().and_then(|info| info.verified_instruction_count()))
}

/// One line of what the kernel said, with what to do where that is known.
fn explain(error: &ProgramError) -> String {
    use rustix::io::Errno;
    let errno = match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            debug!(%log, "the verifier's log");
            let last = fault(&log);
            {
                let all: Vec<_> = log.lines().collect();
                for l in &all[all.len().saturating_sub(30)..] {
                    eprintln!("L {l}");
                }
            }
            if let (Some(line), Some(libc::EACCES)) = (last, io_error.raw_os_error()) {
                return format!("{line}; please report it with the kernel version");
            }
            io_error.raw_os_error()
        }
        ProgramError::SyscallError(error) => error.io_error.raw_os_error(),
        _ => None,
    };
    match errno.map(Errno::from_raw_os_error) {
        Some(Errno::PERM) => {
            "it is not permitted; check the capabilities and whether the kernel's lockdown is at `confidentiality`"
                .to_owned()
        }
        Some(Errno::INVAL) => {
            "the kernel lacks this type of program; it must be 5.17 or newer with CONFIG_BPF_EVENTS=y".to_owned()
        }
        _ => chain(error),
    }
}

/// The verifier's last words before its statistics: they name the fault.
fn fault(log: &str) -> Option<&str> {
    const STATISTICS: [&str; 3] = ["processed ", "stack depth ", "verification time "];
    log.lines().rev().find(|line| !line.is_empty() && !STATISTICS.iter().any(|start| line.starts_with(start)))
}

/// An error and what it came from, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text.lines().next().unwrap_or_default().to_owned()
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
