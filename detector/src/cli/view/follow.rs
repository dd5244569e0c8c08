//! Files that grow, and that are rotated: a new one then stands under the name, or the same one begins anew.

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::{AsFd, OwnedFd},
    fs::inotify,
    io::Errno,
};

use crate::{
    export::{
        chain::LINE_MAX,
        format::{RENDERED_MAX, may_carry, original},
    },
    report::lines::GZIP,
};

const BUFFER: usize = 64 << 10;

/// How long to wait where nothing is told: a network filesystem tells nothing of what other machines write.
const UNTOLD: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// A file that is followed.
pub struct Followed {
    path: PathBuf,
    file: Option<File>,
    /// Device and inode of the file.
    id: (u64, u64),
    position: u64,
    /// What is there of a line whose end is not.
    line: Vec<u8>,
    number: u64,
}

/// A line of a file that is followed.
pub enum Found<'a> {
    /// All of it, without its end; of ECS and OCSF the native line that it carries.
    Line(&'a [u8]),
    /// It is longer than any event; it was passed over.
    Long,
}

impl Followed {
    /// Opens the file.
    ///
    /// # Errors
    /// The system's.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let id = id_of(&file.metadata()?);
        Ok(Self { path: path.to_owned(), file: Some(file), id, position: 0, line: Vec::new(), number: 0 })
    }

    /// Tells the lines that are new. Says whether there was anything.
    ///
    /// # Errors
    /// The system's; none of a file that is not there at the moment. And where a file is compressed.
    pub fn read(&mut self, mut tell: impl FnMut(u64, Found<'_>) -> io::Result<()>) -> io::Result<bool> {
        // Asked first: a file that was replaced by then has all that it will ever have.
        let named = match fs::metadata(&self.path) {
            Ok(metadata) => Some(metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let mut any = self.drain(&mut tell)?;
        let Some(named) = named else { return Ok(any) };
        if self.file.is_none() || id_of(&named) != self.id {
            // Gone once more where it can't be opened: the next look finds what comes then.
            if let Ok(file) = File::open(&self.path) {
                self.id = id_of(&file.metadata()?);
                self.begin(file);
                any |= self.drain(&mut tell)?;
            }
        } else if named.len() < self.position {
            if let Some(mut file) = self.file.take() {
                file.rewind()?;
                self.begin(file);
            }
            any |= self.drain(&mut tell)?;
        }
        Ok(any)
    }

    fn begin(&mut self, file: File) {
        self.file = Some(file);
        self.position = 0;
        self.number = 0;
        self.line.clear();
    }

    fn drain(&mut self, tell: &mut impl FnMut(u64, Found<'_>) -> io::Result<()>) -> io::Result<bool> {
        let Some(file) = &mut self.file else { return Ok(false) };
        let mut buffer = vec![0; BUFFER];
        let mut any = false;
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                return Ok(any);
            }
            any = true;
            if self.position == 0 && buffer.starts_with(&GZIP) {
                return Err(io::Error::other(
                    "it is compressed with gzip, and such a file does not grow: leave --follow out",
                ));
            }
            self.position += read as u64;
            for piece in buffer[..read].split_inclusive(|byte| *byte == b'\n') {
                let (part, ends) = piece.strip_suffix(b"\n").map_or((piece, false), |part| (part, true));
                keep(&mut self.line, part);
                if ends {
                    self.number += 1;
                    let native = original(&self.line);
                    let line = native.as_deref().unwrap_or(&self.line);
                    tell(self.number, if line.len() <= LINE_MAX { Found::Line(line) } else { Found::Long })?;
                    self.line.clear();
                }
            }
        }
    }
}

/// Adds a part to a line. One byte more than a line may have shows that it is too long; no more of it is kept.
fn keep(line: &mut Vec<u8>, mut part: &[u8]) {
    for most in [LINE_MAX, RENDERED_MAX] {
        let room = (most + 1).saturating_sub(line.len());
        let (fits, rest) = part.split_at(part.len().min(room));
        line.extend_from_slice(fits);
        part = rest;
        if !may_carry(line) {
            return;
        }
    }
}

fn id_of(metadata: &fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Waits until something happens in the folders of the files.
pub struct Watch(OwnedFd);

impl Watch {
    /// Of these files.
    ///
    /// # Errors
    /// Where the system has no more watches to give.
    pub fn of<'a>(paths: impl Iterator<Item = &'a Path>) -> io::Result<Self> {
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let flags = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
        for path in paths {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            inotify::add_watch(&watch, folder, flags)?;
        }
        Ok(Self(watch))
    }

    /// Waits. Says whether the reader of `out` is still there.
    ///
    /// # Errors
    /// The system's.
    pub fn wait(&self, out: &impl AsFd) -> io::Result<bool> {
        let mut watched = [PollFd::new(&self.0, PollFlags::IN), PollFd::new(out, PollFlags::empty())];
        match poll(&mut watched, Some(&UNTOLD)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let is_there = !watched[1].revents().intersects(PollFlags::ERR | PollFlags::HUP);
        let mut buffer = [0; 4096];
        // What happened is of no interest: every file is looked at.
        while rustix::io::read(&self.0, &mut buffer).is_ok_and(|read| read > 0) {}
        Ok(is_there)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::export::format::Format;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn append(&self, text: &[u8]) {
            let mut file = File::options().create(true).append(true).open(self.path("events.json")).unwrap();
            file.write_all(text).unwrap();
        }
    }

    fn read(followed: &mut Followed) -> Vec<String> {
        let mut lines = Vec::new();
        followed
            .read(|number, found| {
                lines.push(match found {
                    Found::Line(line) => format!("{number} {}", String::from_utf8_lossy(line)),
                    Found::Long => format!("{number} long"),
                });
                Ok(())
            })
            .unwrap();
        lines
    }

    #[test]
    fn a_line_is_told_when_it_has_its_end() {
        let folder = Folder::new();
        folder.append(b"one\ntw");
        let mut followed = Followed::open(&folder.path("events.json")).unwrap();
        assert_eq!(read(&mut followed), ["1 one"]);
        assert_eq!(read(&mut followed), [""; 0]);
        folder.append(b"o\nthree\n");
        assert_eq!(read(&mut followed), ["2 two", "3 three"]);
    }

    #[test]
    fn a_rotated_file_is_read_to_its_end_and_gone_on_from() {
        let folder = Folder::new();
        folder.append(b"one\n");
        let mut followed = Followed::open(&folder.path("events.json")).unwrap();
        assert_eq!(read(&mut followed), ["1 one"]);
        folder.append(b"two\n");
        fs::rename(folder.path("events.json"), folder.path("events.json.1")).unwrap();
        folder.append(b"three\n");
        assert_eq!(read(&mut followed), ["2 two", "1 three"]);
    }

    #[test]
    fn a_file_that_is_gone_for_a_while_is_waited_for() {
        let folder = Folder::new();
        folder.append(b"one\n");
        let mut followed = Followed::open(&folder.path("events.json")).unwrap();
        assert_eq!(read(&mut followed), ["1 one"]);
        fs::remove_file(folder.path("events.json")).unwrap();
        assert_eq!(read(&mut followed), [""; 0]);
        folder.append(b"two\n");
        assert_eq!(read(&mut followed), ["1 two"]);
    }

    #[test]
    fn a_file_that_was_emptied_is_read_from_its_beginning() {
        let folder = Folder::new();
        folder.append(b"one and more\n");
        let mut followed = Followed::open(&folder.path("events.json")).unwrap();
        assert_eq!(read(&mut followed), ["1 one and more"]);
        fs::write(folder.path("events.json"), b"two\n").unwrap();
        assert_eq!(read(&mut followed), ["1 two"]);
    }

    #[test]
    fn a_line_without_end_is_not_kept_in_memory() {
        let folder = Folder::new();
        folder.append(&vec![b'x'; LINE_MAX * 2]);
        let mut followed = Followed::open(&folder.path("events.json")).unwrap();
        assert_eq!(read(&mut followed), [""; 0]);
        assert_eq!(followed.line.len(), LINE_MAX + 1);
        folder.append(b"\nafter\n");
        assert_eq!(read(&mut followed), ["1 long", "2 after"]);
    }

    #[test]
    fn of_other_formats_the_line_that_they_carry_is_told_however_long_it_became() {
        let mut touch = crate::export::testing::touch();
        touch.file.as_mut().unwrap().path = Some([b"/", &b"\"".repeat(300_000)[..]].concat());
        let mut native = Vec::new();
        crate::export::native::NativeEncoder::new("n1").encode(&touch, &mut native).unwrap();
        let native = native.trim_ascii_end();
        for format in [Format::Ecs, Format::Ocsf] {
            let folder = Folder::new();
            let rendered = format.render(native);
            assert!(rendered.len() > LINE_MAX, "{format:?}: {}", rendered.len());
            folder.append(&[&rendered, &b"\nafter\n"[..]].concat());
            let mut followed = Followed::open(&folder.path("events.json")).unwrap();
            assert_eq!(read(&mut followed), [format!("1 {}", String::from_utf8_lossy(native)), "2 after".to_owned()]);
        }
        let folder = Folder::new();
        folder.append(b"{\"@timestamp\":\"");
        folder.append(&vec![b'x'; RENDERED_MAX * 2]);
        let mut followed = Followed::open(&folder.path("events.json")).unwrap();
        assert_eq!(read(&mut followed), [""; 0]);
        assert_eq!(followed.line.len(), RENDERED_MAX + 1);
    }

    #[test]
    fn a_compressed_file_is_not_followed() {
        let folder = Folder::new();
        folder.append(&GZIP);
        let mut followed = Followed::open(&folder.path("events.json")).unwrap();
        let refusal = followed.read(|_, _| Ok(())).unwrap_err().to_string();
        assert!(refusal.contains("gzip") && refusal.contains("--follow"), "{refusal}");
    }

    #[test]
    fn a_change_ends_the_wait_and_a_reader_who_has_gone_is_noticed() {
        let folder = Folder::new();
        let (reader, writer) = io::pipe().unwrap();
        let watch = Watch::of([folder.path("events.json").as_path()].into_iter()).unwrap();
        folder.append(b"one\n");
        assert!(watch.wait(&writer).unwrap());
        drop(reader);
        assert!(!watch.wait(&writer).unwrap());
    }
}
