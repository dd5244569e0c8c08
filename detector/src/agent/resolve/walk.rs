//! Following a path in another root, as the kernel would have.
//!
//! One component after the other is opened with `O_PATH | O_NOFOLLOW`, so that no link is followed but by us, and a link
//! never leads out of the root. Nothing is opened for reading, no automount is triggered, no device is touched.
//!
//! Minimum kernel: 5.8 (openat2 5.6, `STATX_MNT_ID` 5.8; before that the mount is not told).

use std::{
    collections::VecDeque,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, StatxFlags, fstatfs, openat, openat2, readlinkat, statx},
    io::Errno,
};

use crate::finding::paths::{Anchor, Question, below, components};

/// Symbolic links that are followed, at most: `MAXSYMLINKS` (`include/linux/namei.h`).
const LINKS_MAX: usize = 40;
/// Components that are looked at, at most: a path can be made to cost more than its event is worth.
const STEPS_MAX: usize = 256;
/// `PROC_SUPER_MAGIC` (`include/uapi/linux/magic.h`).
const PROC_SUPER_MAGIC: i64 = 0x9fa0;

/// Where a path led.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Walked {
    /// Absolute in the root that was walked in.
    pub path: Vec<u8>,
    /// Id of the mount that was asked for, where the kernel tells it.
    pub mount_id: Option<u64>,
}

/// Why a path leads nowhere that could be told.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    /// A folder on the way is not there, or no folder.
    #[error("a folder on the way is gone")]
    Missing,
    /// Too many links, or a loop of them.
    #[error("more than 40 symbolic links")]
    TooManyLinks,
    /// Too many components.
    #[error("more than 256 components")]
    TooLong,
    /// Links of proc lead elsewhere for each who asks.
    #[error("a link of proc on the way")]
    OfProc,
    /// Anything else.
    #[error("openat2, openat, statx or readlinkat: {0}")]
    System(#[from] Errno),
}

struct Walk<'a> {
    root: BorrowedFd<'a>,
    /// Names from the root to where we are: real, without links.
    names: Vec<Vec<u8>>,
    /// Where we are; none: at the root.
    here: Option<OwnedFd>,
    left: VecDeque<Vec<u8>>,
    links: usize,
}

/// Follows the question's path from its start; both are taken to be in `root`.
///
/// # Errors
/// Where it leads nowhere that could be told.
pub fn walk(root: BorrowedFd<'_>, question: &Question) -> Result<Walked, WalkError> {
    if question.anchor.is_root {
        let start = &question.anchor.start;
        let jail = open_within(root, start)?;
        let anchor = Anchor { start: b"/".to_vec(), is_root: false, ..question.anchor.clone() };
        let Walked { path, mount_id } = walk(jail.as_fd(), &Question { anchor, ..question.clone() })?;
        return Ok(Walked { path: below(start, &path), mount_id });
    }
    let owned = |path: &[u8]| components(path).map(<[u8]>::to_vec).collect::<Vec<_>>();
    let absolute = question.requested.first() == Some(&b'/');
    let mut walk = Walk {
        root,
        names: if absolute { Vec::new() } else { owned(&question.anchor.start) },
        here: None,
        left: owned(&question.requested).into(),
        links: 0,
    };
    walk.reopen()?;
    // A slash at the end wants a folder, which a link can stand for.
    let follow_last = question.follow_last || question.requested.last() == Some(&b'/');

    let mut steps = 0;
    while let Some(name) = walk.left.pop_front() {
        steps += 1;
        if steps > STEPS_MAX {
            return Err(WalkError::TooLong);
        }
        match name.as_slice() {
            b"." => {}
            b".." => {
                walk.names.pop();
                walk.reopen()?;
            }
            _ => {
                let is_last = walk.left.is_empty();
                if let Some(walked) = walk.step(name, is_last, follow_last, question.mount_of_folder)? {
                    return Ok(walked);
                }
            }
        }
    }
    let mount_id = look(walk.here())?.mount_id;
    Ok(Walked { path: walk.path(), mount_id })
}

/// Opens a folder of the root by a path without links.
///
/// # Errors
/// Where it is not there, or a link has taken the place of a folder.
pub fn open_within(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, WalkError> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    openat2(root, path, flags, Mode::empty(), resolve).map_err(gone)
}

impl Walk<'_> {
    fn here(&self) -> BorrowedFd<'_> {
        self.here.as_ref().map_or(self.root, AsFd::as_fd)
    }

    /// Goes to where `names` say. They are real, so a link among them means that the tree has changed meanwhile.
    fn reopen(&mut self) -> Result<(), WalkError> {
        self.here = if self.names.is_empty() { None } else { Some(open_within(self.root, &self.names.join(&b'/'))?) };
        Ok(())
    }

    /// Goes on to a name; the answer, where that was the end.
    fn step(
        &mut self,
        name: Vec<u8>,
        is_last: bool,
        follow_last: bool,
        mount_of_folder: bool,
    ) -> Result<Option<Walked>, WalkError> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let object = match openat(self.here(), name.as_slice(), flags, Mode::empty()) {
            Ok(object) => object,
            // What was refused may well have been the making of it.
            Err(Errno::NOENT) if is_last => {
                let mount_id = look(self.here())?.mount_id;
                self.names.push(name);
                return Ok(Some(Walked { path: self.path(), mount_id }));
            }
            Err(error) => return Err(gone(error)),
        };
        let seen = look(object.as_fd())?;
        if seen.file_type == FileType::Symlink && (!is_last || follow_last) {
            self.follow(&object)?;
            return Ok(None);
        }
        if is_last {
            let mount_id = if mount_of_folder { look(self.here())?.mount_id } else { seen.mount_id };
            self.names.push(name);
            return Ok(Some(Walked { path: self.path(), mount_id }));
        }
        if seen.file_type != FileType::Directory {
            return Err(WalkError::Missing);
        }
        self.names.push(name);
        self.here = Some(object);
        Ok(None)
    }

    fn follow(&mut self, link: &OwnedFd) -> Result<(), WalkError> {
        self.links += 1;
        if self.links > LINKS_MAX {
            return Err(WalkError::TooManyLinks);
        }
        if fstatfs(link)?.f_type == PROC_SUPER_MAGIC {
            return Err(WalkError::OfProc);
        }
        let target = readlinkat(link, c"", Vec::new())?.into_bytes();
        if target.first() == Some(&b'/') {
            self.names.clear();
            self.here = None;
        }
        for name in components(&target).collect::<Vec<_>>().into_iter().rev() {
            self.left.push_front(name.to_vec());
        }
        Ok(())
    }

    fn path(&self) -> Vec<u8> {
        [b"/", self.names.join(&b'/').as_slice()].concat()
    }
}

struct Seen {
    file_type: FileType,
    mount_id: Option<u64>,
}

fn look(object: BorrowedFd<'_>) -> Result<Seen, Errno> {
    // What the kernel knows already is enough: no server of a network filesystem need be asked.
    let flags = AtFlags::EMPTY_PATH | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
    let seen = statx(object, c"", flags, StatxFlags::TYPE | StatxFlags::MNT_ID)?;
    let told = StatxFlags::from_bits_retain(seen.stx_mask).contains(StatxFlags::MNT_ID);
    Ok(Seen { file_type: FileType::from_raw_mode(seen.stx_mode.into()), mount_id: told.then_some(seen.stx_mnt_id) })
}

fn gone(error: Errno) -> WalkError {
    match error {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP => WalkError::Missing,
        error => WalkError::System(error),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, path::Path};

    use rustix::fs::{CWD, open};
    use tempfile::TempDir;

    use super::*;

    /// A root with `/run/real`, `/var/run -> /run`, `/up -> ..`, `/self -> self`, `/out -> /../../etc`, `/file`.
    fn root() -> TempDir {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        fs::create_dir_all(at("run/real")).unwrap();
        fs::create_dir_all(at("var")).unwrap();
        fs::write(at("file"), "").unwrap();
        symlink("/run", at("var/run")).unwrap();
        symlink("../run/real", at("var/relative")).unwrap();
        symlink("..", at("up")).unwrap();
        symlink("self", at("self")).unwrap();
        symlink("/../../etc", at("out")).unwrap();
        symlink("/run/new", at("dangling")).unwrap();
        root
    }

    fn question(start: &str, requested: &[u8], follow_last: bool) -> Question {
        let anchor = Anchor { root: b"/".to_vec(), start: start.as_bytes().to_vec(), outside: false, is_root: false };
        Question { anchor, requested: requested.to_vec(), follow_last, mount_of_folder: false }
    }

    fn led(root: &Path, question: &Question) -> Result<String, WalkError> {
        let root = open(root, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        walk(root.as_fd(), question).map(|walked| String::from_utf8(walked.path).unwrap())
    }

    fn from_root(requested: &str, follow_last: bool) -> Result<String, WalkError> {
        led(root().path(), &question("/", requested.as_bytes(), follow_last))
    }

    #[test]
    fn links_to_folders_are_followed_within_the_root() {
        assert_eq!(from_root("/var/run/x", true).unwrap(), "/run/x");
        assert_eq!(from_root("/var/relative/../x", true).unwrap(), "/run/x");
        assert_eq!(from_root("var//./run/real", false).unwrap(), "/run/real");
    }

    #[test]
    fn no_link_and_no_two_dots_lead_out_of_the_root() {
        assert_eq!(from_root("/../../x", true).unwrap(), "/x");
        assert_eq!(from_root("/up/up/../x", true).unwrap(), "/x");
        assert_eq!(from_root("/out", true).unwrap(), "/etc");
    }

    #[test]
    fn the_last_link_is_followed_where_the_call_does() {
        assert_eq!(from_root("/var/run", true).unwrap(), "/run");
        assert_eq!(from_root("/var/run", false).unwrap(), "/var/run");
        assert_eq!(from_root("/var/run/", false).unwrap(), "/run");
        assert_eq!(from_root("/dangling", true).unwrap(), "/run/new", "it would be made there");
        assert_eq!(from_root("/dangling", false).unwrap(), "/dangling");
    }

    #[test]
    fn a_relative_path_starts_where_it_should() {
        let root = root();
        assert_eq!(led(root.path(), &question("/run/real", b"../x", true)).unwrap(), "/run/x");
        assert_eq!(led(root.path(), &question("/file", b"", true)).unwrap(), "/file", "a call on an open file");
        assert_eq!(led(root.path(), &question("/run", b"/x", true)).unwrap(), "/x");
    }

    #[test]
    fn a_path_that_must_stay_below_its_start_stays_there() {
        let root = root();
        symlink("/real/sub", root.path().join("run/absolute")).unwrap();
        fs::create_dir(root.path().join("run/real/sub")).unwrap();
        let stays = |requested: &str| {
            let mut question = question("/run", requested.as_bytes(), true);
            question.anchor.is_root = true;
            led(root.path(), &question).unwrap()
        };
        assert_eq!(stays("/real/x"), "/run/real/x");
        assert_eq!(stays("../../real/x"), "/run/real/x");
        assert_eq!(stays("absolute/x"), "/run/real/sub/x", "a link begins at the start, too");
        assert_eq!(stays("/"), "/run");
    }

    #[test]
    fn a_way_that_is_not_there_is_not_guessed() {
        assert!(matches!(from_root("/none/x", true), Err(WalkError::Missing)));
        assert!(matches!(from_root("/file/x", true), Err(WalkError::Missing)));
        assert!(matches!(led(root().path(), &question("/gone", b"x", true)), Err(WalkError::Missing)));
    }

    #[test]
    fn loops_and_endless_paths_end() {
        assert!(matches!(from_root("/self/x", true), Err(WalkError::TooManyLinks)));
        assert!(matches!(from_root(&"/run/..".repeat(200), true), Err(WalkError::TooLong)));
    }

    #[test]
    fn links_of_proc_are_left_alone() {
        let asked = question("/", b"/proc/self/cwd/x", true);
        assert!(matches!(led(Path::new("/"), &asked), Err(WalkError::OfProc)));
    }

    #[test]
    fn names_are_bytes() {
        let root = root();
        assert_eq!(
            walk(
                openat(CWD, root.path(), OFlags::PATH, Mode::empty()).unwrap().as_fd(),
                &question("/", b"/var/run/\xff", true)
            )
            .unwrap()
            .path,
            b"/run/\xff"
        );
    }
}
