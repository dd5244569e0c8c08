//! Programs that nobody here wrote, unpacked from Debian's packages: sealed without mounts each fails; learnt once on a writable root,
//! advised and patched, each runs sealed and serves, and nothing that it writes is refused any more.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Command, Output},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::support::{
    Lab,
    agent::{Agent, Events, PATIENCE, PROGRAM, free_address},
    image::debian_image,
    kubelet::{self, Volumes},
    metrics::get,
    patiently,
    pod::sealed,
};

/// The users that the scripts of Debian's packages would have made, as far as somebody asks for them by name.
const USERS: [(&str, &str); 2] = [
    ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/usr/sbin/nologin\n"),
    ("etc/group", "root:x:0:\nwww-data:x:33:\n"),
];

/// The user whom the folders of redis belong to.
const REDIS: u32 = 999;

/// Tried in the container that runs with what was advised: its root is still sealed.
const PROBE: &str = "/etc/rosentry-probe";

/// A program to be run.
struct Program {
    /// The name of its root below `target/programs`, and of its workload.
    name: &'static str,
    /// Its configuration, as somebody's image would have it.
    files: Vec<(&'static str, String)>,
    command: Vec<String>,
    /// Who runs it; 0 is root.
    user: u32,
    /// What it says when it fails on a sealed root.
    complaint: &'static str,
}

impl Program {
    /// As a Deployment that is sealed and has no mounts.
    fn manifest(&self, image: &str) -> Value {
        let labels = json!({"app": self.name});
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": self.name, "namespace": "prod"},
            "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": {"containers": [{
                "name": "app", "image": image, "command": self.command,
                "securityContext": {"readOnlyRootFilesystem": true, "runAsUser": self.user},
            }]}}},
        })
    }

    /// Learns, advises, patches and runs it; `serves` asks it for whatever it is there for, and waits until it answers.
    async fn runs_sealed_with_what_is_advised(&self, serves: impl AsyncFn()) -> Value {
        let lab = Lab::start().await;
        let folder = lab.containerd.path("of-test");
        fs::create_dir(&folder).expect("the folder is made");
        let image = format!("localhost/{}:1", self.name);
        let files = self.files.iter().map(|(path, content)| (*path, content.as_str()));
        let files: Vec<_> = USERS.into_iter().chain(files).collect();
        lab.containerd.import(&debian_image(&image, self.name, &files, self.user).archive);
        let pod = lab.pod("prod", self.name).await;
        let manifest = self.manifest(&image);
        let container = &manifest["spec"]["template"]["spec"]["containers"][0];

        let agent = Agent::learning(&lab).await;
        let mut unsealed = container.clone();
        unsealed["securityContext"]["readOnlyRootFilesystem"] = false.into();
        let learnt = pod.start_container(kubelet::of(&unsealed)).await;
        serves().await;
        learnt.terminate().await;
        let learnt = agent.stop().await;

        let agent = Agent::watching(&lab).await;
        let failed = pod.run(kubelet::of(container).restarted()).await;
        assert_ne!(failed.exit_code, 0, "{}", failed.output);
        assert!(failed.output.contains(self.complaint), "{}", failed.output);

        let patched = patched(&folder, &manifest, &learnt);
        let spec = &patched["spec"]["template"]["spec"];
        let volumes = Volumes::of(spec, &folder);
        for fill in spec["initContainers"].as_array().into_iter().flatten() {
            let ended = pod.run(volumes.container(fill)).await;
            assert_eq!((ended.exit_code, ended.output.as_str()), (0, ""), "{fill}");
        }
        let mended = volumes.container(&spec["containers"][0]).restarted().restarted();
        let mended = pod.start_container(mended).await;
        serves().await;
        let (refused, said) = mended.exec(["sh", "-c", &format!(": >{PROBE}")]).await;
        assert!(refused != 0 && said.contains("Read-only file system"), "{said}");
        mended.terminate().await;
        // What comes after it has come, so whatever was to come of it would be there too.
        let other = lab.pod("prod", "other").await;
        other.run(sealed(["touch", "/etc/x"])).await;
        agent.wait_for_write(&other, "/etc/x").await;
        let events = agent.stop().await;

        let of = |id: &str| -> Vec<_> {
            let writes = events.writes_of(&pod).into_iter();
            writes.filter(|event| event["container"]["id"] == id && event["severity"] != "info").collect()
        };
        assert!(!of(&failed.id).is_empty(), "its refused writes are seen");
        let refused: Vec<_> = of(&mended.id).into_iter().filter(|event| event["file"]["path"] != PROBE).collect();
        assert!(refused.is_empty(), "{refused:#?}\n{patched:#}\n{}", mended.output());
        patched
    }
}

/// The manifest with what is advised from these events, by kubectl.
fn patched(folder: &Path, manifest: &Value, learnt: &Events) -> Value {
    let [object, record, patch] = ["object.json", "events.json", "patch.yaml"].map(|name| folder.join(name));
    fs::write(&object, manifest.to_string()).expect("the manifest is written");
    let lines: String = learnt.0.iter().map(|event| format!("{event}\n")).collect();
    fs::write(&record, lines).expect("the events are written");
    let workload = format!("prod/{}", manifest["metadata"]["name"].as_str().expect("it has a name"));
    let mut advise = Command::new(PROGRAM);
    advise.args(["advise", "--workload", &workload, "--pod-spec"]).arg(&object).arg("-o").arg(&patch).arg(&record);
    done(&mut advise);
    let advised = fs::read_to_string(&patch).expect("the patch is there");
    println!("{advised}");
    let notes: Vec<&str> = advised.lines().filter(|line| line.starts_with("# - ")).collect();
    assert!(notes.is_empty(), "everything is mended: {notes:#?}");
    let mut kubectl = Command::new("kubectl");
    kubectl.args(["patch", "--local", "--type", "strategic", "-o", "json", "-f"]).arg(&object);
    kubectl.arg("--patch-file").arg(&patch);
    serde_json::from_slice(&done(&mut kubectl).stdout).expect("kubectl answers in JSON")
}

fn done(command: &mut Command) -> Output {
    let output = command.output().expect("it starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Where the containers have something mounted.
fn mounts(patched: &Value) -> Vec<&str> {
    let mounts = patched.pointer("/spec/template/spec/containers/0/volumeMounts").and_then(Value::as_array);
    let mounts = mounts.into_iter().flatten().filter_map(|mount| mount["mountPath"].as_str());
    mounts.collect()
}

fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).to_vec()
}

/// What a server answers to these bytes, up to its end.
async fn answer(address: SocketAddr, request: &[u8]) -> String {
    let mut connection = TcpStream::connect(address).await.expect("it listens");
    connection.write_all(request).await.expect("it reads");
    let mut answer = Vec::new();
    // What it has not read when it closes the connection resets it.
    let _ = connection.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

async fn answers(address: SocketAddr) {
    patiently(PATIENCE, "it answers", async || get(address, "/").await.is_ok_and(|(status, _)| status == 200)).await;
}

#[tokio::test]
async fn nginx_serves_from_a_sealed_root_with_what_is_advised() {
    let address = free_address();
    // Below /through it passes on what it gets, bodies too long for its memory in files.
    let site = format!(
        "server {{ listen {address}; root /usr/share/nginx/html; \
         location /through/ {{ proxy_pass http://{address}/; client_body_buffer_size 8k; }} }}\n"
    );
    let nginx = Program {
        name: "nginx",
        files: vec![("etc/nginx/sites-enabled/default", site)],
        command: words(["nginx", "-g", "daemon off;"]),
        user: 0,
        complaint: "Read-only file system",
    };
    let serves = async || {
        answers(address).await;
        let page = answer(address, b"GET /index.html HTTP/1.0\r\n\r\n").await;
        assert!(page.contains("Welcome to nginx!"), "{page}");
        let body = "x".repeat(100_000);
        let head = "POST /through/index.html HTTP/1.0\r\nContent-Length: 100000\r\n\r\n";
        let posted = answer(address, [head, &body].concat().as_bytes()).await;
        assert!(posted.contains("405 Not Allowed"), "the page itself takes no POST: {posted}");
    };
    let patched = nginx.runs_sealed_with_what_is_advised(serves).await;
    assert_eq!(mounts(&patched), ["/run", "/var/lib/nginx", "/var/log/nginx"]);
}

/// What redis answers to these commands, one after the other.
async fn redis_answers(address: SocketAddr, commands: &str) -> String {
    answer(address, format!("{commands}QUIT\r\n").as_bytes()).await
}

#[tokio::test]
async fn redis_serves_and_saves_on_a_sealed_root_with_what_is_advised() {
    let address = free_address();
    let [host, port] = [address.ip().to_string(), address.port().to_string()];
    // Debian's own configuration, in the foreground and elsewhere than on its usual port, with its log of all that is changed.
    let settings = ["--daemonize", "no", "--appendonly", "yes", "--bind", &host, "--port", &port];
    let redis = Program {
        name: "redis",
        // systemd would make the last at each start.
        files: ["var/lib/redis/", "var/log/redis/", "run/redis/"].map(|folder| (folder, String::new())).to_vec(),
        command: [words(["redis-server", "/etc/redis/redis.conf"]), words(settings)].concat(),
        user: REDIS,
        complaint: "Read-only file system",
    };
    let serves = async || {
        patiently(PATIENCE, "it answers", async || TcpStream::connect(address).await.is_ok()).await;
        let said = redis_answers(address, "SET seal kept\r\nSAVE\r\nGET seal\r\n").await;
        assert_eq!(said, "+OK\r\n+OK\r\n$4\r\nkept\r\n+OK\r\n");
    };
    let patched = redis.runs_sealed_with_what_is_advised(serves).await;
    assert_eq!(mounts(&patched), ["/run/redis", "/var/lib/redis", "/var/log/redis"]);
}

#[tokio::test]
async fn a_python_application_serves_from_a_sealed_root_with_what_is_advised() {
    let address = free_address();
    let bind = address.to_string();
    // The application is one that comes with Python.
    let command = ["gunicorn", "--pid", "/run/gunicorn.pid", "--bind", &bind, "wsgiref.simple_server:demo_app"];
    let gunicorn = Program {
        name: "gunicorn",
        files: Vec::new(),
        command: words(command),
        user: 0,
        complaint: "Read-only file system",
    };
    let serves = async || {
        answers(address).await;
        let (_, said) = get(address, "/").await.expect("it answers");
        assert!(said.starts_with("Hello world!"), "{said}");
    };
    let patched = gunicorn.runs_sealed_with_what_is_advised(serves).await;
    assert_eq!(mounts(&patched), ["/run", "/tmp"]);
    let variables = &patched["spec"]["template"]["spec"]["containers"][0]["env"];
    assert_eq!(*variables, json!([{"name": "PYTHONDONTWRITEBYTECODE", "value": "1"}]));
}
