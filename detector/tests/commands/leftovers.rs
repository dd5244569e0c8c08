//! What a command could leave on the machine: programs, cgroups, mounts, processes. Of the test's own children alone: others
//! may be at work on the same machine.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{JoinHandle, sleep, spawn},
    time::{Duration, Instant},
};

use super::kernel_objects::KernelObjects;

/// The kernel frees programs after a grace period.
const DEADLINE: Duration = Duration::from_secs(60);
/// Between two looks; a command has its programs loaded for some hundred milliseconds.
const PAUSE: Duration = Duration::from_millis(2);

/// Looks all the time at the children of this process, to know later what was theirs.
pub struct Machine {
    shared: Arc<Shared>,
    looking: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    seen: Mutex<Seen>,
    ended: AtomicBool,
}

#[derive(Default)]
struct Seen {
    children: BTreeSet<u32>,
    objects: KernelObjects,
}

impl Machine {
    /// To be called before a command is started.
    pub fn watched() -> Self {
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        let looking = spawn(move || {
            while !of_thread.ended.load(Ordering::Acquire) {
                of_thread.look();
                sleep(PAUSE);
            }
        });
        Self { shared, looking }
    }

    /// Fails the test if something is there that was the children's, of which none runs any more. Tells whether one was seen
    /// with programs that were attached: it may have had them between two looks.
    pub fn has_nothing_more(self) -> bool {
        self.shared.ended.store(true, Ordering::Release);
        self.looking.join().unwrap();
        let Seen { children, objects } = &*self.shared.seen();
        assert_eq!(mounts(), Vec::<String>::new(), "no mount is left");
        assert_eq!(cgroups(children), Vec::<PathBuf>::new(), "no cgroup is left");
        assert_eq!(processes(), Vec::<String>::new(), "no process is left");
        let start = Instant::now();
        while !objects.left().are_none() {
            assert!(start.elapsed() < DEADLINE, "left in the kernel: {:?}", objects.left());
            sleep(PAUSE);
        }
        objects.are_attached()
    }
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self) {
        let mut seen = self.seen();
        for child in children() {
            seen.children.insert(child);
            seen.objects.note(child);
        }
    }
}

/// The children of this process; whichever thread started them.
fn children() -> Vec<u32> {
    assert!(Path::new("/proc/thread-self/children").exists(), "the kernel tells of children (CONFIG_PROC_CHILDREN)");
    let threads = fs::read_dir("/proc/self/task").unwrap().flatten();
    threads
        // A thread may have ended since it was listed.
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|pids| pids.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>())
        .collect()
}

/// What the demo has mounted where we see it, and not in a mount namespace of its own.
fn mounts() -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().filter(|line| line.contains("rosentry-demo")).map(str::to_owned).collect()
}

/// The cgroups of demos with these pids, wherever a hierarchy is mounted.
fn cgroups(demos: &BTreeSet<u32>) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    mounts
        .lines()
        .filter(|line| line.split(' ').nth(2).is_some_and(|fstype| fstype.starts_with("cgroup")))
        .filter_map(|line| line.split(' ').nth(1))
        .flat_map(|mount| demos.iter().map(move |pid| Path::new(mount).join(format!("rosentry-demo-{pid}"))))
        .filter(|cgroup| cgroup.exists())
        .collect()
}

/// Command lines of the processes of our own program that make attempts.
fn processes() -> Vec<String> {
    let program = fs::canonicalize(env!("CARGO_BIN_EXE_rosentry")).unwrap();
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter(|process| fs::read_link(process.path().join("exe")).is_ok_and(|exe| exe == program))
        .filter_map(|process| fs::read(process.path().join("cmdline")).ok())
        .map(|arguments| String::from_utf8_lossy(&arguments).replace('\0', " "))
        .filter(|arguments| arguments.contains("rosentry demo"))
        .collect()
}
