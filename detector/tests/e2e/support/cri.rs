//! The calls of the Container Runtime Interface that a kubelet makes to run a pod, over gRPC on a unix socket.

use std::{collections::HashMap, path::Path, time::Duration};

use k8s_cri::v1::{
    ContainerConfig, ContainerState, ContainerStatus, ContainerStatusRequest, CreateContainerRequest, ExecSyncRequest,
    ExecSyncResponse, ImageSpec, ImageStatusRequest, PodSandboxConfig, RemoveContainerRequest, RunPodSandboxRequest,
    StartContainerRequest, StatusRequest, StopContainerRequest, image_service_client::ImageServiceClient,
    runtime_service_client::RuntimeServiceClient,
};
use tonic::{
    Status,
    transport::{Channel, Endpoint, Error},
};

use super::patiently;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a command in a container may take.
const COMMAND_DEADLINE: Duration = Duration::from_secs(60);

/// Labels that a kubelet sets; runtimes and tools find a pod by them.
pub mod label {
    pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
    pub const POD_NAME: &str = "io.kubernetes.pod.name";
    pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
    pub const POD_UID: &str = "io.kubernetes.pod.uid";
}

/// A client of one containerd.
#[derive(Clone)]
pub struct Cri {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
}

impl Cri {
    /// Fails where no one listens on the socket.
    pub async fn connect(socket: &Path) -> Result<Self, Error> {
        let channel = Endpoint::from_shared(format!("unix://{}", socket.display()))?
            .connect_timeout(CONNECT_TIMEOUT)
            .connect()
            .await?;
        Ok(Self { runtime: RuntimeServiceClient::new(channel.clone()), images: ImageServiceClient::new(channel) })
    }

    /// The CRI plugin has loaded; the network of pods, which the lab does without, may not be ready.
    pub async fn is_ready(&mut self) -> bool {
        let Ok(answer) = self.runtime.status(StatusRequest { verbose: false }).await else {
            return false;
        };
        let conditions = answer.into_inner().status.map(|status| status.conditions).unwrap_or_default();
        conditions.iter().any(|condition| condition.r#type == "RuntimeReady" && condition.status)
    }

    pub async fn has_image(&mut self, name: &str) -> bool {
        let request = ImageStatusRequest { image: Some(image_spec(name)), verbose: false };
        self.images.image_status(request).await.is_ok_and(|answer| answer.into_inner().image.is_some())
    }

    /// Returns the sandbox's id.
    /// `runtime` names a handler; empty for the default.
    pub async fn run_pod_sandbox(&mut self, config: PodSandboxConfig, runtime: &str) -> Result<String, Status> {
        let request = RunPodSandboxRequest { config: Some(config), runtime_handler: runtime.to_owned() };
        Ok(self.runtime.run_pod_sandbox(request).await?.into_inner().pod_sandbox_id)
    }

    /// Returns the container's id.
    pub async fn create_container(
        &mut self,
        sandbox_id: &str,
        sandbox: &PodSandboxConfig,
        config: ContainerConfig,
    ) -> Result<String, Status> {
        let request = CreateContainerRequest {
            pod_sandbox_id: sandbox_id.to_owned(),
            config: Some(config),
            sandbox_config: Some(sandbox.clone()),
        };
        Ok(self.runtime.create_container(request).await?.into_inner().container_id)
    }

    pub async fn start_container(&mut self, id: &str) -> Result<(), Status> {
        self.runtime.start_container(StartContainerRequest { container_id: id.to_owned() }).await?;
        Ok(())
    }

    /// SIGKILL after no time at all: what the lab runs has nothing to save.
    pub async fn stop_container(&mut self, id: &str) -> Result<(), Status> {
        self.stop_container_within(id, 0).await
    }

    /// SIGTERM, and SIGKILL after so many seconds.
    pub async fn stop_container_within(&mut self, id: &str, seconds: i64) -> Result<(), Status> {
        self.runtime.stop_container(StopContainerRequest { container_id: id.to_owned(), timeout: seconds }).await?;
        Ok(())
    }

    pub async fn remove_container(&mut self, id: &str) -> Result<(), Status> {
        self.runtime.remove_container(RemoveContainerRequest { container_id: id.to_owned() }).await?;
        Ok(())
    }

    pub async fn exec_sync(&mut self, id: &str, command: Vec<String>) -> Result<ExecSyncResponse, Status> {
        let timeout = COMMAND_DEADLINE.as_secs() as i64;
        let request = ExecSyncRequest { container_id: id.to_owned(), cmd: command, timeout };
        Ok(self.runtime.exec_sync(request).await?.into_inner())
    }

    /// The status of a container once it has ended.
    pub async fn wait_exit(&mut self, id: &str) -> ContainerStatus {
        let mut ended = None;
        patiently(COMMAND_DEADLINE, "the container ends", async || {
            let status = self.container_status(id).await;
            if status.state() == ContainerState::ContainerExited {
                ended = Some(status);
            }
            ended.is_some()
        })
        .await;
        ended.expect("it has ended")
    }

    async fn container_status(&mut self, id: &str) -> ContainerStatus {
        let request = ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        let answer = self.runtime.container_status(request).await.expect("containerd knows the container");
        answer.into_inner().status.expect("an answer has a status")
    }
}

/// An image by its name alone.
pub fn image_spec(name: &str) -> ImageSpec {
    ImageSpec { image: name.to_owned(), annotations: HashMap::new(), ..ImageSpec::default() }
}
