//! Refused writes as fast as some processes can, beside a tool: how many it tells, and what that costs whom.

use std::{ffi::CString, io, time::Duration};

use anyhow::{Context as _, Result, bail};

use super::{
    beside::{Tool, time_of_others},
    operations,
};

/// After the last write, until the tool has done its work.
const WORKED_OFF: Duration = Duration::from_secs(10);

/// Runs one flood: `KIND PROCESSES WRITES`, and the words of the tool. `again` has each process write one path, `new` another each time.
pub fn run(words: &[String]) -> Result<()> {
    let [kind, processes, writes, tool @ ..] = words else { bail!("a flood is KIND PROCESSES WRITES, and a tool") };
    let (processes, writes): (u32, u32) = (processes.parse()?, writes.parse()?);
    let is_new = kind == "new";
    let tool = Tool::of(tool)?;
    let name = tool.name.clone();
    let mut beside = tool.ready()?;
    operations::become_contained()?;
    beside.begin()?;

    let before = time_of_others();
    let each = writes / processes;
    let children: Vec<i32> = (0..processes).map(|number| child(number, each, is_new)).collect::<Result<_>>()?;
    let mut of_writers = Duration::ZERO;
    for child in children {
        of_writers += wait(child).context("a writer could not be waited for")?;
    }
    std::thread::sleep(WORKED_OFF);
    // Those that have ended are among neither.
    let of_others = time_of_others().saturating_sub(before);
    let (told, said) = beside.end()?;
    let writes = u64::from(each * processes);
    let per_write = |time: Duration| time.as_nanos() as f64 / writes as f64;
    println!(
        "flood {name} {kind} {processes} {writes} {told} {said} {:.1} {:.1}",
        per_write(of_writers),
        per_write(of_others)
    );
    Ok(())
}

/// A process that writes so often and ends.
fn child(number: u32, writes: u32, is_new: bool) -> Result<i32> {
    let path = |index: u32| CString::new(format!("{}/{number}-{index:06}", operations::CACHE));
    // Before it begins, so that it does nothing but write.
    let paths: Vec<CString> = (0..if is_new { writes } else { 1 }).map(path).collect::<Result<_, _>>()?;
    // SAFETY: this process has one thread.
    match unsafe { libc::fork() } {
        0 => {
            for index in 0..writes as usize {
                if let Some(path) = paths.get(index % paths.len()) {
                    operations::open_and_close(path, operations::WRITING);
                }
            }
            // SAFETY: ends it here, and nothing of the parent's with it.
            unsafe { libc::_exit(0) }
        }
        child if child > 0 => Ok(child),
        _ => Err(io::Error::last_os_error()).context("no process could be made"),
    }
}

/// Waits for it to end: the processor's time that it took.
fn wait(child: i32) -> Result<Duration> {
    // SAFETY: numbers alone, each of which may be zero.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    let mut status = 0;
    // SAFETY: places for a number and for the usage.
    if unsafe { libc::wait4(child, &raw mut status, 0, &raw mut usage) } != child {
        return Err(io::Error::last_os_error().into());
    }
    let duration = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec.unsigned_abs()) + Duration::from_micros(time.tv_usec.unsigned_abs())
    };
    Ok(duration(usage.ru_utime) + duration(usage.ru_stime))
}
