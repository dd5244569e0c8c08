//! Following a path in another root, as the kernel would have.
//!
//! One component after the other is opened with `O_PATH | O_NOFOLLOW` (of the last, what it is suffices), so that no link is
//! followed but by us, and a link never leads out of the root. Nothing is opened for reading, no automount is triggered, no device is touched.
//!
//! Minimum kernel: 5.8 (openat2 5.6, `STATX_MNT_ID` 5.8; before that the mount is not told).

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    rc::Rc,
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

/// Folders that paths have led to in one root: for many names in a folder the way there is gone once. It holds them open, so it
/// must not live for long.
#[derive(Debug, Default)]
pub struct Folders {
    /// By where the way starts and its text.
    by_way: HashMap<(Vec<u8>, Vec<u8>), Folder>,
}

/// A folder in a root.
#[derive(Clone, Debug, Default)]
struct Folder {
    /// Names from the root to it: real, without links.
    names: Vec<Vec<u8>>,
    /// None: the root itself.
    opened: Option<Rc<OwnedFd>>,
    /// Id of its mount, once it is known whether the kernel tells it.
    mount_id: Option<Option<u64>>,
    /// Links that were followed on the way.
    links: usize,
    /// Components that were looked at on the way.
    steps: usize,
}

/// What is done at the end of a path.
#[derive(Clone, Copy, Debug)]
struct Manner {
    follow_last: bool,
    mount_of_folder: bool,
}

struct Walk<'a> {
    root: BorrowedFd<'a>,
    here: Folder,
    left: VecDeque<Vec<u8>>,
}

/// Follows the question's path from its start; both are taken to be in `root`.
///
/// # Errors
/// Where it leads nowhere that could be told.
pub fn walk(root: BorrowedFd<'_>, question: &Question) -> Result<Walked, WalkError> {
    walk_by(root, question, &mut Folders::default())
}

/// The same, with the folders of this very root that are known, and becomes known.
///
/// # Errors
/// Where it leads nowhere that could be told.
pub fn walk_by(root: BorrowedFd<'_>, question: &Question, folders: &mut Folders) -> Result<Walked, WalkError> {
    let Question { anchor, requested, follow_last, mount_of_folder } = question;
    let start = &anchor.start;
    if anchor.is_root {
        let jail = open_within(root, start)?;
        let anchor = Anchor { start: b"/".to_vec(), is_root: false, ..anchor.clone() };
        let Walked { path, mount_id } = walk(jail.as_fd(), &Question { anchor, ..question.clone() })?;
        return Ok(Walked { path: below(start, &path), mount_id });
    }
    let (way, name) = in_two(requested);
    let folder = match folders.by_way.entry((start.clone(), way.to_vec())) {
        Entry::Occupied(known) => known.into_mut(),
        Entry::Vacant(unknown) => unknown.insert(Walk::through(root, start, way)?),
    };
    let Some(name) = name else {
        return Ok(Walked { path: folder.path(None), mount_id: folder.mount_id(root)? });
    };
    // A slash at the end wants a folder, which a link can stand for.
    let follow_last = *follow_last || requested.last() == Some(&b'/');
    let manner = Manner { follow_last, mount_of_folder: *mount_of_folder };
    match folder.end(root, name, manner)? {
        Some(walked) => Ok(walked),
        None => Walk { root, here: folder.clone(), left: VecDeque::new() }.through_link(name, manner),
    }
}

/// The way to a folder and the name in it; none where the path ends with a folder in any case.
fn in_two(path: &[u8]) -> (&[u8], Option<&[u8]>) {
    let end = path.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
    let named = path.get(..end).unwrap_or_default();
    let start = named.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    match named.split_at(start) {
        (_, b"" | b"." | b"..") => (path, None),
        (way, name) => (way, Some(name)),
    }
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

impl Folder {
    fn fd<'a>(&'a self, root: BorrowedFd<'a>) -> BorrowedFd<'a> {
        self.opened.as_ref().map_or(root, |opened| opened.as_fd())
    }

    fn mount_id(&mut self, root: BorrowedFd<'_>) -> Result<Option<u64>, Errno> {
        let mount_id = match self.mount_id {
            Some(known) => known,
            None => look(self.fd(root), b"")?.mount_id,
        };
        self.mount_id = Some(mount_id);
        Ok(mount_id)
    }

    /// Its path in the root, or that of a name in it.
    fn path(&self, name: Option<&[u8]>) -> Vec<u8> {
        let names: Vec<&[u8]> = self.names.iter().map(Vec::as_slice).chain(name).collect();
        [b"/", names.join(&b'/').as_slice()].concat()
    }

    /// Counts a component that is looked at.
    const fn take_step(&mut self) -> Result<(), WalkError> {
        self.steps += 1;
        if self.steps > STEPS_MAX { Err(WalkError::TooLong) } else { Ok(()) }
    }

    /// Where a path ends that leads to this name in it; none where that is a link which is to be followed.
    fn end(&mut self, root: BorrowedFd<'_>, name: &[u8], manner: Manner) -> Result<Option<Walked>, WalkError> {
        let mount_id = match look(self.fd(root), name) {
            Ok(seen) if seen.file_type == FileType::Symlink && manner.follow_last => return Ok(None),
            Ok(seen) if !manner.mount_of_folder => seen.mount_id,
            // What was refused may well have been the making of it.
            Ok(_) | Err(Errno::NOENT) => self.mount_id(root)?,
            Err(error) => return Err(gone(error)),
        };
        Ok(Some(Walked { path: self.path(Some(name)), mount_id }))
    }
}

impl<'a> Walk<'a> {
    /// To the folder that a path leads to.
    fn through(root: BorrowedFd<'a>, start: &[u8], path: &[u8]) -> Result<Folder, WalkError> {
        let owned = |path: &[u8]| components(path).map(<[u8]>::to_vec).collect::<Vec<_>>();
        let names = if path.first() == Some(&b'/') { Vec::new() } else { owned(start) };
        let mut walk = Walk { root, here: Folder { names, ..Folder::default() }, left: owned(path).into() };
        walk.reopen()?;
        walk.go()?;
        Ok(walk.here)
    }

    /// To the end of a path that a link stands for, in the folder where it is.
    fn through_link(mut self, name: &[u8], manner: Manner) -> Result<Walked, WalkError> {
        let mut name = name.to_vec();
        loop {
            self.here.take_step()?;
            let link = self.open(&name)?;
            self.follow(&link)?;
            let last = self.left.pop_back_if(|last| !matches!(last.as_slice(), b"." | b".."));
            self.go()?;
            name = match last {
                Some(last) => last,
                None => return Ok(Walked { path: self.here.path(None), mount_id: self.here.mount_id(self.root)? }),
            };
            if let Some(walked) = self.here.end(self.root, &name, manner)? {
                return Ok(walked);
            }
        }
    }

    /// Goes through the folders that are left.
    fn go(&mut self) -> Result<(), WalkError> {
        while let Some(name) = self.left.pop_front() {
            self.here.take_step()?;
            match name.as_slice() {
                b"." => {}
                b".." => {
                    self.here.names.pop();
                    self.reopen()?;
                }
                _ => self.step(name)?,
            }
        }
        Ok(())
    }

    /// Goes to where the names say. They are real, so a link among them means that the tree has changed meanwhile.
    fn reopen(&mut self) -> Result<(), WalkError> {
        let Folder { names, opened, mount_id, .. } = &mut self.here;
        *opened = if names.is_empty() { None } else { Some(Rc::new(open_within(self.root, &names.join(&b'/'))?)) };
        *mount_id = None;
        Ok(())
    }

    fn open(&self, name: &[u8]) -> Result<OwnedFd, WalkError> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(self.here.fd(self.root), name, flags, Mode::empty()).map_err(gone)
    }

    /// Goes on to a folder, or to what a link stands for.
    fn step(&mut self, name: Vec<u8>) -> Result<(), WalkError> {
        let object = self.open(&name)?;
        let seen = look(object.as_fd(), b"")?;
        match seen.file_type {
            FileType::Symlink => self.follow(&object),
            FileType::Directory => {
                let Folder { names, opened, mount_id, .. } = &mut self.here;
                names.push(name);
                *opened = Some(Rc::new(object));
                *mount_id = Some(seen.mount_id);
                Ok(())
            }
            _ => Err(WalkError::Missing),
        }
    }

    fn follow(&mut self, link: &OwnedFd) -> Result<(), WalkError> {
        self.here.links += 1;
        if self.here.links > LINKS_MAX {
            return Err(WalkError::TooManyLinks);
        }
        if fstatfs(link)?.f_type == PROC_SUPER_MAGIC {
            return Err(WalkError::OfProc);
        }
        let target = readlinkat(link, c"", Vec::new())?.into_bytes();
        if target.first() == Some(&b'/') {
            let Folder { links, steps, .. } = self.here;
            self.here = Folder { links, steps, ..Folder::default() };
        }
        for name in components(&target).collect::<Vec<_>>().into_iter().rev() {
            self.left.push_front(name.to_vec());
        }
        Ok(())
    }
}

struct Seen {
    file_type: FileType,
    mount_id: Option<u64>,
}

/// Looks at a name in a folder; where that is empty, at what is open.
fn look(object: BorrowedFd<'_>, name: &[u8]) -> Result<Seen, Errno> {
    // What the kernel knows already is enough: no server of a network filesystem need be asked.
    let flags = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
    let seen = statx(object, name, flags, StatxFlags::TYPE | StatxFlags::MNT_ID)?;
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
