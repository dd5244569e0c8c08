//! Whether containerd answers, and what to do where it does not.

use std::path::{Path, PathBuf};

use super::check::Check;
use crate::identity::{ProbeError, probe};

/// Where containerd has its socket unless it was told otherwise.
pub const USUAL_SOCKET: &str = "/run/containerd/containerd.sock";

/// Where distributions of Kubernetes put it instead: K3s and RKE2, k0s, MicroK8s.
const OTHER_SOCKETS: &[&str] = &[
    "/run/k3s/containerd/containerd.sock",
    "/run/k0s/containerd.sock",
    "/var/snap/microk8s/common/run/containerd.sock",
];

pub(super) async fn examine(socket: &Path) -> Check {
    // The form in which the CRI tools name a socket.
    let path =
        socket.to_str().and_then(|path| path.strip_prefix("unix://")).map_or_else(|| socket.into(), PathBuf::from);
    match probe(&path).await {
        Ok(version) => Check::ok("containerd", format!("version {} at {}", version.version, path.display())),
        Err(error) => of_error(&error, OTHER_SOCKETS.iter().find(|other| Path::new(other).exists())),
    }
}

/// Where waiting may help, the agent waits; else it would not start.
fn of_error(error: &ProbeError, elsewhere: Option<&&str>) -> Check {
    let (found, usual_mend) = match error {
        ProbeError::Absent { socket } => (format!("no socket at {}", socket.display()), "start containerd"),
        ProbeError::Refused { socket } => (format!("nobody listens at {}", socket.display()), "start containerd"),
        ProbeError::Denied { socket, source } => {
            (format!("no way in at {}: {source}", socket.display()), "run as root")
        }
        ProbeError::NoAnswer { socket, listener } => {
            let listener = listener.as_deref().map(|name| format!(", where {name} listens")).unwrap_or_default();
            (format!("no answer at {}{listener}", socket.display()), "restart containerd")
        }
        ProbeError::NotContainerd { socket, found } => {
            (format!("{} is not containerd's: {found}", socket.display()), "look where containerd's socket is")
        }
    };
    let found = format!("{found}; without it no event names a container");
    let mend = match elsewhere {
        Some(elsewhere) => format!("there is a socket at {elsewhere}: name it with --containerd-socket"),
        None => format!("{usual_mend}, or name its socket with --containerd-socket"),
    };
    if error.is_final() {
        Check::missing("containerd", found, mend)
    } else {
        Check::degraded("containerd", found, mend)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::check::Status, *};

    #[tokio::test]
    async fn a_containerd_that_is_not_there_can_come_yet() {
        let check = examine(Path::new("unix:///nonexistent/containerd.sock")).await;
        assert_eq!(check.status, Status::Degraded);
        assert!(check.found.contains("no socket at /nonexistent/containerd.sock"), "{}", check.found);
    }

    #[tokio::test]
    async fn what_is_no_containerd_keeps_the_agent_from_starting() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(examine(file.path()).await.status, Status::Missing);
    }

    #[test]
    fn a_socket_of_another_distribution_is_pointed_out() {
        let absent = ProbeError::Absent { socket: USUAL_SOCKET.into() };
        let mend = of_error(&absent, Some(&OTHER_SOCKETS[0])).mend.unwrap();
        assert!(mend.contains("/run/k3s/containerd/containerd.sock"), "{mend}");
    }
}
