//! `/proc/<pid>/stat`: a process's name, flags and start, as far as rosentry asks for them (`man 5 proc_pid_stat`).

use std::{os::fd::BorrowedFd, path::Path};

use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    io::{Errno, read, retry_on_intr},
    param::clock_ticks_per_second,
};

const NANOSECONDS: u64 = 1_000_000_000;
/// Fields are counted from 1; those that follow the name begin with the third.
const FIRST_AFTER_NAME: usize = 3;
const FLAGS: usize = 9;
const START: usize = 22;
/// More than the fields up to that take: the name is of 64 bytes at most, the numbers of 20.
const BYTES: usize = 1024;

/// What it says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Stat {
    /// Name of the first thread.
    pub(crate) comm: Vec<u8>,
    /// `PF_` flags of the first thread.
    pub(crate) flags: u32,
    /// Start, in clock ticks since boot.
    start_ticks: u64,
}

impl Stat {
    /// Of the process whose folder in proc this is; none where it has ended.
    pub(crate) fn read(process: &Path) -> Option<Self> {
        Self::read_at(CWD, &process.join("stat")).ok()?
    }

    /// The same, where the folder is open.
    pub(crate) fn read_in(process: BorrowedFd<'_>) -> Option<Self> {
        Self::read_at(process, Path::new("stat")).ok()?
    }

    fn read_at(folder: BorrowedFd<'_>, path: &Path) -> Result<Option<Self>, Errno> {
        let file = openat(folder, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let mut bytes = [0; BYTES];
        // The kernel writes the line as a whole, as far as there is room (`seq_read_iter`, `fs/seq_file.c`).
        let length = retry_on_intr(|| read(&file, &mut bytes))?;
        Ok(bytes.get(..length).and_then(Self::parse))
    }

    /// From the text. The name, in parentheses, may hold any character, `)` and blanks too.
    pub(crate) fn parse(stat: &[u8]) -> Option<Self> {
        let name = stat.iter().position(|&byte| byte == b'(')?;
        let end = stat.iter().rposition(|&byte| byte == b')')?;
        let comm = stat.get(name + 1..end)?.to_vec();
        let fields: Vec<_> = std::str::from_utf8(stat.get(end + 1..)?).ok()?.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - FIRST_AFTER_NAME);
        Some(Self { comm, flags: field(FLAGS)?.parse().ok()?, start_ticks: field(START)?.parse().ok()? })
    }

    /// Whether it is the process that started then, in nanoseconds since boot, and not one that has its pid by now.
    pub(crate) fn started_at(&self, start_time_ns: u64) -> bool {
        same_tick(self.start_time_ns(), start_time_ns)
    }

    /// Start, in nanoseconds since boot, to the clock tick.
    pub(crate) fn start_time_ns(&self) -> u64 {
        self.start_ticks.saturating_mul(nanoseconds_per_tick())
    }
}

/// Whether two times, in nanoseconds since boot, are the same to the clock tick. The kernel rounds down, too.
pub(crate) fn same_tick(one_ns: u64, other_ns: u64) -> bool {
    one_ns / nanoseconds_per_tick() == other_ns / nanoseconds_per_tick()
}

fn nanoseconds_per_tick() -> u64 {
    (NANOSECONDS / clock_ticks_per_second().max(1)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_blanks_does_not_shift_the_fields() {
        let stat = Stat::parse(b"7 (a) 1 (b c) S 1 7 7 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 4242 1000 5").unwrap();
        assert_eq!((stat.comm.as_slice(), stat.flags, stat.start_ticks), (b"a) 1 (b c".as_slice(), 0x40_0000, 4242));
    }

    #[test]
    fn a_text_that_is_cut_says_nothing() {
        for cut in ["", "7", "7 (a", "7 )a( S", "7 (a) S 1", "7 (a) S 1 7 7 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0"] {
            assert_eq!(Stat::parse(cut.as_bytes()), None, "{cut}");
        }
    }

    #[test]
    fn a_process_is_told_from_one_that_started_a_tick_later() {
        let ourselves = Stat::read(Path::new("/proc/self")).unwrap();
        let start = ourselves.start_time_ns();
        assert!(ourselves.started_at(start) && ourselves.started_at(start + nanoseconds_per_tick() - 1));
        assert!(!ourselves.started_at(start + nanoseconds_per_tick()));
    }
}
