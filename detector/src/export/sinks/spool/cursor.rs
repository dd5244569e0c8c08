//! Up to where a spool is delivered, kept in a file.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

/// A place between two records.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Position {
    /// The segment.
    pub segment: u64,
    /// Bytes from its beginning; 0 is before its first record.
    pub offset: u64,
    /// Lines that were read since the start of the agent to get here.
    pub lines: u64,
}

/// The file: segment and offset as 64 bits, little-endian, and a checksum of the two.
#[derive(Debug)]
pub struct Cursor {
    file: File,
    /// What it says.
    pub position: Position,
}

const BYTES: usize = 20;

impl Cursor {
    /// Reads it. One that can't be understood says the beginning: what is there is sent again rather than left out.
    ///
    /// # Errors
    /// The system's.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let path = folder.join("cursor");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let mut bytes = [0; BYTES];
        let position = match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => understood(&bytes).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Position::default(),
            Err(error) => return Err(error),
        };
        Ok(Self { file, position })
    }

    /// Moves it. It is not synchronised: one that is too early after a power failure costs duplicates and nothing else.
    ///
    /// # Errors
    /// The system's; it is moved all the same until the agent ends.
    pub fn set(&mut self, position: Position) -> io::Result<()> {
        self.position = position;
        let mut bytes = [0; BYTES];
        bytes[..8].copy_from_slice(&position.segment.to_le_bytes());
        bytes[8..16].copy_from_slice(&position.offset.to_le_bytes());
        let checksum = crc32fast::hash(&bytes[..16]);
        bytes[16..].copy_from_slice(&checksum.to_le_bytes());
        self.file.write_all_at(&bytes, 0)
    }

    /// Moves one back that is ahead of this place, the end of what is left, as it can be after a power failure. It is synchronised
    /// before anything is written there: the next start would take it for delivered else.
    ///
    /// # Errors
    /// The system's.
    pub fn set_back(&mut self, end: Position) -> io::Result<()> {
        if self.position <= end {
            return Ok(());
        }
        self.set(end)?;
        self.file.sync_data()
    }
}

fn understood(bytes: &[u8; BYTES]) -> Option<Position> {
    let number = |from: usize| bytes[from..from + 8].try_into().ok().map(u64::from_le_bytes);
    let checksum = bytes[16..].try_into().ok().map(u32::from_le_bytes)?;
    let (segment, offset) = (number(0)?, number(8)?);
    (crc32fast::hash(&bytes[..16]) == checksum).then_some(Position { segment, offset, lines: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_as_it_was_set_and_a_damaged_one_says_the_beginning() {
        let folder = tempfile::tempdir().unwrap();
        let mut cursor = Cursor::open(folder.path()).unwrap();
        assert_eq!(cursor.position, Position::default());
        cursor.set(Position { segment: 7, offset: 4711, lines: 12 }).unwrap();
        assert_eq!(Cursor::open(folder.path()).unwrap().position, Position { segment: 7, offset: 4711, lines: 0 });
        for byte in 0..BYTES {
            let mut damaged = std::fs::read(folder.path().join("cursor")).unwrap();
            damaged[byte] ^= 1;
            std::fs::write(folder.path().join("cursor"), &damaged).unwrap();
            assert_eq!(Cursor::open(folder.path()).unwrap().position, Position::default(), "{byte}");
            cursor.set(cursor.position).unwrap();
        }
    }
}
