//! Mount tables that are kept for a moment, for a program that is refused writes faster than its table could be read: of many
//! mounts that is a quarter of what an event costs.

use std::{
    fs::File,
    io,
    os::fd::BorrowedFd,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustix::fs::{Mode, OFlags, openat};

use super::process::Subject;
use crate::{agent::mountinfo, finding::seal::MountInfo};

/// How long a table holds. The id of a mount that is gone may be given to another; an answer about a path holds longer.
const KEPT: Duration = Duration::from_millis(100);
/// Tables at most, and what one may take, which a container chooses: a large one is read each time.
const TABLES_MAX: usize = 4;
const BYTES_MAX: usize = 256 << 10;

/// Whose table: a process of those that share answers was seen in their mount namespace and with this root just now.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Viewer {
    pub whose: Subject,
    pub root: Vec<u8>,
}

/// Tables by whose they are.
#[derive(Default)]
pub struct Tables {
    kept: Mutex<Vec<Kept>>,
}

struct Kept {
    viewer: Viewer,
    since: Instant,
    mounts: Arc<[MountInfo]>,
}

impl Tables {
    /// The mounts that a process, whose folder in proc this is, sees, if the mount with this id is among them. Nothing is kept of
    /// a viewer that is not known.
    ///
    /// # Errors
    /// Where they can't be read, or the mount is not among them.
    pub(super) fn with_mount(
        &self,
        viewer: Option<&Viewer>,
        id: u64,
        folder: BorrowedFd<'_>,
        now: Instant,
    ) -> io::Result<Arc<[MountInfo]>> {
        let has = |mounts: &[MountInfo]| mounts.iter().any(|mount| mount.id == id);
        if let Some(mounts) = viewer.and_then(|viewer| self.kept(viewer, now)).filter(|mounts| has(mounts)) {
            return Ok(mounts);
        }
        let file = File::from(openat(folder, "mountinfo", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?);
        let mounts: Arc<[MountInfo]> = mountinfo::read_from(&file)?.into();
        if let Some(viewer) = viewer.filter(|_| bytes_of(&mounts) <= BYTES_MAX) {
            self.keep(Kept { viewer: viewer.clone(), since: now, mounts: Arc::clone(&mounts) });
        }
        if has(&mounts) { Ok(mounts) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn kept(&self, viewer: &Viewer, now: Instant) -> Option<Arc<[MountInfo]>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|kept| now.saturating_duration_since(kept.since) < KEPT);
        kept.iter().find(|kept| kept.viewer == *viewer).map(|kept| Arc::clone(&kept.mounts))
    }

    fn keep(&self, table: Kept) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|kept| kept.viewer != table.viewer);
        if kept.len() == TABLES_MAX {
            kept.remove(0);
        }
        kept.push(table);
    }
}

fn bytes_of(mounts: &[MountInfo]) -> usize {
    let texts = |mount: &MountInfo| mount.device.len() + mount.root.len() + mount.point.len() + mount.fstype.len();
    mounts.iter().map(|mount| size_of::<MountInfo>() + texts(mount)).sum()
}

#[cfg(test)]
mod tests {
    use std::{fs, os::fd::AsFd as _};

    use super::{super::process::tests::ourselves, *};

    const ONE: &str = "36 35 98:0 / / rw - ext4 /dev/a rw\n";
    const TWO: &str = "36 35 98:0 / / ro - ext4 /dev/a rw\n37 36 98:1 / /b rw - tmpfs b rw\n";

    fn viewer(pid: u32) -> Viewer {
        let mut whose = ourselves();
        whose.process.pid = pid;
        Viewer { whose, root: b"/".to_vec() }
    }

    /// A process's folder, of which nothing but the table is looked at.
    fn folder() -> (tempfile::TempDir, File) {
        let folder = tempfile::tempdir().unwrap();
        let opened = File::open(folder.path()).unwrap();
        (folder, opened)
    }

    #[test]
    fn a_table_is_read_anew_for_another_a_little_later_and_where_the_mount_is_not_in_it() {
        let (folder, opened) = folder();
        let file = folder.path().join("mountinfo");
        let (tables, now) = (Tables::default(), Instant::now());
        let mounts =
            |pid, id, now| tables.with_mount(Some(&viewer(pid)), id, opened.as_fd(), now).map(|all| all.len()).ok();
        fs::write(&file, ONE).unwrap();
        assert_eq!(mounts(1, 36, now), Some(1));
        fs::write(&file, TWO).unwrap();
        assert_eq!(mounts(1, 36, now), Some(1), "kept");
        assert_eq!(mounts(2, 36, now), Some(2), "of another");
        assert_eq!(mounts(1, 36, now + KEPT), Some(2), "later");
        fs::write(&file, ONE).unwrap();
        assert_eq!(mounts(1, 99, now + KEPT), None, "it is in neither");
        fs::write(&file, TWO).unwrap();
        assert_eq!(mounts(1, 37, now + KEPT), Some(2), "not in what was kept");
    }

    #[test]
    fn no_more_tables_are_kept_than_a_few_and_no_large_one() {
        let (folder, opened) = folder();
        let file = folder.path().join("mountinfo");
        fs::write(&file, ONE).unwrap();
        let (tables, now) = (Tables::default(), Instant::now());
        for pid in 0..100 {
            tables.with_mount(Some(&viewer(pid)), 36, opened.as_fd(), now).unwrap();
            tables.with_mount(None, 36, opened.as_fd(), now).unwrap();
        }
        assert_eq!(tables.kept.lock().unwrap().len(), TABLES_MAX);
        fs::write(&file, ONE.repeat(BYTES_MAX / size_of::<MountInfo>())).unwrap();
        let large = viewer(1000);
        tables.with_mount(Some(&large), 36, opened.as_fd(), now).unwrap();
        assert!(tables.kept(&large, now).is_none());
    }
}
