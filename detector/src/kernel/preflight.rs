//! What must be so before anything is loaded: capabilities.

use std::fs;

use super::attempt::CAP_SYS_ADMIN;

/// A capability, by the kernel's number and name (`include/uapi/linux/capability.h`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Capability {
    /// Bit in the capability sets.
    pub bit: u8,
    /// Name.
    pub name: &'static str,
    /// What rosentry needs it for.
    pub why: &'static str,
}

/// What loading needs; CAP_SYS_ADMIN stands for each of them (kernel 5.8).
pub const REQUIRED: &[Capability] = &[
    Capability { bit: 39, name: "CAP_BPF", why: "to load programs and maps" },
    Capability { bit: 38, name: "CAP_PERFMON", why: "to attach to tracepoints and read kernel memory" },
];

/// What more is of use; without it an event says less.
pub const USEFUL: &[Capability] =
    &[Capability { bit: 19, name: "CAP_SYS_PTRACE", why: "to resolve symbolic links within a container's root" }];

/// The effective capabilities of this process, a bit set; none where /proc does not tell.
pub fn effective_capabilities() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// Which of `wanted` are not in `effective`.
pub fn missing_capabilities(effective: u64, wanted: &[Capability]) -> Vec<Capability> {
    let has = |bit: u8| effective & (1 << bit) != 0;
    let admin_stands_for = |capability: &Capability| REQUIRED.contains(capability) && effective & CAP_SYS_ADMIN != 0;
    wanted.iter().filter(|capability| !has(capability.bit) && !admin_stands_for(capability)).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cap_sys_admin_stands_for_bpf_and_perfmon_but_not_for_ptrace() {
        assert_eq!(missing_capabilities(CAP_SYS_ADMIN, REQUIRED), []);
        assert_eq!(missing_capabilities(CAP_SYS_ADMIN, USEFUL), USEFUL);
    }

    #[test]
    fn without_any_capability_each_required_one_is_named() {
        let names: Vec<_> = missing_capabilities(0, REQUIRED).iter().map(|capability| capability.name).collect();
        assert_eq!(names, ["CAP_BPF", "CAP_PERFMON"]);
    }
}
