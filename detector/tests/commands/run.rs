//! Running the program.

use std::{
    fs::{self, Permissions},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    process::{Command, ExitStatus, Output, Stdio},
};

use tempfile::TempDir;

use super::mortal::ends_with_its_test;

/// Debian's `nobody`.
const NOBODY: u32 = 65534;

/// The program, without anything in the environment that would change its ways.
pub fn rosentry(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rosentry"));
    command.args(arguments).stdin(Stdio::null());
    plain(&mut command);
    command
}

/// Removes from the environment what would change the program's ways, and has it end with the test.
pub fn plain(command: &mut Command) {
    for variable in [
        "COLUMNS",
        "NO_COLOR",
        "ROSENTRY_CONTAINERD_SOCKET",
        "ROSENTRY_HOST_CGROUP",
        "ROSENTRY_HOST_PROC",
        "ROSENTRY_LOG",
    ] {
        command.env_remove(variable);
    }
    // Agents under test are killed, and others on the machine may have theirs at the usual place.
    command.env("ROSENTRY_PIN", "off");
    ends_with_its_test(command);
}

/// A copy of the program where everyone may look, started by a user who is not root. The folder must stay.
pub fn by_nobody(arguments: &[&str]) -> (Command, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("rosentry");
    fs::copy(env!("CARGO_BIN_EXE_rosentry"), &program).unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).uid(NOBODY).gid(NOBODY);
    plain(&mut command);
    (command, folder)
}

/// Standard output as text.
pub fn said(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Standard error as text.
pub fn complained(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The one sentence of a command that could not be done.
pub fn sentence(output: &Output) -> String {
    let complained = complained(output);
    assert_eq!(output.status.code(), Some(2), "{complained}");
    assert_eq!(complained.lines().count(), 1, "one sentence: {complained}");
    assert!(!complained.contains("panicked") && !complained.contains("Os {"), "a sentence for people: {complained}");
    complained
}

/// Runs `command` with a standard output whose other end is closed before it can write anything.
pub fn with_closed_pipe(mut command: Command) -> (ExitStatus, String) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    (output.status, complained(&output))
}

/// Runs `command` with a terminal as its standard output; what it wrote there.
pub fn on_a_terminal(mut command: Command) -> String {
    use std::{
        io::Read as _,
        os::fd::{FromRawFd as _, OwnedFd},
    };
    let (mut ours, mut theirs) = (0, 0);
    let null = std::ptr::null_mut();
    // SAFETY: two integers to fill; without a name, settings or size.
    let opened =
        unsafe { libc::openpty(&mut ours, &mut theirs, null, null.cast_const().cast(), null.cast_const().cast()) };
    assert_eq!(opened, 0, "a terminal can be made");
    // SAFETY: openpty has just opened both, and nobody else has them.
    let (ours, theirs) = unsafe { (OwnedFd::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs)) };
    let mut child = command.env("TERM", "xterm").stdout(Stdio::from(theirs)).spawn().unwrap();
    drop(command);
    let mut written = Vec::new();
    // Ends with EIO when nobody has the other end any more.
    let _ = fs::File::from(ours).read_to_end(&mut written);
    assert!(child.wait().unwrap().success());
    String::from_utf8(written).unwrap()
}
