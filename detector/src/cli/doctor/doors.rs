//! The doors into the kernel beside the usual one: 32-bit calls and io_uring.

use std::{
    fs, io,
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode, Stdio},
};

use super::check::{Check, Coverage};
use crate::cli::demo::door::{Ready, ia32 as ask_ia32, no_core_dump};

/// `getpid` of the 32-bit table (`arch/x86/entry/syscalls/syscall_32.tbl`).
const IA32_GETPID: u16 = 20;
const IO_URING_DISABLED: &str = "/proc/sys/kernel/io_uring_disabled";

/// What the process that was started does: ends with 0 where the kernel answers, by SIGSEGV where it has no such door.
pub(super) fn call_ia32() -> ExitCode {
    let _ = no_core_dump();
    if ask_ia32(&Ready { number: IA32_GETPID, args: [0; 6] }) > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The door is watched, be it there or not.
pub(super) fn ia32() -> Check {
    // No setting tells: the kernel may be built with it and booted without.
    let called = Command::new("/proc/self/exe")
        .arg0("rosentry")
        .args(["doctor", "--call-ia32"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match called {
        Ok(status) if status.success() => Check::ok("ia32", "this kernel takes 32-bit calls, and they are watched"),
        Ok(_) => Check::ok("ia32", "this kernel takes no 32-bit calls"),
        Err(error) => Check::ok("ia32", format!("not tried ({error}); 32-bit calls are watched all the same")),
    }
}

/// How far io_uring is open.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum IoUring {
    Open,
    /// To processes with CAP_SYS_ADMIN, and to a group.
    Privileged,
    Off,
}

pub(super) fn io_uring(coverage: &Coverage) -> Check {
    let watched = coverage.get("writes_io_uring").copied().unwrap_or(false);
    // Kernel 6.6; before, io_uring is there for all or for nobody.
    let openness = match fs::read_to_string(IO_URING_DISABLED).as_deref().map(str::trim) {
        Ok("2") => IoUring::Off,
        Ok("1") => IoUring::Privileged,
        Ok(_) => IoUring::Open,
        Err(_) if is_built_in() => IoUring::Open,
        Err(_) => IoUring::Off,
    };
    of(openness, watched)
}

fn of(openness: IoUring, watched: bool) -> Check {
    let found = match openness {
        IoUring::Off => return Check::ok("io_uring", "off on this node"),
        IoUring::Open => "open to every process",
        IoUring::Privileged => "open to privileged processes",
    };
    if watched {
        Check::ok("io_uring", format!("{found}, and watched"))
    } else {
        Check::degraded(
            "io_uring",
            format!("{found}, and writes that are refused there are not seen yet"),
            "where no workload needs it, turn it off with `sysctl kernel.io_uring_disabled=2` (kernel 6.6), or keep containers \
             from it with a seccomp profile",
        )
    }
}

/// Whether the kernel knows `io_uring_setup(2)`.
fn is_built_in() -> bool {
    // SAFETY: rustix has the call only for parameters that make a ring. Without parameters the kernel reads no memory, and
    // makes nothing.
    let result = unsafe { libc::syscall(libc::SYS_io_uring_setup, 0, std::ptr::null_mut::<libc::c_void>()) };
    result != -1 || io::Error::last_os_error().raw_os_error() != Some(libc::ENOSYS)
}

#[cfg(test)]
mod tests {
    use super::{super::check::Status, *};

    #[test]
    fn an_open_door_that_nobody_watches_is_a_gap() {
        assert_eq!(of(IoUring::Open, false).status, Status::Degraded);
        assert_eq!(of(IoUring::Privileged, false).status, Status::Degraded);
        assert_eq!(of(IoUring::Open, true).status, Status::Ok);
        assert_eq!(of(IoUring::Off, false).status, Status::Ok);
    }
}
