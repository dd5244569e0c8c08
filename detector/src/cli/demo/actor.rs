//! The processes that make the attempts: how each is started, and what it does.
//!
//! Each is rosentry itself, executed anew with a hidden flag. It enters the sealed root's mount namespace only then, since
//! the root has neither the program nor its libraries; takes a copy of that namespace, so that a remount which works
//! changes nothing for the next one; and joins the demo's cgroup last, so that nothing but its attempt is seen there.

use std::{
    env,
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    net::Shutdown,
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::{
            net::UnixStream,
            process::{CommandExt as _, ExitStatusExt as _},
        },
    },
    process::{Child, Command, ExitCode, Stdio},
    time::Duration,
};

use rustix::{
    fs::{Mode, OFlags, open},
    net::{AddressFamily, SocketType, socket},
    process::{Signal, chdir, set_parent_process_death_signal},
    thread::{
        CapabilitySet, CapabilitySets, LinkNameSpaceType, UnshareFlags, move_into_link_name_space, set_capabilities,
        set_name, unshare_unsafe,
    },
};

use super::{
    attempts::{self, Arg, Attempt, Door},
    cgroup::Cgroup,
    door::{Arena, Ready, ask, no_core_dump},
    sealed::Sealed,
};

/// Names the file of the cgroup to join, for the process that is started.
const CGROUP_PROCS: &str = "ROSENTRY_DEMO_CGROUP_PROCS";
/// No attempt waits for anything.
const PATIENCE: Duration = Duration::from_secs(5);

/// What came of an attempt. Its process stays until this is dropped.
pub(super) struct Acted {
    /// The process, in the demo's own pid namespace.
    pub pid: u32,
    /// What the kernel answered to each call; none where this kernel has no such door.
    pub results: Option<Vec<i64>>,
    /// The process is killed when this is dropped.
    _child: Kept,
    /// It ends by itself when this is closed.
    _link: UnixStream,
}

/// Why an attempt could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ActorError {
    /// The system.
    #[error("the demo can't start the attempt {name} ({source}); is /proc mounted?")]
    Start {
        /// The attempt.
        name: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The process gave up before its attempt.
    #[error("the demo can't make the attempt {name}: {said}")]
    Prepare {
        /// The attempt.
        name: &'static str,
        /// What the process said.
        said: String,
    },
    /// It did not end in time.
    #[error("the attempt {name} of the demo hangs; please report it with the kernel version")]
    Hangs {
        /// The attempt.
        name: &'static str,
    },
}

/// A child that does not outlive this.
struct Kept(Child);

impl Drop for Kept {
    fn drop(&mut self) {
        // Both do nothing when it was waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Makes an attempt, by a process of its own.
///
/// # Errors
/// Where it could not be made.
pub(super) fn make(attempt: &'static Attempt, sealed: &Sealed, cgroup: &Cgroup) -> Result<Acted, ActorError> {
    let name = attempt.name;
    let start = |source| ActorError::Start { name, source };
    let namespace = sealed.namespace.try_clone().map_err(start)?;
    let (ours, theirs) = UnixStream::pair().map_err(start)?;
    let child = Command::new("/proc/self/exe")
        .arg0("rosentry")
        .args(["demo", "--act", name])
        .env(CGROUP_PROCS, cgroup.procs())
        .stdin(Stdio::from(namespace))
        .stdout(Stdio::from(OwnedFd::from(theirs)))
        .stderr(Stdio::piped())
        // Ctrl-C is for the demo, which ends its processes itself.
        .process_group(0)
        .spawn()
        .map_err(start)?;
    let mut child = Kept(child);
    let pid = child.0.id();
    ours.set_read_timeout(Some(PATIENCE)).map_err(start)?;
    let mut told = String::new();
    match (&ours).read_to_string(&mut told) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(ActorError::Hangs { name }),
        read => read.map_err(start)?,
    };
    let results: Vec<i64> = told.lines().filter_map(|line| line.parse().ok()).collect();
    if results.len() == attempt.calls.len() {
        return Ok(Acted { pid, results: Some(results), _child: child, _link: ours });
    }
    let status = child.0.wait().map_err(start)?;
    // How a kernel without 32-bit calls answers `int 0x80`.
    if attempt.door == Door::Ia32 && status.signal() == Some(Signal::SEGV.as_raw()) {
        return Ok(Acted { pid, results: None, _child: child, _link: ours });
    }
    let mut said = String::new();
    if let Some(mut stderr) = child.0.stderr.take() {
        stderr.read_to_string(&mut said).map_err(start)?;
    }
    let said = said.lines().next().map_or_else(|| status.to_string(), str::to_owned);
    Err(ActorError::Prepare { name, said })
}

/// What the process that was started does.
pub(super) fn main(name: &str) -> ExitCode {
    match act(name).and_then(|answers| tell(&answers)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::from(2)
        }
    }
}

/// Tells the demo, and stays until it has looked.
fn tell(answers: &[i64]) -> io::Result<()> {
    let text: String = answers.iter().map(|answer| format!("{answer}\n")).collect();
    let mut link = UnixStream::from(io::stdout().as_fd().try_clone_to_owned()?);
    link.write_all(text.as_bytes())?;
    link.shutdown(Shutdown::Write)?;
    link.read_to_end(&mut Vec::new()).map(drop)
}

fn act(name: &str) -> io::Result<Vec<i64>> {
    let unknown = || io::Error::other("there is no such attempt; `rosentry demo` makes them all");
    let attempt = attempts::find(name).ok_or_else(unknown)?;
    let abi = attempt.abi().ok_or_else(unknown)?;
    // The demo may be killed.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if attempt.door == Door::Ia32 {
        no_core_dump()?;
    }
    let procs = env::var_os(CGROUP_PROCS).ok_or_else(unknown)?;
    let mut procs = OpenOptions::new().write(true).open(procs)?;
    move_into_link_name_space(io::stdin().as_fd(), Some(LinkNameSpaceType::Mount))?;
    // SAFETY: rustix calls unsharing unsafe for the file descriptors that other threads might rely on sharing; these stay
    // shared, and there is no other thread.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
    chdir(attempt.cwd)?;
    let mut held = Held { arena: Arena::new()?, descriptors: Vec::new() };
    let mut ready = Vec::new();
    for call in attempt.calls {
        let (_, number) = call.row(abi).ok_or_else(unknown)?;
        ready.push((number, held.prepare(call.args)?));
    }
    if !attempt.privileged {
        let none = CapabilitySet::empty();
        set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    }
    set_name(&std::ffi::CString::new(attempt.name)?)?;
    join(&mut procs)?;
    let mut answers: Vec<i64> = Vec::new();
    for (number, prepared) in ready {
        let args = prepared.map(|arg| match arg {
            Prepared::Value(value) => value,
            Prepared::Returned(of) => answers.get(of).map_or(u64::MAX, |answer| answer.cast_unsigned()),
        });
        answers.push(ask(attempt.door, &Ready { number, args }));
    }
    Ok(answers)
}

/// The kernel takes `0` for the writer.
fn join(procs: &mut File) -> io::Result<()> {
    procs.write_all(b"0")
}

/// What the arguments of the calls stand on.
struct Held {
    arena: Arena,
    descriptors: Vec<OwnedFd>,
}

#[derive(Clone, Copy)]
enum Prepared {
    Value(u64),
    /// What the call of this index returns.
    Returned(usize),
}

impl Held {
    fn prepare(&mut self, args: &[Arg]) -> io::Result<[Prepared; 6]> {
        let mut prepared = [Prepared::Value(0); 6];
        for (slot, arg) in prepared.iter_mut().zip(args) {
            *slot = match arg {
                Arg::Returned(of) => Prepared::Returned(*of),
                other => Prepared::Value(self.value(other)?),
            };
        }
        Ok(prepared)
    }

    fn value(&mut self, arg: &Arg) -> io::Result<u64> {
        Ok(match arg {
            // The kernel reads it as an int, for which it stands below 0.
            Arg::Cwd => i64::from(libc::AT_FDCWD).cast_unsigned(),
            Arg::Number(number) => *number,
            Arg::Text(text) => self.arena.place(text.to_bytes_with_nul())?,
            Arg::Words(words) => {
                let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
                self.arena.place(&bytes)?
            }
            Arg::Bytes(bytes) => self.arena.place(bytes)?,
            Arg::Folder(path) => {
                self.keep(open(*path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)?
            }
            Arg::Socket => self.keep(socket(AddressFamily::UNIX, SocketType::STREAM, None)?)?,
            Arg::Returned(_) => return Err(io::ErrorKind::InvalidInput.into()),
        })
    }

    fn keep(&mut self, descriptor: OwnedFd) -> io::Result<u64> {
        let number = u64::try_from(descriptor.as_raw_fd()).map_err(io::Error::other)?;
        self.descriptors.push(descriptor);
        Ok(number)
    }
}
