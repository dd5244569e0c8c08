//! What is timed: operations that rosentry must not slow down, and those that it reports.

use std::{
    cell::Cell,
    ffi::CString,
    fs::{self, File},
    os::fd::IntoRawFd as _,
    path::{Path, PathBuf},
    rc::Rc,
};

use anyhow::{Context as _, Result};
use rustix::{
    mount::{
        MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive, mount_change,
        mount_remount, unmount,
    },
    thread::{UnshareFlags, unshare_unsafe},
};

/// One operation.
pub struct Operation {
    /// In the table; without blanks.
    pub name: &'static str,
    /// How often in one sample: for about two million instructions, half of what lies between two ticks of the kernel's clock.
    pub times: u32,
    /// The operation itself. As few instructions around the syscall as can be.
    pub act: Box<dyn Fn()>,
}

impl Operation {
    /// Whether it is a write that the seal refuses.
    pub fn is_refused(&self) -> bool {
        self.name.starts_with("open_refused")
    }
}

/// Where the root filesystem is put together, in a mount namespace of this process's own.
const PLACE: &str = "/mnt";
/// A library of the image, where Debian and its kind have it.
const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/libc.so.6";
/// A folder of the image in which a program writes that was not written for a read-only root.
pub const CACHE: &str = "/var/cache/app";
/// How many paths there are for refused writes of which none was there before.
const NEW_PATHS: usize = 16_384;

/// Makes the root of a container this process's own, and lists the operations.
pub fn prepare() -> Result<Vec<Operation>> {
    become_contained()?;
    let temporary = path("/tmp/file")?;
    fs::write("/tmp/file", "x")?;
    let descriptor = File::options().write(true).open("/tmp/file")?.into_raw_fd();
    let folder = path("/tmp/folder")?;
    let library = path(LIBRARY)?;
    let refused = path(&format!("{CACHE}/data"))?;
    let by_turns = [path(&format!("{CACHE}/first"))?, path(&format!("{CACHE}/other"))?];
    let turn = Cell::new(false);
    let new_paths: Rc<[CString]> =
        (0..NEW_PATHS).map(|index| path(&format!("{CACHE}/{index:04}"))).collect::<Result<_>>()?;
    let next = Rc::new(Cell::new(0));
    let refuse_next = || {
        let (new_paths, next) = (Rc::clone(&new_paths), Rc::clone(&next));
        Box::new(move || {
            let index = next.get();
            next.set((index + 1) % NEW_PATHS);
            if let Some(path) = new_paths.get(index) {
                open_and_close(path, WRITING);
            }
        })
    };
    let root = path("/")?;

    let list: Vec<Timed> = vec![
        ("getppid", 5000, Box::new(|| _ = rustix::process::getppid())),
        ("open_close_readable", 15, Box::new(move || open_and_close(&library, libc::O_RDONLY))),
        ("open_close_readable_tmpfs", 20, {
            let temporary = temporary.clone();
            Box::new(move || open_and_close(&temporary, libc::O_RDONLY))
        }),
        ("open_close_writable", 20, Box::new(move || open_and_close(&temporary, WRITING))),
        ("write_writable", 1000, Box::new(move || write(descriptor))),
        ("mkdir_rmdir_writable", 7, Box::new(move || make_and_remove(&folder))),
        ("open_refused_new_path", 100, refuse_next()),
        ("open_refused_again", 100, Box::new(move || open_and_close(&refused, WRITING))),
        // Both begin with the same word, so that what a thread has repeated is not found at once.
        ("open_refused_by_turns", 100, {
            Box::new(move || {
                turn.set(!turn.get());
                open_and_close(&by_turns[usize::from(turn.get())], WRITING);
            })
        }),
        // After a quiet time, hence with a wake-up of the reader.
        ("open_refused_once", 1, refuse_next()),
        ("remount", 100, Box::new(move || remount(&root))),
    ];
    Ok(list.into_iter().map(|(name, times, act)| Operation { name, times, act }).collect())
}

/// The same with a root that is not sealed, and operations that learning mode has to tell apart.
pub fn prepare_unsealed() -> Result<Vec<Operation>> {
    become_contained()?;
    mount_remount("/", MountFlags::BIND, "")?;
    fs::write("/tmp/file", "x")?;
    let [of_volume, of_root] = [path("/tmp/file")?, path(&format!("{CACHE}/data"))?];
    fs::write(format!("{CACHE}/data"), "x")?;
    let [folder_of_volume, folder_of_root] = [path("/tmp/folder")?, path(&format!("{CACHE}/folder"))?];
    let library = path(LIBRARY)?;
    let descriptor = File::options().write(true).open("/tmp/file")?.into_raw_fd();
    let list: Vec<Timed> = vec![
        ("getppid", 5000, Box::new(|| _ = rustix::process::getppid())),
        ("write", 1000, Box::new(move || write(descriptor))),
        ("open_close_readable", 15, Box::new(move || open_and_close(&library, libc::O_RDONLY))),
        ("open_close_writable_volume", 200, Box::new(move || open_and_close(&of_volume, WRITING))),
        ("open_close_writable_root", 100, Box::new(move || open_and_close(&of_root, WRITING))),
        ("mkdir_rmdir_volume", 70, Box::new(move || make_and_remove(&folder_of_volume))),
        ("mkdir_rmdir_root", 20, Box::new(move || make_and_remove(&folder_of_root))),
    ];
    Ok(list.into_iter().map(|(name, times, act)| Operation { name, times, act }).collect())
}

/// Name, repetitions, and what is repeated.
type Timed = (&'static str, u32, Box<dyn Fn()>);

/// As a runtime does it: an overlay of an image that holds one library as the root, sealed by a bind remount, with proc, sys and dev,
/// and a volume at `/tmp`.
///
/// # Errors
/// Where this process is not root's, or the kernel has no overlayfs.
pub fn become_contained() -> Result<()> {
    let image = || {
        let image = Path::new(PLACE).join("image");
        fs::create_dir_all(image.join(&CACHE[1..]))?;
        fs::create_dir_all(image.join("usr/lib/x86_64-linux-gnu"))?;
        fs::write(image.join(&LIBRARY[1..]), "x")?;
        Ok(image)
    };
    contain(image).context(NEEDED)
}

/// The same with the folder `image` as the image, where it stands.
///
/// # Errors
/// As above.
pub fn become_contained_in(image: &Path) -> Result<()> {
    contain(|| Ok(image.to_owned())).context(NEEDED)
}

const NEEDED: &str = "this needs root, and a kernel with overlayfs";

/// Asks for the image once the place for it is there.
fn contain(image: impl FnOnce() -> Result<PathBuf>) -> Result<()> {
    // SAFETY: this process has one thread yet.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    mount("cost", PLACE, "tmpfs", MountFlags::empty(), None)?;
    let image = image()?;
    let [upper, work, root] = ["upper", "work", "root"].map(|name| Path::new(PLACE).join(name));
    for folder in [&upper, &work, &root, &image.join("tmp"), &image.join("old")] {
        fs::create_dir_all(folder)?;
    }
    let system = ["proc", "sys", "dev"];
    for folder in system {
        fs::create_dir(image.join(folder))?;
    }
    let [image, upper, work] = [image, upper, work].map(|path| path.display().to_string());
    let options = path(&format!("lowerdir={image},upperdir={upper},workdir={work}"))?;
    mount("overlay", &root, "overlay", MountFlags::empty(), Some(options.as_c_str()))?;
    mount_bind(&root, &root)?;
    for folder in system {
        mount_bind_recursive(Path::new("/").join(folder), root.join(folder))?;
    }
    mount("volume", root.join("tmp"), "tmpfs", MountFlags::empty(), None)?;
    rustix::process::pivot_root(&root, root.join("old"))?;
    rustix::process::chdir("/")?;
    unmount("/old", UnmountFlags::DETACH)?;
    Ok(mount_remount("/", MountFlags::BIND | MountFlags::RDONLY, "")?)
}

/// To make a file or to write to one.
pub const WRITING: i32 = libc::O_WRONLY | libc::O_CREAT;

fn path(path: &str) -> Result<CString> {
    Ok(CString::new(path)?)
}

/// Opens, and closes what was opened.
pub fn open_and_close(path: &CString, flags: i32) {
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
            libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY,
            std::ptr::null(),
        )
    };
}
