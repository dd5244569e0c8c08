//! What the agent may do: no more than it needs, and less once its programs are attached.
//!
//! Capabilities are a thread's own, and it hands them to the threads that it starts. So the first thread gives up, before there
//! is another, what is never needed; the threads of tokio, which begin before anything is attached, give up as they begin what
//! attaching needs; and the first one does so when it has attached, before it starts the rest.

use std::io;

use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_no_new_privs};

use crate::kernel_release;

/// bpf(2) takes a map's descriptor for proof from here on. Before, every call of it wants CAP_BPF where
/// `kernel.unprivileged_bpf_disabled` is set (c8644cd0efe7, "bpf: refine kernel.unprivileged_bpf_disabled behaviour").
const MAPS_BY_DESCRIPTOR: (u32, u32) = (5, 19);

/// Loads programs and maps, and attaches them.
const LOADING: CapabilitySet = CapabilitySet::BPF.union(CapabilitySet::PERFMON);

/// Looks at processes of others: roots, executables, mount namespaces.
const LOOKING: CapabilitySet = CapabilitySet::SYS_PTRACE;

/// What a thread is there for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stage {
    /// To attach, and then to watch.
    Attaching,
    /// To watch alone.
    Watching,
}

/// Of this process, before it has a second thread: gives up what neither stage needs, and the way to get it back by executing a
/// program (`PR_SET_NO_NEW_PRIVS`).
///
/// # Errors
/// The kernel's, or a seccomp filter's.
pub fn begin() -> io::Result<()> {
    set_no_new_privs(true)?;
    keep_for(Stage::Attaching)
}

/// Gives up, for this thread and those that it starts from now on, what the stage does not need. Takes no capability, and gives
/// none.
///
/// # Errors
/// The kernel's, or a seccomp filter's.
pub fn keep_for(stage: Stage) -> io::Result<()> {
    let CapabilitySets { effective, permitted, .. } = capabilities(None)?;
    let kept = kept(stage, permitted, kernel_release::running());
    let sets = CapabilitySets { effective: effective & kept, permitted: kept, inheritable: CapabilitySet::empty() };
    Ok(set_capabilities(None, sets)?)
}

/// What is kept of what is held, on a kernel of this version.
fn kept(stage: Stage, held: CapabilitySet, kernel: Option<(u32, u32)>) -> CapabilitySet {
    let loading = match stage {
        Stage::Attaching => LOADING,
        Stage::Watching if kernel.is_some_and(|kernel| kernel >= MAPS_BY_DESCRIPTOR) => CapabilitySet::empty(),
        Stage::Watching => CapabilitySet::BPF,
    };
    // It stands for either, for runtimes that don't know their names.
    let stand_in = if held.contains(loading) { CapabilitySet::empty() } else { CapabilitySet::SYS_ADMIN };
    held & (loading | stand_in | LOOKING)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: Option<(u32, u32)> = Some((6, 1));

    #[test]
    fn an_agent_that_watches_looks_at_processes_and_does_nothing_else_that_takes_a_capability() {
        for held in [CapabilitySet::all(), LOADING | LOOKING | CapabilitySet::SYS_ADMIN, LOOKING] {
            assert_eq!(kept(Stage::Watching, held, NEW), LOOKING, "of {held:?}");
        }
        assert_eq!(kept(Stage::Watching, LOADING, NEW), CapabilitySet::empty(), "nothing is taken that was not held");
    }

    #[test]
    fn of_everything_that_root_may_attaching_takes_three() {
        assert_eq!(kept(Stage::Attaching, CapabilitySet::all(), NEW), LOADING | LOOKING);
    }

    #[test]
    fn what_stands_for_a_capability_that_is_missing_is_kept_as_long_as_that_is_needed() {
        let held = CapabilitySet::SYS_ADMIN | CapabilitySet::PERFMON | CapabilitySet::CHOWN;
        assert_eq!(kept(Stage::Attaching, held, NEW), CapabilitySet::SYS_ADMIN | CapabilitySet::PERFMON);
        assert_eq!(kept(Stage::Watching, held, NEW), CapabilitySet::empty());
        assert_eq!(kept(Stage::Watching, held, Some((5, 18))), CapabilitySet::SYS_ADMIN);
    }

    #[test]
    fn an_old_or_unknown_kernel_wants_its_capability_to_read_maps() {
        for kernel in [Some((5, 17)), Some((5, 18)), None] {
            assert_eq!(kept(Stage::Watching, CapabilitySet::all(), kernel), CapabilitySet::BPF | LOOKING);
        }
        assert_eq!(kept(Stage::Watching, CapabilitySet::all(), Some((5, 19))), LOOKING);
    }

    #[test]
    fn a_thread_hands_down_what_it_kept() {
        let of_child = || std::thread::spawn(|| capabilities(None).unwrap().permitted).join().unwrap();
        std::thread::spawn(move || {
            keep_for(Stage::Watching).unwrap();
            assert_eq!(of_child() & !(LOOKING | CapabilitySet::BPF | CapabilitySet::SYS_ADMIN), CapabilitySet::empty());
            assert_eq!(of_child(), capabilities(None).unwrap().permitted);
        })
        .join()
        .unwrap();
    }
}
