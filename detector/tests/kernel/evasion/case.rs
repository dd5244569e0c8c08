//! A way around the seal: what a process does, what should be told of it, and which program sees it.

use std::sync::Arc;

use detector::{
    finding::{
        Event,
        event::{Effect, Outcome},
    },
    identity::model::{Container, Role, SpecMount, TaskState, Volume},
    kernel::{attempt::Attempt, plan::Hooks},
};
use detector_common::{abi::Abi, operation::Operation};

use super::{
    super::{sensor::hooks_under_test, told},
    stage::Said,
};

/// One case.
pub struct Case {
    pub name: &'static str,
    /// Plays in a process and a mount namespace of its own, with a sealed root at `/mnt`.
    pub act: fn() -> Said,
    pub operation: Operation,
    pub abi: Abi,
    /// The path of a write, the target of a mount attempt.
    pub path: Path,
    pub effect: Option<Effect>,
    /// The program at a kernel function that sees it in the fexit mode.
    pub function: &'static str,
    /// What more must be so.
    pub check: fn(&Attempt),
}

/// A path as it should be told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Path {
    /// Real.
    Is(&'static str),
    /// There is none to tell.
    None,
    /// By another way in each mode: a limit.
    Differs { tracepoint: Option<&'static str>, fexit: Option<&'static str> },
    /// Whatever a second thread writes there.
    Any,
}

impl Case {
    pub const fn write(name: &'static str, act: fn() -> Said, operation: Operation, path: &'static str) -> Self {
        let function = function_of(operation);
        Self { name, act, operation, abi: Abi::X86_64, path: Path::Is(path), effect: None, function, check: |_| {} }
    }

    pub const fn mount(
        name: &'static str,
        act: fn() -> Said,
        operation: Operation,
        path: &'static str,
        effect: Effect,
    ) -> Self {
        Self { effect: Some(effect), ..Self::write(name, act, operation, path) }
    }

    pub const fn path(self, path: Path) -> Self {
        Self { path, ..self }
    }

    pub const fn by_io_uring(self) -> Self {
        Self { abi: Abi::IoUring, ..self }
    }

    pub const fn function(self, function: &'static str) -> Self {
        Self { function, ..self }
    }

    pub const fn check(self, check: fn(&Attempt)) -> Self {
        Self { check, ..self }
    }

    /// The program that sees it in the mode under test; those of io_uring are one for this.
    pub fn hook(&self) -> &'static str {
        match (hooks_under_test(), self.abi) {
            (Hooks::Fexit, _) => self.function,
            (_, Abi::IoUring) => "io_uring_complete",
            _ => "sys_exit",
        }
    }

    /// The attempts that are what the case is about.
    pub fn seen<'a>(&self, attempts: &'a [Attempt]) -> Vec<&'a Attempt> {
        attempts.iter().filter(|attempt| self.is_about(attempt)).collect()
    }

    fn is_about(&self, attempt: &Attempt) -> bool {
        let event = event(attempt);
        let path = told::path(&event).map(|path| String::from_utf8_lossy(path).into_owned());
        let path = path.as_deref();
        let is_path = match self.path {
            Path::Is(expected) => path == Some(expected),
            Path::None => path.is_none(),
            Path::Differs { tracepoint, fexit } => {
                path == if hooks_under_test() == Hooks::Fexit { fexit } else { tracepoint }
            }
            Path::Any => true,
        };
        let denied = self.effect.is_some() || event.outcome == Some(Outcome::Denied);
        event.operation == Some(self.operation)
            && attempt.abi == self.abi
            && is_path
            && told::effect(&event) == self.effect
            && denied
    }
}

/// What is told of an attempt, as far as a case is about it.
pub fn shown(attempt: &Attempt) -> String {
    let event = event(attempt);
    let path = told::path(&event).map(|path| path.escape_ascii().to_string());
    let operation = event.operation.map(Operation::name);
    format!("{operation:?} {path:?} {:?} by {} of {}", told::effect(&event), attempt.abi.name(), attempt.process.pid)
}

/// What the agent tells of it, were the process one of a container that is sealed and has a writable volume at `/tmp`.
pub fn event(attempt: &Attempt) -> Event {
    let container = Container {
        id: "c".repeat(64),
        runtime_namespace: "k8s.io".into(),
        role: Role::Container,
        name: Some("app".to_owned()),
        image: None,
        image_digest: None,
        readonly_rootfs: Some(true),
        privileged: None,
        started_at_unix_ns: None,
        task: TaskState::Running,
        init_pid: None,
        init_start_time_ns: None,
        mounts: vec![Arc::new(SpecMount {
            destination: "/tmp".to_owned(),
            fstype: Some("bind".to_owned()),
            source: None,
            readonly: false,
            volume: Some(Volume { kind: "emptydir".to_owned(), name: "tmp".to_owned() }),
        })],
        pod: None,
        sandbox_id: None,
    };
    told::event(attempt, Some(&Arc::new(container)))
}

/// The program at the function that 64-bit calls for this operation end in, where there is one for most of them.
const fn function_of(operation: Operation) -> &'static str {
    match operation {
        Operation::Open => "exit_open",
        Operation::Mkdir => "exit_mkdir",
        Operation::Rmdir => "exit_rmdir",
        Operation::Unlink => "exit_unlink",
        Operation::Rename => "exit_rename",
        Operation::Link => "exit_link",
        Operation::Symlink => "exit_symlink",
        Operation::Mknod => "exit_mknod",
        Operation::Chmod => "exit_chmod",
        Operation::Chown => "exit_chown",
        Operation::Utimes => "exit_utimes",
        Operation::Truncate => "exit_truncate",
        Operation::Setxattr => "exit_setxattr",
        Operation::Removexattr => "exit_removexattr",
        Operation::BindSocket => "exit_bind",
        Operation::Setflags => "exit_setflags",
        Operation::Mount | Operation::Remount | Operation::BindMount | Operation::Move => "x64_mount",
        Operation::Umount => "x64_umount",
        Operation::PivotRoot => "x64_pivot_root",
        Operation::Chroot => "x64_chroot",
        Operation::Fsopen => "x64_fsopen",
        Operation::Fspick => "x64_fspick",
        Operation::Fsconfig => "x64_fsconfig",
        Operation::Fsmount => "x64_fsmount",
        Operation::MoveMount => "x64_move_mount",
        Operation::OpenTree => "x64_open_tree",
        Operation::MountSetattr => "x64_mount_setattr",
    }
}
