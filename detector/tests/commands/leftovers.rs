//! What a command could leave on the machine: programs, cgroups, mounts, processes.

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use aya::programs::loaded_programs;

/// The kernel frees programs after a grace period.
const DEADLINE: Duration = Duration::from_secs(10);

/// The machine at one moment.
pub struct Machine {
    programs: BTreeSet<u32>,
    cgroups: BTreeSet<PathBuf>,
    mounts: String,
}

impl Machine {
    pub fn now() -> Self {
        Self {
            // A program may go between the listing and the look at it.
            programs: loaded_programs().flatten().map(|program| program.id()).collect(),
            cgroups: cgroups(),
            mounts: mounts(),
        }
    }

    /// Fails the test if something is there that was not there then.
    pub fn has_nothing_more(&self) {
        assert_eq!(mounts(), self.mounts, "no mount is left");
        assert_eq!(cgroups(), self.cgroups, "no cgroup is left");
        assert_eq!(processes(), Vec::<String>::new(), "no process is left");
        let start = Instant::now();
        while Self::now().programs.difference(&self.programs).count() > 0 {
            assert!(start.elapsed() < DEADLINE, "no program is left in the kernel");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// The mount table, but for what the labs of other tests mount meanwhile.
fn mounts() -> String {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().filter(|line| !line.contains("rosentry-lab-")).map(|line| format!("{line}\n")).collect()
}

/// The demo's cgroups, wherever a hierarchy is mounted.
fn cgroups() -> BTreeSet<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    mounts
        .lines()
        .filter(|line| line.split(' ').nth(2).is_some_and(|fstype| fstype.starts_with("cgroup")))
        .filter_map(|line| line.split(' ').nth(1))
        .flat_map(|mount| fs::read_dir(mount).into_iter().flatten().flatten())
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().contains("rosentry-demo"))
        .collect()
}

/// Command lines of the processes that make attempts.
fn processes() -> Vec<String> {
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|process| fs::read(process.path().join("cmdline")).ok())
        .map(|arguments| String::from_utf8_lossy(&arguments).replace('\0', " "))
        .filter(|arguments| arguments.contains("rosentry demo"))
        .collect()
}
