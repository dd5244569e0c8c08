//! What a record of learning mode says of each container: whether it wrote to its root, or was watched from its start and did
//! not. Memory is bounded, whatever the events say.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    event::{AgentNote, Event, Time},
    lines::{Input, Line},
    verify::ReadError,
};
use crate::finding::event::Kind;

/// Containers of which writes are kept; of others nothing is said.
const CONTAINERS_MAX: usize = 16_384;
/// Folders of a container that are named.
const FOLDERS_MAX: usize = 64;
/// Notes of the agent that are kept of a node; beyond them nothing is said of it.
const NOTES_MAX: usize = 65_536;

/// What a record says, of one node.
#[derive(Debug, Default)]
pub struct Learned {
    /// What the agent said of itself, in order of time.
    notes: BTreeSet<(Time, Note)>,
    /// The last line.
    last: Option<Time>,
    by_container: BTreeMap<String, Writes>,
    /// Whether something had no room.
    beyond: bool,
    /// Numbers with which an input begins, and those before which one has a gap; and the latest time in the input by then.
    begins: Vec<(u64, Time)>,
    gaps: Vec<(u64, Time)>,
    /// Numbers with which inputs end, after which another may go on; and the latest time in them.
    ends: BTreeMap<u64, Time>,
    /// Lines that are no events.
    pub no_events: u64,
}

/// How far an input is read.
#[derive(Clone, Copy)]
struct Place {
    /// The number of the last event.
    number: u64,
    /// The latest time.
    latest: Time,
}

/// What matters of what the agent says of itself.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Note {
    Start {
        observes: bool,
    },
    Stop,
    Lost,
    /// Numbers are missing before this.
    Gap,
}

/// Writes to a root that succeeded.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Writes {
    /// How many.
    pub count: u64,
    /// By the folder, as events tell it.
    pub folders: BTreeMap<String, u64>,
    /// Those in folders that had no room, or that are not known.
    pub elsewhere: u64,
}

/// What a record says of one container's writes to its root.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict<'a> {
    /// It wrote.
    Wrote(&'a Writes),
    /// It was watched from its start until then, and did not write.
    Silent {
        /// The last line of the record.
        until: Time,
    },
    /// The record does not tell, for this reason.
    Unknown(&'static str),
}

/// Reads the record of the node with this name.
///
/// # Errors
/// Where an input can't be read.
pub fn read(inputs: &[Input], node: &str) -> Result<Learned, ReadError> {
    let mut learned = Learned::default();
    for input in inputs {
        let failed = |source| ReadError { input: input.name(), source };
        let mut lines = input.open().map_err(failed)?;
        let mut place = None;
        while let Some(line) = lines.read().map_err(failed)? {
            match line {
                Line::Whole(line) | Line::Cut(line) => match Event::parse(line) {
                    Some(event) if &*event.node == node => learned.take(&event, &mut place),
                    Some(_) => {}
                    None => learned.no_events += 1,
                },
                Line::Long => {
                    learned.no_events += 1;
                    lines.pass_rest().map_err(failed)?;
                }
            }
        }
        if let Some(Place { number, latest }) = place {
            let end = learned.ends.entry(number).or_insert(latest);
            *end = latest.max(*end);
        }
    }
    learned.join();
    Ok(learned)
}

impl Learned {
    /// Takes an event of the node; `place` is where its input was before.
    fn take(&mut self, event: &Event<'_>, place: &mut Option<Place>) {
        // An event can be held back and come behind later ones: by itself it does not tell when it was written.
        let latest = place.map_or(event.time, |before| before.latest.max(event.time));
        match place.replace(Place { number: event.seq, latest }) {
            _ if event.seq <= 1 => {}
            None => self.begins.push((event.seq, latest)),
            Some(before) if before.number.saturating_add(1) == event.seq => {}
            Some(_) if self.gaps.len() < NOTES_MAX => self.gaps.push((event.seq, latest)),
            Some(_) => self.beyond = true,
        }
        self.last = self.last.max(Some(event.time));
        match (event.kind(), &event.agent, &event.container) {
            (Some(Kind::Agent), Some(note), _) => self.note(event.time, note),
            (Some(Kind::WriteObserved), _, Some(container)) => {
                if self.by_container.len() >= CONTAINERS_MAX && !self.by_container.contains_key(&*container.id) {
                    self.beyond = true;
                    return;
                }
                self.by_container.entry((*container.id).to_owned()).or_default().take(event);
            }
            _ => {}
        }
    }

    fn note(&mut self, time: Time, note: &AgentNote<'_>) {
        let note = match &*note.what {
            "start" => Note::Start { observes: note.flag("observe_writes") == Some(true) },
            "stop" => Note::Stop,
            "lost" | "gap" => Note::Lost,
            _ => return,
        };
        self.keep(time, note);
    }

    /// Sees to inputs that go on where no other ends, and to when lines may be missing at the latest.
    fn join(&mut self) {
        let mut ends = std::mem::take(&mut self.ends);
        // Of an input and those before it.
        let mut latest = None;
        for time in ends.values_mut() {
            *time = latest.map_or(*time, |before: Time| before.max(*time));
            latest = Some(*time);
        }
        let begins = std::mem::take(&mut self.begins).into_iter();
        let unjoined = begins.filter(|(number, _)| !ends.contains_key(&(number - 1)));
        for (number, time) in std::mem::take(&mut self.gaps).into_iter().chain(unjoined) {
            let before = ends.range(..number).next_back().map(|(_, latest)| *latest);
            self.keep(before.map_or(time, |before| before.max(time)), Note::Gap);
        }
    }

    fn keep(&mut self, time: Time, note: Note) {
        if self.notes.len() < NOTES_MAX {
            self.notes.insert((time, note));
        } else {
            self.beyond = true;
        }
    }

    /// What it says of the container with this id, which began then.
    pub fn verdict(&self, container_id: &str, started_at: Option<Time>) -> Verdict<'_> {
        if let Some(writes) = self.by_container.get(container_id) {
            return Verdict::Wrote(writes);
        }
        let Some(until) = self.last else { return Verdict::Unknown("the record has no event of this node") };
        let Some(started_at) = started_at else { return Verdict::Unknown("it is not known when it began") };
        if self.beyond {
            return Verdict::Unknown("the record has more containers or agents' notes than are kept");
        }
        if until < started_at {
            return Verdict::Unknown("the record ends before it began");
        }
        let before = self
            .notes
            .iter()
            .rev()
            .find(|(time, note)| *time <= started_at && matches!(note, Note::Start { .. } | Note::Stop));
        match before {
            None => return Verdict::Unknown("it began before the record does: restart it"),
            Some((_, Note::Start { observes: true })) => {}
            Some((_, Note::Start { observes: false })) => {
                return Verdict::Unknown("learning mode was off when it began");
            }
            Some(_) => return Verdict::Unknown("no agent ran when it began"),
        }
        let mut since = self.notes.iter().filter(|(time, _)| *time > started_at).map(|(_, note)| *note).peekable();
        while let Some(note) = since.next() {
            match note {
                Note::Lost => return Verdict::Unknown("events were lost since it began"),
                Note::Gap => return Verdict::Unknown("lines of the record are missing since it began"),
                Note::Start { .. } => {
                    return Verdict::Unknown("the agent began anew since it began: what came between is not told");
                }
                Note::Stop if since.peek().is_some() => {
                    return Verdict::Unknown("the agent was away since it began: what came between is not told");
                }
                Note::Stop => {}
            }
        }
        Verdict::Silent { until }
    }
}

impl Writes {
    fn take(&mut self, event: &Event<'_>) {
        self.count = self.count.saturating_add(event.count);
        let path = event.path().map(|path| &**path).filter(|path| path.starts_with('/'));
        let folder = path.and_then(|path| Some(&path[..path.rfind('/')?]));
        let count = match folder.map(|folder| if folder.is_empty() { "/" } else { folder }) {
            Some(folder) if self.folders.len() < FOLDERS_MAX || self.folders.contains_key(folder) => {
                self.folders.entry(folder.to_owned()).or_default()
            }
            _ => &mut self.elsewhere,
        };
        *count = count.saturating_add(event.count);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use serde_json::{Value, json};

    use super::*;

    fn at(second: u32) -> Time {
        Time(format!("2026-11-22T16:00:{second:02}Z").parse().unwrap())
    }

    fn line(second: u32, kind: &str, rest: Value) -> Value {
        let mut event = json!({"schema": "rosentry/v1", "seq": 1, "time": at(second).to_string(), "node": "n1", "kind": kind,
            "count": 1, "severity": "info"});
        event.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        event
    }

    fn start(second: u32, observes: bool) -> Value {
        line(second, "agent", json!({"agent": {"what": "start", "observe_writes": observes}}))
    }

    fn note(second: u32, what: &str) -> Value {
        line(second, "agent", json!({"agent": {"what": what}}))
    }

    fn wrote(second: u32, id: &str, path: &str, count: u64) -> Value {
        let rest = json!({"container": {"id": id}, "file": {"path": path}, "count": count});
        line(second, "write_observed", rest)
    }

    fn learned(lines: &[Value]) -> Learned {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        lines.iter().for_each(|line| writeln!(file, "{line}").unwrap());
        writeln!(file, "no event").unwrap();
        read(&[Input::File(file.path().to_owned())], "n1").unwrap()
    }

    /// The verdict of a container that began in the tenth second.
    fn verdict(lines: &[Value]) -> Verdict<'static> {
        match learned(lines).verdict("a", Some(at(10))) {
            Verdict::Wrote(_) => panic!("it wrote"),
            Verdict::Silent { until } => Verdict::Silent { until },
            Verdict::Unknown(why) => Verdict::Unknown(why),
        }
    }

    #[test]
    fn a_container_that_was_watched_from_its_start_and_wrote_nothing_is_silent_until_the_record_ends() {
        let lines = [start(5, true), wrote(20, "b", "/tmp/x", 1)];
        assert_eq!(verdict(&lines), Verdict::Silent { until: at(20) });
        let stopped = [start(5, true), note(30, "stop")];
        assert_eq!(verdict(&stopped), Verdict::Silent { until: at(30) });
    }

    #[test]
    fn one_that_wrote_is_told_with_its_folders_and_the_sum() {
        let learned = learned(&[
            start(50, false),
            wrote(20, "a", "/tmp/x", 2),
            wrote(21, "a", "/x", 1),
            wrote(22, "a", "/tmp/y", 3),
        ]);
        let Verdict::Wrote(writes) = learned.verdict("a", None) else { panic!("it wrote") };
        assert_eq!(writes.count, 6);
        let folders: Vec<_> = writes.folders.iter().map(|(folder, count)| (folder.as_str(), *count)).collect();
        assert_eq!(folders, [("/", 1), ("/tmp", 5)]);
        assert_eq!(learned.no_events, 1);
    }

    #[test]
    fn silence_that_nobody_listened_to_says_nothing() {
        for (lines, why) in [
            (vec![], "no event of this node"),
            (vec![start(15, true), note(20, "coverage")], "before the record"),
            (vec![start(5, false), note(20, "coverage")], "off when it began"),
            (vec![start(5, true), note(6, "stop"), note(20, "coverage")], "no agent ran"),
            (vec![start(5, true), start(15, true)], "began anew"),
            (vec![start(5, true), note(14, "stop"), start(15, true)], "was away"),
            (vec![start(5, true), note(12, "lost"), note(20, "coverage")], "lost"),
            (vec![start(5, true)], "ends before"),
            (
                vec![
                    json!({"schema": "rosentry/v1", "seq": 1, "time": at(20).to_string(), "node": "n2", "kind": "agent", "count": 1,
                "severity": "info", "agent": {"what": "start", "observe_writes": true}}),
                ],
                "no event of this node",
            ),
        ] {
            let verdict = verdict(&lines);
            assert!(matches!(verdict, Verdict::Unknown(told) if told.contains(why)), "{lines:?}: {verdict:?}");
        }
        let learned = learned(&[start(5, true), note(20, "coverage")]);
        assert!(matches!(learned.verdict("a", None), Verdict::Unknown(_)), "its start is not known");
    }

    fn numbered(mut event: Value, number: u64) -> Value {
        event["seq"] = number.into();
        event
    }

    #[test]
    fn a_record_with_lines_missing_says_nothing_of_those_who_ran_then() {
        let lines = |numbers: [u64; 3]| {
            let [first, second, third] = numbers;
            [
                numbered(start(5, true), first),
                numbered(note(12, "coverage"), second),
                numbered(note(20, "coverage"), third),
            ]
        };
        assert_eq!(verdict(&lines([1, 2, 3])), Verdict::Silent { until: at(20) });
        let gap = verdict(&lines([1, 2, 4]));
        assert!(matches!(gap, Verdict::Unknown(why) if why.contains("missing")), "{gap:?}");
    }

    #[test]
    fn an_event_that_was_held_back_does_not_put_a_gap_before_the_beginning_of_those_who_ran_then() {
        // What is missing was written behind the line of second 20.
        let lines = [
            numbered(start(5, true), 1),
            numbered(note(20, "coverage"), 2),
            numbered(wrote(8, "b", "/x", 1), 4),
            numbered(note(30, "coverage"), 5),
        ];
        let told = verdict(&lines);
        assert!(matches!(told, Verdict::Unknown(why) if why.contains("missing")), "{told:?}");
        // Nor where it stands in the next file.
        for (first, second) in [(&lines[..2], &lines[2..]), (&lines[..1], &lines[1..])] {
            let file = |lines: &[Value]| {
                let mut file = tempfile::NamedTempFile::new().unwrap();
                lines.iter().for_each(|line| writeln!(file, "{line}").unwrap());
                file
            };
            let files = [file(second), file(first)];
            let inputs = files.each_ref().map(|file| Input::File(file.path().to_owned()));
            let told = format!("{:?}", read(&inputs, "n1").unwrap().verdict("a", Some(at(10))));
            assert!(told.contains("missing"), "{told}");
        }
    }

    #[test]
    fn files_of_one_stream_join_in_any_order_and_a_missing_one_is_seen() {
        let file = |event: Value| {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            writeln!(file, "{event}").unwrap();
            file
        };
        let files = [start(5, true), note(12, "coverage"), note(20, "coverage")];
        let files = (1..).zip(files).map(|(number, event)| file(numbered(event, number))).collect::<Vec<_>>();
        let input = |number: usize| Input::File(files[number].path().to_owned());
        let verdict = |inputs: &[Input]| format!("{:?}", read(inputs, "n1").unwrap().verdict("a", Some(at(10))));
        assert!(verdict(&[input(2), input(0), input(1)]).starts_with("Silent"));
        assert!(verdict(&[input(0), input(2)]).contains("missing"));
    }

    #[test]
    fn what_was_lost_before_it_began_does_not_matter() {
        assert_eq!(
            verdict(&[start(5, true), note(7, "lost"), note(20, "coverage")]),
            Verdict::Silent { until: at(20) }
        );
    }

    #[test]
    fn a_container_that_writes_everywhere_takes_a_bounded_amount_of_memory() {
        let lines: Vec<_> = (0..1000).map(|number| wrote(20, "a", &format!("/{number}/x"), 1)).collect();
        let learned = learned(&lines);
        let Verdict::Wrote(writes) = learned.verdict("a", None) else { panic!("it wrote") };
        assert_eq!(
            (writes.count, writes.folders.len(), writes.elsewhere),
            (1000, FOLDERS_MAX, 1000 - FOLDERS_MAX as u64)
        );
    }
}
