//! The page of `rosentry timeline --format html` in a real browser.

use std::{path::Path, process::Command};

/// What the page is, once its script has run, with this behind the `#` of its address.
pub fn shown(page: &Path, fragment: &str) -> String {
    let profile = tempfile::tempdir().expect("a folder for the browser");
    let shown = chromium(profile.path())
        .arg("--dump-dom")
        .arg(format!("file://{}#{fragment}", page.display()))
        .output()
        .expect("timeout is there");
    let page = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(page.contains("data-ready=\"yes\""), "{page}\n{}", String::from_utf8_lossy(&shown.stderr));
    page
}

/// A browser that says nothing by itself, and is ended where it takes too long.
fn chromium(profile: &Path) -> Command {
    let mut command = Command::new("timeout");
    command.args([
        "120",
        "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
    ]);
    command.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
    command.arg(format!("--user-data-dir={}", profile.display()));
    command
}

/// The steps that the page has, and how many of them are hidden.
pub fn rows(page: &str) -> (usize, usize) {
    let rows = page.split_once("<tbody id=\"rows\">").and_then(|(_, rest)| rest.split_once("</tbody>"));
    let rows = rows.expect("the page has a table").0;
    (rows.matches("<tr").count(), rows.matches("<tr hidden").count())
}
