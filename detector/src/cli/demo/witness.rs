//! The side that sees: from the kernel's records of the demo's cgroup to events, and whether they answer the attempts.

use std::{
    io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use detector_common::operation::Operation;

use super::{
    attempts::{Attempt, Call, Wanted},
    cgroup::Cgroup,
    sealed::VOLUME,
};
use crate::{
    agent::resolve::{
        process::{Subject, look},
        tables::Tables,
    },
    clock,
    export::escape::escape,
    finding::{
        Event, Sighting, assess,
        event::{Effect, Kind, Mount, Outcome},
        questions,
    },
    identity::model::{Container, Role, SpecMount, TaskState, Volume},
    kernel::{
        attempt,
        stream::{Record, Stream},
    },
};

/// Records are in the ring when the call returns; one of another process, half written, may hold them up for a moment.
const PATIENCE: Duration = Duration::from_secs(3);

/// An event, and the call that it is about.
#[derive(Debug)]
pub(super) struct Seen {
    /// Name of the syscall.
    pub syscall: &'static str,
    /// What the kernel answered, as the record says.
    pub result: i64,
    /// What rosentry says.
    pub event: Event,
}

/// How a call was answered.
#[derive(Debug)]
pub(super) enum Answer {
    /// By one event, which is right.
    Right(Box<Event>),
    /// By none, rightly.
    Nothing,
    /// Not as it should have been; says how.
    Wrong(Option<Box<Event>>, String),
}

/// Reads the stream for the demo's cgroup.
pub(super) struct Witness {
    stream: Stream,
    cgroup_id: u64,
    cgroup_path: String,
    /// What containerd would say of the sealed root, were it a container.
    container: Arc<Container>,
    batch: Vec<Record>,
}

impl Witness {
    pub fn new(stream: Stream, cgroup: &Cgroup) -> Self {
        Self {
            stream,
            cgroup_id: cgroup.id,
            cgroup_path: format!("/{}", cgroup.name),
            container: Arc::new(container(cgroup)),
            batch: Vec::new(),
        }
    }

    /// What was seen since it was asked before; waits for a moment until there are `wanted`.
    ///
    /// # Errors
    /// Those of waiting.
    pub async fn seen(&mut self, wanted: usize) -> io::Result<Vec<Seen>> {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        loop {
            while self.stream.drain(&mut self.batch) {}
            for record in std::mem::take(&mut self.batch) {
                if let Record::Attempt(attempt) = record
                    && attempt.cgroup_id == self.cgroup_id
                {
                    seen.push(self.tell(&attempt));
                }
            }
            if seen.len() >= wanted || Instant::now() >= deadline {
                return Ok(seen);
            }
            let more = self.stream.next_batch(&mut self.batch);
            if let Ok(waited) = tokio::time::timeout_at(deadline.into(), more).await {
                waited?;
            }
        }
    }

    fn tell(&self, attempt: &attempt::Attempt) -> Seen {
        let mut subject = Subject::of(attempt, Some(&self.container));
        // The demo's own /proc knows the process by this, be the demo in a pid namespace or not.
        subject.process.pid = attempt.process.container_pid;
        let resolved =
            questions(attempt).map(|question| look(Path::new("/proc"), &Tables::default(), &subject, &question?).ok());
        let event = assess(&Sighting {
            attempt,
            container: Some(&self.container),
            cgroup_path: Some(&self.cgroup_path),
            resolved,
            clock: clock::now(),
        });
        Seen { syscall: attempt.syscall.name, result: attempt.result, event }
    }
}

fn container(cgroup: &Cgroup) -> Container {
    Container {
        id: cgroup.name.clone(),
        runtime_namespace: "rosentry-demo".into(),
        role: Role::Plain,
        name: Some("demo".to_owned()),
        image: None,
        image_digest: None,
        readonly_rootfs: Some(true),
        privileged: None,
        task: TaskState::Running,
        started_at_unix_ns: None,
        init_pid: None,
        init_start_time_ns: None,
        mounts: vec![Arc::new(SpecMount {
            destination: VOLUME.to_owned(),
            fstype: Some("tmpfs".to_owned()),
            source: None,
            readonly: false,
            volume: Some(Volume { kind: "emptydir".to_owned(), name: "data".to_owned() }),
        })],
        pod: None,
        sandbox_id: None,
    }
}

/// Takes what answers `call` out of `seen`, and judges it.
pub(super) fn judge(attempt: &Attempt, call: &Call, pid: u32, result: i64, seen: &mut Vec<Seen>) -> Answer {
    let of_call: Vec<Seen> = seen.extract_if(.., |seen| seen.syscall == call.syscall).collect();
    let times = of_call.len();
    let first = of_call.into_iter().next();
    match (call.wanted, first) {
        (Wanted::Nothing, None) => Answer::Nothing,
        (Wanted::Nothing, Some(first)) => wrong(first, "seen, though nothing was refused".to_owned()),
        (_, None) => Answer::Wrong(None, "not seen".to_owned()),
        (_, Some(first)) if times > 1 => wrong(first, format!("seen {times} times")),
        (wanted, Some(first)) => match differences(attempt, wanted, pid, result, &first) {
            differences if differences.is_empty() => Answer::Right(Box::new(first.event)),
            differences => wrong(first, format!("seen, but with {}", differences.join(" and "))),
        },
    }
}

fn wrong(seen: Seen, how: String) -> Answer {
    Answer::Wrong(Some(Box::new(seen.event)), how)
}

/// What an event says that is not so.
fn differences(attempt: &Attempt, wanted: Wanted, pid: u32, result: i64, seen: &Seen) -> Vec<String> {
    let event = &seen.event;
    let (kind, operation, path, effect) = match wanted {
        Wanted::Denied(operation, path) => (Kind::WriteDenied, Some(operation), Some(path), None),
        Wanted::Mount(operation, path, effect) => (Kind::MountAttempt, Some(operation), path, Some(effect)),
        Wanted::Nothing => return Vec::new(),
    };
    let process = event.process.as_ref();
    let name = process.map(|process| String::from_utf8_lossy(&process.comm).into_owned());
    let mut differences = Vec::new();
    let mut compare = |what: &str, told: &str, expected: &str| {
        if told != expected {
            differences.push(format!("the {what} {told} instead of {expected}"));
        }
    };
    let operation_name = |operation: Option<Operation>| operation.map_or("-", Operation::name);
    compare("kind", event.kind.name(), kind.name());
    compare("operation", operation_name(event.operation), operation_name(operation));
    compare("path", &shown_path(event).unwrap_or("-".to_owned()), path.unwrap_or("-"));
    compare("effect", effect_of(event).map_or("-", Effect::name), effect.map_or("-", Effect::name));
    compare("answer", &seen.result.to_string(), &result.to_string());
    compare("outcome", event.outcome.map_or("-", Outcome::name), Outcome::of(result).name());
    compare("door", event.abi.map_or("-", |abi| abi.name()), attempt.abi().map_or("-", |abi| abi.name()));
    compare("process", &process.map_or(0, |process| process.container_pid).to_string(), &pid.to_string());
    compare("process", name.as_deref().unwrap_or("-"), attempt.name);
    differences
}

/// The path of a write, the target of a mount attempt.
pub(super) fn shown_path(event: &Event) -> Option<String> {
    let path = match (&event.file, &event.mount) {
        (Some(file), _) => file.path.as_deref(),
        (None, Some(Mount::Attempt(mount))) => mount.target.as_deref(),
        _ => None,
    }?;
    Some(escape(path).into_owned())
}

/// The effect of a mount attempt.
pub(super) const fn effect_of(event: &Event) -> Option<Effect> {
    match &event.mount {
        Some(Mount::Attempt(mount)) => Some(mount.effect),
        _ => None,
    }
}

#[cfg(test)]
#[path = "witness_tests.rs"]
mod tests;
