//! Tests of [`super`], with the recorder that writes to it.

use std::{collections::BTreeSet, fs, sync::atomic::AtomicU64};

use tempfile::TempDir;

use super::*;
use crate::{
    export::{
        metrics::tests::metrics,
        native::Body,
        sinks::{
            queue::{self, queue},
            recorder::Recorder,
        },
        stream::Stream,
        testing::touch,
    },
    report::{
        lines::Input,
        verify::{Demand, Verdict, Whole, verify},
    },
};

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("events.json")
    }

    fn config(&self) -> FileConfig {
        FileConfig { path: self.path(), max_bytes: None, max_age: None, keep: 99, fsync: Fsync::Never }
    }

    /// What `verify` says of all files.
    fn verdict(&self) -> Verdict {
        let inputs: Vec<_> = self.names().into_iter().map(|name| Input::File(self.0.path().join(name))).collect();
        verify(&inputs, Demand::Usual).unwrap()
    }

    fn whole(&self) -> Whole {
        match self.verdict() {
            Verdict::Whole(whole) => whole,
            other => panic!("{other:?}"),
        }
    }

    fn names(&self) -> BTreeSet<String> {
        let entries = fs::read_dir(self.0.path()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

/// One run of the sink: its thread, and the queue to it.
struct Run {
    queue: queue::Sender,
    thread: std::thread::JoinHandle<()>,
    reopen: Arc<AtomicBool>,
}

impl Run {
    fn of(config: &FileConfig) -> Self {
        let reopen = Arc::new(AtomicBool::new(false));
        let (store, end) = FileStore::open(config.clone(), Arc::clone(&reopen)).unwrap();
        let (sender, queue) = queue();
        let recorder = Recorder {
            format: crate::export::format::Format::Native,
            name: "file",
            target: "test".to_owned(),
            queue,
            store,
            stream: Stream::after(end),
            delivery: crate::export::sinks::recorder::Delivery::Last(None),
            metrics: Arc::new(metrics()),
        };
        Self { queue: sender, thread: std::thread::spawn(move || recorder.run().unwrap()), reopen }
    }

    fn write(&self, events: usize) {
        for _ in 0..events {
            while !self.queue.put(&body()) {
                self.queue.flush();
                std::thread::yield_now();
            }
        }
        self.queue.flush();
    }

    fn end(self) {
        drop(self.queue);
        self.thread.join().unwrap();
    }
}

fn body() -> Arc<Body> {
    // No two alike, as the clock sees to in an agent.
    static TIME: AtomicU64 = AtomicU64::new(0);
    let mut event = touch();
    event.last_time_unix_ns += i128::from(TIME.fetch_add(1, Ordering::Relaxed));
    Arc::new(Body::of(&event, "n1").unwrap())
}

#[test]
fn a_record_goes_on_over_runs_and_rotated_files() {
    let folder = Folder::new();
    let config = FileConfig { max_bytes: Some(20_000), ..folder.config() };
    for events in [100, 1, 50] {
        let run = Run::of(&config);
        run.write(events);
        run.end();
    }
    let whole = folder.whole();
    assert_eq!((whole.lines, whole.streams, whole.before.len()), (151, 1, 0));
    assert!(whole.files > 5, "{whole:?}");
    for name in folder.names() {
        assert!(fs::metadata(folder.0.path().join(&name)).unwrap().len() <= 20_000, "{name}");
    }
}

#[test]
fn no_more_files_are_kept_than_asked_for() {
    let folder = Folder::new();
    let run = Run::of(&FileConfig { max_bytes: Some(10_000), ..folder.config() });
    run.write(100);
    run.end();
    let run = Run::of(&FileConfig { max_bytes: Some(10_000), keep: 2, ..folder.config() });
    run.write(20);
    run.end();
    assert_eq!(folder.names(), ["events.json", "events.json.1", "events.json.2"].map(str::to_owned).into());
    assert_eq!(folder.whole().before.len(), 1, "what came before was rotated away, which is told");
}

#[test]
fn a_file_is_rotated_when_it_is_old_though_no_event_comes() {
    let folder = Folder::new();
    let run = Run::of(&FileConfig { max_age: Some(Duration::from_millis(50)), ..folder.config() });
    run.write(1);
    while !folder.names().contains("events.json.1") {
        std::thread::sleep(Duration::from_millis(5));
    }
    run.write(1);
    run.end();
    assert_eq!(folder.whole().lines, 2);
}

#[test]
fn a_killed_agent_leaves_half_a_line_and_the_next_goes_on_before_it() {
    let folder = Folder::new();
    let run = Run::of(&folder.config());
    run.write(10);
    run.end();
    let size = fs::metadata(folder.path()).unwrap().len();
    OpenOptions::new().write(true).open(folder.path()).unwrap().set_len(size - 100).unwrap();
    let run = Run::of(&folder.config());
    run.write(10);
    run.end();
    assert_eq!(folder.whole().lines, 19);
}

#[test]
fn an_agent_that_was_killed_right_after_a_rotation_goes_on_from_the_file_before() {
    let folder = Folder::new();
    let run = Run::of(&folder.config());
    run.write(3);
    run.end();
    drop(rotate::rotate(&folder.path(), 5, false).unwrap());
    let run = Run::of(&folder.config());
    run.write(3);
    run.end();
    let whole = folder.whole();
    assert_eq!((whole.lines, whole.streams, whole.files), (6, 1, 2));
}

#[test]
fn a_file_that_was_moved_is_written_anew_when_asked_for() {
    let folder = Folder::new();
    let run = Run::of(&folder.config());
    run.write(3);
    while fs::read_to_string(folder.path()).unwrap().lines().count() < 3 {
        std::thread::sleep(Duration::from_millis(5));
    }
    fs::rename(folder.path(), folder.0.path().join("moved")).unwrap();
    run.reopen.store(true, Ordering::Relaxed);
    run.queue.wake();
    while !folder.path().exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    run.write(4);
    run.end();
    let whole = folder.whole();
    assert_eq!((whole.lines, whole.streams, whole.files), (7, 1, 2));
}

#[test]
fn a_file_that_was_cut_from_under_the_agent_is_written_on_and_the_cut_shows() {
    let folder = Folder::new();
    let run = Run::of(&FileConfig { max_bytes: Some(1 << 20), ..folder.config() });
    run.write(3);
    while fs::read_to_string(folder.path()).unwrap().lines().count() < 3 {
        std::thread::sleep(Duration::from_millis(5));
    }
    OpenOptions::new().write(true).open(folder.path()).unwrap().set_len(0).unwrap();
    run.write(4);
    run.end();
    assert_eq!(fs::read_to_string(folder.path()).unwrap().lines().count(), 4);
    assert!(matches!(folder.verdict(), Verdict::Bad(_)));
}

#[test]
fn where_no_file_can_be_made_the_one_there_is_is_written_on() {
    let folder = Folder::new();
    // In the way of the new file, and not to be removed.
    fs::create_dir_all(folder.0.path().join("events.json.new/x")).unwrap();
    let run = Run::of(&FileConfig { max_bytes: Some(5_000), ..folder.config() });
    run.write(20);
    run.end();
    assert_eq!(folder.names(), ["events.json", "events.json.new"].map(str::to_owned).into());
    assert_eq!(fs::read_to_string(folder.path()).unwrap().lines().count(), 20);
}

#[test]
fn lines_go_into_a_pipe_as_into_a_file() {
    let folder = Folder::new();
    rustix::fs::mknodat(rustix::fs::CWD, folder.path(), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let mut reader = io::BufReader::new(OpenOptions::new().read(true).write(true).open(folder.path()).unwrap());
    let run = Run::of(&FileConfig { max_bytes: Some(2_000), max_age: Some(Duration::ZERO), ..folder.config() });
    run.write(3);
    for seq in 1..=3 {
        let mut line = String::new();
        io::BufRead::read_line(&mut reader, &mut line).unwrap();
        assert_eq!(End::of_line(line.trim_end().as_bytes()).unwrap().seq, seq);
    }
    run.end();
    assert_eq!(folder.names(), ["events.json"].map(str::to_owned).into());
}
