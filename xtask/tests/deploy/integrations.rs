//! The feeds: rsyslog for real; of the others, that they can be read and name fields that events have.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use serde_json::Value;

use super::support::{files, read, yaml};

/// From a line in the file to a frame at the receiver, on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(30);

#[test]
fn rsyslog_sends_each_event_as_it_was_written_with_its_severity() {
    let folder = tempfile::tempdir().expect("a folder for rsyslog");
    let events = folder.path().join("events.json");
    // What an attacker can put into a path is no part of syslog's own syntax, and long lines stay whole.
    let lines: Vec<String> = [
        ("write_denied", "low", "/etc/x".to_owned()),
        ("mount_attempt", "high", r"/a\\x0a<0>1 %msg% \u0000".to_owned()),
        ("seal_broken", "critical", "/".to_owned()),
        ("write_denied", "info", "x".repeat(400_000)),
        ("agent", "medium", String::new()),
    ]
    .map(|(kind, severity, path)| {
        format!(r#"{{"schema":"rosentry/v1","kind":"{kind}","severity":"{severity}","file":{{"path":"{path}"}},"chain":"0"}}"#)
    })
    .into();
    fs::write(&events, lines[..2].join("\n") + "\n").expect("the first events are written");
    let receiver = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let rsyslog = Rsyslog::start(folder.path(), &events, &receiver);

    let (told, frames) = mpsc::channel();
    thread::spawn(move || {
        let (connection, _) = receiver.accept().expect("rsyslog connects");
        let mut connection = BufReader::new(connection);
        while let Some(frame) = frame(&mut connection) {
            if told.send(frame).is_err() {
                return;
            }
        }
    });
    let mut received: Vec<String> = Vec::new();
    let mut receive = |count: usize| {
        for _ in 0..count {
            received.push(frames.recv_timeout(DEADLINE).expect("an event arrives"));
        }
    };
    receive(2);
    let mut file = fs::File::options().append(true).open(&events).expect("the file is there");
    file.write_all((lines[2..].join("\n") + "\n").as_bytes()).expect("the agent goes on");
    receive(3);
    drop(rsyslog);

    let heads = [
        ("181", "write_denied"),
        ("179", "mount_attempt"),
        ("178", "seal_broken"),
        ("182", "write_denied"),
        ("180", "agent"),
    ];
    for ((frame, line), (priority, kind)) in received.iter().zip(&lines).zip(heads) {
        assert!(frame.starts_with(&format!("<{priority}>1 ")), "{frame}");
        let (_, rest) = frame.split_once(" rosentry - ").expect("the program is named");
        assert_eq!(rest, format!("{kind} - {line}"));
    }
}

/// rsyslog with the configuration of `deploy/`, on this test's file and to this test's receiver.
struct Rsyslog(Child);

impl Rsyslog {
    fn start(folder: &Path, events: &Path, receiver: &TcpListener) -> Self {
        let port = receiver.local_addr().expect("the receiver has an address").port();
        let mut config = read("deploy/integrations/rsyslog.conf");
        for (ours, theirs) in [
            ("/var/log/rosentry/events.json", events.to_str().expect("the path is a text")),
            (r#"target="siem.example.com" port="601""#, &format!(r#"target="127.0.0.1" port="{port}""#)),
            (
                r#"global(maxMessageSize="1m")"#,
                &format!(r#"global(maxMessageSize="1m" workDirectory="{}")"#, folder.display()),
            ),
        ] {
            assert!(config.contains(ours), "the configuration says {ours}");
            config = config.replace(ours, theirs);
        }
        let path = folder.join("rsyslog.conf");
        fs::write(&path, config).expect("the configuration is written");
        let process = Command::new("rsyslogd")
            .args(["-n", "-f"])
            .arg(&path)
            .arg("-i")
            .arg(folder.join("pid"))
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .spawn()
            .expect("rsyslog is installed");
        Self(process)
    }
}

impl Drop for Rsyslog {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One message of RFC 6587's octet counting; none when the connection has ended.
fn frame(connection: &mut BufReader<TcpStream>) -> Option<String> {
    let mut length = Vec::new();
    connection.read_until(b' ', &mut length).ok().filter(|read| *read > 0)?;
    let length: usize = String::from_utf8_lossy(&length).trim().parse().expect("a frame begins with its length");
    let mut message = vec![0; length];
    connection.read_exact(&mut message).ok()?;
    Some(String::from_utf8(message).expect("a message is UTF-8"))
}

#[test]
fn the_examples_can_be_read() {
    for path in files("deploy/integrations", ".yaml").into_iter().chain(files("deploy/integrations/elastic", ".yaml")) {
        let text = fs::read_to_string(&path).expect("the example can be read");
        assert_eq!(yaml(&text).len(), 1, "{}", path.display());
        assert!(text.starts_with("# An example"), "{} says what it is", path.display());
    }
    serde_json::from_str::<Value>(&read("deploy/integrations/elastic/index-template.json")).expect("it is JSON");
}

#[test]
fn the_readme_tells_of_every_feed_how_it_was_tried() {
    let readme = read("deploy/integrations/README.md");
    for path in files("deploy/integrations", "") {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        assert!(name == "README.md" || readme.contains(&format!("]({name})")), "{name}");
    }
}
