//! A real Prometheus with the rules of `deploy/`, in a folder of its own, that looks every second.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{agent::free_address, metrics::get, patiently};

const START_DEADLINE: Duration = Duration::from_secs(60);

/// A Prometheus that this test started.
pub struct Prometheus {
    address: SocketAddr,
    process: Child,
    folder: TempDir,
}

/// One thing to scrape: its address, and the labels that Kubernetes' service discovery would give it.
pub struct Target<'a> {
    pub job: &'a str,
    pub address: SocketAddr,
    pub labels: Value,
}

impl Prometheus {
    /// One that is ready, and evaluates the rules of `deploy/prometheus` every second.
    pub async fn watching(targets: &[Target<'_>]) -> Self {
        let folder = tempfile::tempdir().expect("a folder for Prometheus");
        let address = free_address();
        let rules = fs::read_to_string(deploy().join("prometheus/rosentry.rules.yaml")).expect("the rules are there");
        let every_second = |line: &str| match line.split_once("interval: ") {
            Some((indent, _)) => format!("{indent}interval: 1s\n"),
            None => format!("{line}\n"),
        };
        let rules: String = rules.lines().map(every_second).collect();
        fs::write(folder.path().join("rules.yaml"), rules).expect("the rules are written");
        let scrape = targets.iter().map(|target| {
            json!({
                "job_name": format!("{}-{}", target.job, target.address.port()),
                "honor_labels": true,
                "static_configs": [{"targets": [target.address.to_string()], "labels": target.labels}],
                "relabel_configs": [{"target_label": "job", "replacement": target.job}],
            })
        });
        let config = json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yaml"],
            "scrape_configs": scrape.collect::<Vec<_>>(),
        });
        // JSON is YAML too.
        fs::write(folder.path().join("prometheus.yml"), config.to_string()).expect("the configuration is written");
        let log = File::create(folder.path().join("log")).expect("the log opens");
        let process = Command::new("prometheus")
            .arg(format!("--web.listen-address={address}"))
            .arg(format!("--config.file={}", folder.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("prometheus is installed");
        let prometheus = Self { address, process, folder };
        patiently(START_DEADLINE, "Prometheus is ready", async || {
            get(address, "/-/ready").await.is_ok_and(|(status, _)| status == 200)
        })
        .await;
        prometheus
    }

    /// The series that answer a query now.
    pub async fn query(&self, query: &str) -> Result<Vec<Value>, String> {
        let answer = self.api(&format!("query?query={}", escaped(query))).await;
        match answer["status"].as_str() {
            Some("success") => Ok(answer["data"]["result"].as_array().cloned().unwrap_or_default()),
            _ => Err(answer["error"].to_string()),
        }
    }

    /// Every rule, as Prometheus tells of it.
    pub async fn rules(&self) -> Vec<Value> {
        let mut answer = self.api("rules").await;
        let groups = answer["data"]["groups"].as_array_mut().map(std::mem::take).unwrap_or_default();
        groups
            .into_iter()
            .flat_map(|mut group| group["rules"].as_array_mut().map(std::mem::take).unwrap_or_default())
            .collect()
    }

    async fn api(&self, path: &str) -> Value {
        let (_, body) = get(self.address, &format!("/api/v1/{path}")).await.expect("Prometheus answers");
        let body = body.trim();
        serde_json::from_str(body).unwrap_or_else(|error| panic!("Prometheus answers in JSON: {error}: {body}"))
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if thread::panicking() {
            let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            let complaints: Vec<&str> = log.lines().filter(|line| !line.contains("level=info")).collect();
            eprintln!("Prometheus' complaints:\n{}", complaints.join("\n"));
        }
    }
}

/// What is installed on a cluster.
pub fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

/// A page of metrics of somebody else, served for as long as the test lives.
pub fn serve_page(page: String) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let address = listener.local_addr().expect("the listener has an address");
    thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            // A scrape's request fits into one read.
            let _ = connection.read(&mut [0; 4096]);
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close\r\n";
            let _ = write!(connection, "{head}Content-Length: {}\r\n\r\n{page}", page.len());
        }
    });
    address
}

/// As it stands in a URL.
fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}
