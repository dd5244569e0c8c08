//! Loading and attaching one program, and errors that say what to do.

use std::os::fd::{AsFd as _, OwnedFd};

use aya::{
    Btf, Ebpf, EbpfError,
    programs::{BtfTracePoint, ProgramError},
};
use tracing::debug;

use crate::error_chain::chain;

use super::{layout::LayoutError, links, pins::PinError, plan::Attachment, preflight::Capability};

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
    /// A member stands too far from the start of its structure.
    #[error(
        "a member of this kernel's structures stands {0} bytes from the start, and 32 767 are the most; please report the kernel version"
    )]
    FarMember(u32),
    /// The folder for what outlives the agent.
    #[error(transparent)]
    Pins(#[from] PinError),
    /// What was attached could not be pinned.
    #[error("the programs can't be kept for the next start: {0}; say --pin off to do without")]
    Pinning(std::io::Error),
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

/// The program of the object by its name.
fn find<'a>(ebpf: &'a mut Ebpf, program: &str) -> Result<&'a mut BtfTracePoint, KernelError> {
    ebpf.program_mut(program)
        .ok_or_else(|| KernelError::Mismatch(format!("program {program} is missing")))?
        .try_into()
        .map_err(|error: ProgramError| KernelError::Mismatch(chain(&error)))
}

/// Loads a program and attaches it; its link, and how many instructions the verifier went through.
pub(super) fn attach(
    ebpf: &mut Ebpf,
    btf: &Btf,
    attachment: &Attachment,
) -> Result<(OwnedFd, Option<u32>), KernelError> {
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
    let descriptor = loaded.fd().map_err(refused)?;
    let link = links::attach(descriptor.as_fd()).map_err(|error| KernelError::Program {
        program,
        tracepoint,
        reason: error.to_string(),
    })?;
    Ok((link, loaded.info().ok().and_then(|info| info.verified_instruction_count())))
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
