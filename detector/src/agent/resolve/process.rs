//! Which process's root to look in: one that is surely in the mount namespace of the one that did it.
//!
//! A pid by itself names whoever has it now. The start time tells whether that is still the same process, the mount
//! namespace whether another one sees the same files. Reading another process's root takes CAP_SYS_PTRACE.

use std::{
    fs,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    time::Instant,
};

use rustix::fs::{CWD, Mode, OFlags, openat};

use super::{
    tables::{Tables, Viewer},
    walk::{self, WalkError},
};
use crate::{
    finding::{
        event::Resolution,
        paths::{MountFacts, MountPoint, Question, Resolved, below},
        seal::root_mount,
    },
    identity::model::Container,
    kernel::attempt::Attempt,
    process_stat::Stat,
};

/// Processes above, of which one is likely to outlive the one that did it.
const ANCESTORS_MAX: usize = 3;

/// Whose root it is about.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Subject {
    /// The container, by its id.
    pub container: Option<String>,
    /// Inode number of the mount namespace.
    pub mnt_ns: Option<u32>,
    /// The process that did it.
    pub process: Incarnation,
    /// The processes above it, nearest first.
    pub ancestors: Vec<Incarnation>,
    /// The container's first process.
    pub first: Option<Incarnation>,
}

/// A process id, and which of those that have had it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Incarnation {
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// Start, in nanoseconds since boot.
    pub start_time_ns: u64,
}

impl Subject {
    /// Of an attempt in a container, or in none.
    pub fn of(attempt: &Attempt, container: Option<&Container>) -> Self {
        let process = &attempt.process;
        let above = process.ancestors.iter().take(ANCESTORS_MAX);
        Self {
            container: container.map(|container| container.id.clone()),
            mnt_ns: process.mnt_ns,
            process: Incarnation { pid: process.pid, start_time_ns: process.start_time_ns },
            ancestors: above.map(|above| Incarnation { pid: above.pid, start_time_ns: above.start_time_ns }).collect(),
            first: container.and_then(|container| {
                Some(Incarnation { pid: container.init_pid?, start_time_ns: container.init_start_time_ns? })
            }),
        }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    /// Nobody is left in that mount namespace.
    #[error("the process and its container are gone")]
    Gone,
    /// The path leads nowhere that could be told.
    #[error(transparent)]
    Walk(#[from] WalkError),
}

/// The root of a process that stands for the subject.
struct Root {
    fd: OwnedFd,
    folder: PathBuf,
    /// Whether it is the process that did it, whose root need not be that of the mount namespace.
    is_own: bool,
    /// Which process it is, and in which mount namespace, as far as both were checked.
    checked: Option<(Incarnation, u32)>,
}

/// Answers a question in the subject's real root. May block as long as a filesystem does.
///
/// # Errors
/// Where there is no answer.
pub fn look(host_proc: &Path, tables: &Tables, subject: &Subject, question: &Question) -> Result<Resolved, NoAnswer> {
    // Links would be followed in a root that is not known.
    if question.anchor.outside {
        return Err(NoAnswer::Gone);
    }
    let mut last = NoAnswer::Gone;
    for root in roots(host_proc, subject) {
        match look_in(&root, tables, question) {
            Ok(resolved) => return Ok(resolved),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn roots<'a>(host_proc: &'a Path, subject: &'a Subject) -> impl Iterator<Item = Root> + 'a {
    let own = move || open_root(host_proc, subject.process.pid, Some(subject.process), subject.mnt_ns, true);
    let others = subject.first.iter().chain(&subject.ancestors);
    // Pid 1 has no successor; the others are told from one by their start.
    let others = others.map(|other| (other.pid, Some(*other))).chain([(1, None)]);
    let others = others.filter(|_| subject.mnt_ns.is_some());
    let others = others.filter_map(move |(pid, above)| open_root(host_proc, pid, above, subject.mnt_ns, false));
    std::iter::once_with(own).flatten().chain(others)
}

fn open_root(
    host_proc: &Path,
    pid: u32,
    incarnation: Option<Incarnation>,
    mnt_ns: Option<u32>,
    is_own: bool,
) -> Option<Root> {
    let folder = host_proc.join(pid.to_string());
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = openat(CWD, folder.join("root"), flags, Mode::empty()).ok()?;
    // In this order: what is held is checked, not what will be opened.
    let same_namespace = mnt_ns.is_none_or(|expected| namespace(&folder) == Some(expected));
    let same_process = incarnation
        .is_none_or(|expected| Stat::read(&folder).is_some_and(|stat| stat.started_at(expected.start_time_ns)));
    (same_namespace && same_process).then_some(Root { fd, folder, is_own, checked: incarnation.zip(mnt_ns) })
}

fn look_in(root: &Root, tables: &Tables, question: &Question) -> Result<Resolved, NoAnswer> {
    let prefix = question.anchor.root.as_slice();
    // The link tells where the root stands in its mount namespace: that of another must be the namespace's own, and ours may
    // have been left by a chroot since the call.
    let expected = if root.is_own { prefix } else { b"/" };
    if !fs::read_link(root.folder.join("root")).is_ok_and(|stands| stands.as_os_str().as_bytes() == expected) {
        return Err(NoAnswer::Gone);
    }
    let jail = if root.is_own || prefix == b"/" { None } else { Some(walk::open_within(root.fd.as_fd(), prefix)?) };
    let walked = walk::walk(jail.as_ref().unwrap_or(&root.fd).as_fd(), question)?;
    let viewer = root.checked.map(|(process, mnt_ns)| Viewer { process, mnt_ns, root: expected.to_vec() });
    let mount = walked.mount_id.and_then(|id| {
        let mounts = tables.with_mount(viewer.as_ref(), id, &root.folder.join("mountinfo"), Instant::now()).ok()?;
        let mount = mounts.iter().find(|mount| mount.id == id)?;
        let of_root = root_mount(&mounts).is_some_and(|root| mount.is_within(root));
        let facts = MountFacts { id: mount.id, flags: mount.flags, told_by: Resolution::Root };
        // Told in the root of the process whose file it is.
        let point = below(expected, &mount.point);
        Some(MountPoint { point, fstype: mount.fstype.clone(), facts, of_root })
    });
    Ok(Resolved { path: below(prefix, &walked.path), mount })
}

/// The inode number of the mount namespace, from `mnt:[4026531841]`.
fn namespace(folder: &Path) -> Option<u32> {
    let link = fs::read_link(folder.join("ns/mnt")).ok()?;
    link.to_str()?.strip_prefix("mnt:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::finding::paths::Anchor;

    /// This very process.
    pub(in super::super) fn ourselves() -> Subject {
        let folder = Path::new("/proc/self");
        let start_time_ns = Stat::read(folder).unwrap().start_time_ns();
        Subject {
            container: None,
            mnt_ns: namespace(folder),
            process: Incarnation { pid: std::process::id(), start_time_ns },
            ancestors: Vec::new(),
            first: None,
        }
    }

    pub(in super::super) fn question(requested: &Path) -> Question {
        let requested = requested.as_os_str().as_encoded_bytes().to_vec();
        let anchor = Anchor { root: b"/".to_vec(), start: b"/".to_vec(), outside: false, is_root: false };
        Question { anchor, requested, follow_last: true, mount_of_folder: false }
    }

    /// A folder with `link -> real`, without links on the way to it.
    fn folder_with_link() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap();
        fs::create_dir(path.join("real")).unwrap();
        std::os::unix::fs::symlink("real", path.join("link")).unwrap();
        (folder, path)
    }

    #[test]
    fn a_link_is_followed_in_the_root_of_the_process_itself_and_its_mount_told() {
        let (_folder, path) = folder_with_link();
        let resolved =
            look(Path::new("/proc"), &Tables::default(), &ourselves(), &question(&path.join("link/x"))).unwrap();
        assert_eq!(resolved.path, path.join("real/x").as_os_str().as_encoded_bytes());
        let mount = resolved.mount.unwrap();
        assert!(crate::finding::paths::is_at_or_below(&resolved.path, &mount.point), "{mount:?}");
        assert!(!mount.facts.flags.readonly(), "we have just written there");
    }

    #[test]
    fn a_pid_that_another_process_has_by_now_is_not_looked_at() {
        let (_folder, path) = folder_with_link();
        let mut gone = ourselves();
        gone.process.start_time_ns += 5_000_000_000;
        gone.mnt_ns = Some(1);
        let answer = look(Path::new("/proc"), &Tables::default(), &gone, &question(&path.join("link/x")));
        assert!(matches!(answer, Err(NoAnswer::Gone)), "{answer:?}");
    }

    #[test]
    fn a_process_that_has_changed_its_root_since_is_not_looked_at() {
        let (_folder, path) = folder_with_link();
        let mut asked = question(Path::new("/x"));
        asked.anchor.root = path.as_os_str().as_bytes().to_vec();
        let alone = Subject { mnt_ns: None, ..ourselves() };
        assert!(matches!(look(Path::new("/proc"), &Tables::default(), &alone, &asked), Err(NoAnswer::Gone)));
    }

    #[test]
    fn a_process_above_stands_in_for_one_that_is_gone() {
        let (_folder, path) = folder_with_link();
        let mut short_lived = ourselves();
        short_lived.ancestors = vec![short_lived.process];
        short_lived.process.start_time_ns += 5_000_000_000;
        let resolved =
            look(Path::new("/proc"), &Tables::default(), &short_lived, &question(&path.join("link/x"))).unwrap();
        assert_eq!(resolved.path, path.join("real/x").as_os_str().as_encoded_bytes());
    }

    #[test]
    fn a_chroot_of_one_that_is_gone_is_looked_for_in_the_root_of_another() {
        let (_folder, path) = folder_with_link();
        let mut short_lived = ourselves();
        short_lived.first = Some(short_lived.process);
        short_lived.process.start_time_ns += 5_000_000_000;
        let mut asked = question(Path::new("/link/../../x"));
        asked.anchor.root = path.as_os_str().as_encoded_bytes().to_vec();
        let resolved = look(Path::new("/proc"), &Tables::default(), &short_lived, &asked).unwrap();
        assert_eq!(resolved.path, path.join("x").as_os_str().as_encoded_bytes());
    }
}
