//! Maps and links pinned in a bpffs, so that they outlive the agent: `docs/decisions/0010-a-restart-without-a-gap.md`.
//!
//! In the agent's folder there is one folder for each build, and its name says which. It gets that name when all is in it: what a
//! killed agent left half done has another.

use std::{
    collections::BTreeMap,
    ffi::CString,
    fs::{self, DirBuilder, File, Metadata, OpenOptions},
    io,
    os::{
        fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
        unix::{
            ffi::OsStrExt as _,
            fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
        },
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use aya::maps::{Map, MapData, MapError};
use detector_common::{WIRE_VERSION, kept::KEPT_VERSION};
use rustix::fs::{FlockOperation, flock, fstatfs};
use sha2::{Digest as _, Sha256};

use super::{links, maps::AGREEMENT};

/// Where bpffs is mounted as a rule, and our folder in it.
pub const DEFAULT: &str = "/sys/fs/bpf/rosentry";

/// `BPF_FS_MAGIC`, `include/uapi/linux/magic.h`.
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// How long an agent that is ending may hold the folder yet.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is being pinned.
const UNFINISHED: &str = "unfinished";

/// Why nothing can be pinned there.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// The folder is not in a bpffs.
    #[error(
        "{} is not on a bpffs, where programs can be kept: mount one (`mount -t bpf bpf /sys/fs/bpf`), name another folder with --pin, or say --pin off",
        .0.display()
    )]
    NoBpffs(PathBuf),
    /// Somebody else's.
    #[error("{} is not rosentry's ({reason}): remove it, name another folder with --pin, or say --pin off", path.display())]
    Foreign {
        /// What.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Another agent is at work.
    #[error(
        "another rosentry is at work with {}: stop it, name another folder with --pin, or say --pin off",
        .0.display()
    )]
    Busy(PathBuf),
    /// The system's.
    #[error("{} can't be used to keep programs: {source}; name another folder with --pin, or say --pin off", path.display())]
    System {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The agent's folder, which nobody else uses meanwhile.
#[derive(Debug)]
pub struct Pins {
    path: PathBuf,
    /// Locked.
    _folder: File,
}

/// What a build's folder holds, by name.
pub(super) type Links = BTreeMap<String, OwnedFd>;

impl Pins {
    /// Opens the folder, and makes it where there is none.
    ///
    /// # Errors
    /// Where it is not in a bpffs, somebody else's, or in use.
    pub fn open(path: &Path) -> Result<Self, PinError> {
        let system = |source| PinError::System { path: path.to_owned(), source };
        let deadline = Instant::now() + PATIENCE;
        let folder = loop {
            let is_over = Instant::now() >= deadline;
            let folder = match open_or_make(path) {
                // Removed since it was found, by an agent that has just ended.
                Err(PinError::System { source, .. }) if source.kind() == io::ErrorKind::NotFound && !is_over => {
                    continue;
                }
                folder => folder?,
            };
            match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) if is_at(&folder, path) => break folder,
                // The same, while it was waited for.
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => std::thread::sleep(Duration::from_millis(20)),
                Err(error) => return Err(system(error.into())),
            }
            if is_over {
                return Err(PinError::Busy(path.to_owned()));
            }
        };
        let pins = Self { path: path.to_owned(), _folder: folder };
        for entry in pins.entries()? {
            if !is_build(&entry) && entry != UNFINISHED {
                return Err(PinError::Foreign { path: path.join(entry), reason: "its name is none of ours" });
            }
        }
        Ok(pins)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The builds that are there besides this one.
    pub(super) fn others(&self, but: &str) -> Result<Vec<Build>, PinError> {
        let builds = self.entries()?.into_iter().filter(|name| is_build(name) && name != but);
        Ok(builds.map(|name| Build { folder: self.path.join(name) }).collect())
    }

    /// That of this name, if all is there.
    pub(super) fn build(&self, name: &str) -> Option<Build> {
        let folder = self.path.join(name);
        folder.is_dir().then_some(Build { folder })
    }

    /// A folder to pin a build in, empty.
    pub(super) fn begin(&self) -> Result<Build, PinError> {
        let unfinished = Build { folder: self.path.join(UNFINISHED) };
        unfinished.remove();
        let made = DirBuilder::new().mode(0o700).create(&unfinished.folder);
        made.map_err(|source| PinError::System { path: unfinished.folder.clone(), source })?;
        Ok(unfinished)
    }

    /// Says that all of it is there.
    pub(super) fn finish(&self, unfinished: &Build, name: &str) -> io::Result<Build> {
        let folder = self.path.join(name);
        fs::rename(&unfinished.folder, &folder)?;
        Ok(Build { folder })
    }

    /// Gives the build of this name, which can't be gone on with, the name of another.
    pub(super) fn set_aside(&self, build: &Build, name: &str) -> io::Result<()> {
        fs::rename(&build.folder, self.path.join(build_name(&[name.as_bytes()])))
    }

    /// Removes all that is pinned, and the folder. How many links were there.
    ///
    /// # Errors
    /// Where it can't be read.
    pub fn uninstall(self) -> Result<usize, PinError> {
        let mut links = 0;
        for name in self.entries()? {
            links += Build { folder: self.path.join(name) }.remove();
        }
        self.remove_if_empty();
        Ok(links)
    }

    /// Removes the folder itself where there is nothing in it.
    pub(super) fn remove_if_empty(&self) {
        // It is not empty where another build's programs are there yet.
        let _ = fs::remove_dir(&self.path);
    }

    fn entries(&self) -> Result<Vec<String>, PinError> {
        let system = |source| PinError::System { path: self.path.clone(), source };
        let entries = fs::read_dir(&self.path).map_err(system)?;
        entries.map(|entry| Ok(entry.map_err(system)?.file_name().to_string_lossy().into_owned())).collect()
    }
}

/// Opens the folder, and makes it where there is none.
fn open_or_make(path: &Path) -> Result<File, PinError> {
    let system = |source| PinError::System { path: path.to_owned(), source };
    let parent = path.parent().unwrap_or(path);
    let is_bpffs = |file: &File| fstatfs(file).is_ok_and(|stat| stat.f_type == BPF_FS_MAGIC);
    let no_bpffs = || PinError::NoBpffs(path.to_owned());
    let open = |path: &Path| {
        let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
        OpenOptions::new().read(true).custom_flags(flags).open(path)
    };
    let foreign = |reason| PinError::Foreign { path: path.to_owned(), reason };
    let is_ours = |metadata: &Metadata| metadata.uid() == rustix::process::geteuid().as_raw();
    match fs::symlink_metadata(path) {
        // Before it is opened, which an agent that has given up its capabilities may not.
        Ok(metadata) if !is_ours(&metadata) => return Err(foreign("it is of another user")),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let is_there = File::open(parent).map_err(|_| no_bpffs())?;
            if !is_bpffs(&is_there) {
                return Err(no_bpffs());
            }
            match DirBuilder::new().mode(0o700).create(path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(system(error)),
                _ => {}
            }
        }
        Err(error) => return Err(system(error)),
    }
    let folder = open(path).map_err(|error| match error.raw_os_error() {
        Some(libc::ENOTDIR | libc::ELOOP) => foreign("it is no folder"),
        _ => system(error),
    })?;
    if !is_bpffs(&folder) {
        return Err(no_bpffs());
    }
    let metadata = folder.metadata().map_err(system)?;
    if !is_ours(&metadata) {
        return Err(foreign("it is of another user"));
    }
    // A kubelet makes it 0755. What is in it is root's alone.
    if metadata.mode() & 0o022 != 0 {
        return Err(foreign("others may write to it"));
    }
    Ok(folder)
}

/// Whether the file is what the path leads to.
fn is_at(file: &File, path: &Path) -> bool {
    let id = |metadata: Metadata| (metadata.dev(), metadata.ino());
    file.metadata().is_ok_and(|file| fs::symlink_metadata(path).is_ok_and(|there| id(file) == id(there)))
}

/// Versions of the formats of records and of what is kept, and a hash of what else has to be the same for an agent to go on with.
pub(super) fn build_name(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    let digest = hash.finalize();
    let hex: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("{}{hex}", prefix())
}

fn prefix() -> String {
    format!("{WIRE_VERSION}-{KEPT_VERSION}-")
}

fn is_build(name: &str) -> bool {
    let parts: Vec<_> = name.split('-').collect();
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|digit| digit.is_ascii_digit());
    matches!(parts.as_slice(), [wire, kept, hash]
        if is_number(wire) && is_number(kept) && hash.len() == 16 && hash.bytes().all(|digit| digit.is_ascii_hexdigit()))
}

/// The pins of a build.
#[derive(Debug)]
pub(super) struct Build {
    folder: PathBuf,
}

impl Build {
    /// Whether what its maps hold can be read.
    pub(super) fn is_readable(&self) -> bool {
        self.folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix()))
    }

    pub(super) fn pin_map(&self, name: &str, map: &Map) -> io::Result<()> {
        map.pin(self.pin_of_map(name)).map_err(io::Error::other)
    }

    pub(super) fn pin_link(&self, program: &str, link: impl AsFd) -> io::Result<()> {
        pin(&self.folder.join(format!("link_{program}")), link)
    }

    pub(super) fn pin_program(&self, program: &str, descriptor: impl AsFd) -> io::Result<()> {
        pin(&self.folder.join(format!("program_{program}")), descriptor)
    }

    /// Where the map is pinned in which its programs agree with those that replace them; none where they can't.
    pub(super) fn agreement(&self) -> Option<PathBuf> {
        (self.is_readable() && self.has_map(AGREEMENT)).then(|| self.pin_of_map(AGREEMENT))
    }

    pub(super) fn has_map(&self, name: &str) -> bool {
        self.pin_of_map(name).exists()
    }

    pub(super) fn map(&self, name: &str) -> Result<Map, MapError> {
        Map::from_map_data(MapData::from_pin(self.pin_of_map(name))?)
    }

    /// A bpffs has no names with dots, which those of sections have.
    fn pin_of_map(&self, name: &str) -> PathBuf {
        self.folder.join(format!("map_{}", name.trim_start_matches('.').replace('.', "_")))
    }

    pub(super) fn program(&self, program: &str) -> io::Result<OwnedFd> {
        get(&self.folder.join(format!("program_{program}")))
    }

    /// All links, by their programs.
    pub(super) fn links(&self) -> io::Result<Links> {
        let mut links = Links::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            if let Some(program) = entry.file_name().to_string_lossy().strip_prefix("link_") {
                links.insert(program.to_owned(), get(&entry.path())?);
            }
        }
        Ok(links)
    }

    /// Detaches its programs and removes its pins; how many links there were.
    pub(super) fn remove(&self) -> usize {
        // Held, so that nothing waits for a grace period when the pins go.
        let links = self.links().unwrap_or_default();
        self.unpin();
        let count = links.len();
        links::detach(links.into_values().collect());
        count
    }

    /// Removes its pins.
    pub(super) fn unpin(&self) {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let _ = fs::remove_file(entry.path());
        }
        if let Err(error) = fs::remove_dir(&self.folder)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(folder = %self.folder.display(), %error, "pins are left");
        }
    }
}

const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_OBJ_GET: libc::c_int = 7;

/// The start of `union bpf_attr`.
#[repr(C)]
struct Object {
    path: u64,
    descriptor: u32,
    flags: u32,
}

/// Pins a link or a program; kernel 5.7 for links. What aya does, but it keeps the descriptors of these links to itself.
fn pin(path: &Path, descriptor: impl AsFd) -> io::Result<()> {
    object(BPF_OBJ_PIN, path, descriptor.as_fd().as_raw_fd().unsigned_abs()).map(drop)
}

fn get(path: &Path) -> io::Result<OwnedFd> {
    let descriptor = object(BPF_OBJ_GET, path, 0)?;
    // SAFETY: a descriptor that the kernel has just made for us.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn object(command: libc::c_int, path: &Path, descriptor: u32) -> io::Result<RawFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let object = Object { path: path.as_ptr() as u64, descriptor, flags: 0 };
    // SAFETY: the attributes are readable for the size that is told, the path is a string that lives on.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const object, size_of::<Object>()) };
    match RawFd::try_from(result) {
        Ok(result) if result >= 0 => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_build_tells_its_formats_and_is_another_for_each() {
        let name = build_name(&[b"ab", b"c"]);
        assert!(is_build(&name) && Build { folder: name.clone().into() }.is_readable(), "{name}");
        assert_ne!(name, build_name(&[b"a", b"bc"]));
        assert!(!is_build("unfinished") && !is_build("2-1-xyz") && !is_build("1-0123456789abcdef"));
        assert!(!Build { folder: "999-1-0123456789abcdef".into() }.is_readable());
    }

    #[test]
    fn a_folder_that_is_in_no_bpffs_is_refused_with_a_way_on() {
        let folder = tempfile::tempdir().unwrap();
        for path in [folder.path().join("rosentry"), folder.path().to_owned()] {
            let error = Pins::open(&path).unwrap_err();
            assert!(matches!(error, PinError::NoBpffs(_)), "{error}");
            assert!(error.to_string().contains("--pin off"), "{error}");
        }
        assert!(!folder.path().join("rosentry").exists());
    }
}
