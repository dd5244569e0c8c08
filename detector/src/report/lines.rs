//! Event files as lines: plain or compressed with gzip, from a file or standard input, with bounded memory.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use flate2::bufread::MultiGzDecoder;

use crate::export::{
    chain::LINE_MAX,
    escape::escape,
    format::{RENDERED_MAX, may_carry, original},
};

/// The first bytes of a gzip member (RFC 1952, 2.3.1).
pub const GZIP: [u8; 2] = [0x1f, 0x8b];

const BUFFER: usize = 64 << 10;

/// A file with events, or standard input.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Input {
    /// Standard input.
    Stdin,
    /// A file.
    File(PathBuf),
}

impl Input {
    /// Of an argument: `-` is standard input.
    pub fn of(argument: &Path) -> Self {
        if argument.as_os_str() == "-" { Self::Stdin } else { Self::File(argument.to_owned()) }
    }

    /// Its name, safe to print.
    pub fn name(&self) -> String {
        match self {
            Self::Stdin => "standard input".to_owned(),
            Self::File(path) => escape(path.as_os_str().as_encoded_bytes()).into_owned(),
        }
    }

    /// Whether it can be opened once more and read from its beginning.
    pub fn can_be_read_again(&self) -> bool {
        matches!(self, Self::File(path) if path.is_file())
    }

    /// Whether it comes as others write it, and ends when they do: standard input, a pipe.
    pub fn is_stream(&self) -> bool {
        match self {
            Self::Stdin => true,
            Self::File(path) => path.exists() && !path.is_file() && !path.is_dir(),
        }
    }

    /// Opens it.
    ///
    /// # Errors
    /// Where it can't be opened or read, or is a folder.
    pub fn open(&self) -> io::Result<Lines> {
        self.open_telling(|| {})
    }

    /// Opens it, and calls `before_read` whenever more is asked of the system, which may have to be waited for.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_telling(&self, before_read: impl FnMut() + 'static) -> io::Result<Lines> {
        let source: Box<dyn Read> = match self {
            Self::Stdin => Box::new(io::stdin()),
            Self::File(path) => Box::new(File::open(path)?),
        };
        let mut reader: Box<dyn BufRead> = Box::new(BufReader::with_capacity(BUFFER, Telling { source, before_read }));
        if reader.fill_buf()?.starts_with(&GZIP) {
            reader = Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(reader)));
        }
        Ok(Lines { reader, line: Vec::new(), number: 0, kept: false, is_carried: false })
    }
}

/// Tells when it is read.
struct Telling<F> {
    source: Box<dyn Read>,
    before_read: F,
}

impl<F: FnMut()> Read for Telling<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (self.before_read)();
        self.source.read(buffer)
    }
}

/// The lines of an input, one at a time.
pub struct Lines {
    reader: Box<dyn BufRead>,
    line: Vec<u8>,
    number: u64,
    /// Whether `line` is to be told once more.
    kept: bool,
    /// Whether it stood within a line of another format.
    is_carried: bool,
}

/// What was read of a line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Line<'a> {
    /// All of it, without its end.
    Whole(&'a [u8]),
    /// What is there of it: the input ended before the line did.
    Cut(&'a [u8]),
    /// It is longer than any that rosentry writes. What is read next is its rest, unless that is [passed
    /// over](Lines::pass_rest).
    Long,
}

impl Lines {
    /// The next line; none at the end of the input.
    ///
    /// # Errors
    /// Where the input can't be read or decompressed.
    pub fn read(&mut self) -> io::Result<Option<Line<'_>>> {
        if !std::mem::take(&mut self.kept) {
            self.line.clear();
            self.number += 1;
            // One byte for the line's end, one to see that there are more.
            self.read_on(LINE_MAX + 2)?;
            if !self.line.ends_with(b"\n") && may_carry(&self.line) {
                self.read_on(RENDERED_MAX - LINE_MAX)?;
            }
            // Of ECS and OCSF the native line that they carry is looked at.
            let end = if self.line.ends_with(b"\n") { &b"\n"[..] } else { &[] };
            let line = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
            // One that is longer may go on.
            let native = if line.len() <= RENDERED_MAX { original(line) } else { None };
            self.is_carried = native.is_some();
            if let Some(native) = native {
                self.line = native;
                self.line.extend_from_slice(end);
            }
        }
        Ok(match self.line.strip_suffix(b"\n") {
            _ if self.line.is_empty() => None,
            Some(line) if line.len() <= LINE_MAX => Some(Line::Whole(line)),
            None if self.line.len() <= LINE_MAX => Some(Line::Cut(&self.line)),
            _ => Some(Line::Long),
        })
    }

    fn read_on(&mut self, most: usize) -> io::Result<()> {
        let most = u64::try_from(most).unwrap_or(u64::MAX);
        self.reader.by_ref().take(most).read_until(b'\n', &mut self.line).map(drop)
    }

    /// Passes over the rest of a line that is too long.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn pass_rest(&mut self) -> io::Result<()> {
        if !self.line.ends_with(b"\n") {
            self.reader.skip_until(b'\n')?;
        }
        Ok(())
    }

    /// The same, with the line that was read last to be read once more.
    #[must_use]
    pub fn again(mut self) -> Self {
        self.kept = true;
        self
    }

    /// Whether the line that was read last is one that a line of ECS or OCSF carries. What stands around it there is not looked
    /// at.
    pub const fn is_carried(&self) -> bool {
        self.is_carried
    }

    /// The number of the line that was read last, from 1.
    pub const fn number(&self) -> u64 {
        self.number
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn lines(bytes: &[u8]) -> Vec<String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        let mut lines = Input::of(file.path()).open().unwrap();
        let mut all = Vec::new();
        while let Some(line) = lines.read().unwrap() {
            all.push(match line {
                Line::Whole(line) => format!("{} bytes", line.len()),
                Line::Cut(line) => format!("{} bytes, cut", line.len()),
                Line::Long => {
                    lines.pass_rest().unwrap();
                    "long".to_owned()
                }
            });
        }
        all
    }

    #[test]
    fn lines_are_read_one_by_one_and_a_last_one_without_an_end_is_told() {
        assert_eq!(lines(b"ab\n\nc\n"), ["2 bytes", "0 bytes", "1 bytes"]);
        assert_eq!(lines(b"ab\nc"), ["2 bytes", "1 bytes, cut"]);
        assert_eq!(lines(b""), [""; 0]);
    }

    #[test]
    fn a_line_without_end_is_not_read_into_memory() {
        let longest = [vec![b'x'; LINE_MAX], b"\n".to_vec()].concat();
        assert_eq!(lines(&longest), [format!("{LINE_MAX} bytes")]);
        for more in [1, 2, LINE_MAX * 3] {
            let long = [vec![b'x'; LINE_MAX + more], b"\nab\n".to_vec()].concat();
            assert_eq!(lines(&long), ["long", "2 bytes"], "{more}");
        }
    }

    #[test]
    fn a_compressed_file_is_read_as_it_was_before() {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(b"ab\ncde\n").unwrap();
        // As `cat a.gz b.gz` makes it.
        let twice = gzip.finish().unwrap().repeat(2);
        assert_eq!(lines(&twice), ["2 bytes", "3 bytes", "2 bytes", "3 bytes"]);
    }

    #[test]
    fn a_compressed_file_that_was_cut_can_not_be_read() {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(b"ab\ncde\n").unwrap();
        let whole = gzip.finish().unwrap();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&whole[..whole.len() - 6]).unwrap();
        let mut lines = Input::of(file.path()).open().unwrap();
        let mut read = || -> io::Result<()> {
            while lines.read()?.is_some() {}
            Ok(())
        };
        assert!(read().is_err());
    }

    #[test]
    fn a_name_that_steers_a_terminal_is_told_harmlessly() {
        assert_eq!(Input::of(Path::new("a\x1b[2J")).name(), "a\\x1b[2J");
        assert_eq!(Input::of(Path::new("-")), Input::Stdin);
    }
}
