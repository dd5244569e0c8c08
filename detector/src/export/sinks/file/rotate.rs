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
    // Beyond what is kept, of a time when more were.
    for number in (keep..=u32::MAX).skip(1) {
        if !remove(&numbered(path, number))? {
            break;
        }
    }
    // Those up to the first number that is free move on by one, into it; where none is, the last one goes.
    let mut free = 1;
    while free < keep && numbered(path, free).try_exists()? {
        free += 1;
    }
    for number in (1..free).rev() {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The rotated files, by what is in them, after one more rotation.
    fn rotated(files: &[(u32, &str)], keep: u32) -> Vec<(u32, String)> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.json");
        fs::write(&path, "now").unwrap();
        for (number, text) in files {
            fs::write(numbered(&path, *number), text).unwrap();
        }
        assert_eq!(rotate(&path, keep, false).unwrap().metadata().unwrap().len(), 0);
        let there = |number| Some((number, fs::read_to_string(numbered(&path, number)).ok()?));
        (0..10).filter_map(there).collect()
    }

    fn are(files: &[(u32, &str)]) -> Vec<(u32, String)> {
        files.iter().map(|(number, text)| (*number, (*text).to_owned())).collect()
    }

    #[test]
    fn any_number_of_files_can_be_kept_and_only_those_that_are_there_are_moved() {
        assert_eq!(rotated(&[(1, "a"), (2, "b")], u32::MAX), are(&[(1, "now"), (2, "a"), (3, "b")]));
        assert_eq!(rotated(&[], u32::MAX), are(&[(1, "now")]));
    }

    #[test]
    fn a_file_that_somebody_took_away_leaves_room_and_costs_no_other() {
        assert_eq!(rotated(&[(1, "a"), (3, "c"), (4, "d")], 4), are(&[(1, "now"), (2, "a"), (3, "c"), (4, "d")]));
        assert_eq!(rotated(&[(2, "b"), (3, "c")], 3), are(&[(1, "now"), (2, "b"), (3, "c")]));
    }

    #[test]
    fn what_is_beyond_those_that_are_kept_goes() {
        assert_eq!(rotated(&[(1, "a"), (2, "b")], 2), are(&[(1, "now"), (2, "a")]));
        assert_eq!(rotated(&[(1, "a"), (2, "b"), (3, "c"), (4, "d")], 2), are(&[(1, "now"), (2, "a")]));
        assert_eq!(rotated(&[(1, "a"), (2, "b")], 1), are(&[(1, "now")]));
        assert_eq!(rotated(&[(1, "a"), (2, "b")], 0), are(&[]));
    }
}
