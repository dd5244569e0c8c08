//! The executables of a process's ancestors, from /proc.
//!
//! The kernel side names the ancestors by pid, start and name; walking the path of each one's executable there would cost
//! every refused write. They mostly live longer than the process itself, so /proc answers, once a second for each. A pid that
//! was used again has another start, a process that has executed something else since has another name: neither is taken for
//! the ancestor. What was executed since under the very same name can't be told apart.

use std::{
    ffi::OsString,
    fs,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use quick_cache::unsync::Cache;

use crate::{kernel::attempt::Ancestor, process_stat::Stat};

/// Ancestors that are remembered.
const REMEMBERED: usize = 1024;

/// How long: execve changes neither pid nor start.
const KEPT: Duration = Duration::from_secs(1);

/// Pid, start and name.
type Key = (u32, u64, Vec<u8>);

/// Looks up executables; remembers the answers.
#[derive(Debug)]
pub struct Ancestry {
    host_proc: PathBuf,
    known: Cache<Key, (Instant, Option<Vec<u8>>)>,
}

impl Ancestry {
    /// With the node's /proc at `host_proc`.
    pub fn new(host_proc: &Path) -> Self {
        Self { host_proc: host_proc.to_owned(), known: Cache::new(REMEMBERED) }
    }

    /// The executable of `ancestor`; none where it ended before it was asked for, or is called otherwise by now.
    pub fn exe(&mut self, ancestor: &Ancestor, now: Instant) -> Option<Vec<u8>> {
        let key = (ancestor.pid, ancestor.start_time_ns, ancestor.comm.clone());
        if let Some((since, known)) = self.known.get(&key)
            && now.saturating_duration_since(*since) < KEPT
        {
            return known.clone();
        }
        let exe = self.look_up(ancestor);
        self.known.insert(key, (now, exe.clone()));
        exe
    }

    fn look_up(&self, ancestor: &Ancestor) -> Option<Vec<u8>> {
        let process = self.host_proc.join(ancestor.pid.to_string());
        let exe = fs::read_link(process.join("exe")).ok()?;
        // After the link was read: had the pid been used again before, its start would be another, and its name had it
        // executed something else.
        let stat = Stat::read(&process)?;
        let is_same = stat.started_at(ancestor.start_time_ns) && stat.comm == ancestor.comm;
        is_same.then(|| without_deleted(exe.into_os_string()))
    }
}

/// The kernel marks the link of an executable that was removed while it runs.
fn without_deleted(exe: OsString) -> Vec<u8> {
    let exe = exe.into_vec();
    exe.strip_suffix(b" (deleted)").map_or_else(|| exe.clone(), <[u8]>::to_vec)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader, Write},
        os::unix::fs::symlink,
        process::{Command, Stdio},
    };

    use super::*;

    fn ourselves() -> Ancestor {
        let stat = Stat::read(Path::new("/proc/self")).unwrap();
        Ancestor { pid: std::process::id(), start_time_ns: stat.start_time_ns(), comm: stat.comm }
    }

    fn asked(ancestor: &Ancestor) -> Option<Vec<u8>> {
        Ancestry::new(Path::new("/proc")).exe(ancestor, Instant::now())
    }

    #[test]
    fn the_executable_of_a_living_process_is_found() {
        let exe = asked(&ourselves()).unwrap();
        assert_eq!(exe, std::env::current_exe().unwrap().into_os_string().into_vec());
    }

    #[test]
    fn a_pid_that_was_used_again_is_not_taken_for_the_ancestor() {
        let mut other = ourselves();
        other.start_time_ns += 1_000_000_000;
        assert_eq!(asked(&other), None);
    }

    #[test]
    fn an_ancestor_that_is_called_otherwise_by_now_is_told_nothing_of() {
        assert_eq!(asked(&Ancestor { comm: b"other".to_vec(), ..ourselves() }), None);
    }

    #[test]
    fn what_an_ancestor_has_executed_meanwhile_is_told_under_its_new_name_at_once_and_under_the_old_one_a_second_later()
    {
        let mut child = Command::new("sh")
            .args(["-c", "echo; read go; exec sleep 60"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // The shell runs.
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut String::new()).unwrap();
        let folder = Path::new("/proc").join(child.id().to_string());
        let stat = Stat::read(&folder).unwrap();
        let shell = Ancestor { pid: child.id(), start_time_ns: stat.start_time_ns(), comm: stat.comm };
        let exe_of = |name: &str| fs::canonicalize(format!("/bin/{name}")).unwrap().into_os_string().into_vec();
        let (mut ancestry, now) = (Ancestry::new(Path::new("/proc")), Instant::now());
        assert_eq!(ancestry.exe(&shell, now), Some(exe_of("sh")));

        child.stdin.take().unwrap().write_all(b"\n").unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while Stat::read(&folder).unwrap().comm != b"sleep" && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        let sleep = Ancestor { comm: b"sleep".to_vec(), ..shell.clone() };
        let told = [ancestry.exe(&sleep, now), ancestry.exe(&shell, now), ancestry.exe(&shell, now + KEPT)];
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(told, [Some(exe_of("sleep")), Some(exe_of("sh")), None]);
    }

    #[test]
    fn the_mark_of_a_removed_executable_is_no_part_of_its_path() {
        let proc = tempfile::tempdir().unwrap();
        let process = proc.path().join("7");
        fs::create_dir(&process).unwrap();
        symlink("/tmp/evil (deleted)", process.join("exe")).unwrap();
        fs::write(process.join("stat"), "7 (evil) S 1 7 7 0 -1 0 1 0 0 0 0 0 0 0 20 0 1 0 100 1000 5").unwrap();
        let evil = Ancestor { pid: 7, start_time_ns: 1_000_000_000, comm: b"evil".to_vec() };
        assert_eq!(Ancestry::new(proc.path()).exe(&evil, Instant::now()), Some(b"/tmp/evil".to_vec()));
    }
}
