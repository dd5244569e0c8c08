//! Tests of [`super`], with a containerd that takes connections and says nothing.

use tokio::net::UnixListener;

use super::*;
use crate::identity::runtime::Version;

async fn session(listener: &UnixListener) -> (Session, Namespace) {
    let socket = listener.local_addr().unwrap().as_pathname().unwrap().to_owned();
    harness::session(Runtime::connect(&socket).await.unwrap()).await
}

#[tokio::test]
async fn a_list_of_tasks_that_fails_is_asked_for_again_and_until_then_not_all_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("socket")).unwrap();
    let (mut session, namespace) = session(&listener).await;
    for failures in 1..=2 {
        let result = Err(CallError::Timeout);
        session.done(Done::Tasks { namespace: namespace.clone(), begun: 0, result }).unwrap();
        assert!(!session.shared().status().synced, "nobody knows which containers run");
        assert_eq!(session.shared().status().counts.calls_failed, failures);
        assert_eq!(session.jobs.len() as u64, failures, "it is asked again");
    }
    session.done(Done::Tasks { namespace, begun: 0, result: Ok(HashMap::new()) }).unwrap();
    assert!(session.shared().status().synced);
}

#[tokio::test]
async fn while_containerd_stays_away_nobody_is_told_so_again_and_again() {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("socket")).unwrap();
    let (session, _) = session(&listener).await;
    let shared = session.shared();
    let mut changed = shared.changed.subscribe();
    let mut is_told = || {
        let is_told = changed.has_changed().unwrap();
        changed.mark_unchanged();
        is_told
    };
    shared.disconnected(&CallError::Timeout);
    assert!(is_told(), "for the first time");
    shared.disconnected(&CallError::Timeout);
    assert!(!is_told(), "nothing is known that was not known before");
    shared.connected(Version { version: "1".to_owned(), revision: String::new() });
    assert!(is_told());
    shared.disconnected(&CallError::Timeout);
    assert!(is_told(), "it was there in between");
}
