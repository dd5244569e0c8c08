//! Programs of the everyday beside a tool: what their work takes in all, the tool's part included.

use std::{
    fs,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use rustix::time::ClockId;

use super::{beside::Tool, now};

/// A piece of work.
struct Work {
    name: &'static str,
    /// What has to run meanwhile, as shell script.
    server: Option<&'static str>,
    /// The work, as shell script.
    command: &'static str,
    /// How much work it is.
    count: Count,
}

/// How much was done.
enum Count {
    /// So much in each run.
    Fixed(u32),
    /// What stands before this in the output.
    Before(&'static str),
}

const WORKS: &[Work] = &[
    Work {
        name: "redis_set_get",
        server: Some("exec /usr/bin/redis-server --save '' --appendonly no --port 6379 --dir /tmp"),
        command: "exec /usr/bin/redis-benchmark -t set,get -n 10000 -c 20 -q",
        count: Count::Fixed(20_000),
    },
    Work {
        name: "nginx_static_file",
        server: Some("exec /usr/sbin/nginx -c /tmp/nginx.conf"),
        command: "exec /usr/bin/wrk -t 1 -c 8 -d 2s http://127.0.0.1:8080/index.html",
        count: Count::Before("requests in"),
    },
    Work {
        name: "compile_c_file",
        server: None,
        command: "cd /tmp && for n in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do \
                  /usr/bin/tcc -c -o /tmp/$n.o /tmp/source.c || exit 1; done",
        count: Count::Fixed(20),
    },
];

const NGINX: &str = "daemon off; master_process off; user root root; pid /tmp/nginx.pid; error_log /tmp/nginx.log;
events { worker_connections 64; }
http { access_log /tmp/access.log; server { listen 127.0.0.1:8080; root /tmp/www; } }
";
/// Includes what most programs do.
const SOURCE: &str = "#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>
#include <unistd.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <pthread.h>
#include <time.h>
int work(int argc, char **argv) { struct stat s; return argc > 1 ? stat(argv[1], &s) : (int)strlen(argv[0]); }
";
/// The first runs fill caches. The least of the others is told: what disturbs only adds.
const RUNS: usize = 4;
/// Until a server listens, and until what it has put off is done.
const SETTLED: Duration = Duration::from_secs(3);

/// Measures each piece of work with nothing attached and then beside the tool: `work NAME WORK NOTHING WITH`.
pub fn run(words: &[String]) -> Result<()> {
    let tool = Tool::of(words)?;
    let name = tool.name.clone();
    let mut tool = tool.ready()?;
    prepare().context("the work could not be prepared")?;
    let nothing = all()?;
    tool.begin()?;
    let with = all()?;
    for ((work, nothing), with) in WORKS.iter().zip(nothing).zip(with) {
        println!("work {name} {} {nothing:.1} {with:.1}", work.name);
    }
    tool.end().map(drop)
}

fn prepare() -> Result<()> {
    for folder in ["/tmp/www", "/var/lib/nginx", "/etc"] {
        fs::create_dir_all(folder)?;
    }
    fs::write("/tmp/nginx.conf", NGINX)?;
    fs::write("/tmp/source.c", SOURCE)?;
    fs::write("/tmp/www/index.html", [b'x'; 4096])?;
    fs::write("/etc/passwd", "root:x:0:0::/:/bin/sh\n")?;
    fs::write("/etc/group", "root:x:0:\n")?;
    Ok(())
}

/// Instructions for one of each.
fn all() -> Result<Vec<f64>> {
    WORKS.iter().map(|work| measure(work).with_context(|| format!("{} could not be measured", work.name))).collect()
}

fn measure(work: &Work) -> Result<f64> {
    let mut server = work.server.map(shell).map(|mut server| server.spawn()).transpose()?;
    let mut least = f64::INFINITY;
    for run in 0..RUNS {
        sleep(SETTLED);
        let began = now(ClockId::Monotonic);
        let output = shell(work.command).stdout(Stdio::piped()).stderr(Stdio::inherit()).output()?;
        let took = now(ClockId::Monotonic).saturating_sub(began);
        let said = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            bail!("it ended with {}: {said}", output.status);
        }
        let count = match work.count {
            Count::Fixed(count) => f64::from(count),
            Count::Before(words) => {
                number_before(&said, words).with_context(|| format!("it said no number: {said}"))?
            }
        };
        if run > 0 {
            least = least.min(took.as_nanos() as f64 / count);
        }
    }
    if let Some(server) = &mut server {
        end(server)?;
    }
    Ok(least)
}

fn shell(script: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn end(server: &mut Child) -> Result<()> {
    server.kill()?;
    server.wait()?;
    Ok(())
}

/// The number that stands before these words.
fn number_before(text: &str, words: &str) -> Option<f64> {
    text.split_once(words)?.0.split_whitespace().next_back()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_requests_is_read_from_what_the_program_says() {
        let said = "  1 threads and 8 connections\n  12345 requests in 2.00s, 9.87MB read\n";
        assert_eq!(number_before(said, "requests in"), Some(12_345.0));
        assert_eq!(number_before(said, "errors"), None);
    }
}
