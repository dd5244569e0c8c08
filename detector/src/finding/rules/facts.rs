//! What a rule may ask of an event: borrowed from the event itself, or from a line that told it.

use std::borrow::Cow;

use detector_common::operation::Operation;

use crate::finding::{
    errno::Errno,
    event::{Ancestor, Effect, Event, Kind, Mount, Outcome, PlaceKind},
};

/// What is known of an event, as far as rules ask for it. Texts are as the kernel or the program wrote them.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// What happened.
    pub kind: Kind,
    /// Name of what was tried.
    pub operation: Option<&'a str>,
    /// Name of how it ended.
    pub outcome: Option<&'a str>,
    /// Name of its errno.
    pub errno: Option<Cow<'a, str>>,
    /// What it would do to the seal, or has done to it.
    pub effect: Option<Effect>,
    /// How a seal came to be broken: `unknown` where that was not seen.
    pub cause: Option<&'a str>,
    /// What it would change: two of a rename.
    pub paths: [Option<&'a [u8]>; 2],
    /// What was to be mounted.
    pub source: Option<&'a [u8]>,
    /// Type of the filesystem.
    pub fstype: Option<&'a [u8]>,
    /// What kind of place a write hit.
    pub mount: Option<PlaceKind>,
    /// Type and name of the volume that it hit.
    pub volume: Option<(&'a [u8], &'a [u8])>,
    /// Whether the mode asked for has the set-user-id or the set-group-id bit.
    pub sets_id: bool,
    /// The executable.
    pub executable: Option<&'a [u8]>,
    /// Name of the thread.
    pub comm: Option<&'a [u8]>,
    /// Executables of the processes above, where they are known, else their names.
    pub ancestors: Vec<&'a [u8]>,
    /// Whether the process is in a user namespace of its own.
    pub user_namespace: bool,
    /// Whether CAP_SYS_ADMIN is effective.
    pub cap_sys_admin: bool,
    /// Whether the container is known.
    pub in_container: bool,
    /// Whether it is privileged.
    pub privileged: bool,
    /// Its name.
    pub container: Option<&'a [u8]>,
    /// Its image.
    pub image: Option<&'a [u8]>,
    /// Of the pod: namespace, name, workload.
    pub namespace: Option<&'a [u8]>,
    /// Name of the pod.
    pub pod: Option<&'a [u8]>,
    /// Workload of the pod.
    pub workload: Option<&'a [u8]>,
    /// Labels of the pod.
    pub labels: Vec<(&'a [u8], &'a [u8])>,
}

const SET_ID: u32 = 0o6000;

impl Facts<'_> {
    /// What stands for the cause of a broken seal that nobody saw break.
    pub const UNKNOWN_CAUSE: &'static str = "unknown";

    /// Whether a mode has the set-user-id or the set-group-id bit.
    pub fn sets_id(mode: Option<u32>) -> bool {
        mode.is_some_and(|mode| mode & SET_ID != 0)
    }
}

impl<'a> Facts<'a> {
    /// Of an event.
    pub fn of(event: &'a Event) -> Self {
        let process = event.process.as_ref();
        let container = event.container.as_deref();
        let pod = container.and_then(|container| container.pod.as_deref());
        let mut facts = Self {
            operation: event.operation.map(Operation::name),
            outcome: event.outcome.map(Outcome::name),
            errno: event.outcome.and_then(Outcome::errno).map(Errno::name),
            executable: process.and_then(|process| process.exe.as_deref()),
            comm: process.map(|process| process.comm.as_slice()),
            ancestors: process.map(|process| process.ancestors.iter().map(program).collect()).unwrap_or_default(),
            user_namespace: process.is_some_and(|process| process.user_ns_level > 0),
            cap_sys_admin: process.is_some_and(|process| process.cap_sys_admin),
            in_container: container.is_some(),
            privileged: container.is_some_and(|container| container.privileged == Some(true)),
            container: container.and_then(|container| container.name.as_deref()).map(str::as_bytes),
            image: container.and_then(|container| container.image.as_deref()).map(str::as_bytes),
            namespace: pod.map(|pod| pod.namespace.as_bytes()),
            pod: pod.map(|pod| pod.name.as_bytes()),
            workload: pod.map(|pod| pod.workload.as_bytes()),
            labels: pod
                .map(|pod| pod.labels.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect())
                .unwrap_or_default(),
            ..Self::nothing(event.kind)
        };
        if let Some(file) = &event.file {
            // The old name of a hard link stays as it is.
            facts.paths = match event.operation {
                Some(Operation::Link) => [file.new_path.as_deref(), None],
                _ => [file.path.as_deref(), file.new_path.as_deref()],
            };
            facts.sets_id = Self::sets_id(file.mode);
        }
        match &event.mount {
            Some(Mount::Place(place)) => {
                facts.mount = Some(place.kind);
                facts.fstype = place.fstype.as_deref();
                facts.volume = place.volume.as_ref().map(|volume| (volume.kind.as_bytes(), volume.name.as_bytes()));
            }
            Some(Mount::Attempt(attempt)) => {
                facts.paths = [attempt.target.as_deref(), None];
                facts.source = attempt.source.as_deref();
                facts.fstype = attempt.fstype.as_deref();
                facts.effect = Some(attempt.effect);
            }
            Some(Mount::Seal { breach }) => {
                facts.paths = [Some(&breach.point), None];
                facts.fstype = Some(&breach.fstype);
                facts.effect = Some(breach.effect);
                facts.cause = Some(breach.cause.map_or(Self::UNKNOWN_CAUSE, |cause| cause.name()));
            }
            None => {}
        }
        facts
    }

    /// Of an event of this kind of which nothing else is known.
    pub const fn nothing(kind: Kind) -> Self {
        Self {
            kind,
            operation: None,
            outcome: None,
            errno: None,
            effect: None,
            cause: None,
            paths: [None, None],
            source: None,
            fstype: None,
            mount: None,
            volume: None,
            sets_id: false,
            executable: None,
            comm: None,
            ancestors: Vec::new(),
            user_namespace: false,
            cap_sys_admin: false,
            in_container: false,
            privileged: false,
            container: None,
            image: None,
            namespace: None,
            pod: None,
            workload: None,
            labels: Vec::new(),
        }
    }

    /// Whether it is a write, refused or not: what has a category.
    pub const fn is_write(&self) -> bool {
        matches!(self.kind, Kind::WriteDenied | Kind::WriteObserved)
    }
}

fn program(ancestor: &Ancestor) -> &[u8] {
    ancestor.exe.as_deref().unwrap_or(&ancestor.comm)
}
