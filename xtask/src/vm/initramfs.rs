//! The root filesystem of a virtual machine: a cpio archive that the kernel unpacks into memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{BufWriter, Cursor, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use cpio::{NewcBuilder, newc::ModeFileType, write_cpio};

use super::program;
use crate::requirements::static_program;

/// Mounts what programs expect to be mounted, then goes on with the job.
const INIT: &str = include_str!("init.sh");

/// What is in it.
pub struct Contents<'a> {
    /// The program under test; its libraries come along. It becomes `/program`.
    pub program: &'a Path,
    /// What the init does when all is mounted: a piece of shell script.
    pub job: &'a str,
    /// Other files, each by the path that it has inside and where it is here.
    pub others: &'a [(PathBuf, PathBuf)],
    /// Words for the job, one a line, in `/words`.
    pub words: &'a [String],
    /// Modules of the kernel, which the init loads in this order.
    pub modules: &'a [PathBuf],
}

/// Writes the archive.
pub fn write(to: &Path, contents: &Contents<'_>) -> Result<()> {
    let busybox = static_program("busybox").context("there is no busybox that needs no libraries")?;
    let mut files = vec![
        (PathBuf::from("/init"), INIT.as_bytes().to_vec()),
        ("/job".into(), contents.job.as_bytes().to_vec()),
        ("/words".into(), contents.words.iter().flat_map(|line| [line.as_bytes(), b"\n"].concat()).collect()),
        ("/bin/busybox".into(), read(&busybox)?),
        ("/program".into(), read(contents.program)?),
    ];
    let libraries = program::libraries(contents.program);
    let libraries = libraries.iter().map(|library| (library, library));
    // One program's library may be another's, too.
    let others: BTreeMap<&PathBuf, &PathBuf> =
        contents.others.iter().map(|(inside, here)| (inside, here)).chain(libraries).collect();
    for (inside, here) in others {
        files.push((inside.clone(), read(here)?));
    }
    for (index, module) in contents.modules.iter().enumerate() {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        // The order of the names is the order of loading.
        files.push((format!("/modules/{index}-{name}").into(), read(module)?));
    }
    let written = archive(&files).and_then(|bytes| {
        let mut file = BufWriter::new(File::create(to)?);
        file.write_all(&bytes)?;
        file.flush()
    });
    written.with_context(|| format!("{} could not be written", to.display()))
}

/// Files by their absolute paths, with the folders that they are in, all root's and executable.
fn archive(files: &[(PathBuf, Vec<u8>)]) -> std::io::Result<Vec<u8>> {
    let entry = |path: &Path, kind| {
        let name = path.strip_prefix("/").unwrap_or(path).to_string_lossy();
        NewcBuilder::new(&name).mode(0o755).nlink(1).set_mode_file_type(kind)
    };
    // A set, because a folder must come once, and before what is in it.
    let folders: BTreeSet<&Path> = files
        .iter()
        .flat_map(|(path, _)| path.ancestors().skip(1))
        .filter(|folder| folder.parent().is_some())
        .collect();
    let folders = folders.into_iter().map(|folder| (entry(folder, ModeFileType::Directory), Cursor::new(&[][..])));
    let files = files.iter().map(|(path, bytes)| (entry(path, ModeFileType::Regular), Cursor::new(bytes.as_slice())));
    write_cpio(folders.chain(files), Vec::new())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("{} could not be read", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_come_once_and_before_what_is_in_them() {
        let files = [("/lib/x/a".into(), b"1".to_vec()), ("/lib/b".into(), b"2".to_vec()), ("/init".into(), vec![])];
        let mut rest = Cursor::new(archive(&files).unwrap());
        let mut names = Vec::new();
        loop {
            let reader = cpio::NewcReader::new(rest).unwrap();
            if reader.entry().is_trailer() {
                break;
            }
            names.push((reader.entry().name().to_owned(), reader.entry().mode()));
            rest = reader.finish().unwrap();
        }
        let expected =
            [("lib", 0o40755), ("lib/x", 0o40755), ("lib/x/a", 0o100_755), ("lib/b", 0o100_755), ("init", 0o100_755)];
        assert_eq!(names, expected.map(|(name, mode)| (name.to_owned(), mode)));
    }
}
