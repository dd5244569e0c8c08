//! Attempts and containers for the tests of this room.

use std::sync::{Arc, LazyLock};

use detector_common::{
    abi::Abi,
    operation::Operation,
    record::{Hook, RecordKind},
    syscalls::SYSCALLS,
};

use super::{Event, event::Resolution, mount_flags::MountFlags, paths::MountFacts, rules::RuleSet};
use crate::{
    identity::model::{Container, Pod, Role, SpecMount, TaskState, Volume},
    kernel::attempt::{Attempt, PassedPath, PathBase, Process, Walk},
};

/// The event with what the built-in rules say of it.
pub fn judged(mut event: Event) -> Event {
    #[expect(clippy::unwrap_used, reason = "the built-in rules are sound, or every test may fail")]
    static RULES: LazyLock<RuleSet> = LazyLock::new(|| RuleSet::load(None).unwrap());
    RULES.judge(&mut event);
    event
}

/// An attempt by the named syscall of a `touch` in a container, without a path.
pub fn attempt(syscall: &str) -> Attempt {
    let syscall = SYSCALLS.iter().find(|row| row.name == syscall).expect("a syscall of the table");
    let operation = Operation::from_wire(syscall.call.operation).expect("an operation of the table");
    let mounts = operation.changes_mounts();
    Attempt {
        kind: if mounts { RecordKind::MountAttempt } else { RecordKind::WriteDenied },
        time_ns: 10_000_000_000,
        cgroup_id: 4711,
        process: Process {
            pid: 100,
            tid: 100,
            ppid: 90,
            container_pid: 7,
            uid: 0,
            gid: 0,
            comm: b"touch".to_vec(),
            exe: Some(walk("/bin/busybox")),
            args: vec![b"touch".to_vec(), b"x".to_vec()],
            args_truncated: false,
            cwd: Some(walk("/")),
            start_time_ns: 9_000_000_000,
            cap_effective: 0,
            mnt_ns: Some(1),
            user_ns_level: 0,
            flags: 0,
            parent_cgroup_id: None,
            same_program_as_parent: false,
            in_node_mount_namespace: false,
            ancestors: Vec::new(),
        },
        operation,
        abi: Abi::X86_64,
        hook: Hook::Tracepoint,
        syscall,
        args: [0; 6],
        extra: [0; 4],
        extra_unreadable: false,
        result: if mounts { 0 } else { -30 },
        path: PassedPath::default(),
        path2: PassedPath::default(),
        source: None,
        fstype: None,
        data: None,
        fold: None,
        origin: None,
        standing: crate::kernel::attempt::Standing::New,
        mount: None,
    }
}

/// What a look into the root tells of a mount that is, or is not, read-only.
pub fn facts(readonly: bool) -> MountFacts {
    let flags = MountFlags { mount: if readonly { 0x40 } else { 0 }, superblock: 0 };
    MountFacts { id: 36, flags, told_by: Resolution::Root }
}

impl Attempt {
    pub(crate) fn arg(mut self, position: usize, value: u64) -> Self {
        self.args[position] = value;
        self
    }

    pub(crate) fn extra(mut self, extra: [u64; 4]) -> Self {
        self.extra = extra;
        self
    }

    pub(crate) fn result(mut self, result: i64) -> Self {
        self.result = result;
        self
    }

    /// The path, absolute or relative to `/`.
    pub(crate) fn path(mut self, requested: &str) -> Self {
        self.path = absolute(requested);
        self
    }

    pub(crate) fn path2(mut self, requested: &str) -> Self {
        self.path2 = absolute(requested);
        self
    }

    pub(crate) fn source(mut self, source: &str) -> Self {
        self.source = Some(source.as_bytes().to_vec());
        self
    }

    pub(crate) fn by(mut self, comm: &str, args: &[&str]) -> Self {
        self.process.comm = comm.as_bytes().to_vec();
        self.process.exe = Some(walk(&format!("/usr/bin/{comm}")));
        self.process.args = args.iter().map(|arg| arg.as_bytes().to_vec()).collect();
        self
    }
}

fn absolute(requested: &str) -> PassedPath {
    PassedPath {
        requested: Some(requested.as_bytes().to_vec()),
        truncated: false,
        base: if requested.starts_with('/') { PathBase::Root(walk("/")) } else { PathBase::Cwd },
    }
}

/// A walk that met the process's root, which is the namespace's.
pub fn walk(path: &str) -> Walk {
    Walk {
        in_namespace: path.as_bytes().to_vec(),
        in_root: Some(path.as_bytes().to_vec()),
        truncated: false,
        unreachable: false,
    }
}

/// A walk in a chroot at `root`.
pub fn walk_in(root: &str, in_root: &str) -> Walk {
    let in_namespace = if in_root == "/" { root.to_owned() } else { format!("{root}{in_root}") };
    Walk {
        in_namespace: in_namespace.into_bytes(),
        in_root: Some(in_root.as_bytes().to_vec()),
        truncated: false,
        unreachable: false,
    }
}

/// The container `app` of the pod prod/web, declared read-only: proc, sys, an emptyDir at /data, a ConfigMap at /etc/app.
pub fn sealed() -> Arc<Container> {
    Arc::new(Container {
        id: "c".repeat(64),
        runtime_namespace: "k8s.io".into(),
        role: Role::Container,
        name: Some("app".to_owned()),
        image: Some("docker.io/library/nginx:1".into()),
        image_digest: Some("sha256:0123".into()),
        readonly_rootfs: Some(true),
        privileged: Some(false),
        started_at_unix_ns: Some(1_767_323_045_123_456_789),
        task: TaskState::Running,
        init_pid: Some(99),
        init_start_time_ns: Some(9_000_000_000),
        mounts: vec![
            spec_mount("/proc", "proc", false, None),
            spec_mount("/sys", "sysfs", true, None),
            spec_mount("/dev", "tmpfs", false, None),
            spec_mount("/data", "bind", false, Some(("emptydir", "data"))),
            spec_mount("/etc/app", "bind", true, Some(("configmap", "settings"))),
        ],
        sandbox_id: None,
        pod: Some(Arc::new(Pod {
            namespace: "prod".to_owned(),
            name: "web-abc12-x".to_owned(),
            uid: "u-1".to_owned(),
            workload: "web".to_owned(),
            labels: [("app".into(), "web".into())].into(),
        })),
    })
}

/// The same, not declared read-only.
pub fn unsealed() -> Container {
    Container { readonly_rootfs: Some(false), ..(*sealed()).clone() }
}

fn spec_mount(destination: &str, fstype: &str, readonly: bool, volume: Option<(&str, &str)>) -> Arc<SpecMount> {
    Arc::new(SpecMount {
        destination: destination.to_owned(),
        fstype: Some(fstype.to_owned()),
        source: None,
        readonly,
        volume: volume.map(|(kind, name)| Volume { kind: kind.to_owned(), name: name.to_owned() }),
    })
}
