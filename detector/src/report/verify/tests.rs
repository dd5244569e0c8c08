//! Tests of [`super`]: records as the agent writes them, and what may be done to them.

use std::{
    fs,
    io::Write,
    path::PathBuf,
    sync::atomic::{AtomicI64, Ordering},
};

use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::{
    export::{
        native::Body,
        stream::Stream,
        testing::{start, touch},
    },
    finding::{
        Event,
        event::{AgentNote, AgentValue, AgentWhat, Severity},
    },
};

/// Lines of a record, by file. Each line has its end.
type Files = Vec<Vec<Vec<u8>>>;

static STARTS: AtomicI64 = AtomicI64::new(1);

fn stop() -> Event {
    Event::agent(AgentNote { what: AgentWhat::Stop, details: Vec::new() }, 0, Severity::Info)
}

fn lost(count: u64) -> Event {
    let details = vec![("events", AgentValue::Counts(vec![("sink".to_owned(), count)]))];
    Event::agent(AgentNote { what: AgentWhat::Lost, details }, 0, Severity::Medium)
}

/// Runs of so many events each, start and stop besides, rotated after so many lines.
fn record(runs: &[usize], lines_in_file: usize) -> Files {
    Writer::with("n1", runs).files(lines_in_file)
}

/// Writes a stream.
struct Writer {
    node: &'static str,
    stream: Stream,
    events: Vec<(Event, bool)>,
}

impl Writer {
    fn new(node: &'static str) -> Self {
        Self { node, stream: Stream::after(None), events: Vec::new() }
    }

    fn run(&mut self, events: usize, is_stopped: bool) {
        // No two starts are at the same time.
        let time = i128::from(STARTS.fetch_add(1, Ordering::Relaxed));
        self.events.push((Event { first_time_unix_ns: time, last_time_unix_ns: time, ..start() }, true));
        self.events.extend((0..events).map(|_| (touch(), false)));
        if is_stopped {
            self.events.push((stop(), false));
        }
    }

    fn with(node: &'static str, runs: &[usize]) -> Self {
        let mut writer = Self::new(node);
        for &events in runs {
            writer.run(events, true);
        }
        writer
    }

    fn files(&mut self, lines_in_file: usize) -> Files {
        let mut files = Files::new();
        for part in self.events.chunks(lines_in_file) {
            let mut file = Vec::new();
            for (place, (event, begins)) in part.iter().enumerate() {
                if *begins || place == 0 {
                    self.stream.tell_previous();
                }
                let mut line = Vec::new();
                self.stream.append(&Body::of(event, self.node).unwrap(), &mut line);
                file.push(line);
            }
            files.push(file);
        }
        files
    }
}

/// A folder with the files, and their names, the first file last, as a shell names rotated files.
fn written(files: &Files) -> (TempDir, Vec<Input>) {
    let folder = tempfile::tempdir().unwrap();
    let mut inputs = Vec::new();
    for (number, file) in files.iter().enumerate().rev() {
        let path = folder.path().join(format!("{number}"));
        fs::write(&path, file.concat()).unwrap();
        inputs.push(Input::File(path));
    }
    (folder, inputs)
}

fn verdict_of(files: &Files, demand: Demand) -> Verdict {
    let (_folder, inputs) = written(files);
    verify(&inputs, demand).unwrap()
}

fn whole(files: &Files) -> Whole {
    match verdict_of(files, Demand::Usual) {
        Verdict::Whole(whole) => whole,
        other => panic!("{other:?}"),
    }
}

/// Number of the file and of its line, from 0.
fn bad(files: &Files) -> Option<(usize, usize, Problem)> {
    match verdict_of(files, Demand::Usual) {
        Verdict::Bad(Bad { input, line, problem }) => {
            let file = input.rsplit('/').next().unwrap().parse().unwrap();
            Some((file, usize::try_from(line).unwrap() - 1, problem))
        }
        Verdict::Lacking(_) => panic!("the record is empty"),
        Verdict::Whole(_) => None,
    }
}

#[test]
fn a_record_over_runs_and_files_is_whole_in_whatever_order_the_files_are_given() {
    let files = record(&[20, 0, 7], 4);
    let (_folder, mut inputs) = written(&files);
    for _ in 0..inputs.len() {
        inputs.rotate_left(3);
        inputs.swap(0, 2);
        let expected = Whole { lines: 33, files: 9, streams: 1, runs: 3, ..Whole::default() };
        assert_eq!(verify(&inputs, Demand::All).unwrap(), Verdict::Whole(expected));
    }
}

#[test]
fn a_removed_line_is_named_by_the_one_behind_it_and_counted() {
    let mut files = record(&[20], 8);
    files[1].drain(2..5);
    assert_eq!(bad(&files), Some((1, 2, Problem::Missing { before: 10, found: 14 })));
    let sentence = Problem::Missing { before: 10, found: 14 }.to_string();
    assert!(sentence.ends_with("3 lines are missing between them"), "{sentence}");
}

#[test]
fn a_removed_file_is_noticed_in_the_middle_and_noted_at_the_beginning() {
    let mut files = record(&[20], 8);
    files.remove(1);
    assert_eq!(bad(&files), Some((1, 0, Problem::Missing { before: 8, found: 17 })));
    files.remove(0);
    assert_eq!(whole(&files).before.iter().map(|(_, seq)| *seq).collect::<Vec<_>>(), [16]);
    assert!(matches!(verdict_of(&files, Demand::All), Verdict::Lacking(_)));
}

#[test]
fn a_removed_beginning_is_noticed_unless_a_part_is_asked_for() {
    let mut files = record(&[20], 8);
    files[0].remove(0);
    assert_eq!(bad(&files), Some((0, 0, Problem::NoBeginning { seq: 2 })));
    assert!(matches!(verdict_of(&files, Demand::Part), Verdict::Whole(Whole { parts: 1, .. })));
}

#[test]
fn the_end_is_proven_by_a_stop_record_alone() {
    let mut files = record(&[5], 100);
    assert_eq!(whole(&files).open, 0);
    files[0].truncate(4);
    assert_eq!(whole(&files).open, 1);
    assert!(matches!(verdict_of(&files, Demand::All), Verdict::Lacking(what) if what.contains("stop record")));
}

#[test]
fn a_killed_run_is_tied_on_to_and_what_it_lacks_is_noticed() {
    let mut writer = Writer::new("n1");
    writer.run(5, false);
    writer.run(2, true);
    let files = writer.files(100);
    assert_eq!((whole(&files).killed, whole(&files).open), (1, 0));
    let mut shortened = files.clone();
    shortened[0].remove(5);
    assert_eq!(bad(&shortened), Some((0, 5, Problem::Missing { before: 5, found: 7 })));
}

#[test]
fn streams_that_nothing_ties_are_told_and_those_of_two_nodes_kept_apart() {
    let mut files = record(&[3], 100);
    files[0].extend(Writer::with("n1", &[4]).files(100).concat());
    files.extend(Writer::with("n2", &[9]).files(4));
    let whole = whole(&files);
    assert_eq!((whole.streams, whole.runs, whole.killed, whole.open), (3, 3, 0, 0));
    assert!(whole.to_string().contains("nothing ties 3 streams"), "{whole}");
}

#[test]
fn what_the_record_says_of_its_own_losses_is_summed_up() {
    let mut writer = Writer::new("n1");
    writer.run(0, false);
    writer.events.extend([(lost(3), false), (lost(u64::MAX), false)]);
    assert_eq!(whole(&writer.files(10)).lost, u64::MAX);
}

#[test]
fn a_file_that_is_given_or_copied_twice_is_named() {
    let files = record(&[3], 100);
    let (_folder, inputs) = written(&files);
    let twice = [inputs.clone(), inputs].concat();
    assert!(matches!(
        verify(&twice, Demand::Usual).unwrap(),
        Verdict::Bad(Bad { line: 1, problem: Problem::Twice { line: 1, .. }, .. })
    ));
    let copied = vec![[files[0].clone(), files[0].clone()].concat()];
    assert!(matches!(bad(&copied), Some((0, 5, Problem::Twice { line: 1, .. }))));
}

#[test]
fn the_start_of_a_later_run_that_was_put_in_at_the_beginning_is_found() {
    let mut files = record(&[0, 3], 100);
    let later = files[0][2].clone();
    files[0].insert(0, later);
    assert!(matches!(bad(&files), Some((0, 3, Problem::Twice { line: 1, .. }))));
    // Also where it begins a file that is looked at after the one that it was taken from.
    let mut files = record(&[1, 3, 3], 4);
    let mut lines = files.concat();
    lines.insert(0, lines[8].clone());
    files = in_files(lines, &files);
    assert!(matches!(bad(&files), Some((0, 0, Problem::Twice { .. }))));
}

#[test]
fn what_is_no_record_is_named_and_no_failure() {
    for (bytes, expected) in [
        (&b"\n"[..], Problem::NoEvent),
        (b"root:x:0:0::/root:/bin/sh\n", Problem::NoEvent),
        (b"\0\0\0\0\n", Problem::NoEvent),
        (b"\xff\xfe{\"seq\":1}\n", Problem::NoEvent),
        (&[b'['; 100_000], Problem::Cut),
        (&[&[b'['; 100_000][..], b"\n"].concat(), Problem::NoEvent),
        (&[0; 5 << 20], Problem::Long),
    ] {
        assert_eq!(bad(&vec![vec![bytes.to_vec()]]), Some((0, 0, expected)));
    }
}

#[test]
fn an_emptied_record_is_not_whole_and_a_missing_one_is_an_error() {
    let (_folder, inputs) = written(&vec![vec![], vec![]]);
    assert!(matches!(verify(&inputs, Demand::Usual).unwrap(), Verdict::Lacking(_)));
    for path in [PathBuf::from("/no/such/file"), std::env::temp_dir()] {
        let error = verify(&[Input::File(path.clone())], Demand::Usual).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{} can't be read: ", path.display())), "{error}");
    }
}

#[test]
fn compressed_files_and_plain_ones_make_one_record() {
    let files = record(&[20], 8);
    let (folder, mut inputs) = written(&files);
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&files[0].concat()).unwrap();
    let path = folder.path().join("0.gz");
    fs::write(&path, gzip.finish().unwrap()).unwrap();
    inputs.pop();
    inputs.push(Input::File(path));
    assert!(matches!(verify(&inputs, Demand::All).unwrap(), Verdict::Whole(Whole { lines: 22, .. })));
}

/// What somebody may do to a record.
#[derive(Clone, Debug)]
enum Edit {
    Change { at: usize, byte: usize, to: u8 },
    Remove { at: usize },
    Insert { at: usize, copy_of: usize },
    Put { at: usize, line: Vec<u8> },
    Swap { one: usize, other: usize },
    Cut { at: usize, byte: usize },
}

/// A file that begins so is read as a compressed one, and what can't be read is no bad line.
fn is_gzip(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x1f, 0x8b])
}

fn edit() -> impl Strategy<Value = Edit> {
    let any_line = || any::<usize>();
    let bytes = proptest::collection::vec(any::<u8>(), 0..40).prop_filter("it is gzip", |bytes| !is_gzip(bytes));
    prop_oneof![
        (any_line(), any::<usize>(), any::<u8>()).prop_map(|(at, byte, to)| Edit::Change { at, byte, to }),
        any_line().prop_map(|at| Edit::Remove { at }),
        (any_line(), any_line()).prop_map(|(at, copy_of)| Edit::Insert { at, copy_of }),
        (any_line(), bytes).prop_map(|(at, line)| Edit::Put { at, line }),
        (any_line(), any_line()).prop_map(|(one, other)| Edit::Swap { one, other }),
        (any_line(), any::<usize>()).prop_map(|(at, byte)| Edit::Cut { at, byte }),
    ]
}

/// Does it to the lines of the whole record; none where that changes nothing, or nothing but its end.
fn edited(lines: &[Vec<u8>], edit: &Edit) -> Option<Vec<Vec<u8>>> {
    let mut all = lines.to_vec();
    let count = lines.len();
    match edit {
        Edit::Change { at, byte, to } => {
            let line = &mut all[at % count];
            let byte = byte % line.len();
            line[byte] = *to;
        }
        // Taking away the last lines is what a chain can't show.
        Edit::Remove { at } if at % count == count - 1 => return None,
        Edit::Remove { at } => drop(all.remove(at % count)),
        Edit::Insert { at, copy_of } => all.insert(at % (count + 1), lines[copy_of % count].clone()),
        Edit::Put { at, line } => all.insert(at % (count + 1), [line.as_slice(), b"\n"].concat()),
        Edit::Swap { one, other } => all.swap(one % count, other % count),
        Edit::Cut { at, byte } => {
            let line = &mut all[at % count];
            line.truncate(1 + byte % (line.len() - 1));
        }
    }
    (all != lines).then_some(all)
}

/// The lines in files again, as many in each as before.
fn in_files(mut lines: Vec<Vec<u8>>, like: &Files) -> Files {
    let mut files = Files::new();
    for file in &like[..like.len() - 1] {
        let rest = lines.split_off(file.len().min(lines.len()));
        files.push(std::mem::replace(&mut lines, rest));
    }
    files.push(lines);
    files
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_is_done_to_a_record_is_found(
        runs in proptest::collection::vec(0_usize..5, 1..4),
        lines_in_file in 2_usize..9,
        edit in edit(),
    ) {
        let files = record(&runs, lines_in_file);
        prop_assert_eq!(bad(&files), None);
        let lines = files.concat();
        let Some(edited) = edited(&lines, &edit) else { return Ok(()) };
        let first_changed = lines.iter().zip(&edited).take_while(|(one, other)| one == other).count();
        let in_files = in_files(edited, &files);
        let (file, line, _) = match bad(&in_files) {
            Some(found) => found,
            None => return Err(TestCaseError::fail(format!("{edit:?} is not found"))),
        };
        // Named is the first line that is not as it was, or, of a line that fits by itself, the one behind it.
        let place = in_files[..file].iter().map(Vec::len).sum::<usize>() + line;
        let is_change = matches!(edit, Edit::Change { .. } | Edit::Cut { .. } | Edit::Put { .. });
        if is_change {
            prop_assert_eq!(place, first_changed);
        }
    }

    #[test]
    fn no_bytes_are_too_odd_to_be_judged(bytes in proptest::collection::vec(any::<u8>(), 1..2000), good in any::<bool>()) {
        prop_assume!(good || !is_gzip(&bytes));
        let mut file = if good { record(&[1], 9).concat() } else { Vec::new() };
        file.push(bytes);
        prop_assert!(bad(&vec![file]).is_some());
    }
}
