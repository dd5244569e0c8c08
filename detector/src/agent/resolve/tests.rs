//! Tests of [`super`]. In all of them the clock of the runtime stands still until the test moves it: an answer that comes is
//! never late, however busy the machine is.

use std::{
    path::Path,
    sync::mpsc::{Receiver, Sender, channel},
};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::{
    process::tests::{ourselves, question},
    *,
};

/// Longer than a thread takes to do what is left to do, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a filesystem takes that is slow.
const SLOW: Duration = Duration::from_millis(50);

fn count(resolver: &Resolver, name: &str) -> u64 {
    resolver.counts().into_iter().find_map(|(of, count)| (of == name).then_some(count)).unwrap()
}

/// Stops the clock of the runtime until what is given back is dropped.
fn stop_the_clock() -> Sender<()> {
    tokio::time::pause();
    let (clock, stopped) = channel();
    // Where nothing is to do, tokio moves a clock that is paused; not while something blocks.
    tokio::task::spawn_blocking(move || stopped.recv());
    clock
}

/// A resolver that hangs on every path that begins with /hang, and is slow on those that begin with /slow.
struct Hanging {
    resolver: Resolver,
    /// Told whenever a thread begins to hang.
    hangs: UnboundedReceiver<()>,
    /// Dropped, it ends the hanging.
    hold: Sender<()>,
    _clock: Sender<()>,
}

impl Hanging {
    fn new() -> Self {
        let (hung, hangs) = unbounded_channel();
        let (hold, held): (_, Receiver<()>) = channel();
        let held = Mutex::new(held);
        let look = move |_: &mut Session<'_>, _: &Subject, question: &Question| {
            if question.requested.starts_with(b"/hang") {
                hung.send(()).unwrap();
                // Told by the end of the other side. All that hang wait, one for the channel and the others for the lock.
                let _ = lock(&held).recv();
            }
            if question.requested.starts_with(b"/slow") {
                std::thread::sleep(SLOW);
            }
            Ok(Resolved { path: question.requested.clone(), mount: None })
        };
        Self {
            resolver: Resolver::with("/proc".into(), 4, Box::new(look)).unwrap(),
            hangs,
            hold,
            _clock: stop_the_clock(),
        }
    }

    /// Asks what a thread then hangs on, until the deadline.
    async fn ask_in_vain(&mut self, subject: &Subject, path: &str) {
        let Self { resolver, hangs, .. } = self;
        let (answer, ()) = tokio::join!(ask(resolver, subject, path), async {
            hangs.recv().await;
            // Well past it: timers are rounded up.
            tokio::time::advance(DEADLINE * 2).await;
        });
        assert_eq!(answer, None);
    }
}

fn in_container(id: &str) -> Subject {
    Subject { container: Some(id.to_owned()), ..ourselves() }
}

async fn ask(resolver: &Resolver, subject: &Subject, path: &str) -> Option<Resolved> {
    ask_late(resolver, subject, path, Duration::ZERO).await
}

async fn ask_late(resolver: &Resolver, subject: &Subject, path: &str, lag: Duration) -> Option<Resolved> {
    let [answer] = &ask_at_once(resolver, subject, &[path], lag).await[..] else {
        panic!("one answer to one question")
    };
    answer.clone()
}

async fn ask_at_once(resolver: &Resolver, subject: &Subject, paths: &[&str], lag: Duration) -> Vec<Option<Resolved>> {
    let askers = paths.iter().map(|path| (subject.clone(), [Some(question(Path::new(path))), None])).collect();
    resolver.resolve(askers, lag).await.into_iter().map(|[first, _]| first).collect()
}

#[tokio::test]
async fn a_path_is_resolved_once_and_the_answer_kept() {
    let _clock = stop_the_clock();
    let resolver = Resolver::new("/proc".into()).unwrap();
    for _ in 0..3 {
        assert_eq!(ask(&resolver, &ourselves(), "/proc/../x").await.unwrap().path, b"/x");
    }
    assert_eq!((count(&resolver, "resolved"), count(&resolver, "kept")), (1, 2));
}

#[tokio::test]
async fn who_is_behind_looks_at_nothing_new() {
    let Hanging { resolver, _clock, .. } = Hanging::new();
    let (late, subject) = (LATE + Duration::from_millis(1), in_container("a"));
    assert_eq!(ask_late(&resolver, &subject, "/x", late).await, None);
    assert!(ask_late(&resolver, &subject, "/x", LATE).await.is_some());
    assert!(ask_late(&resolver, &subject, "/x", late).await.is_some(), "it was kept");
    assert_eq!(["late", "resolved", "kept"].map(|name| count(&resolver, name)), [1, 1, 1]);
}

#[tokio::test]
async fn processes_of_one_container_share_answers_and_others_do_not() {
    let Hanging { resolver, _clock, .. } = Hanging::new();
    let mut other = in_container("a");
    other.process.pid += 1;
    ask(&resolver, &in_container("a"), "/x").await;
    ask(&resolver, &other, "/x").await;
    assert_eq!(count(&resolver, "kept"), 1);
    ask(&resolver, &in_container("b"), "/x").await;
    assert_eq!(count(&resolver, "kept"), 1);
}

#[tokio::test]
async fn what_is_asked_at_once_is_answered_in_its_order_and_kept() {
    let Hanging { resolver, _clock, .. } = Hanging::new();
    let subject = in_container("a");
    let answers = ask_at_once(&resolver, &subject, &["/x", "/y", "/x"], Duration::ZERO).await;
    let paths: Vec<_> = answers.into_iter().map(|answer| answer.unwrap().path).collect();
    assert_eq!(paths, [b"/x", b"/y", b"/x"]);
    ask(&resolver, &subject, "/y").await;
    assert_eq!(count(&resolver, "kept"), 1);
}

#[tokio::test]
async fn what_was_answered_before_a_filesystem_hung_is_told() {
    let Hanging { resolver, mut hangs, hold: _hold, _clock } = Hanging::new();
    let (subject, paths) = (in_container("a"), ["/x", "/hang", "/y"]);
    let (answers, ()) = tokio::join!(ask_at_once(&resolver, &subject, &paths, Duration::ZERO), async {
        hangs.recv().await;
        tokio::time::advance(DEADLINE * 2).await;
    });
    assert_eq!(answers.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, false]);
    assert_eq!(count(&resolver, "timed_out"), 2);
}

#[tokio::test]
async fn a_filesystem_that_hangs_costs_its_container_the_answers_and_others_nothing() {
    let mut hanging = Hanging::new();
    hanging.ask_in_vain(&in_container("a"), "/hang").await;

    // The clock stands still: these are answered at once, or never.
    let resolver = &hanging.resolver;
    for path in ["/hang/x", "/y", "/z"] {
        assert_eq!(ask(resolver, &in_container("a"), path).await, None);
    }
    assert_eq!((count(resolver, "timed_out"), count(resolver, "hanging")), (1, 3));
    assert!(ask(resolver, &in_container("b"), "/x").await.is_some());
}

#[tokio::test]
async fn when_all_threads_hang_nobody_waits_any_more() {
    let mut hanging = Hanging::new();
    for id in ["a", "b", "c", "d"] {
        hanging.ask_in_vain(&in_container(id), "/hang").await;
    }
    assert_eq!(ask(&hanging.resolver, &in_container("e"), "/x").await, None);
    assert_eq!((count(&hanging.resolver, "timed_out"), count(&hanging.resolver, "hanging")), (4, 1));
}

#[tokio::test]
async fn a_process_that_is_gone_is_counted() {
    let _clock = stop_the_clock();
    let resolver = Resolver::new("/proc".into()).unwrap();
    let mut gone = ourselves();
    gone.process.start_time_ns = 0;
    gone.mnt_ns = Some(1);
    assert_eq!(ask(&resolver, &gone, "/x").await, None);
    assert_eq!(count(&resolver, "gone"), 1);
}

#[tokio::test]
async fn a_filesystem_that_is_slow_without_hanging_does_not_hold_up_the_events_of_the_node() {
    let hanging = Hanging::new();
    let resolver = &hanging.resolver;
    for number in 0..100 {
        ask(resolver, &in_container("a"), &format!("/slow/{number}")).await;
    }
    assert!(count(resolver, "too_slow") > 90, "{:?}", resolver.counts());
    assert!(ask(resolver, &in_container("b"), "/x").await.is_some());
}

#[tokio::test]
async fn one_container_can_t_make_all_threads_hang_by_mount_namespaces_of_its_own() {
    let mut hanging = Hanging::new();
    let of_namespace = |mnt_ns| Subject { mnt_ns: Some(mnt_ns), ..in_container("a") };
    hanging.ask_in_vain(&of_namespace(1), "/hang").await;
    let resolver = &hanging.resolver;
    for mnt_ns in 2..=8 {
        assert_eq!(ask(resolver, &of_namespace(mnt_ns), "/hang").await, None);
    }
    assert_eq!((count(resolver, "timed_out"), count(resolver, "hanging")), (1, 7));
    assert!(ask(resolver, &in_container("b"), "/x").await.is_some());
}

#[tokio::test]
async fn a_thread_that_hangs_is_replaced_and_ends_when_it_comes_back() {
    let mut hanging = Hanging::new();
    hanging.ask_in_vain(&in_container("a"), "/hang").await;
    let Hanging { resolver, hold, hangs: _hangs, _clock } = hanging;
    let threads = || lock(&resolver.shared.at_work).threads;
    assert!(ask(&resolver, &in_container("b"), "/x").await.is_some());
    assert_eq!(threads(), 2);
    drop(hold);
    let start = Instant::now();
    while threads() > 1 && start.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(threads(), 1);
    assert!(ask(&resolver, &in_container("a"), "/x").await.is_some(), "asked again once it has answered");
}
