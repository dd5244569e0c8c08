//! What a tool costs programs that do real work: a build, a web server and a database, each under the load of its usual client, in a
//! sealed container. One line a run: `real NAME WORKLOAD without|with TIME`, the time from its start to its end, or that of one request.

use std::{
    fs,
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use rustix::time::ClockId;

use super::{beside::Tool, now, operations};

/// Where the image of the container is put together, before this process moves into it.
const IMAGE: &str = "/image";
/// Runs of which each is told, without the tool and with it. One before them fills caches.
const RUNS: u32 = 3;
/// Until a server listens.
const LISTENS: (u32, Duration) = (100, Duration::from_millis(100));
/// Between two runs, for what a tool does behind a run.
const BETWEEN: Duration = Duration::from_secs(2);
/// nginx as Debian sets it up, in the foreground, with what it writes in the volume.
const NGINX: &str = "daemon off; worker_processes 1; pid /tmp/nginx.pid; error_log /dev/null;
events { worker_connections 768; }
http {
    sendfile on; tcp_nopush on; access_log /tmp/access.log;
    client_body_temp_path /tmp/body; proxy_temp_path /tmp/proxy; fastcgi_temp_path /tmp/fastcgi;
    uwsgi_temp_path /tmp/uwsgi; scgi_temp_path /tmp/scgi;
    server { listen 127.0.0.1:8080; root /usr/share/nginx/html; }
}
";

/// One kind of work.
struct Workload {
    /// In the table.
    name: &'static str,
    /// What is started before and ended behind it, and where it listens.
    server: Option<(&'static [&'static str], &'static str)>,
    /// What is timed.
    client: &'static [&'static str],
    /// What stands in front of the requests of a second, where the client runs for a time and says so; else its own time counts.
    rate: Option<&'static str>,
}

const WORKLOADS: [Workload; 3] = [
    Workload {
        name: "build",
        server: None,
        client: &[
            "/usr/bin/rustc",
            "--sysroot=/usr",
            "--edition=2018",
            "--crate-type=lib",
            "--crate-name=itoa",
            "--out-dir=/tmp",
            "/usr/share/cargo/registry/itoa-1.0.1/src/lib.rs",
        ],
        rate: None,
    },
    Workload {
        name: "nginx",
        server: Some((
            &["/usr/sbin/nginx", "-p", "/tmp", "-e", "/dev/null", "-c", "/tmp/nginx.conf"],
            "127.0.0.1:8080",
        )),
        client: &["/usr/bin/wrk", "-t1", "-c16", "-d1s", "http://127.0.0.1:8080/index.html"],
        rate: Some("Requests/sec:"),
    },
    Workload {
        name: "redis",
        server: Some((
            &["/usr/bin/redis-server", "--port", "6379", "--save", "", "--appendonly", "no", "--dir", "/tmp"],
            "127.0.0.1:6379",
        )),
        client: &["/usr/bin/redis-benchmark", "-h", "127.0.0.1", "-t", "set,get", "-n", "4000", "-c", "16", "-q"],
        rate: None,
    },
];

/// Runs all without the tool of these words, then with it.
pub fn run(words: &[String]) -> Result<()> {
    let tool = Tool::of(words)?;
    let name = tool.name.clone();
    let mut beside = tool.ready()?;
    operations::become_contained_in(Path::new(IMAGE))?;
    fs::write("/tmp/nginx.conf", NGINX).context("the volume could not be written")?;
    for workload in &WORKLOADS {
        timed(workload)?;
        told(workload, &name, "without")?;
    }
    beside.begin()?;
    for workload in &WORKLOADS {
        told(workload, &name, "with")?;
    }
    beside.check()
}

fn told(workload: &Workload, name: &str, which: &str) -> Result<()> {
    for _ in 0..RUNS {
        println!("real {name} {} {which} {:.1}", workload.name, timed(workload)?);
    }
    Ok(())
}

/// Nanoseconds that one run takes, or one request of it.
fn timed(workload: &Workload) -> Result<f64> {
    let server = workload.server.map(|(command, address)| started(command, address)).transpose()?;
    sleep(BETWEEN);
    let before = now(ClockId::Monotonic);
    let output = command(workload.client)?.output();
    let took = now(ClockId::Monotonic) - before;
    if let Some(mut server) = server {
        // Else the processes of its own would go on.
        // SAFETY: no memory is involved, and the process is ours and not waited for.
        unsafe { libc::kill(server.id().cast_signed(), libc::SIGTERM) };
        server.wait()?;
    }
    let output = output.with_context(|| format!("{} could not be run", workload.client[0]))?;
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        bail!("{} ended with {}: {said} {error}", workload.client[0], output.status);
    }
    match workload.rate {
        None => Ok(took.as_nanos() as f64),
        Some(words) => rate(&said, words).map(|rate| 1e9 / rate).with_context(|| format!("no {words} in: {said}")),
    }
}

/// The number behind these words.
fn rate(said: &str, words: &str) -> Option<f64> {
    said.split_once(words)?.1.split_whitespace().next()?.parse().ok().filter(|rate| *rate > 0.0)
}

/// A server that listens.
fn started(words: &[&str], address: &str) -> Result<Child> {
    let mut server = command(words)?
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("{} could not be run", words[0]))?;
    for _ in 0..LISTENS.0 {
        if TcpStream::connect(address).is_ok() {
            return Ok(server);
        }
        if let Some(status) = server.try_wait()? {
            bail!("{} ended with {status}", words[0]);
        }
        sleep(LISTENS.1);
    }
    server.kill()?;
    bail!("{} does not listen at {address}", words[0])
}

/// With no input, and the volume for its temporary files.
fn command(words: &[&str]) -> Result<Command> {
    let (program, arguments) = words.split_first().context("a command has a program")?;
    let mut command = Command::new(program);
    command.args(arguments).env("TMPDIR", "/tmp").stdin(Stdio::null());
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_the_number_behind_the_words_of_the_client() {
        let said = "  3027 requests in 1.00s, 2.46MB read\nRequests/sec:   3026.41\nTransfer/sec:      2.46MB\n";
        assert_eq!(rate(said, "Requests/sec:"), Some(3026.41));
        assert_eq!(rate("unable to connect", "Requests/sec:"), None);
        assert_eq!(rate("Requests/sec: 0.00", "Requests/sec:"), None);
    }
}
