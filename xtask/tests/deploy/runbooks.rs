//! Runbooks: a page for each alert, and commands that exist.

use std::{collections::BTreeSet, ffi::OsString, fs, process::Command};

use super::{
    rules::alert_names,
    support::{files, read, run},
};

/// What each page has, in this order.
const SECTIONS: [&str; 4] = ["## What it means", "## How to look", "## How to mend", "## When to escalate"];

#[test]
fn there_is_one_page_for_each_alert_and_none_without() {
    let pages: BTreeSet<String> = pages().into_iter().map(|(name, _)| name).filter(|name| name != "README").collect();
    assert_eq!(pages, alert_names());
}

#[test]
fn each_page_says_what_it_means_how_to_look_how_to_mend_and_when_to_escalate() {
    for (name, text) in pages().into_iter().filter(|(name, _)| name != "README") {
        assert!(text.starts_with(&format!("# {name}\n")), "{name}");
        let places: Vec<Option<usize>> = SECTIONS.iter().map(|section| text.find(section)).collect();
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{name}: {places:?}");
        assert!(!commands(&text).is_empty(), "{name} says how to look without a command");
        assert!(text.lines().count() < 70, "{name} is no page, but {} lines", text.lines().count());
    }
}

#[test]
fn the_commands_of_rosentry_are_understood() {
    let mut seen = 0;
    for (name, text) in pages_of("docs").into_iter().chain(pages()).chain([("README".to_owned(), read("README.md"))]) {
        for command in commands(&text) {
            // A line goes on behind a backslash; what stands behind a # is said to people.
            let command = command.replace("\\\n", " ");
            let command: Vec<&str> = command.lines().map(|line| line.split(" #").next().unwrap_or(line)).collect();
            for part in command.iter().flat_map(|line| line.split(['|', ';'])) {
                let words: Vec<&str> = part.split_whitespace().collect();
                // At the begin, or what another command is to run; elsewhere it is the name of a namespace.
                let is_program = |at: &usize| {
                    words[*at].rsplit('/').next() == Some("rosentry")
                        && (*at == 0 || ["--", "sudo"].contains(&words[at - 1]))
                };
                let Some(at) = (0..words.len()).find(is_program) else { continue };
                seen += 1;
                let arguments = words[at..].iter().take_while(|word| !word.starts_with('>')).map(OsString::from);
                if let Err(refusal) = detector::cli::parse(arguments, |_| None) {
                    panic!("{name}: {part}: {refusal}");
                }
            }
        }
    }
    assert!(seen > 25, "{seen} commands");
}

#[test]
fn a_shell_can_read_the_commands() {
    for (name, text) in pages() {
        for command in commands(&text) {
            let output = Command::new("bash").args(["-n", "-c", &command]).output().expect("bash is installed");
            assert!(output.status.success(), "{name}: {command}\n{}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

#[test]
fn the_filters_find_what_they_look_for() {
    let event = |kind: &str, rest: serde_json::Value| {
        let mut event = serde_json::json!({
            "kind": kind, "time": "t", "node": "n1", "pod": {"namespace": "prod", "name": "web-1"}, "container": {"id": "c"},
            "process": {"exe": "/bin/sh", "args": ["sh"], "uid": 0, "ancestors": [{"exe": "/bin/init"}]},
        });
        for (key, value) in rest.as_object().expect("an object") {
            event[key] = value.clone();
        }
        format!("{event}\n")
    };
    let mount = serde_json::json!({"target": "/", "effect": "unseal", "flags": []});
    let stream = [
        "2026-01-01T00:00:00Z  INFO a diagnostic, which is no JSON\n".to_owned(),
        event("agent", serde_json::json!({"pod": null, "agent": {"what": "lost"}})),
        event(
            "write_denied",
            serde_json::json!({"operation": "open", "file": {"path": "/x"}, "mount": {"kind": "volume_failed"}}),
        ),
        event("mount_attempt", serde_json::json!({"operation": "remount", "outcome": "succeeded", "mount": mount})),
        event("mount_attempt", serde_json::json!({"operation": "remount", "outcome": "failed", "mount": mount})),
        event(
            "mount_attempt",
            serde_json::json!({"pod": null, "container": null, "outcome": "succeeded", "mount": mount}),
        ),
        event("seal_broken", serde_json::json!({"process": null, "mount": {"kind": "rootfs", "point": "/"}})),
    ]
    .concat();
    let mut seen = 0;
    for (name, text) in pages() {
        for command in commands(&text) {
            for after in command.split("jq -cR '").skip(1) {
                let filter = after.split('\'').next().unwrap_or_default();
                let mut jq = Command::new("jq");
                let output = run(jq.args(["-cR", filter]).envs([("NS", "prod"), ("WORKLOAD", "web")]), &stream);
                assert!(!output.stdout.is_empty(), "{name}: nothing comes of {filter}");
                seen += 1;
            }
        }
    }
    assert!(seen > 8, "{seen} filters");
}

#[test]
fn the_queries_can_be_parsed() {
    for (name, text) in pages() {
        for query in fenced(&text, "promql") {
            let rule =
                serde_json::json!({"groups": [{"name": "runbook", "rules": [{"record": "runbook", "expr": query}]}]});
            let file = tempfile::NamedTempFile::new().expect("a file for the query");
            fs::write(file.path(), rule.to_string()).expect("the query is written");
            run(Command::new("promtool").args(["check", "rules"]).arg(file.path()), &name);
        }
    }
}

fn pages() -> Vec<(String, String)> {
    pages_of("docs/runbooks")
}

fn pages_of(folder: &str) -> Vec<(String, String)> {
    let pages = files(folder, ".md").into_iter();
    let read = pages.map(|path| {
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        (name, fs::read_to_string(path).expect("the page can be read"))
    });
    read.collect()
}

/// The blocks for a shell.
fn commands(text: &str) -> Vec<String> {
    fenced(text, "sh")
}

fn fenced(text: &str, language: &str) -> Vec<String> {
    let open = format!("```{language}\n");
    text.split(&open).skip(1).map(|after| after.split("```").next().unwrap_or_default().to_owned()).collect()
}
