//! Paths are resolved in the root of a real process in a mount namespace of its own, as a container's is.

#![expect(clippy::unwrap_used, reason = "a test that can't go on may say so by its panic")]

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use detector::{
    agent::resolve::{
        process::{Incarnation, NoAnswer, Subject, look},
        tables::Tables,
    },
    finding::paths::{Anchor, Question},
};
use tempfile::TempDir;

/// A process whose root is a folder of ours, read-only, with a read-only tmpfs at /run.
struct Container {
    _root: TempDir,
    child: Child,
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Container {
    /// None, said on stderr, where this machine can't make one.
    fn start() -> Option<Self> {
        if !rustix::process::geteuid().is_root() || !Path::new("/bin/busybox").exists() {
            eprintln!("skipped: this needs root, and the package busybox-static");
            return None;
        }
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        for folder in ["bin", "run", "var", "old", "jail/real"] {
            fs::create_dir_all(at(folder)).unwrap();
        }
        fs::copy("/bin/busybox", at("bin/busybox")).unwrap();
        symlink("/run", at("var/run")).unwrap();
        symlink("/../../real", at("jail/link")).unwrap();
        // pivot_root wants a mount, the old root has to go, and the shell becomes what stays.
        let script = r#"
            mount --bind "$0" "$0" && mount -t tmpfs -o ro none "$0/run" && mount -o remount,bind,ro "$0" &&
            cd "$0" && pivot_root . old &&
            exec /bin/busybox chroot . /bin/busybox sh -c 'busybox umount -l /old && exec busybox sleep 60'
        "#;
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", script]).arg(root.path());
        let child = command.env("PATH", "/bin:/usr/bin:/sbin:/usr/sbin").stdin(Stdio::null()).spawn().unwrap();
        let started = Self { _root: root, child };
        let deadline = Instant::now() + Duration::from_secs(60);
        while fs::read(started.proc("cmdline")).unwrap_or_default() != b"busybox\0sleep\x0060\0" {
            assert!(Instant::now() < deadline, "the container did not come up");
            std::thread::sleep(Duration::from_millis(5));
        }
        Some(started)
    }

    fn proc(&self, file: &str) -> String {
        format!("/proc/{}/{file}", self.child.id())
    }

    fn subject(&self) -> Subject {
        let stat = fs::read_to_string(self.proc("stat")).unwrap();
        let ticks: u64 = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap().parse().unwrap();
        let namespace = fs::read_link(self.proc("ns/mnt")).unwrap();
        let namespace = namespace.to_str().unwrap().trim_start_matches("mnt:[").trim_end_matches(']').to_owned();
        Subject {
            container: Some("c".to_owned()),
            mnt_ns: Some(namespace.parse().unwrap()),
            process: Incarnation { pid: self.child.id(), start_time_ns: ticks * 10_000_000 },
            ancestors: Vec::new(),
            first: Some(Incarnation { pid: self.child.id(), start_time_ns: ticks * 10_000_000 }),
        }
    }

    /// One that has gone, while the container is still there.
    fn short_lived(&self) -> Subject {
        Subject { process: Incarnation { pid: u32::MAX / 2, start_time_ns: 1 }, ..self.subject() }
    }
}

fn question(root: &str, requested: &str) -> Question {
    let anchor = Anchor { root: root.as_bytes().to_vec(), start: b"/".to_vec(), outside: false, is_root: false };
    Question { anchor, requested: requested.as_bytes().to_vec(), follow_last: true, mount_of_folder: false }
}

#[test]
fn a_path_through_a_link_is_found_on_its_mount_of_the_container() {
    let Some(container) = Container::start() else { return };
    for subject in [container.subject(), container.short_lived()] {
        let resolved = look(Path::new("/proc"), &Tables::default(), &subject, &question("/", "/var/run/x")).unwrap();
        assert_eq!(resolved.path, b"/run/x");
        let mount = resolved.mount.unwrap();
        assert_eq!((mount.point.as_slice(), mount.fstype.as_slice()), (&b"/run"[..], &b"tmpfs"[..]));
        assert!(mount.facts.flags.readonly());
        let root =
            look(Path::new("/proc"), &Tables::default(), &subject, &question("/", "/bin/new")).unwrap().mount.unwrap();
        assert_eq!((root.point.as_slice(), root.facts.flags.readonly()), (&b"/"[..], true));
    }
}

#[test]
fn a_link_in_a_chroot_does_not_lead_out_of_it() {
    let Some(container) = Container::start() else { return };
    let asked = question("/jail", "/link/x");
    let resolved = look(Path::new("/proc"), &Tables::default(), &container.short_lived(), &asked).unwrap();
    assert_eq!(resolved.path, b"/jail/real/x");
    assert_eq!(resolved.mount.unwrap().point, b"/");
}

#[test]
fn nothing_is_found_by_way_of_another_mount_namespace() {
    let Some(container) = Container::start() else { return };
    let elsewhere = Subject { mnt_ns: Some(1), ..container.subject() };
    let answer = look(Path::new("/proc"), &Tables::default(), &elsewhere, &question("/", "/var/run/x"));
    assert!(matches!(answer, Err(NoAnswer::Gone)), "{answer:?}");
}
