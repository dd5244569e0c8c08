//! The agent as a black box: its command line, its stdout, stderr and HTTP side, and nothing of its inside.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Read},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::sync::watch;

use super::{
    Lab, contract,
    kernel_objects::KernelObjects,
    metrics::{Metrics, get},
    mortal::ends_with_its_test,
    patiently,
    pod::Pod,
};

/// The name that the agent is given for its node.
pub const NODE: &str = "n1";

/// Longer than whatever the tests wait for takes, however busy the machine is. What must be soon, a test measures itself.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The agent's program, as cargo built it for this test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_rosentry");

/// The agent's command line on this machine, with an environment that settles nothing.
pub fn run_command(socket: &Path, metrics: SocketAddr) -> Command {
    run_command_by(&[PROGRAM], socket, metrics)
}

/// The same with another way to start it: a program and its first arguments, of which the agent's follow.
pub fn run_command_by(launcher: &[&str], socket: &Path, metrics: SocketAddr) -> Command {
    let (program, first) = launcher.split_first().expect("a launcher has a program");
    let mut command = Command::new(program);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    // Others on the machine may have theirs at the usual place.
    command.env("ROSENTRY_PIN", "off");
    command.args(first).arg("run").arg("--containerd-socket").arg(socket);
    command.args(["--metrics-listen", &metrics.to_string(), "--json", "-", "--node-name", NODE]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    ends_with_its_test(&mut command);
    command
}

/// An address on which nothing listened a moment ago, of a host that no other process of the tests is: on a common one, its
/// port might be taken by a client or a server before the agent has it.
pub fn free_address() -> SocketAddr {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    // A pid has 22 bits, and 127.0.0.1 is everybody's.
    let listener = TcpListener::bind((Ipv4Addr::new(127, high + 1, middle, low), 0)).expect("a port is free");
    listener.local_addr().expect("the listener has an address")
}

/// A running agent; killed if the test forgets to stop it.
pub struct Agent {
    process: Child,
    metrics: SocketAddr,
    events: Stream,
    log: Stream,
}

impl Agent {
    /// An agent that is ready.
    pub async fn watching(lab: &Lab) -> Self {
        let agent = Self::started(&lab.containerd.socket());
        agent.becomes_ready().await;
        agent
    }

    /// An agent that is ready, in learning mode.
    pub async fn learning(lab: &Lab) -> Self {
        let address = free_address();
        let mut command = run_command(&lab.containerd.socket(), address);
        command.arg("--observe-writes");
        let agent = Self::from_command(command, address);
        agent.becomes_ready().await;
        agent
    }

    /// An agent that was started a moment ago.
    pub fn started(socket: &Path) -> Self {
        let metrics = free_address();
        Self::from_command(run_command(socket, metrics), metrics)
    }

    /// `command` is one of [`run_command`], with more to it.
    pub fn from_command(mut command: Command, metrics: SocketAddr) -> Self {
        let mut process = command.spawn().expect("the agent starts");
        // A command may have been given another stdout; then there is nothing to read here.
        let events = process.stdout.take().map_or_else(|| Stream::read(io::empty()), Stream::read);
        let log = Stream::read(process.stderr.take().expect("stderr is a pipe"));
        Self { process, metrics, events, log }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    pub async fn becomes_ready(&self) {
        patiently(PATIENCE, "the agent is ready", async || self.status("/readyz").await == Some(200)).await;
    }

    /// The status code of a GET; `None` where no one answers.
    pub async fn status(&self, path: &str) -> Option<u16> {
        get(self.metrics, path).await.ok().map(|(status, _)| status)
    }

    pub async fn metrics(&self) -> Metrics {
        let (status, text) = get(self.metrics, "/metrics").await.expect("the agent serves metrics");
        assert_eq!(status, 200, "GET /metrics");
        Metrics::parse(&text)
    }

    /// The metrics as soon as they are as `wanted`.
    pub async fn metrics_when(&self, what: &str, wanted: impl Fn(&Metrics) -> bool) -> Metrics {
        patiently(PATIENCE, what, async || wanted(&self.metrics().await)).await;
        self.metrics().await
    }

    /// Waits until it knows that this container, which is sealed, runs.
    pub async fn knows(&self, pod: &Pod, container: &str) {
        let labels = [("namespace", &*pod.namespace), ("pod", &*pod.name), ("container", container)];
        patiently(PATIENCE, "the agent knows the container", async || {
            self.metrics().await.sum("rosentry_container_readonly_rootfs", &labels) == Some(1.0)
        })
        .await;
    }

    /// The gauge of containerd's connection; `None` where the agent does not answer or has none.
    pub async fn containerd_up(&self) -> Option<f64> {
        let (_, text) = get(self.metrics, "/metrics").await.ok()?;
        Metrics::parse(&text).sum("rosentry_containerd_up", &[])
    }

    /// The first event that `wanted` holds for, whether it came or is to come.
    pub async fn wait_for(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut grown = self.events.grown.subscribe();
        let start = Instant::now();
        let mut seen = 0;
        loop {
            grown.borrow_and_update();
            let lines = self.events.lines();
            if let Some(event) = lines[seen..].iter().map(|line| contract::checked(line)).find(&wanted) {
                return event;
            }
            seen = lines.len();
            let left = PATIENCE.saturating_sub(start.elapsed());
            // A stream that ended closes the channel: no more will come.
            let came = tokio::time::timeout(left, grown.changed()).await;
            assert!(matches!(came, Ok(Ok(()))), "the agent does not report {what}");
        }
    }

    /// The first refused write to this path in this pod.
    pub async fn wait_for_write(&self, pod: &Pod, path: &str) -> Value {
        let what = format!("a refused write to {path} in {}/{}", pod.namespace, pod.name);
        self.wait_for(&what, |event| is_of(event, pod, "write_denied") && event["file"]["path"] == path).await
    }

    /// Every event up to now, each checked against the contract.
    pub fn so_far(&self) -> Events {
        Events(self.events.lines().iter().map(|line| contract::checked(line)).collect())
    }

    /// Every line on stdout up to now, as it was written.
    pub fn lines(&self) -> Vec<String> {
        self.events.lines()
    }

    /// Its open files, as links of proc tell them.
    pub fn open_files(&self) -> Vec<PathBuf> {
        let descriptors = fs::read_dir(format!("/proc/{}/fd", self.process.id())).expect("the agent runs");
        descriptors.flatten().filter_map(|descriptor| fs::read_link(descriptor.path()).ok()).collect()
    }

    /// Every line on stderr up to now.
    pub fn log(&self) -> Vec<String> {
        self.log.lines()
    }

    /// What it has in the kernel now.
    pub fn kernel_objects(&self) -> KernelObjects {
        let mut objects = KernelObjects::default();
        self.note_kernel_objects(&mut objects);
        objects
    }

    /// Adds what it has in the kernel now.
    pub fn note_kernel_objects(&self, objects: &mut KernelObjects) {
        objects.note(self.process.id());
    }

    /// SIGTERM; asserts that the agent drains and ends well, and returns all its events.
    pub async fn stop(mut self) -> Events {
        kill_process(Pid::from_child(&self.process), Signal::TERM).expect("the agent is ours to signal");
        let ended = self.ended_within(PATIENCE).await;
        assert_eq!(ended.code(), Some(0), "exit code after SIGTERM ({ended})");
        let events = self.so_far();
        contract::check_sequence(&events.0);
        events
    }

    pub fn has_ended(&mut self) -> bool {
        self.exit_status().is_some()
    }

    /// Waits for its end, after which every event and every line of its log is there.
    pub async fn ended_within(&mut self, deadline: Duration) -> ExitStatus {
        patiently(deadline, "the agent ends", async || self.has_ended()).await;
        let ended = self.exit_status().expect("it has ended");
        assert_eq!(ended.signal(), None, "the agent is killed by no signal");
        self.events.join();
        self.log.join();
        ended
    }

    fn exit_status(&mut self) -> Option<ExitStatus> {
        self.process.try_wait().expect("the agent is our child")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Both fail where it has ended, which is as well.
        let _ = self.process.kill();
        let _ = self.process.wait();
        self.events.join();
        self.log.join();
        if thread::panicking() {
            eprintln!("the agent's events:\n{}", self.events.lines().join("\n"));
            eprintln!("the agent's log:\n{}", self.log.lines().join("\n"));
        }
    }
}

/// What an agent reported, in its order.
pub struct Events(pub Vec<Value>);

impl Events {
    /// The refused writes of one pod.
    pub fn writes_of(&self, pod: &Pod) -> Vec<&Value> {
        self.of(pod, "write_denied")
    }

    /// The mount attempts of one pod.
    pub fn mount_attempts_of(&self, pod: &Pod) -> Vec<&Value> {
        self.of(pod, "mount_attempt")
    }

    /// What was found of the seals of one pod.
    pub fn seals_of(&self, pod: &Pod) -> Vec<&Value> {
        self.0.iter().filter(|event| is_of(event, pod, "seal_broken") || is_of(event, pod, "seal_mended")).collect()
    }

    /// Those of `kind` of this lab's containers, and of cgroups below the lab's own where the container was not found: another
    /// containerd may be at work on the same machine.
    pub fn of_lab(&self, lab: &Lab, kind: &str) -> Vec<&Value> {
        let own = format!("/{}/", lab.containerd.cgroup());
        let is_own = |event: &&Value| event["cgroup"]["path"].as_str().is_none_or(|path| path.starts_with(&own));
        self.0.iter().filter(|event| event["kind"] == kind).filter(is_own).collect()
    }

    fn of(&self, pod: &Pod, kind: &str) -> Vec<&Value> {
        self.0.iter().filter(|event| is_of(event, pod, kind)).collect()
    }
}

fn is_of(event: &Value, pod: &Pod, kind: &str) -> bool {
    event["kind"] == kind && event["pod"]["uid"] == pod.uid.as_str()
}

/// Lines of a pipe, collected by a thread of their own so that the agent never waits for the test.
struct Stream {
    lines: Arc<Mutex<Vec<String>>>,
    /// Told at each line; closed at the end.
    grown: watch::Sender<()>,
    reader: Option<JoinHandle<()>>,
}

impl Stream {
    fn read(pipe: impl Read + Send + 'static) -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let grown = watch::Sender::new(());
        let (written, told) = (Arc::clone(&lines), grown.clone());
        let reader = thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                written.lock().unwrap_or_else(PoisonError::into_inner).push(line);
                told.send_replace(());
            }
        });
        Self { lines, grown, reader: Some(reader) }
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for the pipe's end, after which every line is there.
    fn join(&mut self) {
        if let Some(reader) = self.reader.take() {
            // It holds nothing that can fail.
            let _ = reader.join();
        }
    }
}
