//! The registry's promises, with containers made up here.

use super::*;
use crate::identity::model::Role;

const ID: &str = "d59f4cbaa8e5b45cd84044bf27b5eb6e96dab10745bdc3e1cd4f2bd48cf721f5";

fn registry() -> Registry {
    Registry::new(vec!["k8s.io".into(), "default".into()], Paths::Whole)
}

fn key(namespace: &str, id: &str) -> Key {
    Key { namespace: namespace.into(), id: id.into() }
}

fn loaded(namespace: &str, id: &str, name: &str, cgroup: Option<&str>) -> Loaded {
    let container = Container {
        id: id.to_owned(),
        runtime_namespace: namespace.into(),
        role: Role::Container,
        name: Some(name.to_owned()),
        image: None,
        image_digest: None,
        readonly_rootfs: Some(true),
        privileged: None,
        task: TaskState::Unseen,
        started_at_unix_ns: None,
        init_pid: None,
        init_start_time_ns: None,
        sandbox_id: None,
        mounts: Vec::new(),
        pod: None,
    };
    Loaded { key: key(namespace, id), container, cgroup: cgroup.map(Arc::from) }
}

fn first(pid: u32, started_at_unix_ns: Option<i128>) -> First {
    First { pid, start_time_ns: None, started_at_unix_ns }
}

/// The name of the container whose the path is, or in brackets what else the registry says.
fn owner(registry: &mut Registry, path: &str, now: Instant) -> String {
    match registry.owner(path, now) {
        Owner::Container(container) => container.name.clone().unwrap(),
        Owner::Pending { id, ask, .. } => format!("[pending {} {ask}]", &id[..1]),
        Owner::Foreign { id, .. } => format!("[foreign {}]", &id[..1]),
        Owner::Host => "[host]".to_owned(),
    }
}

#[test]
fn a_container_is_found_by_its_cgroup_and_by_those_below() {
    let mut registry = registry();
    let now = Instant::now();
    registry.loaded(loaded("k8s.io", ID, "app", None));
    for path in [format!("/kubepods/pod1/{ID}"), format!("/x.slice/cri-containerd-{ID}.scope/init/worker")] {
        assert_eq!(owner(&mut registry, &path, now), "app");
    }
    assert_eq!(owner(&mut registry, "/kubepods/pod1", now), "[host]");
    assert_eq!(owner(&mut registry, "/", now), "[host]");
}

#[test]
fn a_container_with_any_name_is_found_where_its_spec_puts_it_and_nowhere_else() {
    let mut registry = registry();
    let now = Instant::now();
    registry.loaded(loaded("default", "job", "ctr", Some("/default/job")));
    registry.loaded(loaded("default", "tool", "systemd", Some("/system.slice/ctr-tool.scope")));
    registry.loaded(loaded("default", "odd", "elsewhere", Some("/my/own/place")));
    assert_eq!(owner(&mut registry, "/default/job", now), "ctr");
    assert_eq!(owner(&mut registry, "/default/job/below", now), "ctr");
    assert_eq!(owner(&mut registry, "/system.slice/ctr-tool.scope", now), "systemd");
    assert_eq!(owner(&mut registry, "/my/own/place/x", now), "elsewhere");
    for path in ["/system.slice/job", "/job", "/other/place", "/place", "/system.slice/job.service"] {
        assert_eq!(owner(&mut registry, path, now), "[host]", "{path}");
    }
}

#[test]
fn who_calls_a_cgroup_of_the_node_after_another_container_s_path_is_not_taken_for_that_one() {
    let mut registry = registry();
    let now = Instant::now();
    let (victim, in_scope) =
        (format!("/kubepods/pod1/{ID}"), "/kubepods.slice/kubepods-pod2.slice/cri-containerd-v.scope");
    registry.loaded(loaded("k8s.io", ID, "victim", Some(&victim)));
    registry.loaded(loaded("k8s.io", "v", "scope", Some(in_scope)));
    registry.loaded(loaded("default", "job", "ctr", None));
    let crafted = ["/evil", "/evil/deeper"].map(|above| {
        [victim.as_str(), in_scope, "/kubepods-pod2.slice:cri-containerd:v", "/default/job"]
            .map(|path| owner(&mut registry, &format!("{above}{path}"), now))
    });
    assert!(crafted.iter().flatten().all(|owner| owner.starts_with("[foreign") || owner == "[host]"), "{crafted:?}");
    assert_eq!(owner(&mut registry, &victim, now), "victim");
    assert_eq!(owner(&mut registry, in_scope, now), "scope");
    assert_eq!(owner(&mut registry, "/default/job", now), "ctr");
    // A runtime that sees a part of the hierarchy for the whole names the end of a path.
    registry.set_paths(Paths::Below);
    assert_eq!(owner(&mut registry, &format!("/docker/kind{victim}"), now), "victim");
}

#[test]
fn the_first_process_of_a_container_that_is_not_watched_is_known_all_the_same() {
    let mut registry = registry();
    let now = Instant::now();
    let path = format!("/docker/{ID}");
    let first = FirstProcess { pid: 7, start_time_ns: Some(8) };
    registry.stranger_created(ID, first);
    registry.owner(&path, now);
    registry.not_loaded(&ID.into(), None, true, now);
    let Owner::Foreign { first: told, .. } = registry.owner(&path, now) else { panic!("it is not watched") };
    assert_eq!(told, Some(first));
}

#[test]
fn of_a_container_that_went_before_it_could_be_read_the_first_process_is_known() {
    let mut registry = registry();
    let now = Instant::now();
    let path = format!("/kubepods/pod1/{ID}");
    let key = key("k8s.io", ID);
    registry.owner(&path, now);
    registry.task_created(&key, first(7, None));
    registry.begin_load(&key);
    registry.not_loaded(&key.id, Some(&key.namespace), true, now);
    let Owner::Foreign { first: told, .. } = registry.owner(&path, now) else { panic!("nobody knows it") };
    assert_eq!(told, Some(FirstProcess { pid: 7, start_time_ns: None }));
}

#[test]
fn an_unknown_id_is_asked_for_once_until_the_answer_comes() {
    let mut registry = registry();
    let now = Instant::now();
    let path = format!("/kubepods/pod1/{ID}");
    assert_eq!(owner(&mut registry, &path, now), "[pending d true]");
    assert_eq!(owner(&mut registry, &path, now), "[pending d false]");
    registry.not_loaded(&ID.into(), None, false, now);
    assert_eq!(owner(&mut registry, &path, now), "[pending d true]", "the call failed: someone has to ask again");
    registry.not_loaded(&ID.into(), None, true, now);
    assert_eq!(owner(&mut registry, &path, now), "[foreign d]");
    let later = now + KEEP_ABSENT;
    assert_eq!(owner(&mut registry, &path, later), "[pending d true]");
    registry.loaded(loaded("k8s.io", ID, "app", None));
    assert_eq!(owner(&mut registry, &path, later), "app");
}

#[test]
fn a_container_that_containerd_does_not_know_belongs_to_the_one_around_it() {
    let mut registry = registry();
    let now = Instant::now();
    registry.loaded(loaded("k8s.io", ID, "docker-in-docker", None));
    let inner = ID.replace('d', "e");
    let path = format!("/kubepods/pod1/{ID}/docker/{inner}");
    assert_eq!(owner(&mut registry, &path, now), "docker-in-docker", "nobody is asked about what it makes of names");
    let path = format!("/kubepods/pod1/{}/docker/{inner}", ID.replace('d', "c"));
    assert_eq!(owner(&mut registry, &path, now), "[pending c true]", "the outer one decides");
    registry.not_loaded(&ID.replace('d', "c").as_str().into(), None, true, now);
    assert_eq!(owner(&mut registry, &path, now), "[pending e true]");
    registry.not_loaded(&inner.as_str().into(), None, true, now);
    assert_eq!(owner(&mut registry, &path, now), "[foreign e]");
}

/// The id of the container that calls its cgroups after [`ID`].
const EVIL: &str = "e59f4cbaa8e5b45cd84044bf27b5eb6e96dab10745bdc3e1cd4f2bd48cf721f5";

#[test]
fn nobody_takes_another_container_s_place_by_the_name_of_a_cgroup() {
    let now = Instant::now();
    let (victim, evil) = (format!("/kubepods/pod1/{ID}"), format!("/kubepods/pod2/{EVIL}"));
    for of_victim in [Some(victim.as_str()), None] {
        let mut registry = registry();
        registry.loaded(loaded("k8s.io", ID, "victim", of_victim));
        registry.loaded(loaded("k8s.io", EVIL, "evil", Some(&evil)));
        assert_eq!(owner(&mut registry, &victim, now), "victim");
        for crafted in
            [format!("{evil}/{ID}"), format!("{evil}/x/cri-containerd-{ID}.scope"), format!("{evil}{victim}")]
        {
            assert_eq!(owner(&mut registry, &crafted, now), "evil", "{crafted} {of_victim:?}");
        }
    }
    let mut registry = registry();
    registry.loaded(loaded("k8s.io", ID, "victim", Some(&victim)));
    let outside = format!("/system.slice/x/{ID}");
    assert_eq!(owner(&mut registry, &outside, now), "[foreign d]", "it is not where its spec puts it");
    assert_eq!(registry.sought.len(), 0, "nor is there anything to ask");
}

#[test]
fn a_container_whose_spec_puts_it_below_another_is_found_there() {
    let mut registry = registry();
    let now = Instant::now();
    registry.loaded(loaded("k8s.io", EVIL, "outer", Some(&format!("/kubepods/pod2/{EVIL}"))));
    let path = format!("/kubepods/pod2/{EVIL}/inner/{ID}");
    assert!(registry.begin_load(&key("k8s.io", ID)));
    assert_eq!(owner(&mut registry, &path, now), "[pending d false]", "its record will tell");
    registry.loaded(loaded("k8s.io", ID, "inner", Some(&path)));
    assert_eq!(owner(&mut registry, &path, now), "inner");
    assert_eq!(owner(&mut registry, &format!("{path}/below"), now), "inner");
}

#[test]
fn a_container_is_found_where_a_runtime_without_systemd_puts_a_path_that_was_meant_for_it() {
    let mut registry = registry();
    let now = Instant::now();
    let spec = cgroup_path::from_spec(&format!("kubepods-pod1.slice:cri-containerd:{ID}")).unwrap();
    registry.loaded(loaded("k8s.io", ID, "app", Some(&spec)));
    for path in [
        format!("/kubepods.slice/kubepods-pod1.slice/cri-containerd-{ID}.scope"),
        format!("/system.slice/kubepods-pod1.slice:cri-containerd:{ID}"),
    ] {
        assert_eq!(owner(&mut registry, &path, now), "app", "{path}");
    }
}

#[test]
fn an_id_that_finds_no_room_among_those_sought_is_pending_and_no_stranger() {
    let mut registry = registry();
    let now = Instant::now();
    for number in 0..MAX_SOUGHT {
        registry.owner(&format!("/x/{number:064x}"), now);
        registry.not_loaded(&format!("{number:064x}").as_str().into(), None, true, now);
    }
    let path = format!("/kubepods/pod1/{ID}");
    assert_eq!(owner(&mut registry, &path, now), "[pending d false]");
    assert_eq!(registry.deferred(), 1);
    registry.expire(now + KEEP_ABSENT);
    assert_eq!(owner(&mut registry, &path, now), "[pending d true]");
}

#[test]
fn what_a_known_container_calls_its_cgroups_fills_no_table() {
    let mut registry = registry();
    let now = Instant::now();
    registry.loaded(loaded("k8s.io", ID, "app", Some(&format!("/kubepods/pod1/{ID}"))));
    for number in 0..MAX_SOUGHT {
        assert_eq!(owner(&mut registry, &format!("/kubepods/pod1/{ID}/{number:064x}"), now), "app");
    }
    assert_eq!(registry.sought.len(), 0);
}

#[test]
fn a_container_that_was_announced_is_pending_until_its_record_is_read() {
    let mut registry = registry();
    let now = Instant::now();
    assert!(registry.begin_load(&key("default", "job")));
    assert_eq!(owner(&mut registry, "/default/job", now), "[pending j false]");
    registry.abandon_loads();
    assert_eq!(owner(&mut registry, "/default/job", now), "[pending j true]");
}

#[test]
fn a_record_that_changes_while_it_is_read_is_read_again() {
    let mut registry = registry();
    assert!(registry.begin_load(&key("k8s.io", ID)));
    assert!(!registry.begin_load(&key("k8s.io", ID)));
    assert!(registry.loaded(loaded("k8s.io", ID, "old", None)));
    assert!(registry.begin_load(&key("k8s.io", ID)));
    assert!(!registry.loaded(loaded("k8s.io", ID, "new", None)));
}

#[test]
fn the_task_reaches_the_container_whichever_is_told_first() {
    let now = Instant::now();
    let path = format!("/kubepods/pod1/{ID}");
    let key = key("k8s.io", ID);
    for task_first in [true, false] {
        let mut registry = registry();
        if !task_first {
            registry.loaded(loaded("k8s.io", ID, "app", None));
        }
        assert_eq!(
            registry.task_created(&key, first(4711, None)),
            task_first,
            "only an unknown container has to be read"
        );
        if task_first {
            registry.begin_load(&key);
            registry.loaded(loaded("k8s.io", ID, "app", None));
        }
        let Owner::Container(container) = registry.owner(&path, now) else { panic!("it is known") };
        assert_eq!((container.init_pid, container.task), (Some(4711), TaskState::Created));
        registry.task_started(&key, first(4711, Some(7)));
        let Owner::Container(container) = registry.owner(&path, now) else { panic!("it is known") };
        assert_eq!((container.started_at_unix_ns, container.task), (Some(7), TaskState::Running));
        assert_eq!(registry.running().len(), 1);
    }
}

#[test]
fn the_start_of_a_first_process_is_known_before_its_program_runs_and_stays_that_process_s() {
    let mut registry = registry();
    let key = key("default", "job");
    registry.loaded(loaded("default", "job", "job", None));
    registry.task_created(&key, First { start_time_ns: Some(5), ..first(4711, Some(6)) });
    // Too late to be asked: another process may have its id.
    registry.task_started(&key, first(4711, Some(9)));
    let container = registry.running().pop().unwrap();
    assert_eq!((container.init_start_time_ns, container.started_at_unix_ns), (Some(5), Some(6)));
    registry.task_created(&key, first(4712, None));
    let container = registry.running().pop().unwrap();
    assert_eq!((container.init_start_time_ns, container.started_at_unix_ns), (None, None));
}

#[test]
fn a_deleted_container_is_known_for_minutes_with_its_first_process() {
    let mut registry = registry();
    let now = Instant::now();
    let key = key("k8s.io", ID);
    registry.loaded(loaded("k8s.io", ID, "app", None));
    registry.task_started(&key, first(4711, Some(7)));
    registry.task_ended(&key);
    registry.deleted(&key, now);
    registry.expire(now + KEEP_DELETED - Duration::from_secs(1));
    let Owner::Container(container) = registry.owner(&format!("/kubepods/pod1/{ID}"), now) else { panic!("known") };
    assert_eq!((container.init_pid, container.task), (Some(4711), TaskState::Ended));
    assert_eq!(registry.running().len(), 0);
    registry.expire(now + KEEP_DELETED);
    assert_eq!(registry.len(), 0);
    assert!(registry.by_name.is_empty());
}

#[test]
fn a_container_deleted_while_its_record_is_read_still_becomes_known() {
    let mut registry = registry();
    let now = Instant::now();
    let key = key("k8s.io", ID);
    registry.begin_load(&key);
    registry.task_created(&key, first(4711, None));
    registry.deleted(&key, now);
    registry.loaded(loaded("k8s.io", ID, "app", None));
    assert_eq!(owner(&mut registry, &format!("/kubepods/pod1/{ID}"), now), "app");
    assert_eq!(registry.running().len(), 0);
    registry.expire(now + KEEP_DELETED);
    assert_eq!(registry.len(), 0);
}

#[test]
fn a_name_that_is_used_again_is_a_new_container() {
    let mut registry = registry();
    let now = Instant::now();
    let key = key("default", "job");
    registry.loaded(loaded("default", "job", "first", Some("/default/job")));
    registry.task_created(&key, first(1, None));
    assert!(registry.created(&key).is_none(), "it is there already");
    registry.deleted(&key, now);
    let former = registry.created(&key).unwrap();
    assert_eq!((former.container.name.as_deref(), former.container.init_pid), (Some("first"), Some(1)));
    assert!(former.was_in("/default/job/below") && !former.was_in("/default/other"));
    assert_eq!(owner(&mut registry, "/default/job", now), "[pending j true]");
    registry.loaded(loaded("default", "job", "second", Some("/default/job")));
    let Owner::Container(container) = registry.owner("/default/job", now) else { panic!("known") };
    assert_eq!((container.name.as_deref(), container.init_pid), (Some("second"), None));
}

#[test]
fn a_list_brings_what_was_missed_and_ends_what_is_gone() {
    let mut registry = registry();
    let now = Instant::now();
    let namespace: Arc<str> = "default".into();
    for id in ["gone", "stays"] {
        registry.loaded(loaded("default", id, id, None));
        registry.task_started(&key("default", id), first(1, None));
    }
    registry.loaded(loaded("k8s.io", ID, "of another namespace", None));
    let begun = registry.clock();
    registry.loaded(loaded("default", "meanwhile", "meanwhile", None));
    let former = registry.reconcile(
        &namespace,
        begun,
        vec![loaded("default", "stays", "stays", None), loaded("default", "missed", "missed", None)],
        now,
    );
    assert!(former.is_empty());
    registry.expire(now + KEEP_DELETED);
    let mut left: Vec<String> = registry.slots.keys().map(|key| key.id.to_string()).collect();
    left.sort();
    assert_eq!(left, [ID, "meanwhile", "missed", "stays"]);
}

#[test]
fn a_list_of_tasks_does_not_undo_what_an_event_has_said_since() {
    let mut registry = registry();
    let namespace: Arc<str> = "default".into();
    for id in ["running", "ended", "restarted"] {
        registry.loaded(loaded("default", id, id, None));
        registry.task_started(&key("default", id), first(1, Some(7)));
    }
    let begun = registry.clock();
    registry.task_created(&key("default", "restarted"), first(2, None));
    let task = |pid| first(pid, Some(99)).task(TaskState::Running);
    let listed = [("running".into(), task(1)), ("restarted".into(), task(1))].into();
    registry.tasks_listed(&namespace, begun, &listed);
    let task_of = |id| registry.slots[&key("default", id)].task;
    assert_eq!(task_of("running"), Task { started_at_unix_ns: Some(7), ..task(1) }, "the event knew the start better");
    assert_eq!(task_of("ended").state, TaskState::Ended);
    assert_eq!((task_of("restarted").pid, task_of("restarted").state), (Some(2), TaskState::Created));
}

#[test]
fn neither_containers_nor_ids_grow_beyond_their_limit() {
    let mut registry = registry();
    let now = Instant::now();
    for number in 0..2 * MAX_SOUGHT {
        registry.owner(&format!("/x/{number:064x}"), now);
    }
    assert_eq!(registry.sought.len(), MAX_SOUGHT);
    for number in 0..MAX_CONTAINERS + 10 {
        registry.loaded(loaded("default", &format!("job-{number}"), "job", None));
    }
    assert_eq!((registry.len(), registry.refused()), (MAX_CONTAINERS, 10));
    registry.deleted(&key("default", "job-7"), now);
    registry.loaded(loaded("default", "last", "last", None));
    assert_eq!((registry.len(), registry.refused()), (MAX_CONTAINERS, 10));
    assert!(!registry.slots.contains_key(&key("default", "job-7")));
}
