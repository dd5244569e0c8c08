//! The executables of a process's ancestors, from /proc.
//!
//! The kernel side names the ancestors by pid and start; walking the path of each one's executable there would cost every
//! refused write. They mostly live longer than the process itself, so /proc answers, once for each. A pid that was used
//! again has another start, and is not taken for the ancestor.

use std::{
    ffi::OsString,
    fs,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use quick_cache::unsync::Cache;

use crate::kernel::attempt::Ancestor;

/// Ancestors that are remembered.
const REMEMBERED: usize = 1024;

/// Nanoseconds in a clock tick of /proc (`USER_HZ` is 100 on every architecture that Linux runs containers on).
const TICK_NS: u64 = 10_000_000;

/// Looks up executables; remembers the answers.
#[derive(Debug)]
pub struct Ancestry {
    host_proc: PathBuf,
    /// By pid and start.
    known: Cache<(u32, u64), Option<Vec<u8>>>,
}

impl Ancestry {
    /// With the node's /proc at `host_proc`.
    pub fn new(host_proc: &Path) -> Self {
        Self { host_proc: host_proc.to_owned(), known: Cache::new(REMEMBERED) }
    }

    /// The executable of `ancestor`; none where it ended before it was asked for.
    pub fn exe(&mut self, ancestor: &Ancestor) -> Option<Vec<u8>> {
        let key = (ancestor.pid, ancestor.start_time_ns);
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        let exe = self.look_up(ancestor);
        self.known.insert(key, exe.clone());
        exe
    }

    fn look_up(&self, ancestor: &Ancestor) -> Option<Vec<u8>> {
        let process = self.host_proc.join(ancestor.pid.to_string());
        let exe = fs::read_link(process.join("exe")).ok()?;
        // After the link was read: had the pid been used again before, its start would be another.
        let started = start_ticks(&fs::read(process.join("stat")).ok()?)?;
        (started == ancestor.start_time_ns / TICK_NS).then(|| without_deleted(exe.into_os_string()))
    }
}

/// Field 22 of /proc/PID/stat. The name in field 2 may hold anything but ends with the last parenthesis.
fn start_ticks(stat: &[u8]) -> Option<u64> {
    let after_name = stat.iter().rposition(|&byte| byte == b')')?;
    let fields = std::str::from_utf8(stat.get(after_name + 1..)?).ok()?;
    // Field 3 comes first.
    fields.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
}

/// The kernel marks the link of an executable that was removed while it runs.
fn without_deleted(exe: OsString) -> Vec<u8> {
    let exe = exe.into_vec();
    exe.strip_suffix(b" (deleted)").map_or_else(|| exe.clone(), <[u8]>::to_vec)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(start_time_ns: u64) -> Ancestor {
        Ancestor { pid: std::process::id(), start_time_ns, comm: b"test".to_vec() }
    }

    fn own_start_ns() -> u64 {
        start_ticks(&fs::read("/proc/self/stat").unwrap()).unwrap() * TICK_NS
    }

    #[test]
    fn the_executable_of_a_living_process_is_found() {
        let exe = Ancestry::new(Path::new("/proc")).exe(&own(own_start_ns())).unwrap();
        assert_eq!(exe, std::env::current_exe().unwrap().into_os_string().into_vec());
    }

    #[test]
    fn a_pid_that_was_used_again_is_not_taken_for_the_ancestor() {
        assert_eq!(Ancestry::new(Path::new("/proc")).exe(&own(own_start_ns() + TICK_NS)), None);
    }

    #[test]
    fn a_name_with_parentheses_and_blanks_does_not_shift_the_fields() {
        let stat = b"7 (a) (b c) S 1 7 7 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 4242 1000 5";
        assert_eq!(start_ticks(stat), Some(4242));
    }

    #[test]
    fn a_stat_that_is_cut_says_nothing() {
        assert_eq!(start_ticks(b"7 (a) S 1"), None);
        assert_eq!(start_ticks(b""), None);
    }
}
