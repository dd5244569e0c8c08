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

/// What a refused write means. `paths`: of what it would have changed, two of a rename; the worse of them counts.
pub fn of_write(
    operation: Operation,
    paths: [Option<&[u8]>; 2],
    mode: Option<u32>,
    place: Option<&Place>,
    process: &Process,
) -> Meaning {
    const SET_ID: u32 = 0o6000;
    let program = process.exe.as_deref().map(name);
    let [first, second] = paths.map(|path| (path, rules::find(path, program)));
    let is_worse = second.0.is_some() && second.1.rule.severity > first.1.rule.severity;
    let (path, mut found) = if is_worse { second } else { first };
    // A socket is a socket wherever it stands.
    if operation == Operation::BindSocket && found.rule.category == Category::Other {
        found = rules::find(Some(b"/.sock"), None);
    }
    let category = found.rule.category;
    let mut severity = if is_harmless_removal(operation, category) { Severity::Info } else { found.rule.severity };
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
    let programs = programs(process);
    let mut attack = attack::of_write(operation, paths[0], &programs, setuid);
    if paths[1].is_some() {
        attack.extend(attack::of_write(operation, paths[1], &programs, setuid));
        attack.sort_unstable();
        attack.dedup();
    }
    Meaning { category: Some(category), severity, hint, attack }
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

/// The names that the program goes by. A thread takes any name it likes, so these may add a technique, and nothing else.
fn programs(process: &Process) -> Vec<&[u8]> {
    let exe = process.exe.as_deref().map(name);
    exe.into_iter().chain([process.comm.as_slice()]).collect()
}

/// The kernel refuses to remove even what is not there, and programs tidy up before they start. What the program is called
/// and how it was called (`rm -f`) tells nothing: it chooses both.
const fn is_harmless_removal(operation: Operation, category: Category) -> bool {
    matches!(operation, Operation::Unlink | Operation::Rmdir)
        && matches!(category, Category::PidFile | Category::TempFile | Category::Cache | Category::Log)
}

#[cfg(test)]
#[path = "classify_tests.rs"]
mod tests;
