//! `rosentry demo`: seals a root filesystem, attempts writes and changes of mounts in it, and shows what is seen of each.
//!
//! Needs neither a cluster nor containerd. What it makes dies with it, but for its cgroup, which it removes.

mod actor;
mod attempts;
mod cgroup;
pub(super) mod door;
mod sealed;
mod table;
mod witness;

use std::{io, process::ExitCode, time::Instant};

use rustix::system::uname;
use tokio::signal::unix::{SignalKind, signal};

use self::{
    actor::ActorError,
    attempts::Wanted,
    cgroup::{Cgroup, CgroupError},
    sealed::{SealError, Sealed},
    table::{Table, Tally},
    witness::{Answer, Witness, judge},
};
use super::{
    node::Places,
    terminal::{Stdout, complain},
};
use crate::{
    export::native::{EncodeError, NativeEncoder},
    finding::Event,
    identity::{Hierarchy, HierarchyError},
    kernel::{KernelError, Sensor, attempt::CAP_SYS_ADMIN, effective_capabilities, plan::Hooks},
};

/// Seal a root filesystem, attempt writes and mounts in it, and show what rosentry sees of each.
///
/// Needs root, but neither a cluster nor containerd, and leaves nothing behind. Ends with 0 if every attempt was seen once,
/// with 1 if one was not, with 2 if it could not be made.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// How to show it: a table, or the events themselves, one JSON object a line.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    #[command(flatten)]
    places: Places,
    /// Makes this one attempt; for the processes that the demo starts.
    #[arg(long, value_name = "NAME", hide = true)]
    act: Option<String>,
}

/// How to show it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum Format {
    /// A table.
    Text,
    /// Events in the native format.
    Json,
}

/// Why there is no demo.
#[derive(Debug, thiserror::Error)]
enum DemoError {
    #[error("the demo mounts a filesystem and makes a cgroup, which takes CAP_SYS_ADMIN: run it as root")]
    NotRoot,
    #[error("interrupted; nothing of the demo is left")]
    Interrupted,
    #[error(transparent)]
    Hierarchy(#[from] HierarchyError),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error(transparent)]
    Kernel(#[from] KernelError),
    #[error(transparent)]
    Actor(#[from] ActorError),
    #[error(transparent)]
    Encode(#[from] EncodeError),
    #[error("the system refuses what the demo needs: {0}")]
    System(#[from] io::Error),
}

/// Runs the command. To be called before anything starts a thread: with the hidden flag, the process enters a mount
/// namespace, which the kernel grants to a process of one thread alone.
pub fn main(args: &Args) -> ExitCode {
    if let Some(name) = &args.act {
        return actor::main(name);
    }
    match run(args) {
        Ok(faults) if faults.is_empty() => ExitCode::SUCCESS,
        Ok(faults) => {
            complain(&format!("not everything was seen as it was: {}", faults.join("; ")));
            ExitCode::from(1)
        }
        Err(error) => {
            complain(&error);
            ExitCode::from(2)
        }
    }
}

/// Gives what was not seen as it was, in words.
fn run(args: &Args) -> Result<Vec<String>, DemoError> {
    if effective_capabilities().is_some_and(|effective| effective & CAP_SYS_ADMIN == 0) {
        return Err(DemoError::NotRoot);
    }
    // On this thread: the processes that it starts end with it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let hierarchy = Hierarchy::find(&args.places.host_proc(), &args.places.host_cgroup())?;
        // Before there is anything to be left behind.
        let interrupted = interrupted()?;
        let cgroup = Cgroup::new(hierarchy.mount())?;
        let result = tokio::select! {
            biased;
            () = interrupted => Err(DemoError::Interrupted),
            result = attempt_all(&cgroup, args.format) => result,
        };
        let removed = cgroup.remove();
        let faults = result?;
        removed?;
        Ok(faults)
    })
}

/// Ends when the demo is asked to end.
fn interrupted() -> io::Result<impl Future<Output = ()>> {
    let mut signals = [
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
        signal(SignalKind::hangup())?,
        signal(SignalKind::quit())?,
    ];
    Ok(std::future::poll_fn(move |context| {
        let ready = signals.iter_mut().any(|signal| signal.poll_recv(context).is_ready());
        if ready { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    }))
}

async fn attempt_all(cgroup: &Cgroup, format: Format) -> Result<Vec<String>, DemoError> {
    let start = Instant::now();
    let sealed = Sealed::new()?;
    let (sensor, stream, _counters) = Sensor::attach(Hooks::Auto)?;
    let mut witness = Witness::new(stream, cgroup);
    let mut output = Stdout::new();
    let mut show = Show::new(&mut output, format);
    show.head(sensor.mode())?;
    let (mut faults, mut unasked, mut tally) = (Vec::new(), Vec::new(), Tally::default());
    for attempt in attempts::here() {
        // Where a signal is looked for.
        tokio::task::yield_now().await;
        // Kept until its events are told: links are followed in the root of the process.
        let acted = actor::make(attempt, &sealed, cgroup)?;
        let Some(results) = &acted.results else {
            for call in attempt.calls {
                tally.absent += 1;
                show.absent(call)?;
            }
            continue;
        };
        let wanted = attempt.calls.iter().filter(|call| !matches!(call.wanted, Wanted::Nothing)).count();
        let mut seen = witness.seen(wanted).await?;
        for (call, &result) in attempt.calls.iter().zip(results) {
            let answer = judge(attempt, call, acted.pid, result, &mut seen);
            match &answer {
                Answer::Right(_) => tally.right += 1,
                Answer::Nothing => tally.nothing += 1,
                Answer::Wrong(_, how) => faults.push(format!("{}: {how}", call.tells)),
            }
            show.call(call, result, &answer)?;
        }
        unasked.append(&mut seen);
    }
    unasked.append(&mut witness.seen(0).await?);
    for seen in &unasked {
        faults.push(format!("an event of {} without an attempt", seen.syscall));
        show.unasked(&seen.event)?;
    }
    show.foot(tally, faults.len(), start)?;
    Ok(faults)
}

/// One of the two ways to show it.
enum Show<'a> {
    Text(Table<'a, io::StdoutLock<'static>>),
    Json(NativeEncoder, &'a mut Stdout),
}

impl<'a> Show<'a> {
    fn new(output: &'a mut Stdout, format: Format) -> Self {
        match format {
            Format::Text => Self::Text(Table::new(output)),
            Format::Json => Self::Json(NativeEncoder::new(&uname().nodename().to_string_lossy()), output),
        }
    }

    fn head(&mut self, mode: &str) -> io::Result<()> {
        match self {
            Self::Text(table) => table.head(mode, &uname().release().to_string_lossy()),
            Self::Json(..) => Ok(()),
        }
    }

    fn call(&mut self, call: &attempts::Call, result: i64, answer: &Answer) -> Result<(), DemoError> {
        match (&mut *self, answer) {
            (Self::Text(table), _) => Ok(table.call(call, result, answer)?),
            (Self::Json(..), Answer::Right(event) | Answer::Wrong(Some(event), _)) => self.event(event),
            (Self::Json(..), Answer::Nothing | Answer::Wrong(None, _)) => Ok(()),
        }
    }

    fn unasked(&mut self, event: &Event) -> Result<(), DemoError> {
        match self {
            Self::Text(table) => Ok(table.unasked(event)?),
            Self::Json(..) => self.event(event),
        }
    }

    fn absent(&mut self, call: &attempts::Call) -> io::Result<()> {
        match self {
            Self::Text(table) => table.absent(call),
            Self::Json(..) => Ok(()),
        }
    }

    fn foot(&mut self, tally: Tally, faults: usize, start: Instant) -> io::Result<()> {
        match self {
            Self::Text(table) => table.foot(tally, faults, start.elapsed()),
            Self::Json(..) => Ok(()),
        }
    }

    fn event(&mut self, event: &Event) -> Result<(), DemoError> {
        let Self::Json(encoder, output) = self else { return Ok(()) };
        let mut line = Vec::new();
        encoder.encode(event, &mut line)?;
        Ok(output.bytes(&line)?)
    }
}
