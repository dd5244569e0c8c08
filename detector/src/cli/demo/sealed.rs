//! A sealed root filesystem like a container's, in a mount namespace of its own.

use std::{fs, io, os::fd::OwnedFd, os::unix::fs::symlink, path::Path, thread};

use rustix::{
    fs::{Mode, OFlags, open},
    mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, mount_move, mount_remount, unmount},
    process::{chdir, chroot, pivot_root},
    thread::{UnshareFlags, unshare_unsafe},
};

/// Where the volume that stays writable is mounted.
pub(super) const VOLUME: &str = "/data";

const FOLDERS: &[&str] = &[
    "data",
    "dev",
    "etc",
    "home/app",
    "proc",
    "run",
    "sys",
    "tmp",
    "usr/bin",
    "usr/lib",
    "var/cache",
    "var/log",
    "var/tmp",
];
const FILES: &[&str] =
    &["etc/app.conf", "etc/hosts", "etc/passwd", "usr/bin/app", "usr/lib/libapp.so", "var/log/app.log"];
const LINKS: &[(&str, &str)] = &[("usr/bin", "bin"), ("usr/lib", "lib"), ("../run", "var/run")];

/// The root stands as long as this lives; nothing else keeps it.
#[derive(Debug)]
pub(super) struct Sealed {
    /// The mount namespace, whose root it is.
    pub namespace: OwnedFd,
}

/// Why there is no sealed root.
#[derive(Debug, thiserror::Error)]
#[error("the demo can't {step} ({source}): run it on the node itself or in a privileged container")]
pub struct SealError {
    /// What went wrong.
    step: &'static str,
    /// What the system said.
    source: io::Error,
}

trait Step<T> {
    fn step(self, step: &'static str) -> Result<T, SealError>;
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn step(self, step: &'static str) -> Result<T, SealError> {
        self.map_err(|error| SealError { step, source: error.into() })
    }
}

impl Sealed {
    /// Builds and seals it. The caller's own mount namespace is untouched.
    ///
    /// # Errors
    /// Names the step that failed.
    pub fn new() -> Result<Self, SealError> {
        // On a thread that ends: what it unshares would be the caller's for good.
        let builder = thread::Builder::new().name("seal".to_owned()).spawn(build).step("start a thread")?;
        builder
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread ended early")).step("seal a root filesystem"))
    }
}

fn build() -> Result<Sealed, SealError> {
    // SAFETY: rustix calls unsharing unsafe for the file descriptors that other threads might rely on sharing; these stay
    // shared. The thread's root and working directory are unshared with the mount namespace, and no other thread relies
    // on this one's.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }.step("make a mount namespace")?;
    // Or else the mounts below would appear on the node.
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).step("keep its mounts to itself")?;
    let namespace = open("/proc/thread-self/ns/mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .step("open its mount namespace")?;
    // Any folder would do, as the new root covers all; this one is there on every node.
    let place = Path::new("/proc");
    mount("rosentry-demo", place, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, None).step("mount a tmpfs")?;
    fill(place).step("fill the root filesystem")?;
    enter(place).step("enter the root filesystem")?;
    mount("rosentry-demo", VOLUME, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, None).step("mount a volume")?;
    // As runc does: the mount is read-only, the filesystem is not.
    mount_remount("/", MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV, "")
        .step("seal the root filesystem")?;
    Ok(Sealed { namespace })
}

fn fill(root: &Path) -> io::Result<()> {
    for folder in FOLDERS {
        fs::create_dir_all(root.join(folder))?;
    }
    for file in FILES {
        fs::write(root.join(file), format!("made by rosentry demo: /{file}\n"))?;
    }
    LINKS.iter().try_for_each(|(target, link)| symlink(target, root.join(link)))
}

/// Makes `place` the root of the namespace.
fn enter(place: &Path) -> io::Result<()> {
    chdir(place)?;
    match pivot_root(".", ".") {
        // The old root now lies on top of the new one.
        Ok(()) => unmount(".", UnmountFlags::DETACH)?,
        // An initial ramfs can't be pivoted away from (`man 2 pivot_root`), but covered.
        Err(_) => {
            mount_move(".", "/")?;
            chroot(".")?;
        }
    }
    chdir("/")?;
    Ok(())
}
