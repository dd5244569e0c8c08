//! What a containerd leaves on the machine once it is killed — containers, shims, mounts, cgroups, shim sockets — found
//! by the lab's own folder and cgroup, so that nothing of anyone else's is touched, and how it is cleared away.

use std::{
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::{
    mount::{UnmountFlags, unmount},
    process::{Pid, Signal, kill_process},
};

/// Killed processes are gone from their cgroup, and their mounts idle, well within this time.
const DEADLINE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(5);

/// Ends every process of the lab whose containerd used `folder` and `cgroup`, and removes what they held.
pub fn clear(folder: &Path, cgroup: &str) {
    until_empty(|| processes_in(cgroup), kill);
    // Shims end by themselves when their containers do only if containerd asks them to.
    until_empty(|| shims_of(folder), kill);
    for socket in shim_sockets(folder) {
        let _ = fs::remove_file(socket);
    }
    until_empty(
        || mounts_below(folder),
        |mount| {
            let _ = unmount(mount.as_path(), UnmountFlags::DETACH);
        },
    );
    until_empty(
        || cgroups_of(cgroup),
        |folder| {
            let _ = fs::remove_dir(folder);
        },
    );
}

/// What is there of a lab, as text for people; empty when it was cleared.
pub fn traces_of(folder: &Path, cgroup: &str) -> Vec<String> {
    let mut traces = Vec::new();
    traces.extend(processes_in(cgroup).into_iter().map(|pid| format!("process {pid:?} in {cgroup}")));
    traces.extend(shims_of(folder).into_iter().map(|pid| format!("shim {pid:?}")));
    traces.extend(mounts_below(folder).into_iter().map(|mount| format!("mount {}", mount.display())));
    traces.extend(cgroups_of(cgroup).into_iter().map(|folder| format!("cgroup {}", folder.display())));
    traces.extend(shim_sockets(folder).into_iter().map(|socket| format!("socket {}", socket.display())));
    if folder.exists() {
        traces.push(format!("folder {}", folder.display()));
    }
    traces
}

fn until_empty<T>(list: impl Fn() -> Vec<T>, clear: impl Fn(&T)) {
    let start = Instant::now();
    loop {
        let left = list();
        if left.is_empty() || start.elapsed() > DEADLINE {
            return;
        }
        left.iter().for_each(&clear);
        sleep(PAUSE);
    }
}

fn kill(pid: &Pid) {
    // It may have ended since it was listed.
    let _ = kill_process(*pid, Signal::KILL);
}

/// A process is listed once for each hierarchy.
fn processes_in(cgroup: &str) -> Vec<Pid> {
    cgroups_of(cgroup)
        .iter()
        .filter_map(|folder| fs::read_to_string(folder.join("cgroup.procs")).ok())
        .flat_map(|listed| listed.lines().filter_map(parse_pid).collect::<Vec<_>>())
        .collect()
}

/// Every cgroup of the lab in every hierarchy (there are several where version 1 is mounted), children first.
fn cgroups_of(cgroup: &str) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for mount in mounts(|fstype| matches!(fstype, "cgroup" | "cgroup2")) {
        push_tree(&mount.join(cgroup), &mut folders);
    }
    folders
}

fn push_tree(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(children) = fs::read_dir(folder) else {
        return;
    };
    for child in children.flatten() {
        if child.file_type().is_ok_and(|kind| kind.is_dir()) {
            push_tree(&child.path(), found);
        }
    }
    found.push(folder.to_owned());
}

/// Shims name the socket of their containerd in their arguments. A killed one stays listed, without arguments, until
/// its parent has waited for it.
fn shims_of(folder: &Path) -> Vec<Pid> {
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    processes
        .flatten()
        .filter_map(|process| {
            let pid = parse_pid(process.file_name().to_str()?)?;
            let arguments = fs::read(process.path().join("cmdline")).ok()?;
            let mut arguments = arguments.split(|byte| *byte == 0);
            let is_shim = arguments.next()?.ends_with(b"containerd-shim-runc-v2");
            (is_shim && arguments.any(|argument| argument.starts_with(folder.as_os_str().as_bytes()))).then_some(pid)
        })
        .collect()
}

/// Latest mounts first, since they may lie on top of earlier ones.
fn mounts_below(folder: &Path) -> Vec<PathBuf> {
    let mut below = mounts(|_| true);
    below.retain(|mount| mount.starts_with(folder));
    below.reverse();
    below
}

/// Mount points by type of filesystem; `man 5 proc_pid_mountinfo`.
fn mounts(wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    fs::read_to_string("/proc/self/mountinfo")
        .unwrap_or_default()
        .lines()
        .filter_map(|line| {
            let (mount, filesystem) = line.split_once(" - ")?;
            let point = mount.split(' ').nth(4)?;
            wanted(filesystem.split(' ').next()?).then(|| PathBuf::from(point))
        })
        .collect()
}

/// containerd 1.6 keeps its shims' sockets in a fixed folder, under a hash; each bundle holds its shim's address.
fn shim_sockets(folder: &Path) -> Vec<PathBuf> {
    let namespaces = fs::read_dir(folder.join("state/io.containerd.runtime.v2.task")).into_iter().flatten();
    namespaces
        .flatten()
        .flat_map(|namespace| fs::read_dir(namespace.path()).into_iter().flatten().flatten())
        .filter_map(|bundle| fs::read_to_string(bundle.path().join("address")).ok())
        .map(|address| PathBuf::from(address.trim().trim_start_matches("unix://")))
        .filter(|socket| socket.exists())
        .collect()
}

fn parse_pid(text: &str) -> Option<Pid> {
    Pid::from_raw(text.parse().ok()?)
}
