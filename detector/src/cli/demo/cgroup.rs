//! A cgroup of the demo's own, so that what is seen can be told from what the rest of the machine does.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

/// Processes that were waited for leave their cgroup within this time.
const PATIENCE: Duration = Duration::from_secs(10);

/// Removed when dropped.
#[derive(Debug)]
pub(super) struct Cgroup {
    /// Its name, below the root of the hierarchy.
    pub name: String,
    /// Its id, as the kernel side reports it.
    pub id: u64,
    folder: Option<PathBuf>,
}

/// Why there is no cgroup, or why it is still there.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// It could not be made.
    #[error("the demo can't make a cgroup at {path} ({source}): cgroup2 must be mounted there for writing")]
    Make {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It could not be removed.
    #[error("the demo can't remove its cgroup ({source}): remove it with `rmdir {path}`")]
    Remove {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Cgroup {
    /// Makes one in the cgroup2 hierarchy that is mounted at `hierarchy`.
    ///
    /// # Errors
    /// Where that is not permitted.
    pub fn new(hierarchy: &Path) -> Result<Self, CgroupError> {
        let name = format!("rosentry-demo-{}", std::process::id());
        let path = hierarchy.join(&name);
        let made = fs::create_dir(&path).and_then(|()| fs::metadata(&path));
        match made {
            Ok(metadata) => Ok(Self { name, id: metadata.ino(), folder: Some(path) }),
            Err(source) => Err(CgroupError::Make { path, source }),
        }
    }

    /// The file whose writer joins.
    pub fn procs(&self) -> PathBuf {
        self.folder.as_deref().unwrap_or(Path::new("")).join("cgroup.procs")
    }

    /// Removes it, and says when that fails.
    ///
    /// # Errors
    /// Where a process stays in it.
    pub fn remove(mut self) -> Result<(), CgroupError> {
        match self.folder.take() {
            Some(path) => remove(&path).map_err(|source| CgroupError::Remove { path, source }),
            None => Ok(()),
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Some(path) = self.folder.take() {
            // Whoever wants to know calls `remove`.
            let _ = remove(&path);
        }
    }
}

/// A process that has been waited for may be on its way out of the cgroup still.
fn remove(path: &Path) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let mut events = File::open(path.join("cgroup.events"))?;
    loop {
        match fs::remove_dir(path) {
            Err(error) if error.raw_os_error() == Some(Errno::BUSY.raw_os_error()) && Instant::now() < deadline => {
                wait_for_change(&mut events)?;
            }
            done => return done,
        }
    }
}

/// Until `populated` changes, or for a moment: it may have changed before this began to wait.
fn wait_for_change(events: &mut File) -> io::Result<()> {
    const MOMENT: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
    // Only a change after the last read is an event (`man 7 cgroups`).
    io::Read::read(events, &mut [0; 256])?;
    io::Seek::rewind(events)?;
    poll(&mut [PollFd::new(events, PollFlags::PRI)], Some(&MOMENT))?;
    Ok(())
}
