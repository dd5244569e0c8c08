//! What rosentry costs the programs of a machine: times a few operations with nothing attached, then with rosentry's programs
//! attached and their reader at its usual place.
//!
//! `cargo xtask bench cost` runs it inside an emulated machine whose clock counts instructions. Run as root on a real machine it
//! gives nanoseconds, which are as noisy as the machine.
//!
//! With the argument `bare`, what each kind of hook costs by itself; with `learning`, what learning mode costs whoever writes to a
//! root that is not sealed. Other arguments are the names of operations: these alone.
//!
//! One line a figure: `cost HOOKS OPERATION ALONE ALL`, per operation the time of the thread that does it alone, and all that
//! passes meanwhile, the reader's work among it.
//!
//! With `beside NAME MARK FILE COMMAND` it measures with nothing attached and then beside another tool, `cost NAME …`, what
//! all other processes do for each operation, `agent NAME OPERATION TIME`, and how many of the refused writes the tool has told and how
//! many it says that it lost, `told NAME ATTEMPTS TOLD LOST`. `flood`, `real` and `rules` are told of there.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use detector::kernel::{
    Sensor,
    plan::{Hooks, Observing},
    stream::Stream,
};
use rustix::{
    rand::{GetRandomFlags, getrandom},
    time::{ClockId, clock_gettime},
};

mod bare;
mod beside;
mod flood;
mod operations;
mod rules;
mod workloads;

use beside::{Tool, time_of_others};
use operations::Operation;

/// The argument for the hooks by themselves.
const BARE: &str = "bare";
/// The argument for learning mode.
const LEARNING: &str = "learning";
/// The argument for another tool.
const BESIDE: &str = "beside";
/// The argument for many refused writes beside it.
const FLOOD: &str = "flood";
/// The argument for what the rules cost.
const RULES: &str = "rules";
/// The argument for programs that do real work beside it.
const REAL: &str = "real";
/// The least of so many samples is taken: what disturbs only adds.
const SAMPLES: u32 = 16;
/// Long enough for the reader to have emptied the rings and to have gone to sleep, and for the kernel to have freed what was closed.
const QUIET: Duration = Duration::from_millis(40);
/// How much later each sample begins than the one before, so that some meet no tick of the kernel's clock. A tick costs as much as
/// some opens, and what the kernel has put off is done with it.
const STEP: Duration = Duration::from_micros(730);

/// Operations for which the work of other processes is told.
const FOR_OTHERS: [&str; 3] = ["getppid", "open_refused_new_path", "open_refused_again"];
/// As often as an eager program is refused, with time for the tool to work between.
const BURSTS: u32 = 20;
const BURST: u32 = 100;
const BETWEEN_BURSTS: Duration = Duration::from_millis(200);
/// Longer than any tool waits before it does what it has put off.
const ROUND: Duration = Duration::from_secs(8);
/// Until a tool has forgotten what was before.
const FORGOTTEN: Duration = Duration::from_secs(60);

fn main() -> Result<()> {
    // Before it is seeded, the kernel's random numbers cost whoever makes a file more.
    getrandom(&mut [0_u8; 8], GetRandomFlags::empty())?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first() {
        Some((mode, words)) if mode == BESIDE => return measure_beside(words),
        Some((mode, words)) if mode == FLOOD => return flood::run(words),
        Some((mode, [])) if mode == RULES => return rules::run(),
        Some((mode, words)) if mode == REAL => return workloads::run(words),
        _ => {}
    }
    let (modes, wanted): (Vec<_>, Vec<_>) =
        arguments.into_iter().partition(|argument| [BARE, LEARNING].contains(&argument.as_str()));
    let has_mode = |mode: &str| modes.iter().any(|argument| argument == mode);
    let is_learning = has_mode(LEARNING);
    let mut operations = if is_learning { operations::prepare_unsealed()? } else { operations::prepare()? };
    operations.retain(|operation| wanted.is_empty() || wanted.iter().any(|wanted| wanted == operation.name));
    // Before anything is measured, because a process with more than one thread pays more for its file descriptors.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    // The first round fills caches and grows what grows once; its figures are not told.
    for operation in &operations {
        sample(operation, 0);
    }
    measure("nothing", &operations);
    if has_mode(BARE) {
        return measure_bare(&operations);
    }

    // Without learning mode first, to compare with. The namespace of pid 1 is another than ours.
    let learning = Some(Observing { node_mount_namespace: Some(0) });
    let with_learning = [("tracepoint", Hooks::Tracepoint, None), ("learning", Hooks::Tracepoint, learning)];
    // In this order: the kernel takes its time to take programs off its functions.
    let without = [("tracepoint", Hooks::Tracepoint, None), ("fexit", Hooks::Fexit, None)];
    for (name, hooks, observing) in if is_learning { with_learning } else { without } {
        let begun = now(ClockId::Monotonic);
        let attached = {
            let _within = runtime.enter();
            Sensor::attach_observing(hooks, observing)
        };
        let (sensor, stream, _counters) = match attached {
            Ok(attached) => attached,
            Err(error) if hooks == Hooks::Fexit => {
                println!("not measured: {error}");
                continue;
            }
            Err(error) => return Err(error).context("rosentry's programs could not be attached"),
        };
        println!("armed {name} {:.1}", millis(now(ClockId::Monotonic) - begun));
        for verified in sensor.verified() {
            println!("verified {} {:?}", verified.program, verified.instructions);
        }
        if hooks == Hooks::Fexit {
            check_is_whole(sensor.coverage())?;
        }
        let reader = runtime.spawn(read(stream));
        measure(name, &operations);

        let begun = now(ClockId::Monotonic);
        drop(sensor);
        println!("detached {name} {:.1}", millis(now(ClockId::Monotonic) - begun));
        // Its rings go with it.
        reader.abort();
    }
    Ok(())
}

/// Where a function's program could not be attached, its operations are seen otherwise, and the figures would be of less.
fn check_is_whole(coverage: &[(&str, bool)]) -> Result<()> {
    let is_seen = |surface| coverage.contains(&(surface, true));
    let missing: Vec<_> = ["kernel_paths", "kernel_mounts"].into_iter().filter(|&surface| !is_seen(surface)).collect();
    ensure!(missing.is_empty(), "not all programs at kernel functions are attached: {} not seen", missing.join(", "));
    Ok(())
}

fn measure_bare(operations: &[Operation]) -> Result<()> {
    for (name, kind) in bare::Kind::ALL {
        let attached = kind.attach().with_context(|| format!("{name} could not be attached"))?;
        measure(name, operations);
        drop(attached);
    }
    Ok(())
}

/// What a tool costs that is told to begin when all was measured without it.
fn measure_beside(words: &[String]) -> Result<()> {
    let tool = Tool::of(words)?;
    let name = tool.name.clone();
    let mut tool = tool.ready()?;
    let operations = operations::prepare()?;
    for operation in &operations {
        sample(operation, 0);
    }
    measure("nothing", &operations);
    tool.begin()?;
    measure(&name, &operations);
    let mut attempts: u32 =
        operations.iter().filter(|operation| operation.is_refused()).map(|operation| SAMPLES * operation.times).sum();
    for operation in operations.iter().filter(|operation| FOR_OTHERS.contains(&operation.name)) {
        std::thread::sleep(FORGOTTEN);
        let idle = work_of_others(|| {});
        let busy = work_of_others(|| {
            for _ in 0..BURSTS {
                for _ in 0..BURST {
                    (operation.act)();
                }
                std::thread::sleep(BETWEEN_BURSTS);
            }
        });
        let per_operation = (busy.as_nanos() as f64 - idle.as_nanos() as f64) / f64::from(BURSTS * BURST);
        println!("agent {name} {} {per_operation:.1}", operation.name);
        attempts += if operation.is_refused() { BURSTS * BURST } else { 0 };
    }
    std::thread::sleep(FORGOTTEN);
    println!("idle {name} {:.3}", millis(work_of_others(|| {})) / ROUND.as_secs_f64());
    let (told, lost) = tool.end()?;
    println!("told {name} {attempts} {told} {lost}");
    Ok(())
}

/// The time that all other processes take while something is done and until a round is over.
fn work_of_others(act: impl FnOnce()) -> Duration {
    let (began, before) = (now(ClockId::Monotonic), time_of_others());
    act();
    std::thread::sleep(ROUND.saturating_sub(now(ClockId::Monotonic) - began));
    time_of_others().saturating_sub(before)
}

/// Takes records as the agent does, and forgets them.
async fn read(mut stream: Stream) {
    let mut batch = Vec::new();
    while stream.next_batch(&mut batch).await.is_ok() {
        batch.clear();
    }
}

fn measure(hooks: &str, operations: &[Operation]) {
    for operation in operations {
        let samples: Vec<[f64; 2]> = (0..SAMPLES).map(|index| sample(operation, index)).collect();
        let least = |which: usize| samples.iter().map(|sample| sample[which]).fold(f64::INFINITY, f64::min);
        println!("cost {hooks} {} {:.1} {:.1}", operation.name, least(0), least(1));
    }
}

/// Time per operation: of this thread, of all.
fn sample(operation: &Operation, index: u32) -> [f64; 2] {
    const CLOCKS: [ClockId; 2] = [ClockId::ThreadCPUTime, ClockId::Monotonic];
    std::thread::sleep(QUIET + STEP * index);
    let before = CLOCKS.map(now);
    for _ in 0..operation.times {
        (operation.act)();
    }
    let after = CLOCKS.map(now);
    [0, 1].map(|which| (after[which] - before[which]).as_nanos() as f64 / f64::from(operation.times))
}

fn now(clock: ClockId) -> Duration {
    let now = clock_gettime(clock);
    // Neither clock goes below zero, nor a second beyond its nanoseconds.
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or_default())
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
