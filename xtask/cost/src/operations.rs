//! What is timed: operations that rosentry must not slow down, and those that it reports.

use std::{cell::Cell, ffi::CString, fs, path::Path};

use anyhow::{Context as _, Result};
use rustix::{
    mount::{MountFlags, MountPropagationFlags, mount, mount_change, mount_remount},
    thread::{UnshareFlags, unshare_unsafe},
};

/// One operation.
pub struct Operation {
    /// In the table; without blanks.
    pub name: &'static str,
    /// How often in one sample.
    pub times: u32,
    /// The operation itself. As few instructions around the syscall as can be.
    pub act: Box<dyn Fn()>,
}

/// Where the filesystems are mounted, in a mount namespace of this process's own.
const PLACE: &str = "/mnt";
/// How many paths there are for refused writes of which none was there before.
const NEW_PATHS: usize = 8192;

/// Mounts a writable and a sealed tmpfs, and lists the operations.
pub fn prepare() -> Result<Vec<Operation>> {
    // SAFETY: this process has one thread yet.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }.context("this needs root")?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    mount("cost", PLACE, "tmpfs", MountFlags::empty(), None)?;
    let place = Path::new(PLACE);
    let (writable, sealed) = (place.join("writable"), place.join("sealed"));
    fs::create_dir(&writable)?;
    fs::create_dir(&sealed)?;
    fs::write(writable.join("file"), "x")?;
    mount("sealed", &sealed, "tmpfs", MountFlags::empty(), None)?;
    fs::create_dir_all(sealed.join("var/cache/app"))?;
    mount_remount(&sealed, MountFlags::RDONLY, "")?;

    let file = path(&writable.join("file"))?;
    // SAFETY: a NUL-terminated path.
    let descriptor = unsafe { libc::open(file.as_ptr(), libc::O_WRONLY) };
    let folder = path(&writable.join("folder"))?;
    let refused = path(&sealed.join("var/cache/app/data"))?;
    let new: Vec<CString> =
        (0..NEW_PATHS).map(|index| path(&sealed.join(format!("var/cache/app/{index:04}")))).collect::<Result<_>>()?;
    let next = Cell::new(0);
    let root = path(&sealed)?;

    // Name, repetitions, and what is repeated.
    type Timed = (&'static str, u32, Box<dyn Fn()>);
    let list: Vec<Timed> = vec![
        ("getppid", 2000, Box::new(|| _ = rustix::process::getppid())),
        ("open_close_readable", 500, Box::new(move || open_and_close(&file, libc::O_RDONLY))),
        ("write_writable", 500, Box::new(move || write(descriptor))),
        ("mkdir_rmdir_writable", 300, Box::new(move || make_and_remove(&folder))),
        ("open_refused_new_path", 300, {
            Box::new(move || {
                let index = next.get();
                next.set((index + 1) % NEW_PATHS);
                if let Some(path) = new.get(index) {
                    open_and_close(path, WRITING);
                }
            })
        }),
        ("open_refused_again", 300, {
            let refused = refused.clone();
            Box::new(move || open_and_close(&refused, WRITING))
        }),
        // After a quiet time, hence with a wake-up of the reader.
        ("open_refused_once", 1, Box::new(move || open_and_close(&refused, WRITING))),
        ("remount", 100, Box::new(move || remount(&root))),
    ];
    Ok(list.into_iter().map(|(name, times, act)| Operation { name, times, act }).collect())
}

const WRITING: i32 = libc::O_WRONLY | libc::O_CREAT;

fn path(path: &Path) -> Result<CString> {
    Ok(CString::new(path.as_os_str().as_encoded_bytes())?)
}

fn open_and_close(path: &CString, flags: i32) {
    // SAFETY: a NUL-terminated path; a descriptor that nothing else uses.
    unsafe {
        let descriptor = libc::open(path.as_ptr(), flags, 0o644);
        if descriptor >= 0 {
            libc::close(descriptor);
        }
    }
}

fn write(descriptor: i32) {
    // SAFETY: one readable byte.
    unsafe { libc::pwrite(descriptor, b"x".as_ptr().cast(), 1, 0) };
}

fn make_and_remove(folder: &CString) {
    // SAFETY: a NUL-terminated path.
    unsafe {
        libc::mkdir(folder.as_ptr(), 0o755);
        libc::rmdir(folder.as_ptr());
    }
}

fn remount(root: &CString) {
    // SAFETY: a NUL-terminated path, and no source, type or options.
    unsafe {
        libc::mount(
            std::ptr::null(),
            root.as_ptr(),
            std::ptr::null(),
            libc::MS_REMOUNT | libc::MS_RDONLY,
            std::ptr::null(),
        )
    };
}
