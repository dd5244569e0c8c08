//! Reads containers from containerd: one by its id, or all of them.

use std::{collections::HashMap, sync::Arc, time::Duration};

use containerd_client::{
    services::v1::Container as ContainerRecord,
    types::v1::{Process, Status as ProcessStatus},
};

use super::{
    images::name_from_hints,
    model::{Container, Pod, TaskState},
    node,
    record::Draft,
    registry::{Key, Loaded, Task},
    runtime::{CallError, Namespace, Runtime},
    shared::Shared,
    status::count,
    subpaths,
};

/// How long the types of volumes may be looked for.
const SUBPATHS_TIMEOUT: Duration = Duration::from_secs(1);

/// Reads containers over one connection.
#[derive(Clone, Debug)]
pub(super) struct Loader {
    pub shared: Arc<Shared>,
    pub runtime: Runtime,
}

/// What was read because of one container.
#[derive(Debug)]
pub(super) struct Read {
    /// The container, and before it its sandbox if that was not known.
    pub loaded: Vec<Loaded>,
    /// The container's task, if it was asked for.
    pub task: Option<(Key, Task)>,
}

impl Loader {
    /// One container, from the first of these namespaces that has it.
    pub(super) async fn find(mut self, namespaces: Vec<Namespace>, id: Arc<str>) -> Result<Read, CallError> {
        for namespace in &namespaces {
            match self.read(namespace, &id).await {
                // Its task may have been made before this connection was, so that no event told of it.
                Ok(mut read) => {
                    let key = Key { namespace: Arc::clone(namespace.name()), id: Arc::clone(&id) };
                    read.task = self.task(namespace, &id).await.map(|task| (key, task));
                    return Ok(read);
                }
                Err(CallError::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        Err(CallError::NotFound)
    }

    /// One container that events have told of.
    pub(super) async fn one(mut self, namespace: Namespace, id: Arc<str>) -> Result<Read, CallError> {
        self.read(&namespace, &id).await
    }

    async fn read(&mut self, namespace: &Namespace, id: &str) -> Result<Read, CallError> {
        let mut draft = self.draft(self.runtime.clone().container(namespace, id).await?, namespace);
        let mut loaded = Vec::new();
        if let Some(sandbox_id) = &draft.sandbox_id {
            let key = Key { namespace: Arc::clone(namespace.name()), id: Arc::clone(sandbox_id) };
            let known = self.shared.tables().registry.pod_of_sandbox(&key);
            let pod = match known {
                Some(pod) => Some(pod),
                None => match self.runtime.container(namespace, sandbox_id).await {
                    Ok(record) => {
                        let sandbox = self.draft(record, namespace);
                        let pod = sandbox.container.pod.clone();
                        loaded.push(self.complete(namespace, sandbox).await);
                        pod
                    }
                    // The container's own record names the pod too; it lacks the labels.
                    Err(_) => {
                        self.shared.count_failed_call();
                        None
                    }
                },
            };
            if let Some(pod) = pod {
                draft.set_pod(pod);
            }
        }
        loaded.push(self.complete(namespace, draft).await);
        Ok(Read { loaded, task: None })
    }

    /// All containers of a namespace.
    pub(super) async fn all(mut self, namespace: &Namespace) -> Result<Vec<Loaded>, CallError> {
        let mut drafts = self.drafts(namespace).await?;
        let pods: HashMap<String, Arc<Pod>> = drafts
            .iter()
            .filter(|draft| draft.sandbox_id.is_none())
            .filter_map(|draft| Some((draft.container.id.clone(), draft.container.pod.clone()?)))
            .collect();
        let mut loaded = Vec::with_capacity(drafts.len());
        for mut draft in drafts.drain(..) {
            if let Some(pod) = draft.sandbox_id.as_deref().and_then(|id| pods.get(id)) {
                draft.set_pod(Arc::clone(pod));
            }
            loaded.push(self.complete(namespace, draft).await);
        }
        Ok(loaded)
    }

    async fn drafts(&mut self, namespace: &Namespace) -> Result<Vec<Draft>, CallError> {
        let mut drafts = Vec::new();
        match self.list(namespace, &mut drafts).await {
            Ok(()) => return Ok(drafts),
            Err(CallError::TooLarge) => {}
            Err(error) => return Err(error),
        }
        // One record that exceeds every measure ends the list, and must not hide the others: they are read one by one.
        count(&self.shared.counters.records_refused);
        for process in self.runtime.tasks(namespace).await? {
            let id = process_container(&process);
            if drafts.iter().any(|draft| draft.container.id == id) {
                continue;
            }
            match self.runtime.container(namespace, id).await {
                Ok(record) => drafts.push(self.draft(record, namespace)),
                Err(CallError::NotFound | CallError::TooLarge) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(drafts)
    }

    async fn list(&mut self, namespace: &Namespace, drafts: &mut Vec<Draft>) -> Result<(), CallError> {
        let mut list = self.runtime.containers(namespace).await?;
        while let Some(record) = list.next().await? {
            drafts.push(self.draft(record, namespace));
        }
        Ok(())
    }

    /// The tasks of all containers of a namespace, by the container's id.
    pub(super) async fn tasks(mut self, namespace: &Namespace) -> Result<HashMap<Arc<str>, Task>, CallError> {
        let processes = self.runtime.tasks(namespace).await?;
        Ok(processes.iter().map(|process| (process_container(process).into(), self.task_of(process))).collect())
    }

    async fn task(&mut self, namespace: &Namespace, id: &str) -> Option<Task> {
        let process = self.runtime.task(namespace, id).await.ok()?;
        Some(self.task_of(&process))
    }

    fn task_of(&self, process: &Process) -> Task {
        let state = match process.status() {
            ProcessStatus::Created => TaskState::Created,
            ProcessStatus::Running | ProcessStatus::Paused | ProcessStatus::Pausing => TaskState::Running,
            ProcessStatus::Stopped => TaskState::Ended,
            ProcessStatus::Unknown => TaskState::Unseen,
        };
        let alive = matches!(state, TaskState::Created | TaskState::Running);
        match (process.pid, alive) {
            (0, _) => Task { state, ..Task::default() },
            (pid, true) => node::first_process(&self.shared.host_proc, pid, None).task(state),
            (pid, false) => Task { state, pid: Some(pid), ..Task::default() },
        }
    }

    fn draft(&self, record: ContainerRecord, namespace: &Namespace) -> Draft {
        count(&self.shared.counters.records);
        let mut draft = Draft::read(record, namespace.name(), self.shared.node_capabilities);
        if let Some(defect) = &draft.defect {
            count(&self.shared.counters.specs_malformed);
            tracing::debug!(container = draft.container.id, "{defect}");
        }
        // Before there are more of them: a list has all at once.
        self.shared.share_mounts(&mut draft.container);
        draft
    }

    /// Asks for what the record does not hold.
    async fn complete(&mut self, namespace: &Namespace, draft: Draft) -> Loaded {
        let Draft { mut container, sandbox_id: _, cgroup, image: hints, defect: _ } = draft;
        let image = match self.shared.images.resolve(&mut self.runtime, namespace, &hints).await {
            Ok(image) => image,
            Err(_) => {
                self.shared.count_failed_call();
                self.shared.images.share(name_from_hints(&hints))
            }
        };
        self.name_subpaths(&mut container).await;
        container.image = image.reference;
        container.image_digest = image.digest;
        let key = Key { namespace: Arc::clone(namespace.name()), id: container.id.as_str().into() };
        Loaded { key, container, cgroup }
    }

    /// Looks at the node for the types of volumes of which the container has a part.
    async fn name_subpaths(&self, container: &mut Container) {
        let parts = subpaths::parts(container);
        if parts.is_empty() {
            return;
        }
        let host_proc = self.shared.host_proc.clone();
        let look = move || subpaths::look(&host_proc, &parts);
        // A disk that does not answer holds nobody up.
        if let Some(kinds) = self.shared.looks.run(SUBPATHS_TIMEOUT, look).await {
            subpaths::name(container, &kinds);
            self.shared.share_mounts(container);
        }
    }
}

/// Which container a task is of: containerd 1 names it `id` in a list, and leaves `container_id` empty.
fn process_container(process: &Process) -> &str {
    if process.container_id.is_empty() { &process.id } else { &process.container_id }
}
