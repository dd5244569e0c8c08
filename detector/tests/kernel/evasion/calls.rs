//! The lists of calls that other tests make, each made as a whole: what of it is seen, and which program sees it.

use std::{collections::BTreeSet, sync::LazyLock};

use detector::{
    finding::operation::refine,
    kernel::{attempt::Attempt, plan::Hooks},
};
use detector_common::{abi::Abi, operation::Operation, record::RecordKind};
use io_uring::squeue::Flags;

use super::{
    super::{every_syscall, io_uring::requests, mounts, ring::Ring, sensor::hooks_under_test},
    stage::Said,
};

/// One list, made through one door.
pub struct Run {
    pub name: &'static str,
    pub act: fn() -> Said,
    abi: Abi,
    kind: RecordKind,
}

pub const RUNS: &[Run] = &[
    Run { name: "every write, 64-bit", act: || writes(Abi::X86_64), abi: Abi::X86_64, kind: RecordKind::WriteDenied },
    Run { name: "every write, int 0x80", act: || writes(Abi::Ia32), abi: Abi::Ia32, kind: RecordKind::WriteDenied },
    Run {
        name: "every change of mounts, 64-bit",
        act: || changes(Abi::X86_64),
        abi: Abi::X86_64,
        kind: RecordKind::MountAttempt,
    },
    Run {
        name: "every change of mounts, int 0x80",
        act: || changes(Abi::Ia32),
        abi: Abi::Ia32,
        kind: RecordKind::MountAttempt,
    },
    Run {
        name: "a ring",
        act: || on_ring(Ring::new, Flags::empty()),
        abi: Abi::IoUring,
        kind: RecordKind::WriteDenied,
    },
    Run {
        name: "a ring's workers",
        act: || on_ring(Ring::new, Flags::ASYNC),
        abi: Abi::IoUring,
        kind: RecordKind::WriteDenied,
    },
    Run {
        name: "a polled ring",
        act: || on_ring(Ring::polled, Flags::empty()),
        abi: Abi::IoUring,
        kind: RecordKind::WriteDenied,
    },
];

fn writes(door: Abi) -> Said {
    every_syscall::ask_for_every_write(door);
    Said::myself()
}

fn changes(door: Abi) -> Said {
    mounts::ask_for_all(door);
    Said::myself()
}

fn on_ring(ring: fn() -> Ring, flags: Flags) -> Said {
    requests::ask_for_every_write(&mut ring(), flags);
    Said::myself()
}

/// A call that was seen.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Call {
    pub syscall: &'static str,
    pub operation: Operation,
}

impl Run {
    /// The calls of the list among what was seen.
    pub fn seen(&self, attempts: &[Attempt]) -> BTreeSet<Call> {
        let of_run = attempts.iter().filter(|attempt| attempt.abi == self.abi && attempt.kind == self.kind);
        of_run.map(|attempt| Call { syscall: attempt.syscall.name, operation: refine(attempt) }).collect()
    }

    /// The program that sees a call of the list in the mode under test.
    pub fn hook(&self, call: &Call) -> String {
        if hooks_under_test() == Hooks::Fexit {
            return function(self.abi, call);
        }
        if self.abi == Abi::IoUring { "io_uring_complete" } else { "sys_exit" }.to_owned()
    }
}

/// The program at the kernel function.
fn function(abi: Abi, call: &Call) -> String {
    let door = if abi == Abi::Ia32 { "ia32" } else { "x64" };
    let newer = |older: &str, newer: &str| if has_newer_functions() { newer } else { older }.to_owned();
    match call.syscall {
        // A ring's changes of attributes end in no function of their own.
        "setxattr" | "fsetxattr" if abi == Abi::IoUring => "io_uring_complete".to_owned(),
        "open" | "creat" | "openat" | "openat2" => "exit_open".to_owned(),
        "open_by_handle_at" => "exit_open_handle".to_owned(),
        "fchown" if abi == Abi::Ia32 => "ia32_fchown16".to_owned(),
        "fchown" | "fchown32" => format!("{door}_fchown"),
        "fsetxattr" => newer(&format!("{door}_fsetxattr"), "exit_setxattrat"),
        "fremovexattr" => newer(&format!("{door}_fremovexattr"), "exit_removexattrat"),
        "file_setattr" => format!("{door}_file_setattr"),
        "umount" => "ia32_oldumount".to_owned(),
        "umount2" => format!("{door}_umount"),
        name if call.operation.changes_mounts() => format!("{door}_{name}"),
        _ => match call.operation {
            Operation::Setxattr => newer("exit_setxattr", "exit_setxattrat"),
            Operation::Removexattr => newer("exit_removexattr", "exit_removexattrat"),
            other => format!("exit_{}", other.name()),
        },
    }
}

/// Whether the kernel has one function for attributes by path and on open files (6.13), in place of two.
fn has_newer_functions() -> bool {
    // Asked once: it is long, and the kernel writes it slowly.
    static HAS: LazyLock<bool> =
        LazyLock::new(|| std::fs::read_to_string("/proc/kallsyms").unwrap().contains(" path_setxattrat\n"));
    *HAS
}
