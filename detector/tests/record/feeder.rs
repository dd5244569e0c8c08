//! Feeds sinks with events: in this process, or in one of its own that can be killed.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use detector::{
    export::{
        Metrics,
        format::Format,
        metrics::{Build, Sources},
        native::Body,
        sinks::{
            JsonConfig, OtlpConfig, Running, Sink, Sinks, SinksConfig, SyslogConfig,
            file::{FileConfig, Fsync},
            spool::SpoolConfig,
        },
    },
    finding::{
        Event,
        event::{AgentNote, AgentValue, AgentWhat, Severity},
    },
};

/// How long anything may take before a test gives up; a busy machine is slow.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A file in the folder, the spool beside it, and no receivers.
pub fn config(folder: &Path) -> SinksConfig {
    SinksConfig {
        format: Format::Native,
        json: JsonConfig::File(FileConfig {
            path: folder.join("events.json"),
            max_bytes: Some(4 << 20),
            max_age: None,
            keep: 9,
            fsync: Fsync::Interval(Duration::from_secs(1)),
        }),
        syslog: None,
        otlp: None,
        spool: SpoolConfig { folder: folder.join("spool"), max_bytes: 64 << 20, fsync: Fsync::Never },
    }
}

/// Sinks that are fed here.
pub struct Feeder {
    running: Running,
    metrics: Arc<Metrics>,
    next: u64,
}

impl Feeder {
    /// Opens and starts them.
    pub fn start(config: SinksConfig) -> Self {
        let metrics = Arc::new(metrics());
        let running = Sinks::open(config).unwrap().start(&metrics, None).unwrap();
        Self { running, metrics, next: 1 }
    }

    /// Puts an event in each queue; says whether all had room.
    pub fn put(&mut self) -> bool {
        let body = Arc::new(body(self.next));
        self.next += 1;
        let sinks = self.running.sinks();
        let put = sinks.iter().filter(|sink| sink.put(&body)).count();
        sinks.iter().for_each(Sink::flush);
        put == sinks.len()
    }

    /// Puts so many events in, one each millisecond, as fast as none is lost.
    pub fn put_all(&mut self, events: u64) {
        for _ in 0..events {
            assert!(self.put(), "a queue is full");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// A sample of the metrics.
    pub fn metric(&self, name: &str) -> u64 {
        let text = self.metrics.render().unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse().unwrap())
    }

    /// Waits until this holds.
    pub fn wait(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self) {
            assert!(Instant::now() < deadline, "{what}:\n{}", self.metrics.render().unwrap());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Closes them in order.
    pub fn close(self) {
        self.running.close(Instant::now() + PATIENCE).unwrap();
    }
}

fn body(number: u64) -> Body {
    let details = vec![("number", AgentValue::Number(number)), ("text", AgentValue::Text("ä\n\"\\ ".repeat(20)))];
    Body::of(&Event::agent(AgentNote { what: AgentWhat::Coverage, details }, 0, Severity::Info), "n1").unwrap()
}

fn metrics() -> Metrics {
    let build = Build { version: String::new(), kernel: String::new(), hooks: String::new() };
    let sources = Sources {
        containers: Box::new(Vec::new),
        seal_broken: Box::new(|_| None),
        seen: Box::new(Arc::default),
        with_untold: Box::new(|read| read(&[])),
        with_untold_observed: Box::new(|read| read(&[])),
        kernel_events: Box::new(Vec::new),
        kernel_lost: Box::new(Vec::new),
        incomplete_sections: Box::new(Vec::new),
        path_resolutions: Box::new(Vec::new),
        identity: Box::new(Vec::new),
        containerd_up: Box::new(|| false),
    };
    Metrics::new(&build, sources).unwrap()
}

/// What the process is told, in the environment: folder, port of syslog, port of OTLP, first number.
const TOLD: &str = "ROSENTRY_TEST_FEEDER";

/// The same in a process of its own, which feeds until it is killed.
pub struct Process(Child);

impl Process {
    /// Starts it.
    pub fn start(folder: &Path, syslog_port: u16, otlp_port: u16) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["feeder::feeds_until_it_is_killed", "--exact", "--ignored", "--nocapture"])
            .env(TOLD, format!("{}\n{syslog_port}\n{otlp_port}", folder.display()))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap() == "feeding"), "it does not start");
        Self(child)
    }

    /// Kills it as `kill -9` does.
    pub fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
#[ignore = "a process that other tests start and kill"]
fn feeds_until_it_is_killed() {
    let told = std::env::var(TOLD).unwrap();
    let mut told = told.lines();
    let folder = PathBuf::from(told.next().unwrap());
    let mut ports = told.map(|port| port.parse::<u16>().unwrap());
    let mut feeder = Feeder::start(SinksConfig {
        syslog: ports.next().map(|port| SyslogConfig { host: "127.0.0.1".to_owned(), port, tls: None }),
        otlp: ports.next().map(|port| OtlpConfig {
            endpoint: format!("http://127.0.0.1:{port}"),
            tls: Default::default(),
            headers: Vec::new(),
        }),
        ..config(&folder)
    });
    println!("\nfeeding");
    // It has an end, though nobody should kill it.
    for _ in 0..100_000 {
        feeder.put();
        std::thread::sleep(Duration::from_micros(500));
    }
}
