//! Tests of [`super`].

use std::path::Path;

use super::{
    process::tests::{ourselves, question},
    *,
};

fn count(resolver: &Resolver, name: &str) -> u64 {
    resolver.counts().into_iter().find_map(|(of, count)| (of == name).then_some(count)).unwrap()
}

/// Hangs on every path that begins with /hang, until the test ends; is slow on those that begin with /slow.
fn hanging() -> Resolver {
    Resolver::with(
        4,
        Box::new(|_, question| {
            if question.requested.starts_with(b"/hang") {
                std::thread::sleep(Duration::from_secs(3600));
            }
            if question.requested.starts_with(b"/slow") {
                std::thread::sleep(DEADLINE / 2);
            }
            Ok(Resolved { path: question.requested.clone(), mount: None })
        }),
    )
    .unwrap()
}

fn in_container(id: &str) -> Subject {
    Subject { container: Some(id.to_owned()), ..ourselves() }
}

async fn ask(resolver: &Resolver, subject: &Subject, path: &str) -> Option<Resolved> {
    resolver.resolve(subject, [Some(question(Path::new(path))), None]).await[0].clone()
}

#[tokio::test]
async fn a_path_is_resolved_once_and_the_answer_kept() {
    let resolver = Resolver::new("/proc".into()).unwrap();
    for _ in 0..3 {
        assert_eq!(ask(&resolver, &ourselves(), "/proc/../x").await.unwrap().path, b"/x");
    }
    assert_eq!((count(&resolver, "resolved"), count(&resolver, "kept")), (1, 2));
}

#[tokio::test]
async fn processes_of_one_container_share_answers_and_others_do_not() {
    let resolver = hanging();
    let mut other = in_container("a");
    other.process.pid += 1;
    ask(&resolver, &in_container("a"), "/x").await;
    ask(&resolver, &other, "/x").await;
    assert_eq!(count(&resolver, "kept"), 1);
    ask(&resolver, &in_container("b"), "/x").await;
    assert_eq!(count(&resolver, "kept"), 1);
}

#[tokio::test]
async fn a_filesystem_that_hangs_costs_its_container_the_answers_and_others_nothing() {
    let resolver = hanging();
    let start = Instant::now();
    assert_eq!(ask(&resolver, &in_container("a"), "/hang").await, None);
    assert!(start.elapsed() >= DEADLINE && start.elapsed() < DEADLINE * 10);
    tokio::time::sleep(DEADLINE).await;

    let start = Instant::now();
    for path in ["/hang/x", "/y", "/z"] {
        assert_eq!(ask(&resolver, &in_container("a"), path).await, None);
    }
    assert!(start.elapsed() < DEADLINE, "not asked again");
    assert_eq!((count(&resolver, "timed_out"), count(&resolver, "hanging")), (1, 3));
    assert!(ask(&resolver, &in_container("b"), "/x").await.is_some());
}

#[tokio::test]
async fn when_all_threads_hang_nobody_waits_any_more() {
    let resolver = hanging();
    for id in ["a", "b", "c", "d"] {
        assert_eq!(ask(&resolver, &in_container(id), "/hang").await, None);
    }
    tokio::time::sleep(DEADLINE).await;
    let start = Instant::now();
    assert_eq!(ask(&resolver, &in_container("e"), "/x").await, None);
    assert!(start.elapsed() < DEADLINE / 2);
}

#[tokio::test]
async fn a_process_that_is_gone_is_counted() {
    let resolver = Resolver::new("/proc".into()).unwrap();
    let mut gone = ourselves();
    gone.process.start_time_ns = 0;
    gone.mnt_ns = Some(1);
    assert_eq!(ask(&resolver, &gone, "/x").await, None);
    assert_eq!(count(&resolver, "gone"), 1);
}

#[tokio::test]
async fn a_filesystem_that_is_slow_without_hanging_does_not_hold_up_the_events_of_the_node() {
    let resolver = hanging();
    let start = Instant::now();
    for number in 0..100 {
        ask(&resolver, &in_container("a"), &format!("/slow/{number}")).await;
    }
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert!(count(&resolver, "too_slow") > 90, "{:?}", resolver.counts());
    assert!(ask(&resolver, &in_container("b"), "/x").await.is_some());
}

#[tokio::test]
async fn one_container_can_t_make_all_threads_hang_by_mount_namespaces_of_its_own() {
    let resolver = hanging();
    for mnt_ns in 1..=8 {
        let subject = Subject { mnt_ns: Some(mnt_ns), ..in_container("a") };
        assert_eq!(ask(&resolver, &subject, "/hang").await, None);
    }
    assert_eq!((count(&resolver, "timed_out"), count(&resolver, "hanging")), (1, 7));
    assert!(ask(&resolver, &in_container("b"), "/x").await.is_some());
}

#[tokio::test]
async fn a_thread_that_hangs_is_replaced_and_ends_when_it_comes_back() {
    let resolver = Resolver::with(
        4,
        Box::new(|_, question| {
            std::thread::sleep(if question.requested.starts_with(b"/hang") { DEADLINE * 3 } else { Duration::ZERO });
            Ok(Resolved { path: question.requested.clone(), mount: None })
        }),
    )
    .unwrap();
    let threads = || lock(&resolver.shared.at_work).threads;
    assert_eq!(ask(&resolver, &in_container("a"), "/hang").await, None);
    assert!(ask(&resolver, &in_container("b"), "/x").await.is_some());
    assert_eq!(threads(), 2);
    tokio::time::sleep(DEADLINE * 4).await;
    assert!(ask(&resolver, &in_container("a"), "/x").await.is_some(), "asked again once it has answered");
    assert_eq!(threads(), 1);
}
