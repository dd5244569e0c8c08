//! The files before the one that is written to: `events.json.1` is the last of them.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// Readable by the owner and the group.
pub const MODE: u32 = 0o640;

/// The name of a rotated file.
pub fn numbered(path: &Path, number: u32) -> PathBuf {
    with_ending(path, &format!(".{number}"))
}

/// Puts a new, empty file in place of this one, which becomes the first of those that are kept.
///
/// The new one is made first: where there is no room for it, nothing is moved.
///
/// # Errors
/// The system's. What was moved by then stays where it is, and no file is lost but those that are beyond what is kept.
pub fn rotate(path: &Path, keep: u32, is_durable: bool) -> io::Result<File> {
    let new = with_ending(path, ".new");
    // Left behind by an agent that was killed at this very point, empty.
    remove(&new)?;
    let file = OpenOptions::new().read(true).append(true).create_new(true).mode(MODE).open(&new)?;
    // Beyond what is kept, also of a time when more were.
    let mut beyond = keep;
    while remove(&numbered(path, beyond))? {
        beyond += 1;
    }
    for number in (1..keep).rev() {
        rename(&numbered(path, number), &numbered(path, number + 1))?;
    }
    if keep == 0 {
        remove(path)?;
    } else {
        rename(path, &numbered(path, 1))?;
    }
    fs::rename(&new, path)?;
    if is_durable {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        File::open(folder)?.sync_all()?;
    }
    Ok(file)
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    name.into()
}

/// Whether there was one.
fn remove(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Nothing to do where there is none.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
