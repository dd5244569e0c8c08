//! containerd's gRPC services as far as rosentry calls them: every call with a time limit, every message with a size limit.

use std::{future::Future, path::Path, sync::Arc, time::Duration};

use containerd_client::{
    services::v1::{
        Container as ContainerRecord, GetContainerRequest, GetImageRequest, GetRequest, Image, ListContainersRequest,
        ListImagesRequest, ListTasksRequest, SubscribeRequest, containers_client::ContainersClient,
        events_client::EventsClient, images_client::ImagesClient, tasks_client::TasksClient,
        version_client::VersionClient,
    },
    types::v1::Process,
};
use tonic::{
    Code, Request, Status, Streaming,
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint},
};

use super::event_stream::EventStream;
use crate::error_chain::chain;

/// For any one answer, and for each message of a list.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// A container's record holds its environment twice, as asked for and as given, and the kernel lets a program start with
/// 2 MiB of it. What is larger is not worth the memory that many such records at once would take.
const MAX_MESSAGE_BYTES: usize = 6 << 20;
/// The header that names the namespace (containerd v1.6.20, `namespaces/grpc.go`).
const NAMESPACE_HEADER: &str = "containerd-namespace";

/// The events that matter here, as a regular expression.
const TOPICS: &str = "containers/(create|update|delete)|tasks/(create|start|exit|delete)|images/(create|update|delete)";

/// The topic of the event that a container's first process was made.
pub(super) const TASK_CREATED: &str = "/tasks/create";

/// A connection to containerd.
#[derive(Clone, Debug)]
pub(super) struct Runtime {
    containers: ContainersClient<Channel>,
    tasks: TasksClient<Channel>,
    images: ImagesClient<Channel>,
    events: EventsClient<Channel>,
    version: VersionClient<Channel>,
}

/// What containerd says it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Version {
    /// `1.6.20`, or as the distribution has it.
    pub version: String,
    /// The commit it was built from, or as the distribution has it.
    pub revision: String,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// containerd does not know the thing asked for.
    #[error("containerd knows nothing of that name")]
    NotFound,
    /// The answer exceeds the size limit.
    #[error("the answer is larger than rosentry takes")]
    TooLarge,
    /// [`CALL_TIMEOUT`] is over.
    #[error("containerd gave no answer within {} s", CALL_TIMEOUT.as_secs())]
    Timeout,
    /// The service does not exist there.
    #[error("no such service")]
    Unimplemented,
    /// The connection could not be made, or was lost.
    #[error("{0}")]
    Lost(String),
    /// Any other refusal.
    #[error("containerd refused: {0}")]
    Refused(String),
}

impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        match status.code() {
            Code::NotFound => Self::NotFound,
            // The first is tonic's word for a message beyond the limit here, the second that of containerd for one there.
            Code::OutOfRange | Code::ResourceExhausted => Self::TooLarge,
            Code::DeadlineExceeded => Self::Timeout,
            Code::Unimplemented => Self::Unimplemented,
            Code::Unavailable | Code::Cancelled | Code::Unknown | Code::Internal => Self::Lost(in_words(&status)),
            _ => Self::Refused(status.message().to_owned()),
        }
    }
}

/// What a status says. Its own text tells its cause as programmers read it.
fn in_words(status: &Status) -> String {
    std::error::Error::source(status).map_or_else(|| status.message().to_owned(), chain)
}

impl Runtime {
    /// Opens a connection. That someone listens does not mean yet that it is containerd: ask for its
    /// [`version`](Self::version).
    pub(super) async fn connect(socket: &Path) -> Result<Self, CallError> {
        let lost = |error: &dyn std::error::Error| CallError::Lost(chain(error));
        let path = socket.to_str().ok_or_else(|| CallError::Lost("the path of the socket is not UTF-8".into()))?;
        let endpoint = Endpoint::from_shared(format!("unix://{path}")).map_err(|error| lost(&error))?;
        Ok(Self::over(limited(async { endpoint.connect().await.map_err(|error| lost(&error)) }).await?))
    }

    /// Over a connection, made or to be made.
    pub(super) fn over(channel: Channel) -> Self {
        Self {
            containers: ContainersClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES),
            tasks: TasksClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES),
            images: ImagesClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES),
            events: EventsClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES),
            version: VersionClient::new(channel),
        }
    }

    /// What containerd says it is; also the cheapest way to learn whether it answers.
    pub(super) async fn version(&mut self) -> Result<Version, CallError> {
        let answer = limited(self.version.version(())).await?.into_inner();
        Ok(Version { version: answer.version, revision: answer.revision })
    }

    /// The events from now on: of containers, tasks and images in these namespaces, and of first processes in all.
    pub(super) async fn subscribe(&mut self, namespaces: &[Namespace]) -> Result<EventStream, CallError> {
        // Filters of a list are alternatives, conditions within a filter go together. Execs, of which probes make many,
        // are left out.
        let filters =
            namespaces.iter().map(|namespace| format!("topic~=\"^/({TOPICS})$\",namespace==\"{}\"", namespace.name));
        let of_all = format!("topic==\"{TASK_CREATED}\"");
        let request = SubscribeRequest { filters: filters.chain([of_all]).collect() };
        let mut client = self.events.clone();
        let events = EventStream::begin(async move { client.subscribe(request).await }).await?;
        // containerd takes the requests of a connection in turn: once this is answered, the subscription has been taken, and
        // what is listed from now on is not older than the first event.
        self.version().await?;
        Ok(events)
    }

    /// One container.
    pub(super) async fn container(&mut self, namespace: &Namespace, id: &str) -> Result<ContainerRecord, CallError> {
        let request = namespace.request(GetContainerRequest { id: id.to_owned() });
        limited(self.containers.get(request)).await?.into_inner().container.ok_or(CallError::NotFound)
    }

    /// All containers, one after the other.
    pub(super) async fn containers(&mut self, namespace: &Namespace) -> Result<ContainerList, CallError> {
        let request = namespace.request(ListContainersRequest { filters: Vec::new() });
        Ok(ContainerList { stream: limited(self.containers.list_stream(request)).await?.into_inner() })
    }

    /// The first process of a container.
    pub(super) async fn task(&mut self, namespace: &Namespace, id: &str) -> Result<Process, CallError> {
        let request = namespace.request(GetRequest { container_id: id.to_owned(), exec_id: String::new() });
        limited(self.tasks.get(request)).await?.into_inner().process.ok_or(CallError::NotFound)
    }

    /// The first process of every container that has one.
    pub(super) async fn tasks(&mut self, namespace: &Namespace) -> Result<Vec<Process>, CallError> {
        let request = namespace.request(ListTasksRequest { filter: String::new() });
        Ok(limited(self.tasks.list(request)).await?.into_inner().tasks)
    }

    /// The image of this name.
    pub(super) async fn image(&mut self, namespace: &Namespace, name: &str) -> Result<Image, CallError> {
        let request = namespace.request(GetImageRequest { name: name.to_owned() });
        limited(self.images.get(request)).await?.into_inner().image.ok_or(CallError::NotFound)
    }

    /// The images whose manifest or index has this digest.
    pub(super) async fn images_of(&mut self, namespace: &Namespace, digest: &str) -> Result<Vec<Image>, CallError> {
        let filters = vec![format!("target.digest==\"{digest}\"")];
        let request = namespace.request(ListImagesRequest { filters });
        Ok(limited(self.images.list(request)).await?.into_inner().images)
    }
}

/// Containers as they come in.
#[derive(Debug)]
pub(super) struct ContainerList {
    stream: Streaming<containerd_client::services::v1::ListContainerMessage>,
}

impl ContainerList {
    /// The next one; none at the end.
    pub(super) async fn next(&mut self) -> Result<Option<ContainerRecord>, CallError> {
        Ok(limited(self.stream.message()).await?.and_then(|message| message.container))
    }
}

/// A namespace of containerd, checked to be one.
#[derive(Clone, Debug)]
pub(super) struct Namespace {
    name: Arc<str>,
    header: MetadataValue<Ascii>,
}

impl Namespace {
    /// None where no namespace can be called so: containerd takes letters, digits, `-`, `.` and `_`
    /// (v1.6.20, `identifiers/validate.go`).
    pub(super) fn new(name: &str) -> Option<Self> {
        let is_valid = !name.is_empty()
            && name.len() <= 76
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
        let header = is_valid.then(|| name.parse().ok()).flatten()?;
        Some(Self { name: name.into(), header })
    }

    /// Its name.
    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert(NAMESPACE_HEADER, self.header.clone());
        request
    }
}

impl AsRef<str> for Namespace {
    fn as_ref(&self) -> &str {
        &self.name
    }
}

/// Ends a call that takes too long. containerd learns of it, since a dropped call resets its stream.
async fn limited<T, E: Into<CallError>>(call: impl Future<Output = Result<T, E>>) -> Result<T, CallError> {
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(answer) => answer.map_err(Into::into),
        Err(_) => Err(CallError::Timeout),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_is_lost_is_told_in_words() {
        let cause = std::io::Error::from_raw_os_error(32);
        let error = CallError::from(Status::from_error(Box::new(cause)));
        assert_eq!(error.to_string(), "Broken pipe (os error 32)");
        assert_eq!(CallError::from(Status::unavailable("gone")).to_string(), "gone");
    }
}
