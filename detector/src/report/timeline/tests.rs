//! Tests of [`super`], with the lines of a recorded break-in.

use std::{fs, path::PathBuf};

use tempfile::TempDir;

use super::*;
use crate::{
    export::chain::{START, close},
    finding::event::{Effect, Severity},
    report::filter::{PodName, moment},
};

/// A shell in a sealed pod downloads to /tmp, writes to /usr/bin and /etc/cron.d, tries a remount, then mounts a tmpfs over
/// /usr/local/bin in a user namespace.
const BREAK_IN: &str = include_str!("../../../tests/data/intrusion.json");

/// Files of a record.
struct Files {
    _folder: TempDir,
    inputs: Vec<Input>,
}

impl Files {
    fn of(texts: &[String]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let paths = texts.iter().enumerate().map(|(number, text)| {
            let path: PathBuf = folder.path().join(format!("{number}.json"));
            fs::write(&path, text).unwrap();
            Input::File(path)
        });
        let inputs = paths.collect();
        Self { _folder: folder, inputs }
    }

    fn timeline(&self, filter: &Filter) -> Timeline {
        Timeline::read(&self.inputs, filter, Limits::default()).unwrap()
    }
}

fn read(texts: &[String]) -> Timeline {
    Files::of(texts).timeline(&Filter::default())
}

/// A line of a record: which of the recorded lines, at which second and second it begins anew.
struct Line {
    recorded: usize,
    second: u32,
    changes: Vec<(&'static str, String)>,
}

fn line(recorded: usize, second: u32) -> Line {
    Line { recorded, second, changes: Vec::new() }
}

impl Line {
    fn with(mut self, from: &'static str, to: &str) -> Self {
        self.changes.push((from, to.to_owned()));
        self
    }
}

/// Lines numbered from 1 and chained.
fn chained(lines: &[Line]) -> String {
    let (mut previous, mut text) = (START.to_owned(), String::new());
    for (number, line) in lines.iter().enumerate() {
        let recorded = BREAK_IN.lines().nth(line.recorded).unwrap();
        let mut open = recorded[..recorded.rfind(",\"chain\"").unwrap()].to_owned();
        let event: serde_json::Value = serde_json::from_str(recorded).unwrap();
        let time = format!(
            "2026-01-02T{:02}:{:02}:{:02}.000000000Z",
            line.second / 3600,
            line.second / 60 % 60,
            line.second % 60
        );
        open = open.replace(event["time"].as_str().unwrap(), &time);
        open = open.replacen(&format!("\"seq\":{}", event["seq"]), &format!("\"seq\":{}", number + 1), 1);
        if number > 0 {
            open = open.replace(",\"previous\":null", "");
        } else if !open.contains("\"previous\"") {
            open.push_str(",\"previous\":null");
        }
        for (from, to) in &line.changes {
            open = open.replace(from, to);
        }
        let mut bytes = open.into_bytes();
        previous = close(&mut bytes, 0, &previous);
        text.push_str(&String::from_utf8(bytes).unwrap());
    }
    text
}

#[test]
fn a_break_in_is_one_incident_told_in_its_order_with_ancestry_and_techniques() {
    let timeline = read(&[BREAK_IN.to_owned()]);
    assert_eq!((timeline.events, timeline.incidents.len(), timeline.gaps.len()), (8, 1, 0));
    let incident = &timeline.incidents[0];
    assert_eq!((incident.owner.namespace.as_deref(), &*incident.owner.name), (Some("prod"), "web"));
    assert_eq!((incident.severity, incident.count, incident.events), (Severity::Critical, 6, 6));

    let paths: Vec<_> = incident.steps.iter().map(|step| step.path.as_deref().unwrap()).collect();
    assert_eq!(paths, ["/tmp/kit", "/usr/bin/kit", "/etc/cron.d/kit", "/", "/", "/usr/local/bin"]);
    let (first, last) = (&incident.steps[0], &incident.steps[5]);
    assert!(first.severity < last.severity, "it gets worse");
    assert_eq!((last.effect, last.outcome.as_deref()), (Some(Effect::Shadow), Some("succeeded")));

    let story: Vec<_> = incident.story.iter().map(|phase| (phase.what, phase.count)).collect();
    let expected = [(What::WritesRefused, 3), (What::UnsealFailed, 1), (What::OtherMounts, 1), (What::Shadowed, 1)];
    assert_eq!(story, expected);
    assert_eq!(
        incident.attack.iter().map(|technique| &**technique).collect::<Vec<_>>(),
        ["T1053.003", "T1105", "T1562"]
    );

    let place = incident.places.first().unwrap();
    assert_eq!((place.pod.as_deref(), place.image.as_deref()), (Some("web"), Some("localhost/rosentry-lab:1")));
    assert!(place.image_digest.as_deref().unwrap().starts_with("sha256:"));

    let processes: Vec<_> = incident
        .processes
        .iter()
        .map(|it| {
            format!("{}{}", " ".repeat(it.depth), it.comms.iter().map(|comm| &**comm).collect::<Vec<_>>().join(">"))
        })
        .collect();
    let expected = ["init", " containerd-shim", "  sh>unshare>sh", "   wget", "   cp", "   mount", "   mount"];
    assert_eq!(processes, expected);
}

#[test]
fn a_broken_seal_and_writes_behind_it_belong_to_the_story() {
    // The recorded remount, as if it had worked.
    let breach = |kind: &str| line(5, 3).with("\"kind\":\"mount_attempt\"", &format!("\"kind\":\"{kind}\""));
    let remount = line(5, 2).with("\"outcome\":\"failed\"", "\"outcome\":\"succeeded\"");
    let written = line(3, 4).with("\"kind\":\"write_denied\"", "\"kind\":\"write_observed\"");
    let text = chained(&[line(3, 1), remount, breach("seal_broken"), written, breach("seal_mended")]);
    let timeline = read(&[text]);
    let story: Vec<_> = timeline.incidents[0].story.iter().map(|phase| phase.what).collect();
    assert_eq!(timeline.incidents.len(), 1);
    assert_eq!(&story[..2], [What::WritesRefused, What::Unsealed]);
    assert!(story.contains(&What::SealBroken) && story.contains(&What::Written) && story.contains(&What::SealMended));
}

#[test]
fn what_lies_more_than_five_minutes_apart_is_two_incidents_and_what_another_workload_does_is_its_own() {
    let other = line(2, 11).with("\"workload\":\"web\"", "\"workload\":\"db\"");
    let timeline = read(&[chained(&[line(2, 10), other, line(2, 310), line(2, 611)])]);
    let told: Vec<_> = timeline.incidents.iter().map(|incident| (&*incident.owner.name, incident.count)).collect();
    assert_eq!(told, [("web", 2), ("db", 1), ("web", 1)]);
}

#[test]
fn writes_that_learning_mode_sees_are_no_incident_by_themselves() {
    let timeline = read(&[chained(&[line(3, 1).with("\"kind\":\"write_denied\"", "\"kind\":\"write_observed\"")])]);
    assert_eq!((timeline.incidents.len(), timeline.observed), (0, 1));
}

#[test]
fn streams_of_several_nodes_are_merged_by_time_and_each_by_itself_is_put_in_order() {
    let on = |node: &str, seconds: &[u32]| {
        let lines = seconds.iter().map(|second| {
            line(2, *second)
                .with("\"node\":\"n1\"", &format!("\"node\":\"{node}\""))
                .with("/tmp/kit", &format!("/tmp/{second}"))
        });
        chained(&lines.collect::<Vec<_>>())
    };
    // Of n1 one comes late, as an attempt does that was held back for its container.
    let timeline = read(&[on("n1", &[1, 7, 4, 9, 40]), on("n2", &[2, 3, 8, 41])]);
    let incident = &timeline.incidents[0];
    let told: Vec<_> = incident.steps.iter().map(|step| (step.path.as_deref().unwrap(), &*step.node)).collect();
    let expected = [
        ("1", "n1"),
        ("2", "n2"),
        ("3", "n2"),
        ("4", "n1"),
        ("7", "n1"),
        ("8", "n2"),
        ("9", "n1"),
        ("40", "n1"),
        ("41", "n2"),
    ];
    assert_eq!(
        told,
        expected
            .map(|(second, node)| (format!("/tmp/{second}"), node))
            .iter()
            .map(|(path, node)| (path.as_str(), *node))
            .collect::<Vec<_>>()
    );
    assert_eq!(
        timeline.nodes.iter().map(|node| (&*node.name, node.events)).collect::<Vec<_>>(),
        [("n1", 5), ("n2", 4)]
    );
    assert!(timeline.gaps.is_empty(), "{:?}", timeline.gaps);
}

#[test]
fn repeats_of_one_attempt_are_one_step_with_a_count() {
    let timeline = read(&[chained(&[line(2, 1), line(2, 2).with("\"count\":1", "\"count\":5"), line(2, 3)])]);
    let incident = &timeline.incidents[0];
    assert_eq!((incident.steps.len(), incident.steps[0].count, incident.steps[0].events), (1, 7, 3));
    assert_eq!(incident.steps[0].last_time.to_string(), "2026-01-02T00:00:03.000000000Z");
}

#[test]
fn of_a_storm_the_first_the_last_and_the_worst_are_kept_and_the_rest_is_counted() {
    let mut storm: Vec<_> =
        (0..2000).map(|number| line(2, number / 20).with("/tmp/kit", &format!("/tmp/{number}"))).collect();
    storm[1000] = line(5, 50);
    let timeline = read(&[chained(&storm)]);
    let incident = &timeline.incidents[0];
    assert_eq!((incident.events, incident.steps.len()), (2000, Limits::default().steps));
    assert_eq!(incident.events_left_out, 2000 - Limits::default().steps as u64);
    let paths: Vec<_> = incident.steps.iter().map(|step| step.path.as_deref().unwrap()).collect();
    assert!(paths.starts_with(&["/tmp/0", "/tmp/1"]) && paths.ends_with(&["/tmp/1998", "/tmp/1999"]), "{paths:?}");
    assert!(paths.contains(&"/"), "the remount is kept");
}

#[test]
fn where_there_is_no_room_the_least_severe_incidents_are_left_out_and_steps_fold_to_the_bytes_there_are() {
    let of =
        |name: usize, recorded| line(recorded, 1).with("\"workload\":\"web\"", &format!("\"workload\":\"w{name}\""));
    let many: Vec<_> = (0..100).map(|name| of(name, if name == 57 { 5 } else { 2 })).collect();
    let files = Files::of(&[chained(&many)]);
    let few = Limits { incidents: 8, ..Limits::default() };
    let timeline = Timeline::read(&files.inputs, &Filter::default(), few).unwrap();
    assert_eq!((timeline.incidents.len(), &*timeline.incidents[0].owner.name), (8, "w57"));
    assert_eq!((timeline.incidents_left_out.incidents, timeline.incidents_left_out.events), (92, 92));

    let long: Vec<_> =
        (0..500).map(|number| line(2, 1).with("/tmp/kit", &format!("/tmp/{number}{}", "x".repeat(2000)))).collect();
    let files = Files::of(&[chained(&long)]);
    let small = Limits { bytes: 100_000, ..Limits::default() };
    let timeline = Timeline::read(&files.inputs, &Filter::default(), small).unwrap();
    let kept: usize = timeline.incidents.iter().map(Incident::weight).sum();
    assert!(kept <= 100_000 && timeline.incidents[0].steps.len() >= 8, "{kept}");
}

#[test]
fn an_incident_is_not_cut_in_two_because_many_go_on_at_a_time() {
    let of = |name: u32, second| line(2, second).with("\"workload\":\"web\"", &format!("\"workload\":\"w{name}\""));
    let lines: Vec<_> = (0..3).flat_map(|round| (0..20).map(move |name| of(name, round * 60))).collect();
    let files = Files::of(&[chained(&lines)]);
    let few = Limits { incidents: 8, ..Limits::default() };
    let timeline = Timeline::read(&files.inputs, &Filter::default(), few).unwrap();
    assert!(timeline.incidents.iter().all(|incident| incident.events == 3));
    assert_eq!((timeline.incidents.len(), timeline.incidents_left_out.incidents), (8, 12));
}

#[test]
fn filters_leave_events_out_and_not_the_gaps_of_their_node() {
    let lines = [line(0, 1), line(2, 2), line(5, 3), line(0, 60), line(2, 61)];
    let files = Files::of(&[chained(&lines)]);
    let pod = |name: &str| Filter { pods: vec![PodName::parse(name).unwrap()], ..Filter::default() };
    let timeline = files.timeline(&pod("prod/web"));
    assert_eq!((timeline.events, timeline.gaps.len(), timeline.gaps[0].why), (3, 1, Why::NotWatching));
    assert_eq!(files.timeline(&pod("prod/db")).events, 0);
    let severe = Filter { min_severity: Severity::High, ..Filter::default() };
    assert_eq!(files.timeline(&severe).events, 1);
    let late = Filter {
        since: Some(moment("2026-01-02T00:01:01Z", jiff::Timestamp::UNIX_EPOCH).unwrap()),
        ..Filter::default()
    };
    let timeline = files.timeline(&late);
    assert_eq!((timeline.events, timeline.gaps.len()), (1, 0));
}

#[test]
fn lines_that_are_missing_or_changed_and_times_without_an_agent_are_gaps() {
    let text = chained(&[line(0, 1), line(2, 2), line(3, 3), line(4, 4), line(5, 5), line(0, 60)]);
    let gaps = |text: &str| {
        read(&[text.to_owned()]).gaps.into_iter().map(|gap| (gap.why, gap.line, gap.count)).collect::<Vec<_>>()
    };
    assert_eq!(gaps(&text), [(Why::NotWatching, 6, None)]);
    let lines: Vec<_> = text.lines().collect();
    let without = [lines[0], lines[1], lines[4]].join("\n");
    assert_eq!(gaps(&without), [(Why::LinesMissing, 3, Some(2))]);
    let changed = lines[..4].join("\n").replace("\"path\":\"/usr/bin/kit\"", "\"path\":\"/usr/bin/kat\"");
    assert_eq!(gaps(&changed), [(Why::Changed, 3, Some(1))]);
    let without_beginning = lines[2..4].join("\n");
    assert_eq!(gaps(&without_beginning), [(Why::LinesMissing, 1, Some(2))]);
}

#[test]
fn rotated_files_are_tied_to_each_other_in_whatever_order_they_are_given() {
    let text = chained(&[line(0, 1), line(2, 2), line(3, 3), line(4, 4), line(5, 5), line(6, 6)]);
    let lines: Vec<_> = text.lines().collect();
    let parts = [lines[4..].join("\n"), lines[..2].join("\n"), lines[2..4].join("\n")];
    assert!(read(&parts).gaps.is_empty());
    let gaps = read(&parts[..2]).gaps;
    assert_eq!((gaps.len(), gaps[0].why, gaps[0].count), (1, Why::LinesMissing, Some(2)));
}

#[test]
fn what_the_agent_says_it_lost_or_could_not_see_is_a_gap() {
    let lost = line(1, 2).with("\"what\":\"coverage\"", "\"what\":\"lost\",\"events\":{\"ring\":7}");
    let blind = line(1, 3).with("\"what\":\"coverage\"", "\"what\":\"gap\",\"surface\":\"seal\",\"reason\":\"mounts\"");
    let gaps = read(&[chained(&[line(0, 1), lost, blind])]).gaps;
    assert_eq!((gaps[0].why, gaps[0].count), (Why::Lost, Some(7)));
    assert_eq!((gaps[1].why, gaps[1].detail.as_deref()), (Why::Blind, Some("seal: mounts")));
}

#[test]
fn no_number_and_no_time_is_too_odd_to_be_told() {
    let odd = |from: &'static str, to: &str| chained(&[line(2, 1).with(from, to), line(3, 2)]);
    let times = ["-009999-01-02T01:59:59Z", "9999-12-30T22:00:00.999999999Z"];
    for time in times {
        assert_eq!(read(&[odd("2026-01-02T00:00:01.000000000Z", time)]).events, 2, "{time}");
    }
    for seq in ["\"seq\":0", "\"seq\":18446744073709551615"] {
        let text = odd("\"seq\":1,", &format!("{seq},")).replace(",\"previous\":null", "");
        assert_eq!(read(&[text.clone(), text]).events, 4, "{seq}");
    }
    assert_eq!(read(&[odd("\"count\":1", "\"count\":18446744073709551615")]).count, u64::MAX);
}

#[test]
fn what_is_no_event_is_counted_with_its_place() {
    let timeline = read(&[format!("noise\n{BREAK_IN}{}", "{}\n".repeat(20))]);
    assert_eq!((timeline.events, timeline.lines_left_out, timeline.no_events.len()), (8, 21, 10));
    assert_eq!((timeline.no_events[0].1, timeline.no_events[1].1), (1, 10));
}

#[test]
fn a_page_has_no_more_steps_than_a_browser_can_draw() {
    let of = |name: u32, number: u32| {
        line(2, name)
            .with("\"workload\":\"web\"", &format!("\"workload\":\"w{name}\""))
            .with("/tmp/kit", &format!("/tmp/{number}"))
    };
    let mut timeline =
        read(&[chained(&(0..40).flat_map(|name| (0..30).map(move |number| of(name, number))).collect::<Vec<_>>())]);
    timeline.keep_steps(400);
    let steps: usize = timeline.incidents.iter().map(|incident| incident.steps.len()).sum();
    assert!((200..=400).contains(&steps), "{steps}");
    let left_out: u64 = timeline.incidents.iter().map(|incident| incident.events_left_out).sum();
    assert_eq!(left_out + steps as u64, 1200);
}
