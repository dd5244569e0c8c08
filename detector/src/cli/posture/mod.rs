//! `rosentry posture`: where the containers of this node may write, as declared and in truth, and which can be sealed next.

mod json;
mod table;

use std::{
    env,
    ffi::OsString,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::{
    config::{self, ConfigError, RunConfig, Settings},
    node::{Places, USUAL_CGROUP},
    terminal::{Stdout, complain},
};
use crate::{
    identity::{Identity, IdentityConfig, model::Container, probe},
    posture::{Looker, Seen, Unseen, is_of_interest},
    report::{
        event::Time,
        learned::{self, Learned, Verdict, Writes},
        lines::Input,
    },
};

/// How long containerd may take to tell of its containers.
const CONTAINERD_PATIENCE: Duration = Duration::from_secs(10);
/// How long the looks may take together.
const LOOKS_PATIENCE: Duration = Duration::from_secs(10);

/// Say where the containers of this node may write, as declared and in truth, and which of them can be sealed.
///
/// Asks containerd and looks at the containers' mounts; takes no running agent and loads nothing into the kernel. Whether a
/// container can be sealed it takes from the record of an agent in learning mode (--events); without one that is unknown.
///
/// Ends with 0; with 1 where a root that was declared read-only is writable; with 2 where it could not be done.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// How to tell it.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// The record of this node's agent in learning mode: a file with events, plain or gzip, or - for standard input; repeatable.
    #[arg(long, value_name = "FILE")]
    events: Vec<PathBuf>,
    /// The agent's TOML file: what it says of containerd and of the node's places is taken from it.
    #[arg(long, value_name = "PATH")]
    config: Option<PathBuf>,
    /// The name of this node in that record [default: the variable NODE_NAME, else the hostname].
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// The socket of containerd [default: /run/containerd/containerd.sock].
    #[arg(long, value_name = "PATH")]
    containerd_socket: Option<PathBuf>,
    /// A namespace of containerd, repeatable [default: k8s.io].
    #[arg(long, value_name = "NAMESPACE", value_delimiter = ',')]
    containerd_namespace: Option<Vec<String>>,
    #[command(flatten)]
    places: Places,
}

/// How to tell it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum Format {
    /// For a person.
    Text,
    /// One JSON object, for a program.
    Json,
}

/// What is known of the node's containers.
#[derive(Debug)]
struct Report {
    node: String,
    time: Timestamp,
    rows: Vec<Row>,
    /// Whether there was a record of learning mode.
    has_record: bool,
}

/// What is known of one container.
#[derive(Debug)]
struct Row {
    container: Arc<Container>,
    seen: Result<Seen, Unseen>,
    ready: Ready,
}

/// Whether a container can be sealed.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Ready {
    /// It was declared so already.
    Declared,
    /// It was watched from its start until then, and wrote nothing but to mounts.
    Yes { since: Time, until: Time },
    /// It wrote to its root.
    No(Writes),
    /// Nobody knows, for this reason.
    Unknown(&'static str),
}

/// Runs the command.
pub fn main(args: &Args) -> ExitCode {
    match examine(args) {
        Ok(report) => match tell(&report, args.format) {
            Ok(()) if report.rows.iter().any(Row::is_broken) => ExitCode::from(1),
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => super::cannot(&format_args!("can't write to stdout: {error}")),
        },
        Err(sentence) => super::cannot(&sentence),
    }
}

fn examine(args: &Args) -> Result<Report, String> {
    let config = config(args, |name| env::var_os(name)).map_err(|error| error.to_string())?;
    let inputs: Vec<Input> = args.events.iter().map(|file| Input::of(file)).collect();
    if inputs.iter().filter(|input| **input == Input::Stdin).count() > 1 {
        return Err("standard input can be read once: give - one time".to_owned());
    }
    let has_record = !inputs.is_empty();
    let record =
        has_record.then(|| learned::read(&inputs, &config.node_name)).transpose().map_err(|error| error.to_string())?;
    let mut containers = containers(&config)?;
    containers.retain(|container| is_of_interest(container));
    containers.sort_by_key(|container| {
        let pod = container.pod.as_deref().map(|pod| (pod.namespace.clone(), pod.name.clone()));
        (pod, container.name.clone(), container.id.clone())
    });
    let seen = look_at_all(Looker::new(&config.host_proc).judging(), &containers)?;
    if let Some(lines) = record.as_ref().map(|record| record.no_events).filter(|lines| *lines > 0) {
        complain(&format_args!("{lines} lines of the record are no events"));
    }
    let rows = containers.into_iter().zip(seen).map(|(container, seen)| {
        let ready = ready(&container, record.as_ref());
        Row { container, seen, ready }
    });
    Ok(Report { node: config.node_name, time: Timestamp::now(), rows: rows.collect(), has_record })
}

/// As the agent of this node takes them: an option outweighs the environment, that the file.
fn config(args: &Args, environment: impl Fn(&str) -> Option<OsString>) -> Result<RunConfig, ConfigError> {
    let args = args.clone();
    let mut options = Settings::default();
    options.config = args.config;
    options.node_name = args.node_name;
    options.containerd_socket = args.containerd_socket;
    options.containerd_namespace = args.containerd_namespace;
    options.host_proc = args.places.host_proc;
    options.host_cgroup = args.places.host_cgroup;
    config::load(options, environment)
}

/// The containers that containerd knows.
fn containers(config: &RunConfig) -> Result<Vec<Arc<Container>>, String> {
    let socket = &config.containerd_socket;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("the system gives nothing to run on: {error}"))?;
    let known = runtime.block_on(async {
        probe(socket).await.map_err(|error| error.to_string())?;
        let identity = Identity::start(IdentityConfig {
            socket: socket.clone(),
            namespaces: config.containerd_namespaces.clone(),
            host_proc: config.host_proc.clone(),
            host_cgroup: config.host_cgroup.clone().unwrap_or_else(|| USUAL_CGROUP.into()),
        })
        .map_err(|error| error.to_string())?;
        let mut changed = identity.changed();
        let known = async {
            loop {
                let status = identity.status();
                if status.up && status.synced {
                    return;
                }
                // The sender lives as long as the identity room.
                let _ = changed.changed().await;
            }
        };
        match tokio::time::timeout(CONTAINERD_PATIENCE, known).await {
            Ok(()) => Ok(identity.containers()),
            Err(_) => Err(format!(
                "containerd at {} did not tell of its containers within {} s: is it busy?",
                socket.display(),
                CONTAINERD_PATIENCE.as_secs()
            )),
        }
    });
    // A look into a pod's folder on a disk that does not answer has no end.
    runtime.shutdown_background();
    known
}

/// Looks at all of them, on a thread of its own: what never comes to an end is left behind.
fn look_at_all(looker: Looker, containers: &[Arc<Container>]) -> Result<Vec<Result<Seen, Unseen>>, String> {
    let wanted = containers.to_vec();
    let look = move |index: usize| wanted.get(index).map(|container| looker.look(container));
    answers_of(containers.len(), LOOKS_PATIENCE, look)
        .map(|looks| looks.into_iter().map(|look| look.unwrap_or(Err(Unseen::NoAnswer))).collect())
        .map_err(|error| format!("the system gives no thread to look with: {error}"))
}

/// What `ask` answers for each number below `count`; none from the first on that was not there in time.
fn answers_of<T: Send + 'static>(
    count: usize,
    patience: Duration,
    ask: impl Fn(usize) -> Option<T> + Send + 'static,
) -> io::Result<Vec<Option<T>>> {
    let (sender, answers) = mpsc::channel();
    let ask_all = move || (0..count).try_for_each(|index| sender.send(ask(index)));
    thread::Builder::new().name("looks".to_owned()).spawn(ask_all)?;
    let deadline = Instant::now() + patience;
    let next = || answers.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok();
    // What comes after the end of patience is nobody's: the next one would be told with the answer of this one.
    let mut told: Vec<Option<T>> = std::iter::from_fn(next).take(count).collect();
    told.resize_with(count, || None);
    Ok(told)
}

fn ready(container: &Container, record: Option<&Learned>) -> Ready {
    if container.readonly_rootfs == Some(true) {
        return Ready::Declared;
    }
    let Some(record) = record else { return Ready::Unknown("there is no record of learning mode") };
    let since = container.started_at_unix_ns.and_then(|at| Timestamp::from_nanosecond(at).ok()).map(Time);
    match (record.verdict(&container.id, since), since) {
        (Verdict::Wrote(writes), _) => Ready::No(writes.clone()),
        (Verdict::Silent { until }, Some(since)) => Ready::Yes { since, until },
        (Verdict::Silent { .. }, None) => Ready::Unknown("it is not known when it began"),
        (Verdict::Unknown(why), _) => Ready::Unknown(why),
    }
}

impl Row {
    /// Whether its root was declared read-only and is not.
    fn is_broken(&self) -> bool {
        self.container.readonly_rootfs == Some(true) && self.seen.as_ref().is_ok_and(|seen| !seen.is_sealed())
    }
}

fn tell(report: &Report, format: Format) -> io::Result<()> {
    match format {
        Format::Text => table::tell(report, &mut Stdout::new()),
        Format::Json => match writeln!(io::stdout(), "{}", json::object(report)) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => written,
        },
    }
}

#[cfg(test)]
mod tests;
