//! Tests of [`super`], with a containerd that takes connections and says nothing.

use std::sync::Mutex;

use tokio::{net::UnixListener, sync::mpsc};

use super::*;
use crate::identity::{
    cgroups::Cgroups,
    hierarchy::Hierarchy,
    images::Images,
    registry::{Paths, Registry},
    shared::Link,
    status::Counters,
};

/// What a connection works with that has listed the containers of one namespace, which is `k8s.io`, and not their tasks.
async fn session(listener: &UnixListener) -> (Session, Namespace) {
    let socket = listener.local_addr().unwrap().as_pathname().unwrap().to_owned();
    let namespace = Namespace::new("k8s.io").unwrap();
    let shared = Arc::new(Shared {
        tables: Mutex::new(Tables {
            registry: Registry::new(vec![Arc::clone(namespace.name())], Paths::Whole),
            cgroups: Cgroups::new(16),
        }),
        node_capabilities: 0,
        socket: socket.clone(),
        namespaces: vec![namespace.clone()],
        host_proc: "/proc".into(),
        hierarchy: Hierarchy::at(socket.parent().unwrap()),
        images: Images::default(),
        counters: Counters::default(),
        scan_wanted: tokio::sync::Notify::new(),
        changed: tokio::sync::watch::Sender::new(0),
        requests: mpsc::channel(1).0,
        link: Mutex::new(Link::new()),
    });
    let runtime = Runtime::connect(&socket).await.unwrap();
    let session = Session {
        loader: Loader { shared, runtime },
        events: EventStream::begin(std::future::pending()).await.unwrap(),
        jobs: JoinSet::new(),
        listing: 0,
        tasks_missing: 1,
        tasks_failed: false,
        beating: false,
    };
    (session, namespace)
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
