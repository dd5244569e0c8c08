//! A [`Session`] without a containerd: for tests, and for [`crate::fuzzing`].

use std::sync::Mutex;

use tonic::transport::{Channel, Endpoint};

use super::*;
use crate::identity::{
    cgroups::Cgroups,
    hierarchy::Hierarchy,
    images::Images,
    looks::Looks,
    registry::{Paths, Registry},
    shared::Link,
    status::Counters,
};

/// What a connection works with that has listed the containers of one namespace, which is `k8s.io`, and not their tasks.
pub(super) async fn session(runtime: Runtime) -> (Session, Namespace) {
    let namespace = Namespace::new("k8s.io").expect("a namespace of containerd");
    let shared = Arc::new(Shared {
        tables: Mutex::new(Tables {
            registry: Registry::new(vec![Arc::clone(namespace.name())], Paths::Whole),
            cgroups: Cgroups::new(16),
        }),
        node_capabilities: 0,
        socket: "/nonexistent".into(),
        namespaces: vec![namespace.clone()],
        host_proc: "/proc".into(),
        hierarchy: Hierarchy::at("/nonexistent".as_ref()),
        images: Images::default(),
        mounts: Mutex::default(),
        looks: Looks::default(),
        counters: Counters::default(),
        scan_wanted: tokio::sync::Notify::new(),
        changed: tokio::sync::watch::Sender::new(0),
        requests: tokio::sync::mpsc::channel(1).0,
        link: Mutex::new(Link::new()),
    });
    let session = Session {
        loader: Loader { shared, runtime },
        events: EventStream::begin(std::future::pending()).await.expect("nothing is asked yet"),
        jobs: JoinSet::new(),
        listing: 0,
        tasks_missing: 1,
        tasks_failed: false,
        beating: false,
    };
    (session, namespace)
}

/// What all the sessions of a thread work with: a connection has a task, which ends no sooner than its runtime goes on.
struct Workshop {
    tokio: tokio::runtime::Runtime,
    channel: Channel,
}

thread_local! {
    static WORKSHOP: Workshop = {
        let builder = &mut tokio::runtime::Builder::new_current_thread();
        let tokio = builder.enable_all().build().expect("a runtime can be had");
        let channel = {
            let _within = tokio.enter();
            Endpoint::from_static("unix:///nonexistent").connect_lazy()
        };
        Workshop { tokio, channel }
    };
}

/// Follows events of a containerd that answers no call; how many could not be read.
pub(in crate::identity) fn follow(envelopes: Vec<Envelope>) -> u64 {
    WORKSHOP.with(|Workshop { tokio, channel }| {
        tokio.block_on(async {
            let (mut session, _) = session(Runtime::over(channel.clone())).await;
            let shared = session.shared();
            shared.cgroup_created(7, "/kubepods/d59f4cbaa8e5b45cd84044bf27b5eb6e96dab10745bdc3e1cd4f2bd48cf721f5");
            let told = envelopes.len() as u64;
            for envelope in envelopes {
                session.event(envelope);
                shared.lookup(7);
            }
            let counts = shared.status().counts;
            assert_eq!(counts.events, told);
            assert!(counts.containers <= told && counts.events_malformed <= told, "{counts:?}");
            drop(session);
            // Its calls end, which they do in their turn.
            tokio::task::yield_now().await;
            counts.events_malformed
        })
    })
}
