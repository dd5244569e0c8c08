//! What an attempt means to people: its category, how bad it is, what mends it, which technique it fits.

use detector_common::operation::Operation;

use super::{
    attack,
    event::{Category, Effect, MountAttempt, Outcome, Place, PlaceKind, Process, Severity},
    paths::name,
    rules,
};
use crate::identity::model::{Container, Volume};

/// What an attempt means.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Meaning {
    /// The cause; none of a mount attempt.
    pub category: Option<Category>,
    /// How bad.
    pub severity: Severity,
    /// What mends it.
    pub hint: Option<String>,
    /// Techniques of ATT&CK.
    pub attack: Vec<&'static str>,
}

/// What a refused write of `path` means.
pub fn of_write(
    operation: Operation,
    path: Option<&[u8]>,
    mode: Option<u32>,
    place: Option<&Place>,
    process: &Process,
) -> Meaning {
    const SET_ID: u32 = 0o6000;
    let programs = programs(process);
    let mut found = rules::find(path, &programs);
    // A socket is a socket wherever it stands.
    if operation == Operation::BindSocket && found.rule.category == Category::Other {
        found = rules::find(Some(b"/.sock"), &[]);
    }
    let category = found.rule.category;
    let mut severity =
        if is_harmless_removal(operation, category, process) { Severity::Info } else { found.rule.severity };
    let hint = match place {
        Some(Place { kind: PlaceKind::VolumeFailed, volume: Some(volume), .. }) => {
            severity = Severity::High;
            Some(format!(
                "the volume {} is declared writable and refuses writes: look for a storage fault",
                volume.name
            ))
        }
        Some(Place { kind: PlaceKind::Volume, volume: Some(volume), .. }) => Some(volume_hint(volume)),
        _ => found.hint(path),
    };
    let setuid = mode.is_some_and(|mode| mode & SET_ID != 0);
    Meaning { category: Some(category), severity, hint, attack: attack::of_write(operation, path, &programs, setuid) }
}

/// What a mount attempt means.
pub fn of_mount(
    operation: Operation,
    mount: &MountAttempt,
    outcome: Outcome,
    process: &Process,
    container: Option<&Container>,
) -> Meaning {
    let attack = if container.is_some() {
        attack::of_mount(
            operation,
            mount.target.as_deref(),
            mount.source.as_deref(),
            mount.fstype.as_deref(),
            mount.effect == Effect::Unseal,
        )
    } else {
        Vec::new()
    };
    let succeeded = outcome == Outcome::Succeeded;
    let severity = match (mount.effect, succeeded) {
        (Effect::Unseal, true) => Severity::Critical,
        (Effect::Unseal, false) | (Effect::Shadow, true) => Severity::High,
        (Effect::Shadow, false) | (Effect::Detach, true) => Severity::Medium,
        (Effect::Detach, false) => Severity::Low,
        (Effect::None, true) if !attack.is_empty() => Severity::High,
        (Effect::None, false) if !attack.is_empty() => Severity::Medium,
        (Effect::None, _) => Severity::Info,
    };
    let hint = (severity >= Severity::Medium && container.is_some()).then(|| mount_hint(process, container)).flatten();
    Meaning { category: None, severity, hint, attack }
}

fn mount_hint(process: &Process, container: Option<&Container>) -> Option<String> {
    let hint = if process.user_ns_level > 0 {
        "forbid unshare and mount with the seccomp profile RuntimeDefault, or set user.max_user_namespaces to 0"
    } else if container.and_then(|container| container.privileged) == Some(true) {
        "run the container without privileged: true"
    } else if process.cap_sys_admin {
        "drop the capability SYS_ADMIN from the container's securityContext"
    } else {
        return None;
    };
    Some(hint.to_owned())
}

fn volume_hint(volume: &Volume) -> String {
    match volume.kind.as_str() {
        kind @ ("configmap" | "secret" | "projected" | "downward_api") => {
            format!("a {kind} volume is never writable: copy what must change into an emptyDir")
        }
        _ => format!("mount the volume {} without readOnly, or write elsewhere", volume.name),
    }
}

/// The names that the program goes by.
fn programs(process: &Process) -> Vec<&[u8]> {
    let exe = process.exe.as_deref().map(name);
    exe.into_iter().chain([process.comm.as_slice()]).collect()
}

/// The kernel refuses to remove even what is not there. Programs tidy up before they start, and `rm -f` says that it does
/// not mind.
fn is_harmless_removal(operation: Operation, category: Category, process: &Process) -> bool {
    if !matches!(operation, Operation::Unlink | Operation::Rmdir) {
        return false;
    }
    match category {
        Category::PidFile | Category::TempFile | Category::Cache | Category::Log => true,
        Category::Credentials | Category::SystemBinary => false,
        _ => is_rm_force(process),
    }
}

fn is_rm_force(process: &Process) -> bool {
    let mut args = process.args.iter();
    let is_rm = process.comm == b"rm" || args.next().is_some_and(|program| name(program) == b"rm");
    is_rm
        && process.args.iter().skip(1).any(|arg| {
            arg == b"--force" || (arg.first() == Some(&b'-') && arg.get(1) != Some(&b'-') && arg.contains(&b'f'))
        })
}

#[cfg(test)]
#[path = "classify_tests.rs"]
mod tests;
