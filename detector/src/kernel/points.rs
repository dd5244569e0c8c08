//! The attach plan of the fexit mode as data: which program goes to the exit of which kernel function, and what it sees there.
//!
//! Static functions may be inlined or renamed by a kernel, or change their parameters. So each is looked up in BTF with its
//! parameters, and where it is not as the program expects, its operations fall back to the tracepoints.

use detector_common::operation::Operation;

/// A kernel function as a program expects it.
#[derive(Clone, Copy, Debug)]
pub struct Function {
    /// Name in BTF.
    pub name: &'static str,
    /// All its parameters: of a pointer, what it points to, behind a `*`; else the name of the type. None asks for the name
    /// alone.
    pub parameters: Option<&'static [&'static str]>,
}

/// One place, and the programs that go there.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// The program at the exit; of [`MOUNTS`], which tells of no result, at the entry.
    pub exit: &'static str,
    /// The program at the entry that keeps the path, where the function frees it.
    pub entry: Option<&'static str>,
    /// The function; the first that the kernel has as it is described here.
    pub functions: &'static [Function],
    /// What ends here. An operation is seen when all its points are attached. None: no operation ends here, and without the
    /// point something is not told of some.
    pub operations: &'static [Operation],
    /// Whether the same operation of io_uring ends here, too.
    pub io_uring: bool,
    /// Whether a kernel may be without it, because it has no such syscall or door.
    pub optional: bool,
    /// The function that makes this point superfluous, where the kernel has it.
    pub superseded_by: Option<&'static str>,
}

const fn function(name: &'static str, parameters: &'static [&'static str]) -> Function {
    Function { name, parameters: Some(parameters) }
}

const fn point(exit: &'static str, functions: &'static [Function], operations: &'static [Operation]) -> Point {
    Point { exit, entry: None, functions, operations, io_uring: false, optional: false, superseded_by: None }
}

impl Point {
    const fn entry(self, entry: &'static str) -> Self {
        Self { entry: Some(entry), ..self }
    }

    const fn io_uring(self) -> Self {
        Self { io_uring: true, ..self }
    }

    const fn optional(self) -> Self {
        Self { optional: true, ..self }
    }

    const fn superseded_by(self, function: &'static str) -> Self {
        Self { superseded_by: Some(function), ..self }
    }
}

/// A syscall's own function, for the calls whose arguments are no strings, or for which no better place lasts.
macro_rules! syscall {
    ($exit:literal, $function:literal, $operation:ident) => {
        point($exit, &[function($function, &["*pt_regs"])], &[Operation::$operation])
    };
}

/// Every point. Minimum kernel 5.17 (`bpf_loop`); parameters are those of 6.1 to 6.18.
#[rustfmt::skip]
pub const POINTS: &[Point] = &[
    point("exit_open", &[function("do_filp_open", &["int", "*filename", "*open_flags"])], &[Operation::Open]).io_uring(),
    point("exit_open_handle", &[function("do_file_open_root", &["*path", "*char", "*open_flags"])], &[Operation::Open]),
    point("exit_mkdir", &[function("do_mkdirat", &["int", "*filename", "umode_t"])], &[Operation::Mkdir])
        .entry("enter_mkdir").io_uring(),
    point("exit_rmdir", &[function("do_rmdir", &["int", "*filename"])], &[Operation::Rmdir, Operation::Unlink])
        .entry("enter_rmdir").io_uring(),
    point("exit_unlink", &[function("do_unlinkat", &["int", "*filename"])], &[Operation::Unlink, Operation::Rmdir])
        .entry("enter_unlink").io_uring(),
    point("exit_rename", &[function("do_renameat2", &["int", "*filename", "int", "*filename", "unsigned int"])], &[Operation::Rename])
        .entry("enter_rename").io_uring(),
    point("exit_link", &[function("do_linkat", &["int", "*filename", "int", "*filename", "int"])], &[Operation::Link])
        .entry("enter_link").io_uring(),
    point("exit_symlink", &[function("do_symlinkat", &["*filename", "int", "*filename"])], &[Operation::Symlink])
        .entry("enter_symlink").io_uring(),
    point("exit_mknod", &[function("do_mknodat", &["int", "*filename", "umode_t", "unsigned int"])], &[Operation::Mknod])
        .entry("enter_mknod"),
    point("exit_chmod", &[function("chmod_common", &["*path", "umode_t"])], &[Operation::Chmod]),
    point("exit_chown", &[function("do_fchownat", &["int", "*char", "uid_t", "gid_t", "int"])], &[Operation::Chown]),
    syscall!("x64_fchown", "__x64_sys_fchown", Chown),
    syscall!("ia32_fchown", "__ia32_sys_fchown", Chown).optional(),
    syscall!("ia32_fchown16", "__ia32_sys_fchown16", Chown).optional(),
    point("exit_utimes", &[function("vfs_utimes", &["*path", "*timespec64"])], &[Operation::Utimes]),
    point("exit_truncate", &[function("vfs_truncate", &["*path", "loff_t"])], &[Operation::Truncate]),
    // Since 6.13 one function for paths and for open files.
    point("exit_setxattrat", &[function("path_setxattrat", &["int", "*char", "unsigned int", "*char", "*void", "size_t", "int"])], &[Operation::Setxattr])
        .superseded_by("path_setxattr"),
    point("exit_removexattrat", &[function("path_removexattrat", &["int", "*char", "unsigned int", "*char"])], &[Operation::Removexattr])
        .superseded_by("path_removexattr"),
    point("exit_setxattr", &[function("path_setxattr", &["*char", "*char", "*void", "size_t", "int", "unsigned int"])], &[Operation::Setxattr])
        .superseded_by("path_setxattrat"),
    point("exit_removexattr", &[function("path_removexattr", &["*char", "*char", "unsigned int"])], &[Operation::Removexattr])
        .superseded_by("path_removexattrat"),
    syscall!("x64_fsetxattr", "__x64_sys_fsetxattr", Setxattr).superseded_by("path_setxattrat"),
    syscall!("ia32_fsetxattr", "__ia32_sys_fsetxattr", Setxattr).superseded_by("path_setxattrat").optional(),
    syscall!("x64_fremovexattr", "__x64_sys_fremovexattr", Removexattr).superseded_by("path_removexattrat"),
    syscall!("ia32_fremovexattr", "__ia32_sys_fremovexattr", Removexattr).superseded_by("path_removexattrat").optional(),
    point("exit_bind", &[function("unix_bind", &["*socket", "*sockaddr", "int"])], &[Operation::BindSocket]).io_uring(),
    point("exit_setflags", &[function("mnt_want_write_file", &["*file"])], &[Operation::Setflags]),
    syscall!("x64_file_setattr", "__x64_sys_file_setattr", Setflags).optional(),
    syscall!("ia32_file_setattr", "__ia32_sys_file_setattr", Setflags).optional(),
    syscall!("x64_mount", "__x64_sys_mount", Mount),
    syscall!("x64_umount", "__x64_sys_umount", Umount),
    syscall!("x64_pivot_root", "__x64_sys_pivot_root", PivotRoot),
    syscall!("x64_chroot", "__x64_sys_chroot", Chroot),
    syscall!("x64_open_tree", "__x64_sys_open_tree", OpenTree),
    syscall!("x64_open_tree_attr", "__x64_sys_open_tree_attr", OpenTree).optional(),
    syscall!("x64_move_mount", "__x64_sys_move_mount", MoveMount),
    syscall!("x64_fsopen", "__x64_sys_fsopen", Fsopen),
    syscall!("x64_fsconfig", "__x64_sys_fsconfig", Fsconfig),
    syscall!("x64_fsmount", "__x64_sys_fsmount", Fsmount),
    syscall!("x64_fspick", "__x64_sys_fspick", Fspick),
    syscall!("x64_mount_setattr", "__x64_sys_mount_setattr", MountSetattr),
    syscall!("ia32_mount", "__ia32_sys_mount", Mount).optional(),
    syscall!("ia32_umount", "__ia32_sys_umount", Umount).optional(),
    syscall!("ia32_oldumount", "__ia32_sys_oldumount", Umount).optional(),
    syscall!("ia32_pivot_root", "__ia32_sys_pivot_root", PivotRoot).optional(),
    syscall!("ia32_chroot", "__ia32_sys_chroot", Chroot).optional(),
    syscall!("ia32_open_tree", "__ia32_sys_open_tree", OpenTree).optional(),
    syscall!("ia32_open_tree_attr", "__ia32_sys_open_tree_attr", OpenTree).optional(),
    syscall!("ia32_move_mount", "__ia32_sys_move_mount", MoveMount).optional(),
    syscall!("ia32_fsopen", "__ia32_sys_fsopen", Fsopen).optional(),
    syscall!("ia32_fsconfig", "__ia32_sys_fsconfig", Fsconfig).optional(),
    syscall!("ia32_fsmount", "__ia32_sys_fsmount", Fsmount).optional(),
    syscall!("ia32_fspick", "__ia32_sys_fspick", Fspick).optional(),
    syscall!("ia32_mount_setattr", "__ia32_sys_mount_setattr", MountSetattr).optional(),
    MOUNTS,
];

/// Where operations on names ask their mount for write access: which one has refused.
pub const MOUNTS: Point = point("enter_want_write", &[function("mnt_want_write", &["*vfsmount"])], &[]);

/// The program that all others report to, and the function at whose entry it stands: the kernel's code of a helper.
pub const GATE: (&str, &str) = ("enter_gate", "bpf_get_ns_current_pid_tgid");

/// Where a point's programs go on this kernel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Place {
    /// To this function.
    Function(&'static str),
    /// Nowhere: the kernel has nothing that would end there.
    NotNeeded,
    /// The kernel has no such function.
    Missing,
}

/// Finds the place of `point`; `has` tells whether the kernel has such a function.
pub fn place(point: &Point, has: impl Fn(&Function) -> bool) -> Place {
    if let Some(name) = point.superseded_by
        && has(&Function { name, parameters: None })
    {
        return Place::NotNeeded;
    }
    if let Some(function) = point.functions.iter().find(|function| has(function)) {
        return Place::Function(function.name);
    }
    // With other parameters it is there, but not for us.
    let renamed = point.functions.iter().any(|&Function { name, .. }| has(&Function { name, parameters: None }));
    if point.optional && !renamed { Place::NotNeeded } else { Place::Missing }
}

/// The bit set of the operations of which no point is in `missing`, for the syscalls or for io_uring.
pub fn covered(missing: &[&Point], io_uring: bool) -> u64 {
    let lacks = |operation: Operation| missing.iter().any(|point| point.operations.contains(&operation));
    let points = POINTS.iter().filter(|point| !io_uring || point.io_uring);
    let operations = points.flat_map(|point| point.operations).filter(|&&operation| !lacks(operation));
    operations.fold(0, |bits, &operation| bits | 1 << operation as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(exit: &str) -> &'static Point {
        POINTS.iter().find(|point| point.exit == exit).unwrap()
    }

    #[test]
    fn every_operation_has_a_point() {
        let all = Operation::ALL.iter().filter(|&&operation| !is_refinement(operation));
        for &operation in all {
            assert_ne!(covered(&[], false) & 1 << operation as u64, 0, "{}", operation.name());
        }
    }

    /// Those that mount(2)'s flags tell apart, in user space.
    fn is_refinement(operation: Operation) -> bool {
        matches!(operation, Operation::Remount | Operation::BindMount | Operation::Move)
    }

    #[test]
    fn a_missing_point_uncovers_its_operations_and_no_other() {
        let bits = covered(&[named("exit_rmdir")], false);
        assert_eq!(bits & 1 << Operation::Unlink as u64, 0, "unlinkat may remove a folder");
        assert_ne!(bits & 1 << Operation::Mkdir as u64, 0);
    }

    #[test]
    fn io_uring_sets_attributes_where_no_point_is() {
        assert_eq!(covered(&[], true) & 1 << Operation::Setxattr as u64, 0);
        assert_ne!(covered(&[], true) & 1 << Operation::Open as u64, 0);
    }

    #[test]
    fn a_syscall_that_the_kernel_does_not_have_is_not_missed_and_a_function_is() {
        assert_eq!(place(named("x64_open_tree_attr"), |_| false), Place::NotNeeded);
        assert_eq!(place(named("exit_mkdir"), |_| false), Place::Missing);
        assert_eq!(place(named("x64_mount"), |_| false), Place::Missing);
    }

    #[test]
    fn a_function_with_other_parameters_is_missing() {
        assert_eq!(place(named("exit_mkdir"), |wanted| wanted.parameters.is_none()), Place::Missing);
        assert_eq!(place(named("ia32_mount"), |wanted| wanted.parameters.is_none()), Place::Missing);
    }

    #[test]
    fn the_newer_name_is_taken_and_supersedes() {
        let newer = |wanted: &Function| wanted.name == "path_setxattrat";
        assert_eq!(place(named("exit_setxattrat"), newer), Place::Function("path_setxattrat"));
        assert_eq!(place(named("exit_setxattr"), newer), Place::NotNeeded);
        assert_eq!(place(named("x64_fsetxattr"), newer), Place::NotNeeded);
    }
}
