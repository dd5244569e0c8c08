//! A sealed root filesystem for a test: a tmpfs with a few files, read-only, in a mount namespace of the thread's own.

use std::{ffi::CString, fs, path::PathBuf};

use rustix::{
    mount::{MountFlags, MountPropagationFlags, mount, mount_change, mount_remount},
    thread::{UnshareFlags, unshare_unsafe},
};

/// Gives the calling thread a mount namespace that dies with it, so that nothing is left mounted.
pub fn enter_own_mount_namespace() {
    // SAFETY: file system attributes are unshared with the mount namespace; no other thread relies on sharing them.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }.expect("a mount namespace can be made");
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).expect("propagation can be ended");
}

/// A read-only tmpfs; mounted in the calling thread's mount namespace.
pub struct Sealed {
    pub root: PathBuf,
}

impl Sealed {
    /// With the folders `etc`, `usr/lib`, `tmp` and the files `etc/passwd`, `usr/lib/a`.
    pub fn new() -> Self {
        let root = PathBuf::from("/mnt");
        mount("none", &root, "tmpfs", MountFlags::empty(), None).expect("a tmpfs can be mounted");
        for folder in ["etc", "usr/lib", "tmp"] {
            fs::create_dir_all(root.join(folder)).expect("the tmpfs is writable");
        }
        for file in ["etc/passwd", "usr/lib/a"] {
            fs::write(root.join(file), "x").expect("the tmpfs is writable");
        }
        std::os::unix::fs::symlink("usr/lib", root.join("lib")).expect("the tmpfs is writable");
        mount_remount(&root, MountFlags::RDONLY, "").expect("the tmpfs can be sealed");
        Self { root }
    }

    /// An absolute path in it.
    pub fn path(&self, relative: &str) -> CString {
        CString::new(self.root.join(relative).into_os_string().into_encoded_bytes()).expect("no NUL in a test's path")
    }
}
