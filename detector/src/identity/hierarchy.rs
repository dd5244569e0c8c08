//! The cgroup2 hierarchy in the file system: where it is mounted, and which cgroups it holds.
//!
//! A cgroup's id, as the kernel side reports it, is the inode number of its folder in this hierarchy
//! (`cgroup_id()`, `include/linux/cgroup.h`).

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use rustix::{fs::statfs, io::Errno};

/// `CGROUP2_SUPER_MAGIC` (`include/uapi/linux/magic.h`).
const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;
/// The inode number of the one true root of the hierarchy (`cgroup_setup_root()`, `kernel/cgroup/cgroup.c`).
const ROOT_ID: u64 = 1;
/// A tree larger than this is not read to its end: 250 pods have some thousand cgroups.
const MAX_SCANNED: usize = 131_072;
/// Bytes of paths that a scan holds, at most: nested deep, a few thousand cgroups have paths of megabytes.
const MAX_SCANNED_BYTES: usize = 32 << 20;

/// A mounted cgroup2 hierarchy.
#[derive(Clone, Debug)]
pub struct Hierarchy {
    mount: PathBuf,
    whole: bool,
}

/// What a walk over the hierarchy has found.
#[derive(Debug)]
pub(super) struct Scan {
    /// Id and path of each cgroup, parents first.
    pub cgroups: Vec<(u64, String)>,
    /// Whether the tree was read to its end.
    pub complete: bool,
}

/// Why there is no hierarchy to look into.
#[derive(Debug, thiserror::Error)]
pub enum HierarchyError {
    /// No cgroup2 file system there.
    #[error(
        "found no cgroup2 hierarchy at or below {0}: mount one with `mount -t cgroup2 none {0}/unified`, or name the place \
         with --host-cgroup"
    )]
    NotMounted(PathBuf),
    /// It can't be read.
    #[error("can't read the cgroup2 hierarchy at {path}: {source}")]
    Unreadable {
        /// Its mount point.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Hierarchy {
    /// Finds it at `host_cgroup`, at `host_cgroup/unified` (the hybrid layout), or wherever `host_proc/self/mountinfo`
    /// knows of one below `host_cgroup`.
    ///
    /// # Errors
    /// Where there is none, or its root can't be read.
    pub fn find(host_proc: &Path, host_cgroup: &Path) -> Result<Self, HierarchyError> {
        // `self` is the reader also in the proc of the host, so its mount points are paths as they are seen from here.
        let mountinfo = fs::read_to_string(host_proc.join("self/mountinfo")).unwrap_or_default();
        let mount = [host_cgroup.to_owned(), host_cgroup.join("unified")]
            .into_iter()
            .chain(cgroup2_mounts(&mountinfo).filter(|mount| mount.starts_with(host_cgroup)))
            .find(|place| is_cgroup2(place))
            .ok_or_else(|| HierarchyError::NotMounted(host_cgroup.to_owned()))?;
        match fs::metadata(&mount) {
            Ok(root) => Ok(Self { whole: root.ino() == ROOT_ID, mount }),
            Err(source) => Err(HierarchyError::Unreadable { path: mount, source }),
        }
    }

    /// One that is taken to be there.
    #[cfg(any(test, fuzzing))]
    pub(super) fn at(mount: &Path) -> Self {
        Self { mount: mount.to_owned(), whole: true }
    }

    /// Where it is mounted.
    pub fn mount(&self) -> &Path {
        &self.mount
    }

    /// Whether its root is the node's. Else only a part of it is seen, as from within a cgroup namespace: the paths of
    /// cgroups lack their beginning, and the containers beside are not found.
    pub const fn is_whole(&self) -> bool {
        self.whole
    }

    /// Every cgroup with its id and its path in the hierarchy. Blocks while it reads.
    ///
    /// Folders that go away meanwhile are left out. Those that can't be read, as when they are nested beyond the length
    /// that the kernel takes for a path, make the scan incomplete.
    pub(super) fn scan(&self) -> Scan {
        let mut cgroups = Vec::new();
        let mut folders = Vec::new();
        if let Ok(root) = fs::metadata(&self.mount) {
            cgroups.push((root.ino(), "/".to_owned()));
            folders.push((self.mount.clone(), String::new()));
        }
        let mut complete = !folders.is_empty();
        let mut bytes = 0;
        while let Some((folder, path)) = folders.pop() {
            let entries = match fs::read_dir(&folder) {
                Ok(entries) => entries,
                Err(error) => {
                    complete &= is_gone(&error);
                    continue;
                }
            };
            for entry in entries {
                let (name, metadata) = match entry.and_then(|entry| Ok((entry.file_name(), folder_metadata(&entry)?))) {
                    Ok((name, Some(metadata))) => (name, metadata),
                    Ok((_, None)) => continue,
                    Err(error) => {
                        complete &= is_gone(&error);
                        continue;
                    }
                };
                // The name of a cgroup may be any bytes; what stands in for bad ones never matches a container.
                let path = format!("{path}/{}", name.to_string_lossy());
                bytes += path.len();
                if cgroups.len() >= MAX_SCANNED || bytes > MAX_SCANNED_BYTES {
                    return Scan { cgroups, complete: false };
                }
                cgroups.push((metadata.ino(), path.clone()));
                folders.push((folder.join(name), path));
            }
        }
        Scan { cgroups, complete }
    }
}

/// What is known of an entry that is a folder.
fn folder_metadata(entry: &fs::DirEntry) -> io::Result<Option<fs::Metadata>> {
    entry.file_type()?.is_dir().then(|| entry.metadata()).transpose()
}

/// Whether the error says that a cgroup is no longer there.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(Errno::NODEV.raw_os_error())
}

fn is_cgroup2(path: &Path) -> bool {
    statfs(path).is_ok_and(|filesystem| filesystem.f_type as u64 == CGROUP2_SUPER_MAGIC)
}

/// Mount points of type cgroup2, in the format of `man 5 proc_pid_mountinfo`.
pub(super) fn cgroup2_mounts(mountinfo: &str) -> impl Iterator<Item = PathBuf> {
    mountinfo.lines().filter_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let is_cgroup2 = filesystem.split(' ').next() == Some("cgroup2");
        is_cgroup2.then(|| mount.split(' ').nth(4).map(PathBuf::from)).flatten()
    })
}

#[cfg(test)]
mod tests {
    use rustix::fs::{Mode, OFlags, mkdirat, openat};

    use super::*;

    #[test]
    fn the_mount_points_of_a_hybrid_and_a_unified_layout_are_read() {
        let hybrid = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
                      40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime shared:9 - cgroup cgroup rw,name=systemd\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        assert_eq!(cgroup2_mounts(hybrid).collect::<Vec<_>>(), [Path::new("/sys/fs/cgroup/unified")]);
        let unified = "35 24 0:30 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n";
        assert_eq!(cgroup2_mounts(unified).collect::<Vec<_>>(), [Path::new("/sys/fs/cgroup")]);
        assert_eq!(cgroup2_mounts("no mount information\n - cgroup2").count(), 0);
    }

    #[test]
    fn a_folder_that_is_no_cgroup2_mount_is_refused_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let error = Hierarchy::find(Path::new("/proc"), folder.path()).unwrap_err();
        assert!(matches!(error, HierarchyError::NotMounted(_)));
        assert!(error.to_string().contains("--host-cgroup"));
    }

    #[test]
    fn a_tree_nested_deeper_than_a_path_may_be_long_is_not_read_to_its_end() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("beside")).unwrap();
        let hierarchy = Hierarchy::at(folder.path());
        assert!(hierarchy.scan().complete);
        let name = "d".repeat(255);
        let mut nested = rustix::fs::open(folder.path(), OFlags::DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..20 {
            mkdirat(&nested, name.as_str(), Mode::RWXU).unwrap();
            nested = openat(&nested, name.as_str(), OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        let found = hierarchy.scan();
        assert!(!found.complete, "who is not found may be there all the same");
        assert!(found.cgroups.iter().any(|(_, path)| path == "/beside"));
        assert!(found.cgroups.len() > 15);
    }

    #[test]
    fn a_tree_that_is_not_there_is_not_read_to_its_end() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!Hierarchy::at(&folder.path().join("absent")).scan().complete);
    }

    #[test]
    fn the_hierarchy_of_this_machine_is_found_and_a_new_cgroup_is_in_it() {
        let Ok(hierarchy) = Hierarchy::find(Path::new("/proc"), Path::new("/sys/fs/cgroup")) else {
            eprintln!("skipped: no cgroup2 is mounted here");
            return;
        };
        let name = format!("rosentry-test-{}", std::process::id());
        let folder = hierarchy.mount().join(&name).join("nested");
        if let Err(error) = fs::create_dir_all(&folder) {
            eprintln!("skipped: no cgroup can be made here: {error}");
            return;
        }
        let id = fs::metadata(&folder).unwrap().ino();
        let found = hierarchy.scan();
        fs::remove_dir(&folder).unwrap();
        fs::remove_dir(hierarchy.mount().join(&name)).unwrap();
        assert!(found.complete);
        assert!(found.cgroups.contains(&(id, format!("/{name}/nested"))));
    }
}
