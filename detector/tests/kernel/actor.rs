//! A process that acts for a test: the test's own program, started anew in a mount namespace of its own. Its standard input is
//! a socket to the test, over which the two take turns.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::{net::UnixStream, process::CommandExt as _},
    },
    process::{Child, Command, Stdio},
    sync::Mutex,
    time::Duration,
};

/// Set in the actor's environment alone.
const ROLE: &str = "ROSENTRY_TEST_IS_ACTOR";

/// How long a turn of the actor may take, in an emulated machine too.
const PATIENCE: Duration = Duration::from_secs(60);

/// The running actor. Dropping it ends it.
pub struct Actor {
    child: Child,
    lines: BufReader<UnixStream>,
}

/// Whether this process is the actor, rather than the test that starts it.
pub fn is_actor() -> bool {
    std::env::var_os(ROLE).is_some()
}

impl Actor {
    /// Starts this program again, with `variables`, to run the one test `name`, which must ask [`is_actor`] first.
    pub fn start(name: &str, variables: &[(&str, String)]) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut command = Command::new("/proc/self/exe");
        command
            .args(["--exact", name, "--nocapture", "--test-threads=1"])
            .env(ROLE, "1")
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null());
        // SAFETY: system calls only, between fork and exec.
        unsafe {
            command.pre_exec(|| {
                super::sealed::enter_own_mount_namespace();
                Ok(())
            });
        }
        Self { child: command.spawn().unwrap(), lines: BufReader::new(ours) }
    }

    /// Its process id in the initial pid namespace, as long as the tests are in that.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The lines that it tells until it hands over the turn.
    pub fn listen(&mut self) -> Vec<String> {
        let mut told = Vec::new();
        loop {
            let mut line = String::new();
            let length = self.lines.read_line(&mut line).expect("the actor goes on");
            assert_ne!(length, 0, "the actor has ended before its time; its words are above");
            if line == "\n" {
                return told;
            }
            told.push(line.trim_end().to_owned());
        }
    }

    /// Gives it the turn.
    pub fn go_on(&mut self) {
        self.lines.get_mut().write_all(b"\n").unwrap();
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The actor's side: tells `lines`, hands over the turn, and waits until it comes back.
pub fn tell(lines: &[String]) {
    static SOCKET: Mutex<Option<UnixStream>> = Mutex::new(None);
    let mut socket = SOCKET.lock().unwrap();
    let socket = socket.get_or_insert_with(|| {
        UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned().expect("the actor has a standard input"))
    });
    let mut text = lines.join("\n");
    text.push_str(if lines.is_empty() { "\n" } else { "\n\n" });
    socket.write_all(text.as_bytes()).unwrap();
    let mut answer = String::new();
    // A line is all that ever comes, so nothing is read too much.
    BufReader::new(socket).read_line(&mut answer).unwrap();
    assert!(!answer.is_empty(), "the test has ended before its actor");
}
