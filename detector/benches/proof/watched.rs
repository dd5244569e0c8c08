//! The agent, watched: what it prints and when that came, what it uses of the machine.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use jiff::Timestamp;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{
    agent::{NODE, free_address},
    metrics::{Metrics, get},
    patiently,
};

/// Longer than anything takes, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(120);

/// A line, and when it came out.
#[derive(Clone, Debug)]
pub struct Line {
    /// When it was read from the pipe.
    pub came: Timestamp,
    /// The event.
    pub event: Value,
}

impl Line {
    /// From the kernel's time of the event until it was read.
    pub fn delay(&self) -> Duration {
        let happened: Timestamp = text(&self.event["time"]).parse().expect("an event has a time");
        self.came.duration_since(happened).try_into().unwrap_or_default()
    }

    /// The sum of what it tells of: refused writes, at once and as repeats.
    pub fn writes(&self) -> u64 {
        if self.event["kind"] == "write_denied" { self.event["count"].as_u64().unwrap_or_default() } else { 0 }
    }

    /// Refused writes that it says no event tells of, for want of budget, of room in the ring, or of room in a sink's queue.
    pub fn writes_said_to_be_lost(&self) -> u64 {
        let agent = &self.event["agent"];
        [&agent["kinds"]["write_denied"], &agent["events"]["ring_writes"], &agent["attempts"]]
            .into_iter()
            .filter_map(Value::as_u64)
            .sum()
    }
}

/// A text of an event; empty where it is none.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// What a process has used up to now.
#[derive(Clone, Copy, Debug, Default)]
pub struct Used {
    /// Of processors, by all its threads, in and out of the kernel.
    pub cpu: Duration,
    /// Resident memory, bytes.
    pub resident: u64,
    /// The most of it that there ever was.
    pub most_resident: u64,
}

/// A running agent; killed when this is dropped.
pub struct Watched {
    process: Child,
    address: SocketAddr,
    lines: Arc<Mutex<Vec<(Timestamp, String)>>>,
    reader: Option<JoinHandle<()>>,
}

impl Watched {
    /// Starts this program beside the containerd with this socket, and waits until it is ready. Its events come here. What it
    /// says on stderr goes to ours.
    pub async fn start(program: &Path, socket: &Path) -> Self {
        Self::start_with(program, socket, &["--json", "-"]).await
    }

    /// The same, with other sinks.
    pub async fn start_with(program: &Path, socket: &Path, sinks: &[&str]) -> Self {
        let address = free_address();
        let mut command = Command::new(program);
        command.env_clear().args(["run", "--node-name", NODE, "--metrics-listen", &address.to_string()]);
        command.arg("--containerd-socket").arg(socket).args(sinks);
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("the agent starts");
        let lines = Arc::new(Mutex::new(Vec::new()));
        let reader = process.stdout.take().map(|pipe| read(pipe, Arc::clone(&lines)));
        let watched = Self { process, address, lines, reader };
        patiently(PATIENCE, "the agent is ready", async || {
            get(address, "/readyz").await.is_ok_and(|(status, _)| status == 200)
        })
        .await;
        watched
    }

    /// What it serves.
    pub async fn metrics(&self) -> Metrics {
        let (_, body) = get(self.address, "/metrics").await.expect("the agent serves metrics");
        Metrics::parse(&body)
    }

    /// Its samples of this name that are not 0, for people.
    pub async fn samples(&self, name: &str) -> String {
        let (_, body) = get(self.address, "/metrics").await.expect("the agent serves metrics");
        let is_one = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        let samples = body.lines().filter(is_one).filter(|line| !line.ends_with(" 0"));
        let samples: Vec<&str> = samples.filter_map(|line| line.strip_prefix(name)).collect();
        if samples.is_empty() { "0".to_owned() } else { samples.join(", ") }
    }

    /// Its resources (`/proc/PID/stat` and `status`).
    pub fn used(&self) -> Used {
        let folder = format!("/proc/{}", self.process.id());
        let stat = fs::read_to_string(format!("{folder}/stat")).expect("the agent runs");
        let status = fs::read_to_string(format!("{folder}/status")).expect("the agent runs");
        // The name may hold anything, so what follows is counted from its end: state is the first.
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        let ticks: u64 = fields[11..13].iter().filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
        let kibibytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or_default()
        };
        Used {
            cpu: Duration::from_secs(ticks) / u32::try_from(rustix::param::clock_ticks_per_second()).unwrap_or(100),
            resident: kibibytes("VmRSS:") << 10,
            most_resident: kibibytes("VmHWM:") << 10,
        }
    }

    /// Whether it runs; not after it has ended by itself.
    pub fn runs(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None))
    }

    /// SIGTERM; all that it has printed.
    pub async fn stop(mut self) -> Vec<Line> {
        kill_process(Pid::from_child(&self.process), Signal::TERM).expect("the agent is ours to signal");
        let process = &mut self.process;
        patiently(PATIENCE, "the agent ends", async || matches!(process.try_wait(), Ok(Some(_)))).await;
        let ended = self.process.wait().expect("it has ended");
        assert!(ended.success(), "the agent ended with {ended}");
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the reader holds nothing that can fail");
        }
        self.lines()
    }

    /// What it has printed.
    pub fn lines(&self) -> Vec<Line> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let parsed = lines
            .iter()
            .map(|(came, line)| Line { came: *came, event: serde_json::from_str(line).expect("a line is JSON") });
        parsed.collect()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // Both do nothing when it was waited for.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn read(pipe: impl Read + Send + 'static, lines: Arc<Mutex<Vec<(Timestamp, String)>>>) -> JoinHandle<()> {
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let came = Timestamp::now();
            lines.lock().unwrap_or_else(PoisonError::into_inner).push((came, line));
        }
    })
}
