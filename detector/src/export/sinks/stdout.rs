//! Standard output.

use std::{fs::File, io, os::fd::AsFd};

use super::{recorder::Store, writer::LineWriter};

/// Standard output. Writing blocks where its reader takes nothing.
pub struct Stdout(LineWriter<File>);

impl Stdout {
    /// The process's own, without the standard library's buffer, which flushes at each line.
    ///
    /// # Errors
    /// Where it is closed.
    pub fn open() -> io::Result<Self> {
        Ok(Self(LineWriter::new(File::from(io::stdout().as_fd().try_clone_to_owned()?))))
    }
}

impl Store for Stdout {
    fn write(&mut self, lines: &[u8]) -> (usize, io::Result<()>) {
        self.0.write(lines, |_, _| false)
    }
}
