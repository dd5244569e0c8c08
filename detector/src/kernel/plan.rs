//! The attach plan as data: which program goes where, and what it sees.

/// One program and its place.
#[derive(Clone, Copy, Debug)]
pub struct Attachment {
    /// Name of the program in the object.
    pub program: &'static str,
    /// The tracepoint, by its name in BTF (`btf_trace_…`); the first that the kernel has.
    pub tracepoints: &'static [&'static str],
}

/// Programs that show something together: all of them are attached, or none.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// In the order in which they are attached.
    pub attachments: &'static [Attachment],
    /// What they show; the label `surface` of the metric `rosentry_coverage`.
    pub surfaces: &'static [&'static str],
    /// Whether rosentry runs without them, on a kernel that lacks what they need, and says so.
    pub optional: bool,
}

/// The tracepoint mode. Programs of type BPF_PROG_TYPE_TRACING on raw tracepoints: kernel 5.5; they need neither tracefs
/// nor changes of the kernel's text, hence work under lockdown.
///
/// The cgroups are first, so that no event comes before its cgroup could be known.
pub const TRACEPOINT: &[Group] = &[CGROUPS, IO_URING, SYSCALLS];

/// cgroups that come and go; in every mode.
pub const CGROUPS: Group = Group {
    attachments: &[
        Attachment { program: "cgroup_mkdir", tracepoints: &["cgroup_mkdir"] },
        Attachment { program: "cgroup_rmdir", tracepoints: &["cgroup_rmdir"] },
    ],
    surfaces: &["cgroups"],
    optional: false,
};

/// The exits of all syscalls.
pub const SYSCALLS: Group = Group {
    attachments: &[Attachment { program: "sys_exit", tracepoints: &["sys_exit"] }],
    surfaces: &["writes_x86_64", "writes_ia32", "mounts_x86_64", "mounts_ia32"],
    optional: false,
};

/// The operations that are queued on an io_uring.
pub const IO_URING: Group = Group {
    attachments: &[
        // Named so since 6.4.
        Attachment { program: "io_uring_submit", tracepoints: &["io_uring_submit_req", "io_uring_submit_sqe"] },
        Attachment { program: "io_uring_cqe_overflow", tracepoints: &["io_uring_cqe_overflow"] },
        Attachment { program: "io_uring_complete", tracepoints: &["io_uring_complete"] },
    ],
    surfaces: &["writes_io_uring"],
    optional: true,
};

/// Writes that succeed: in learning mode alone, and then in every mode, beside what it has.
pub const OBSERVE: Group = Group {
    attachments: &[Attachment { program: "observe_exit", tracepoints: &["sys_exit"] }],
    surfaces: &["observed_x86_64", "observed_ia32"],
    optional: false,
};

/// What learning mode does not see: what is queued on an io_uring, and what is written through files that were opened elsewhere or
/// before (inherited, passed on, mapped).
pub const NOT_OBSERVED: [&str; 2] = ["observed_io_uring", "observed_open_before"];

/// What learning mode has to know.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Observing {
    /// Inode number of the mount namespace of pid 1: what is done there is left out in the kernel. None: not known.
    pub node_mount_namespace: Option<u32>,
}

/// Whether the paths are the kernel's own copies, so that a second thread that rewrites the string of a call can't change what
/// is reported: at kernel functions alone, and of what is not in [`KERNEL_PATHS_OF_ATTRIBUTES`].
pub const KERNEL_PATHS: &str = "kernel_paths";
/// The same for chown by path and extended attributes by path: in no mode.
pub const KERNEL_PATHS_OF_ATTRIBUTES: &str = "kernel_paths_of_attributes";
/// Whether it is known which file a handle is of (open_by_handle_at): at kernel functions alone.
pub const PATHS_OF_HANDLES: &str = "paths_of_handles";
/// Whether every request of an io_uring is seen that hides its result: in no mode all of them
/// (`docs/decisions/0007-io-uring.md`).
pub const HIDDEN_RESULTS: &str = "writes_io_uring_hidden";

/// What depends on the mode alone, and whether it is so where programs are at kernel functions.
pub const fn limits(at_functions: bool) -> [(&'static str, bool); 4] {
    [
        (KERNEL_PATHS, at_functions),
        (KERNEL_PATHS_OF_ATTRIBUTES, false),
        (PATHS_OF_HANDLES, at_functions),
        (HIDDEN_RESULTS, false),
    ]
}

/// Whether the kernel itself says which mount has refused a write, at kernel functions alone; else that is looked up later.
pub const KERNEL_MOUNTS: &str = "kernel_mounts";

/// How to watch the kernel, as asked for.
#[derive(Clone, Copy, Debug, serde::Deserialize, Eq, PartialEq, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Hooks {
    /// At kernel functions where the kernel allows it, else at tracepoints.
    Auto,
    /// At kernel functions.
    Fexit,
    /// At tracepoints.
    Tracepoint,
}

/// Every surface that rosentry knows of.
pub fn surfaces() -> impl Iterator<Item = &'static str> {
    let limits = limits(false).into_iter().map(|(surface, _)| surface);
    TRACEPOINT.iter().flat_map(|group| group.surfaces).copied().chain(limits).chain([KERNEL_MOUNTS])
}
