//! Where the generator plays: sealed and writable filesystems, one in the other, with links between them. All that it knows of
//! real paths stands here, as plain facts.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt as _, fs::symlink},
    path::{Path, PathBuf},
};

use rustix::mount::{MountFlags, mount, mount_bind, mount_remount};

/// A symbolic link.
pub struct Link {
    pub at: &'static str,
    /// What is in it.
    pub text: &'static str,
    /// Where it leads, without any link on the way.
    pub real: &'static str,
}

const fn link(at: &'static str, text: &'static str, real: &'static str) -> Link {
    Link { at, text, real }
}

/// Links to folders, which any path can go through.
pub const ALIASES: &[Link] = &[
    link("/mnt/lib", "usr/lib", "/mnt/usr/lib"),
    link("/mnt/abs", "/mnt/etc", "/mnt/etc"),
    link("/mnt/loop", "abs", "/mnt/etc"),
    link("/mnt/etc/up", "..", "/mnt"),
    link("/mnt/tmp/to work", "/mnt/data/work", "/mnt/data/work"),
    link("/mnt/data/back", "../etc", "/mnt/etc"),
    link("/mnt/data/inner/out", "../../usr/./lib/../lib/", "/mnt/usr/lib"),
];

/// Links that are names in sealed folders, to be operated on.
pub const LINKS: &[Link] = &[
    link("/mnt/etc/to-file", "passwd", "/mnt/etc/passwd"),
    link("/mnt/etc/to-link", "../tmp/to-file", "/mnt/etc/passwd"),
    link("/mnt/tmp/to-file", "/mnt/loop/to-file", "/mnt/etc/passwd"),
    link("/mnt/etc/dangling", "app/nothing yet", "/mnt/etc/app/nothing yet"),
    link("/mnt/usr/lib/to-folder", "../../etc/app", "/mnt/etc/app"),
    link("/mnt/data/inner/to-seal", "../../etc/passwd", "/mnt/etc/passwd"),
    link("/mnt/data/inner/to-work", "../work/a", "/mnt/data/work/a"),
];

/// Folders, in an order in which they can be made; of one filesystem after the other.
const ROOT: &[&str] = &["etc", "etc/app", "usr", "usr/lib", "tmp", "data", "view", HOSTILE_FOLDER];
const DATA: &[&str] = &["work", "shown", "shown/deep", "inner"];
const INNER: &[&str] = &["d"];

/// Nothing that a terminal, a log or a parser of lines likes.
const HOSTILE_FOLDER: &str = "new\nline \u{1b}[2J \"quoted\\ \u{202e}";

/// Files with something in them.
const FILES: &[&str] = &[
    "/mnt/etc/passwd",
    "/mnt/etc/app/conf",
    "/mnt/etc/app/\\x41\t{}",
    "/mnt/usr/lib/a",
    "/mnt/tmp/file",
    "/mnt/data/shown/page",
    "/mnt/data/shown/deep/page",
    "/mnt/data/inner/f",
    "/mnt/data/inner/d/f",
];

/// The writable folder that the operations may change.
pub const WORK: &str = "/mnt/data/work";

/// Names for what may not be there.
pub const NAMES: &[&[u8]] = &[
    b"a",
    b"b",
    b"c",
    b"new",
    b"new.conf",
    b".hidden",
    b"...",
    b"with space",
    b"-rf",
    b"line\nbreak",
    b"\x1b]0;title\x07",
    b"\xff\xfe\x80",
    b"\xc3\x28 not utf-8",
    b"{\"kind\":\"agent\"}",
    b"tab\there",
    b"\\n",
    b"a%s%n",
    b"\x01",
    "\u{e4}\u{1f512}".as_bytes(),
    LONG,
];
/// As long as a name may be.
const LONG: &[u8] = &[b'x'; 255];

/// The filesystems as they were made, and what is in them.
pub struct World {
    /// Folders without a link on the way: of sealed filesystems, and those that lead there.
    pub folders: Vec<PathBuf>,
    /// Those of them that are sealed, in which names are operated on.
    pub sealed: Vec<PathBuf>,
    /// Sealed files that are there.
    pub files: Vec<PathBuf>,
}

/// The real path of a name in a real folder.
pub fn below(folder: &Path, name: &[u8]) -> PathBuf {
    folder.join(OsStr::from_bytes(name))
}

impl World {
    /// Makes it at `/mnt`, in the calling thread's mount namespace.
    pub fn new() -> Self {
        let made = |root: &str, folders: &[&str]| -> Vec<PathBuf> {
            mount("none", root, "tmpfs", MountFlags::empty(), None).unwrap();
            let folders: Vec<_> = folders.iter().map(|folder| Path::new(root).join(folder)).collect();
            folders.iter().for_each(|folder| fs::create_dir(folder).unwrap());
            folders
        };
        let root = made("/mnt", ROOT);
        let data = made("/mnt/data", DATA);
        let inner = made("/mnt/data/inner", INNER);
        for file in FILES {
            fs::write(file, "x").unwrap();
        }
        for Link { at, text, .. } in ALIASES.iter().chain(LINKS) {
            symlink(text, at).unwrap();
        }
        // Two are sealed as filesystems. One is sealed as a mount: elsewhere the same files can be written to.
        mount_bind("/mnt/data/shown", "/mnt/view").unwrap();
        mount_remount("/mnt/view", MountFlags::BIND | MountFlags::RDONLY, "").unwrap();
        mount_remount("/mnt/data/inner", MountFlags::RDONLY, "").unwrap();
        mount_remount("/mnt", MountFlags::RDONLY, "").unwrap();

        let paths = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<Vec<_>>();
        let in_view = paths(&["/mnt/view", "/mnt/view/deep"]);
        // What is mounted upon can't be told from what is mounted.
        let root = root.into_iter().filter(|folder| !folder.ends_with("data") && !folder.ends_with("view"));
        let sealed: Vec<_> = root.chain(inner).chain(in_view).chain(paths(&["/mnt", "/mnt/data/inner"])).collect();
        let mut folders = sealed.clone();
        folders.extend(data.into_iter().filter(|folder| !folder.ends_with("inner")));
        folders.push("/mnt/data".into());
        folders.push("/".into());
        let mut files: Vec<_> = FILES.iter().filter(|file| !file.contains("/shown/")).map(PathBuf::from).collect();
        files.extend(paths(&["/mnt/view/page", "/mnt/view/deep/page"]));
        Self { folders, sealed, files }
    }

    /// The names that are in a sealed folder, links among them.
    pub fn names_in(&self, folder: &Path) -> Vec<Vec<u8>> {
        let links = LINKS.iter().chain(ALIASES).map(|link| Path::new(link.at));
        let all = links.chain(self.files.iter().map(PathBuf::as_path)).chain(self.folders.iter().map(PathBuf::as_path));
        let within = all.filter(|path| path.parent() == Some(folder));
        within.filter_map(|path| Some(path.file_name()?.as_bytes().to_vec())).collect()
    }

    /// Where a name in a real folder leads: further, where it is a link.
    pub fn followed(&self, path: PathBuf) -> PathBuf {
        let link = LINKS.iter().chain(ALIASES).find(|link| Path::new(link.at) == path);
        link.map_or(path, |link| link.real.into())
    }
}
