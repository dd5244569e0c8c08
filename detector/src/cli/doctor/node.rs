//! The node itself: kernel, BTF, lockdown, capabilities, tracefs, cgroup2, process ids.

use std::{fs, io, path::Path};

use rustix::system::uname;

use super::check::Check;
use crate::{
    identity::{Hierarchy, HierarchyError},
    kernel::{BTF_PATH, REQUIRED, USEFUL, effective_capabilities, missing_capabilities},
    kernel_release,
};

/// The oldest kernel with all that the programs need (`bpf_loop`).
const OLDEST: (u32, u32) = (5, 17);
const LOCKDOWN: &str = "/sys/kernel/security/lockdown";

pub(super) fn kernel() -> Check {
    let release = uname().release().to_string_lossy().into_owned();
    match kernel_release::version(&release) {
        Some(version) if version < OLDEST => {
            Check::missing("kernel", release, format!("boot a kernel of version {}.{} or newer", OLDEST.0, OLDEST.1))
        }
        _ => Check::ok("kernel", release),
    }
}

pub(super) fn btf() -> Check {
    match fs::File::open(BTF_PATH) {
        Ok(_) => Check::ok("btf", format!("at {BTF_PATH}")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Check::missing(
            "btf",
            format!("none at {BTF_PATH}"),
            "boot a kernel that is built with CONFIG_DEBUG_INFO_BTF=y, and see that /sys is mounted",
        ),
        Err(error) => Check::missing("btf", format!("{BTF_PATH} can't be read: {error}"), "let rosentry read it"),
    }
}

pub(super) fn lockdown() -> Check {
    lockdown_of(fs::read_to_string(LOCKDOWN).ok().as_deref())
}

/// `none [integrity] confidentiality`: the one that holds is in brackets.
fn lockdown_of(text: Option<&str>) -> Check {
    let level = text.and_then(|text| text.split_once('[')?.1.split_once(']')).map(|(level, _)| level);
    match level {
        None => Check::ok("lockdown", format!("not told, as there is no {LOCKDOWN}; see hooks for whether it matters")),
        Some("confidentiality") => Check::missing(
            "lockdown",
            "confidentiality, under which no program may read the kernel's memory",
            "boot with lockdown=integrity, or without lockdown",
        ),
        Some("integrity") => Check::ok("lockdown", "integrity, under which the hooks work"),
        Some(level) => Check::ok("lockdown", level),
    }
}

pub(super) fn capabilities() -> Check {
    match effective_capabilities() {
        Some(effective) => capabilities_of(effective),
        None => Check::degraded(
            "capabilities",
            "not told, as /proc can't be read",
            "mount /proc, without which no path and no process can be looked up",
        ),
    }
}

fn capabilities_of(effective: u64) -> Check {
    let missing = |wanted| missing_capabilities(effective, wanted);
    let names = |missing: &[crate::kernel::Capability]| {
        let names: Vec<_> = missing.iter().map(|missing| format!("{} ({})", missing.name, missing.why)).collect();
        format!("without {}", names.join(" and "))
    };
    let grant = |missing: &[crate::kernel::Capability]| {
        let short: Vec<_> = missing.iter().map(|missing| missing.name.trim_start_matches("CAP_")).collect();
        format!("run as root, or grant them: capabilities.add: [{}] in a pod's securityContext", short.join(", "))
    };
    let (required, useful) = (missing(REQUIRED), missing(USEFUL));
    if !required.is_empty() {
        Check::missing("capabilities", names(&required), grant(&required))
    } else if !useful.is_empty() {
        Check::degraded("capabilities", names(&useful), grant(&useful))
    } else {
        Check::ok("capabilities", "all that are needed")
    }
}

pub(super) fn tracefs() -> Check {
    let there = if Path::new("/sys/kernel/tracing/events").is_dir() { "mounted" } else { "not mounted" };
    Check::ok("tracefs", format!("{there}, and not needed: rosentry finds its tracepoints by BTF"))
}

pub(super) fn cgroup2(host_proc: &Path, host_cgroup: &Path) -> Check {
    match Hierarchy::find(host_proc, host_cgroup) {
        Ok(hierarchy) => {
            let mount = hierarchy.mount();
            let layout = if mount == host_cgroup { "unified" } else { "hybrid" };
            let found = format!("at {}, in the {layout} layout", mount.display());
            if hierarchy.is_whole() {
                Check::ok("cgroup2", found)
            } else {
                Check::degraded(
                    "cgroup2",
                    format!("{found}, and only a part of it: containers that run already are not found"),
                    "mount the node's /sys/fs/cgroup into the agent's pod and name it with --host-cgroup",
                )
            }
        }
        Err(HierarchyError::NotMounted(place)) => Check::missing(
            "cgroup2",
            format!("none at or below {}", place.display()),
            "mount one with `mount -t cgroup2 none PATH`, or name the place of the node's with --host-cgroup",
        ),
        Err(error) => Check::missing("cgroup2", error.to_string(), "let rosentry read it"),
    }
}

/// Paths and executables are looked up by process ids of the initial pid namespace.
pub(super) fn pids(host_proc: &Path) -> Check {
    let place = host_proc.display();
    let mend = "set hostPID: true in the agent's pod, or name the node's /proc with --host-proc; on a node that is a container \
                itself (kind), there is none: run rosentry on a real node";
    match fs::read_to_string(host_proc.join("2/stat")) {
        Ok(stat) if is_kthreadd(&stat) => Check::ok("host_pids", format!("{place} tells the node's processes")),
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Check::degraded("host_pids", format!("{place} can't be read: {error}"), mend)
        }
        _ => Check::degraded(
            "host_pids",
            format!(
                "{place} does not tell the node's processes, or the node is a container itself: links in paths and executables \
                 of ancestors stay unknown, seals may not be watched, and the runtime's own mounts while it sets a container up \
                 are told as attempts"
            ),
            mend,
        ),
    }
}

/// The second process of the node is the parent of the kernel's threads, and has no parent (`rest_init()`, `init/main.c`).
/// Neither is so in a container.
fn is_kthreadd(stat: &str) -> bool {
    stat.strip_prefix("2 (kthreadd) ").and_then(|rest| rest.split(' ').nth(1)) == Some("0")
}

#[cfg(test)]
mod tests {
    use super::{super::check::Status, *};

    #[test]
    fn only_confidentiality_keeps_rosentry_out() {
        let status = |text| lockdown_of(text).status;
        assert_eq!(status(Some("[none] integrity confidentiality\n")), Status::Ok);
        assert_eq!(status(Some("none [integrity] confidentiality\n")), Status::Ok);
        assert_eq!(status(Some("none integrity [confidentiality]\n")), Status::Missing);
        assert_eq!(status(None), Status::Ok);
    }

    #[test]
    fn a_missing_capability_is_named_as_a_pod_spec_wants_it() {
        let none = capabilities_of(0);
        assert_eq!(none.status, Status::Missing);
        assert!(none.found.contains("CAP_BPF"), "{}", none.found);
        assert!(none.mend.unwrap().contains("add: [BPF, PERFMON]"));
    }

    #[test]
    fn without_what_is_merely_useful_rosentry_runs_and_says_less() {
        let loading = 1 << 39 | 1 << 38;
        assert_eq!(capabilities_of(loading).status, Status::Degraded);
        assert_eq!(capabilities_of(u64::MAX).status, Status::Ok);
    }

    #[test]
    fn a_place_without_cgroup2_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let check = cgroup2(Path::new("/proc"), folder.path());
        assert_eq!(check.status, Status::Missing);
        assert!(check.found.contains(&folder.path().display().to_string()));
    }

    #[test]
    fn a_proc_of_a_container_is_told_from_the_nodes() {
        let folder = tempfile::tempdir().unwrap();
        let process = folder.path().join("2");
        fs::create_dir(&process).unwrap();
        fs::write(process.join("stat"), "2 (nginx) S 1 2 2 0").unwrap();
        let check = pids(folder.path());
        assert_eq!(check.status, Status::Degraded);
        assert!(check.found.contains("the runtime's own mounts"), "{}", check.found);
        let mend = check.mend.unwrap();
        assert!(mend.contains("hostPID") && mend.contains("kind"), "{mend}");
        fs::write(process.join("stat"), "2 (kthreadd) S 0 0 0 0 -1 2129984").unwrap();
        assert_eq!(pids(folder.path()).status, Status::Ok);
    }
}
