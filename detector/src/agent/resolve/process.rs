//! Which process's root to look in: one that is surely in the mount namespace of the one that did it.
//!
//! A pid by itself names whoever has it now. The start time tells whether that is still the same process, the mount
//! namespace whether another one sees the same files. Reading another process's root takes CAP_SYS_PTRACE.

use std::{
    collections::HashMap,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    time::Instant,
};

use rustix::fs::{CWD, Mode, OFlags, openat, readlinkat};

use super::{
    answers::whose,
    tables::{Tables, Viewer},
    walk::{self, Folders, WalkError},
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
    /// The root itself; of another than the process that did it, what stands where that one's root was.
    fd: OwnedFd,
    /// The process's folder in proc: that of this very process, whoever has its pid later.
    folder: OwnedFd,
    /// Where the process's own root stands in its mount namespace.
    stands: Vec<u8>,
    /// Who was seen to have it, as far as both process and mount namespace were checked.
    viewer: Option<Viewer>,
    /// Folders that a question has led to.
    folders: Folders,
    /// Mounts that a question has led to.
    mounts: HashMap<u64, MountPoint>,
}

/// Looks for the questions of one batch: what the first has opened serves those that follow, so it must not live for long.
///
/// Whoever shares answers shares a root: processes of a container in one mount namespace whose roots stand at the same place.
pub struct Session<'a> {
    host_proc: &'a Path,
    tables: &'a Tables,
    roots: HashMap<(Subject, Vec<u8>), Root>,
}

/// Answers one question in the subject's real root. May block as long as a filesystem does.
///
/// # Errors
/// Where there is no answer.
pub fn look(host_proc: &Path, tables: &Tables, subject: &Subject, question: &Question) -> Result<Resolved, NoAnswer> {
    Session::new(host_proc, tables).look(subject, question)
}

impl<'a> Session<'a> {
    /// With nothing opened yet.
    pub fn new(host_proc: &'a Path, tables: &'a Tables) -> Self {
        Self { host_proc, tables, roots: HashMap::new() }
    }

    /// Answers a question in the subject's real root. May block as long as a filesystem does.
    ///
    /// # Errors
    /// Where there is no answer.
    pub fn look(&mut self, subject: &Subject, question: &Question) -> Result<Resolved, NoAnswer> {
        // Links would be followed in a root that is not known.
        if question.anchor.outside {
            return Err(NoAnswer::Gone);
        }
        let key = (whose(subject), question.anchor.root.clone());
        if let Some(answer) = self.roots.get_mut(&key).and_then(|root| root.look(self.tables, question).ok()) {
            return Ok(answer);
        }
        let mut last = NoAnswer::Gone;
        let found = roots(self.host_proc, subject, &key).find_map(|mut root| match root.look(self.tables, question) {
            Ok(resolved) => Some((root, resolved)),
            Err(error) => {
                last = error.into();
                None
            }
        });
        let Some((root, resolved)) = found else { return Err(last) };
        self.roots.insert(key, root);
        Ok(resolved)
    }
}

/// The roots to look in, for whoever `key` names and with its root there.
fn roots<'a>(
    host_proc: &'a Path,
    subject: &'a Subject,
    key: &'a (Subject, Vec<u8>),
) -> impl Iterator<Item = Root> + 'a {
    let open =
        move |process, incarnation, is_own| open_root(host_proc, process, incarnation, subject.mnt_ns, is_own, key);
    let own = move || open(subject.process.pid, Some(subject.process), true);
    let others = subject.first.iter().chain(&subject.ancestors);
    // Pid 1 has no successor; the others are told from one by their start.
    let others = others.map(|other| (other.pid, Some(*other))).chain([(1, None)]);
    let others = others.filter(|_| subject.mnt_ns.is_some());
    std::iter::once_with(own).flatten().chain(others.filter_map(move |(pid, other)| open(pid, other, false)))
}

fn open_root(
    host_proc: &Path,
    pid: u32,
    incarnation: Option<Incarnation>,
    mnt_ns: Option<u32>,
    is_own: bool,
    (whose, prefix): &(Subject, Vec<u8>),
) -> Option<Root> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = openat(CWD, host_proc.join(pid.to_string()), flags, Mode::empty()).ok()?;
    let fd = openat(&folder, "root", flags, Mode::empty()).ok()?;
    // In this order: what is held is checked, not what will be opened.
    let same_namespace = mnt_ns.is_none_or(|expected| namespace(folder.as_fd()) == Some(expected));
    let same_process = incarnation.is_none_or(|expected| {
        Stat::read_in(folder.as_fd()).is_some_and(|stat| stat.started_at(expected.start_time_ns))
    });
    // The link tells where the root stands in its mount namespace: that of another must be the namespace's own, and ours may
    // have been left by a chroot since the call.
    let stands: &[u8] = if is_own { prefix } else { b"/" };
    let same_root = readlinkat(&folder, "root", Vec::new()).is_ok_and(|root| root.as_bytes() == stands);
    if !(same_namespace && same_process && same_root) {
        return None;
    }
    let fd = if is_own || prefix == b"/" { fd } else { walk::open_within(fd.as_fd(), prefix).ok()? };
    let is_checked = incarnation.is_some() && mnt_ns.is_some();
    let viewer = is_checked.then(|| Viewer { whose: whose.clone(), root: stands.to_vec() });
    Some(Root { fd, folder, stands: stands.to_vec(), viewer, folders: Folders::default(), mounts: HashMap::new() })
}

impl Root {
    fn look(&mut self, tables: &Tables, question: &Question) -> Result<Resolved, WalkError> {
        let walked = walk::walk_by(self.fd.as_fd(), question, &mut self.folders)?;
        let mount = walked.mount_id.and_then(|id| self.mount(tables, id));
        Ok(Resolved { path: below(&question.anchor.root, &walked.path), mount })
    }

    fn mount(&mut self, tables: &Tables, id: u64) -> Option<MountPoint> {
        if let Some(mount) = self.mounts.get(&id) {
            return Some(mount.clone());
        }
        let Self { folder, stands, viewer, mounts, .. } = self;
        let table = tables.with_mount(viewer.as_ref(), id, folder.as_fd(), Instant::now()).ok()?;
        let mount = table.iter().find(|mount| mount.id == id)?;
        let of_root = root_mount(&table).is_some_and(|root| mount.is_within(root));
        let facts = MountFacts { id: mount.id, flags: mount.flags, told_by: Resolution::Root };
        // Told in the root of the process whose file it is.
        let point = below(stands, &mount.point);
        let point = MountPoint { point, fstype: mount.fstype.clone(), facts, of_root };
        mounts.insert(id, point.clone());
        Some(point)
    }
}

/// The inode number of the mount namespace, from `mnt:[4026531841]`.
fn namespace(folder: BorrowedFd<'_>) -> Option<u32> {
    let link = readlinkat(folder, "ns/mnt", Vec::new()).ok()?;
    link.to_str().ok()?.strip_prefix("mnt:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
pub(super) mod tests {
    use std::{fs, os::unix::ffi::OsStrExt as _, path::PathBuf};

    use super::*;
    use crate::finding::paths::Anchor;

    /// This very process.
    pub(in super::super) fn ourselves() -> Subject {
        let folder = Path::new("/proc/self");
        let start_time_ns = Stat::read(folder).unwrap().start_time_ns();
        let opened = fs::File::open(folder).unwrap();
        Subject {
            container: None,
            mnt_ns: namespace(opened.as_fd()),
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
    fn many_names_in_a_folder_are_told_with_its_mount_and_a_folder_that_has_become_a_link_is_followed_the_next_time() {
        let (_folder, path) = folder_with_link();
        let (tables, other) = (Tables::default(), path.join("other"));
        fs::create_dir(&other).unwrap();
        let ask = |session: &mut Session<'_>, name: &str| {
            session.look(&ourselves(), &question(&path.join("link").join(name))).unwrap()
        };
        let mut session = Session::new(Path::new("/proc"), &tables);
        let first = ask(&mut session, "x");
        fs::write(path.join("real/there"), "").unwrap();
        for name in ["y", "there"] {
            let resolved = ask(&mut session, name);
            assert_eq!(resolved.path, path.join("real").join(name).as_os_str().as_encoded_bytes());
            assert_eq!(resolved.mount, first.mount);
        }
        fs::remove_file(path.join("link")).unwrap();
        std::os::unix::fs::symlink("other", path.join("link")).unwrap();
        let later = ask(&mut Session::new(Path::new("/proc"), &tables), "x");
        assert_eq!(later.path, other.join("x").as_os_str().as_encoded_bytes());
    }

    #[test]
    fn what_was_opened_for_one_serves_nobody_else() {
        let (_folder, path) = folder_with_link();
        let (tables, asked) = (Tables::default(), question(&path.join("link/x")));
        let mut session = Session::new(Path::new("/proc"), &tables);
        session.look(&ourselves(), &asked).unwrap();
        let mut replaced = ourselves();
        replaced.process.start_time_ns += 5_000_000_000;
        let mut elsewhere = ourselves();
        elsewhere.mnt_ns = Some(1);
        let mut chrooted = asked.clone();
        chrooted.anchor.root = path.as_os_str().as_bytes().to_vec();
        let alone = Subject { mnt_ns: None, ..ourselves() };
        let replaced = Subject { mnt_ns: None, ..replaced };
        for (subject, question) in [(&replaced, &asked), (&elsewhere, &asked), (&alone, &chrooted)] {
            assert!(matches!(session.look(subject, question), Err(NoAnswer::Gone)), "{subject:?}");
        }
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
