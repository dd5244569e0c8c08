//! The attach plan as data: which program goes where, and what it sees.

/// One program and its place.
#[derive(Clone, Copy, Debug)]
pub struct Attachment {
    /// Name of the program in the object.
    pub program: &'static str,
    /// The tracepoint, by its name in BTF (`btf_trace_…`).
    pub tracepoint: &'static str,
    /// What it shows; the label `surface` of the metric `rosentry_coverage`.
    pub surfaces: &'static [&'static str],
}

/// The tracepoint mode. Programs of type BPF_PROG_TYPE_TRACING on raw tracepoints: kernel 5.5; they need neither tracefs
/// nor changes of the kernel's text, hence work under lockdown.
pub const TRACEPOINT: &[Attachment] = &[
    Attachment { program: "cgroup_mkdir", tracepoint: "cgroup_mkdir", surfaces: &["cgroups"] },
    Attachment { program: "cgroup_rmdir", tracepoint: "cgroup_rmdir", surfaces: &[] },
    // Last, so that no event comes before its cgroup could be known.
    Attachment {
        program: "sys_exit",
        tracepoint: "sys_exit",
        surfaces: &["writes_x86_64", "writes_ia32", "mounts_x86_64", "mounts_ia32"],
    },
];

/// What rosentry knows of and does not see yet.
pub const NOT_COVERED: &[&str] = &["writes_io_uring"];

/// The name of the mode.
pub const MODE: &str = "tracepoint";

/// Every surface that rosentry knows of, and whether it is seen.
pub fn coverage() -> impl Iterator<Item = (&'static str, bool)> {
    let seen = TRACEPOINT.iter().flat_map(|attachment| attachment.surfaces).map(|&surface| (surface, true));
    seen.chain(NOT_COVERED.iter().map(|&surface| (surface, false)))
}
