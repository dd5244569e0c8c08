//! The program itself, `rosentry`, in the mode under test: from its start to its end, without containerd.

use std::{
    io::{BufRead as _, BufReader, Read, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use detector::kernel::plan::Hooks;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{
    cgroup::{Cgroup, write_numbered},
    kernel_objects::KernelObjects,
    mortal::ends_with_its_test,
    pinned::stage,
    sensor::{PATIENCE, hooks_under_test, is_emulated},
};

const NO_SOCKET: &str = "/nonexistent/containerd.sock";
/// How long a stop may take, in an emulated machine too.
const STOP: Duration = Duration::from_secs(2);

/// The program as cargo builds it for tests; `cargo xtask test-vm` puts it into the root folder.
fn rosentry(arguments: &[&str]) -> Command {
    let mut command = Command::new(if is_emulated() { "/rosentry" } else { env!("CARGO_BIN_EXE_rosentry") });
    for variable in ["ROSENTRY_CONTAINERD_SOCKET", "ROSENTRY_HOST_CGROUP", "ROSENTRY_HOST_PROC", "ROSENTRY_LOG"] {
        command.env_remove(variable);
    }
    command.args(arguments).stdin(Stdio::null());
    ends_with_its_test(&mut command);
    command
}

/// The mode under test, as the program calls it.
fn mode() -> &'static str {
    if hooks_under_test() == Hooks::Fexit { "fexit" } else { "tracepoint" }
}

/// What a process has written so far, line by line.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    fn of(from: impl Read + Send + 'static) -> Self {
        let lines = Self::default();
        let written = lines.clone();
        thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                written.0.lock().unwrap().push(line);
            }
        });
        lines
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

/// `rosentry run` at work.
struct Agent {
    child: Child,
    events: Lines,
    diagnostics: Lines,
}

impl Agent {
    /// Its programs are pinned in the folder `pins`.
    fn start(hooks: &str, pins: &Path) -> Self {
        let arguments = ["run", "--hooks", hooks, "--scope", "all", "--containerd-socket", NO_SOCKET];
        let mut command = rosentry(&arguments);
        command.args(["--metrics-listen", "127.0.0.1:0", "--pin"]).arg(pins);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (events, diagnostics) = (Lines::of(child.stdout.take().unwrap()), Lines::of(child.stderr.take().unwrap()));
        Self { child, events, diagnostics }
    }

    /// What `find` finds, as soon as it does.
    fn wait_for<T>(&mut self, what: &str, mut find: impl FnMut(&Self) -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            if let Some(found) = find(self) {
                return found;
            }
            let ended = self.child.try_wait().unwrap();
            assert!(
                begun.elapsed() < PATIENCE && ended.is_none(),
                "no {what}; ended: {ended:?}, events: {:#?}, diagnostics: {:#?}",
                self.events.all(),
                self.diagnostics.all()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn event(&self, is_it: impl Fn(&Value) -> bool) -> Option<Value> {
        let parsed = |line: &String| serde_json::from_str(line).expect("each line is an event");
        self.events.all().iter().map(parsed).find(is_it)
    }

    /// What it says of itself, once it does.
    fn note(&mut self, what: &str) -> Value {
        let note = self.wait_for(what, |agent| agent.event(|event| event["agent"]["what"] == what));
        note["agent"].clone()
    }

    /// Where it serves metrics, which it says as soon as its programs are attached.
    fn address(&mut self) -> SocketAddr {
        self.wait_for("address", |agent| {
            let lines = agent.diagnostics.all();
            let mut words = lines.iter().flat_map(|line| line.split_whitespace());
            words.find_map(|word| word.strip_prefix("metrics=")).map(|address| address.parse().unwrap())
        })
    }

    /// How it ends at SIGTERM, and after how long.
    fn stop(mut self) -> (Option<i32>, Duration) {
        let begun = Instant::now();
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let mut status = None;
        while status.is_none() {
            assert!(begun.elapsed() < PATIENCE, "it does not end: {:#?}", self.diagnostics.all());
            thread::sleep(Duration::from_millis(5));
            status = self.child.try_wait().unwrap();
        }
        (status.unwrap().code(), begun.elapsed())
    }
}

/// What is answered at a path: the status line and all the rest.
fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The sum of the samples of a metric whose labels contain `label`.
fn sum(metrics: &str, name: &str, label: &str) -> f64 {
    let samples = metrics.lines().filter(|line| line.starts_with(name) && line.contains(label));
    samples.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
}

#[test]
fn the_agent_tells_a_refused_write_in_the_mode_it_was_given_and_leaves_nothing() {
    // The best of some, since the machine may be busy with something else.
    assert!((0..3).any(|_| thread::spawn(live_and_stop).join().unwrap() < STOP));
}

/// How long the stop takes of an agent that is right in all else. Changes the thread's mount namespace.
fn live_and_stop() -> Duration {
    let (_folder, pins) = stage();
    let cgroup = Cgroup::new("agent");
    let mut agent = Agent::start(mode(), &pins);
    assert_eq!(agent.note("start")["hooks"], mode());
    let coverage = agent.note("coverage");
    let sees = |surface: &str| coverage["seen"].as_array().unwrap().contains(&surface.into());
    assert!(sees("writes_x86_64") && sees("mounts_x86_64"), "{coverage}");
    assert_eq!(sees("kernel_paths"), mode() == "fexit", "{coverage}");
    let mut objects = KernelObjects::default();
    objects.note(agent.child.id());
    assert!(objects.are_attached() && pins.exists(), "{objects:?}");

    cgroup.run(|| write_numbered(7, 0));

    let event = agent.wait_for("refused write", |agent| {
        agent.event(|event| event["kind"] == "write_denied" && event["file"]["path"] == "/mnt/etc/000007")
    });
    assert_eq!((&event["operation"], &event["errno"]), (&"open".into(), &"EROFS".into()));
    assert_eq!((&event["hook"], &event["count"]), (&mode().into(), &1.into()));

    let address = agent.address();
    let health = get(address, "/healthz");
    assert!(health.starts_with("HTTP/1.1 200 "), "{health}");
    agent.wait_for("count of the refused write", |_| {
        let metrics = get(address, "/metrics");
        let hook = format!("hook=\"{}\"", mode());
        assert!(sum(&metrics, "rosentry_hook_info{", &hook) > 0.0, "{metrics}");
        (sum(&metrics, "rosentry_kernel_events_total{", "kind=\"write_denied\"") > 0.0).then_some(())
    });

    objects.note(agent.child.id());
    let (code, stopped) = agent.stop();

    println!("stopped in {stopped:?}");
    assert_eq!(code, Some(0));
    assert!(!pins.exists(), "nothing is pinned");
    let begun = Instant::now();
    while !objects.left().are_none() {
        assert!(begun.elapsed() < PATIENCE, "the kernel has {:?}", objects.left());
        thread::sleep(Duration::from_millis(10));
    }
    stopped
}

#[test]
fn the_doctor_names_the_mode_that_an_agent_chooses_and_ends_as_it_finds() {
    let (_folder, pins) = stage();
    let arguments = ["doctor", "--format", "json", "--containerd-socket", NO_SOCKET];
    let output = rosentry(&arguments).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["status"], output.status.code()), (&"degraded".into(), Some(1)), "no containerd: {report}");
    let checks = report["checks"].as_array().unwrap();
    let hooks = checks.iter().find(|check| check["name"] == "hooks").unwrap();
    assert_eq!(hooks["status"], "ok", "{hooks}");
    let mut agent = Agent::start("auto", &pins);
    let chosen = agent.note("start")["hooks"].as_str().unwrap().to_owned();
    assert!(hooks["found"].as_str().unwrap().starts_with(&format!("{chosen}:")), "{chosen}, {hooks}");
    // The kernels of the virtual machines allow it.
    assert!(!is_emulated() || chosen == "fexit", "{chosen}");
    assert_eq!(agent.stop().0, Some(0));
}
