//! The page of `rosentry timeline --format html`, as a browser shows it: with names that were chosen to break out of it, without
//! a word to the network, and with filters that hide what was not asked for.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    process::Command,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::browser::{self, rows};

/// A break-in, as an agent recorded it.
const RECORD: &str = include_str!("../data/intrusion.json");

/// A page, made of these lines.
struct Page(TempDir);

impl Page {
    fn of(record: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("events.json"), record).unwrap();
        let made = Command::new(env!("CARGO_BIN_EXE_rosentry"))
            .args(["timeline", "--format", "html", "-o", "page.html", "events.json"])
            .current_dir(folder.path())
            .status()
            .unwrap();
        assert!(made.success());
        Self(folder)
    }

    fn path(&self) -> std::path::PathBuf {
        self.0.path().join("page.html")
    }

    /// What the page is, once its script has run.
    fn shown(&self, fragment: &str) -> String {
        browser::shown(&self.path(), fragment)
    }
}

#[test]
fn a_break_in_is_drawn_listed_and_told_with_its_processes() {
    let page = Page::of(RECORD);
    let shown = page.shown("");
    assert_eq!(rows(&shown), (6, 0));
    for expected in [
        "prod/web",
        "sh → unshare → sh[1137]",
        "writable mount over the sealed root",
        "T1053.003",
        "sha256:",
        "class=\"mark critical through\"",
    ] {
        assert!(shown.contains(expected), "{expected} is not in\n{shown}");
    }
}

#[test]
fn filters_hide_the_steps_that_were_not_asked_for() {
    let page = Page::of(RECORD);
    for (filter, hidden) in
        [("severity=high", 2), ("kind=mount_attempt", 3), ("pod=prod%2Fweb", 0), ("text=wget%5B", 5)]
    {
        assert_eq!(rows(&page.shown(filter)), (6, hidden), "{filter}");
    }
}

#[test]
fn a_person_zooms_points_at_a_mark_filters_and_sorts() {
    let page = Page::of(RECORD);
    // Scripts besides the page's own run only without its policy.
    let html = fs::read_to_string(page.path()).unwrap();
    let (before, policy) = html.split_once("<meta http-equiv=\"Content-Security-Policy\"").unwrap();
    let (_, after) = policy.split_once(">\n").unwrap();
    let driver = format!("<script>{}</script></body>", include_str!("page_driver.js"));
    fs::write(page.path(), format!("{before}{after}").replace("</body>", &driver)).unwrap();

    let shown = page.shown("");
    let did = shown.split_once("data-did=\"").expect("the driver came to its end").1.split_once('"').unwrap().0;
    let did: Value =
        serde_json::from_str(&did.replace("&quot;", "\"").replace("&lt;", "<").replace("&gt;", ">")).unwrap();
    for done in [
        "all_is_shown",
        "button_zooms",
        "wheel_zooms",
        "drag_zooms",
        "key_moves",
        "incident_is_shown",
        "sorted",
        "nothing_is_left",
    ] {
        assert_eq!(did[done], true, "{done}: {did:#}");
    }
    assert!(did["tip"].as_str().unwrap().contains("/usr/local/bin tmpfs (shadow) succeeded"), "{did:#}");
    assert!(did["row"].as_str().unwrap().contains("/usr/local/bin"), "{did:#}");
    assert_eq!((&did["hidden"], &did["marks"]), (&json!(2), &json!(4)));
}

#[test]
fn no_name_that_somebody_chose_becomes_a_part_of_the_page() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}/x", listener.local_addr().unwrap());
    let page = Page::of(&hostile(&url));

    let bytes = fs::read_to_string(page.path()).unwrap();
    assert_eq!(bytes.matches("<script").count(), 2, "the data end no script and begin none");
    let steers =
        |c: char| (c.is_control() && c != '\n') || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    assert!(!bytes.contains(steers));

    let shown = page.shown("");
    assert!(shown.contains("<title>rosentry: incident timeline</title>"), "a script has run");
    assert!(shown.contains("&lt;script&gt;document.title"), "the name is there as text");
    assert_eq!(shown.matches("<script").count(), 2);
    for element in ["<img", "<iframe", "<object", "<embed", "<link", "<base", "<a href=\"http", "<a href=\"javascript"]
    {
        assert!(!shown.contains(element), "{element}");
    }
    // Both texts of each name: its path and its process.
    assert_eq!(rows(&shown).0, names(&url).len());
    assert!(listener.accept().is_err(), "something was asked of the network");
}

/// Names as an agent tells them, and as somebody may have put them into the file since.
fn names(url: &str) -> Vec<String> {
    let long = format!("/{}", "a".repeat(4095));
    vec![
        "<script>document.title='owned'</script>".to_owned(),
        "</script><script>document.title='owned'</script>".to_owned(),
        format!("\"><img src={url} onerror=\"document.title='owned'\">"),
        format!("<iframe src={url}></iframe><base href={url}>"),
        "<!--<script>".to_owned(),
        "javascript:document.title='owned'".to_owned(),
        "line\\x0aline".to_owned(),
        "line\nline\u{2028}line".to_owned(),
        "\u{202e}gnp.exe\u{2066}".to_owned(),
        "\u{1b}[2J\u{1b}]0;owned\u{7}".to_owned(),
        "\\xff\\xfe".to_owned(),
        "]]>${7*7}{{7*7}}&lt;b&gt;".to_owned(),
        "__proto__".to_owned(),
        long,
    ]
}

/// A line for each name, which stands wherever a name can.
fn hostile(url: &str) -> String {
    let event: Value = serde_json::from_str(RECORD.lines().nth(2).unwrap()).unwrap();
    let mut record = String::new();
    for name in names(url) {
        let mut event = event.clone();
        for pointer in [
            "/node",
            "/operation",
            "/errno",
            "/category",
            "/hint",
            "/attack/0",
            "/file/path",
            "/file/requested",
            "/mount/fstype",
            "/process/comm",
            "/process/exe",
            "/process/args/0",
            "/process/ancestors/0/comm",
            "/container/name",
            "/container/id",
            "/container/image",
            "/container/image_digest",
            "/pod/namespace",
            "/pod/name",
            "/pod/workload",
        ] {
            *event.pointer_mut(pointer).unwrap() = json!(name);
        }
        record.push_str(&event.to_string());
        record.push('\n');
    }
    record
}
