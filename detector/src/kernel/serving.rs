//! What serves each operation on this node: the attach plan as it came out.

use detector_common::{operation::Operation, syscalls::SYSCALLS};

use super::points::Point;

/// One way in which an operation is seen. `rosentry doctor` and the metric `rosentry_hook_info` tell them all.
#[derive(Clone, Copy, Debug, Eq, PartialEq, serde::Serialize)]
pub struct Serving {
    /// The surface, as in the metric `rosentry_coverage`.
    pub surface: &'static str,
    /// The operation; what a flag alone tells apart (a remount, say) is seen like the other.
    pub operation: &'static str,
    /// The kind of program: `fexit` or `tracepoint`.
    pub hook: &'static str,
    /// The kernel function, or the tracepoint.
    pub point: &'static str,
}

/// What is attached.
pub(super) struct Attached<'a> {
    /// The points with their functions.
    pub functions: &'a [(&'static Point, &'static str)],
    /// The bit sets of operations that these see: of syscalls, of io_uring.
    pub covered: [u64; 2],
    /// Whether the tracepoints of io_uring are attached.
    pub io_uring: bool,
}

/// Lists what serves each operation, in the order of the operations.
pub(super) fn serving(attached: &Attached<'_>) -> Vec<Serving> {
    let mut all = Vec::new();
    for &operation in Operation::ALL {
        // Of a bit set, `covers(syscalls)`, of io_uring `covers(io_uring)`.
        let [of_syscalls, of_io_uring] = attached.covered.map(|bits| bits >> operation as u8 & 1 != 0);
        let functions = || attached.functions.iter().filter(|(point, _)| point.operations.contains(&operation));
        for door in Door::ALL.into_iter().filter(|door| door.leads_to(operation)) {
            let row =
                |hook, point| Serving { surface: door.surface(operation), operation: operation.name(), hook, point };
            match door {
                Door::IoUring if of_io_uring => {
                    all.extend(functions().filter(|(point, _)| point.io_uring).map(|&(_, name)| row("fexit", name)));
                }
                Door::IoUring if attached.io_uring => all.push(row("tracepoint", "io_uring_complete")),
                Door::IoUring => {}
                Door::X86_64 | Door::Ia32 if of_syscalls => {
                    all.extend(functions().filter(|(_, name)| door.passes(name)).map(|&(_, name)| row("fexit", name)));
                }
                Door::X86_64 | Door::Ia32 => all.push(row("tracepoint", "sys_exit")),
            }
        }
    }
    all
}

#[derive(Clone, Copy)]
enum Door {
    X86_64,
    Ia32,
    IoUring,
}

impl Door {
    const ALL: [Self; 3] = [Self::X86_64, Self::Ia32, Self::IoUring];

    /// Whether the operation can be asked for there.
    fn leads_to(self, operation: Operation) -> bool {
        SYSCALLS.iter().filter(|row| row.call.operation == operation as u8).any(|row| match self {
            Self::X86_64 => row.x86_64.is_some(),
            Self::Ia32 => row.ia32.is_some(),
            Self::IoUring => row.io_uring.is_some(),
        })
    }

    /// Whether what comes through it gets to the function: that of a syscall is of one door.
    fn passes(self, function: &str) -> bool {
        match self {
            Self::X86_64 => !function.starts_with("__ia32_"),
            Self::Ia32 => !function.starts_with("__x64_"),
            Self::IoUring => true,
        }
    }

    const fn surface(self, operation: Operation) -> &'static str {
        match (self, operation.changes_mounts()) {
            (Self::X86_64, false) => "writes_x86_64",
            (Self::X86_64, true) => "mounts_x86_64",
            (Self::Ia32, false) => "writes_ia32",
            (Self::Ia32, true) => "mounts_ia32",
            (Self::IoUring, _) => "writes_io_uring",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::points::{self, POINTS};

    fn by_functions(missing: &[&str]) -> Vec<Serving> {
        let (missing, there): (Vec<&'static Point>, Vec<&'static Point>) =
            POINTS.iter().partition(|point| missing.contains(&point.exit));
        let functions: Vec<_> = there.into_iter().map(|point| (point, point.functions[0].name)).collect();
        let covered = [points::covered(&missing, false), points::covered(&missing, true)];
        serving(&Attached { functions: &functions, covered, io_uring: true })
    }

    fn of<'a>(all: &'a [Serving], surface: &str, operation: &str) -> Vec<(&'a str, &'a str)> {
        let is_it = |row: &&Serving| row.surface == surface && row.operation == operation;
        all.iter().filter(is_it).map(|row| (row.hook, row.point)).collect()
    }

    #[test]
    fn a_function_of_all_doors_serves_each_and_a_syscalls_own_its_door_alone() {
        let all = by_functions(&[]);
        for surface in ["writes_x86_64", "writes_ia32", "writes_io_uring"] {
            assert_eq!(of(&all, surface, "mkdir"), [("fexit", "do_mkdirat")], "{surface}");
        }
        assert_eq!(of(&all, "mounts_x86_64", "fsopen"), [("fexit", "__x64_sys_fsopen")]);
        assert_eq!(of(&all, "mounts_ia32", "fsopen"), [("fexit", "__ia32_sys_fsopen")]);
    }

    #[test]
    fn what_has_no_function_falls_back_to_the_tracepoint_of_its_door() {
        let all = by_functions(&["exit_mkdir"]);
        assert_eq!(of(&all, "writes_x86_64", "mkdir"), [("tracepoint", "sys_exit")]);
        assert_eq!(of(&all, "writes_io_uring", "mkdir"), [("tracepoint", "io_uring_complete")]);
        assert_eq!(of(&all, "writes_io_uring", "setxattr"), [("tracepoint", "io_uring_complete")]);
        assert_eq!(of(&all, "writes_x86_64", "rmdir").len(), 2, "unlinkat removes folders, too: {all:?}");
    }

    #[test]
    fn without_functions_the_tracepoints_serve_all_and_a_door_that_is_not_seen_nothing() {
        let all = serving(&Attached { functions: &[], covered: [0; 2], io_uring: false });
        assert!(all.iter().all(|row| (row.hook, row.point) == ("tracepoint", "sys_exit")), "{all:?}");
        let served = |operation: &Operation| all.iter().any(|row| row.operation == operation.name());
        assert!(Operation::ALL.iter().filter(|operation| !is_refinement(**operation)).all(served));
    }

    fn is_refinement(operation: Operation) -> bool {
        matches!(operation, Operation::Remount | Operation::BindMount | Operation::Move)
    }
}
