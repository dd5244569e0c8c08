//! What containerd's CRI plugin writes down about the containers and sandboxes that it makes: an extension of
//! containerd's record, in JSON (containerd v1.6.20, `pkg/cri/store/container/metadata.go` and `…/sandbox/metadata.go`;
//! version `v1` since 2018, also in containerd 2).
//!
//! It is the CRI request itself, so unlike labels it holds nothing that came from an image.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Name of a container's extension.
pub(super) const CONTAINER_EXTENSION: &str = "io.cri-containerd.container.metadata";
/// Name of a sandbox's extension.
pub(super) const SANDBOX_EXTENSION: &str = "io.cri-containerd.sandbox.metadata";
/// Metadata larger than this is not read.
const MAX_METADATA_BYTES: usize = 4 << 20;

/// The request for a container.
#[derive(Debug)]
pub(super) struct CriContainer {
    /// Name within the pod.
    pub name: Option<String>,
    /// The sandbox it is in.
    pub sandbox_id: Option<String>,
    /// Digest of the image's configuration, `sha256:…`.
    pub image_config_digest: Option<String>,
    /// The image as asked for: a reference, or the digest of its configuration.
    pub image: Option<String>,
    /// The image as the pod's spec names it, where the kubelet says (1.30).
    pub image_in_pod_spec: Option<String>,
    /// Whether it is privileged.
    pub privileged: bool,
}

/// The request for a sandbox.
#[derive(Debug)]
pub(super) struct CriSandbox {
    /// Name of the pod.
    pub name: String,
    /// Kubernetes namespace.
    pub namespace: String,
    /// Kubernetes uid.
    pub uid: String,
    /// Labels of the pod, with the kubelet's own.
    pub labels: BTreeMap<String, String>,
    /// Whether any of the pod's containers may be privileged.
    pub privileged: bool,
}

impl CriContainer {
    /// Reads the extension; none where it is malformed or too large.
    pub(super) fn parse(json: &[u8]) -> Option<Self> {
        let Metadata { sandbox_id, image_ref, config } = parse(json)?;
        let privileged = config.is_privileged();
        let image = config.image.unwrap_or_default();
        Some(Self {
            name: non_empty(config.metadata.name),
            sandbox_id: non_empty(sandbox_id),
            image_config_digest: non_empty(image_ref).filter(|digest| digest.starts_with("sha256:")),
            image: non_empty(image.image),
            image_in_pod_spec: non_empty(image.user_specified_image),
            privileged,
        })
    }
}

impl CriSandbox {
    /// Reads the extension; none where it is malformed, too large, or does not name a pod.
    pub(super) fn parse(json: &[u8]) -> Option<Self> {
        let Metadata { config, .. } = parse(json)?;
        let privileged = config.is_privileged();
        Some(Self {
            name: non_empty(config.metadata.name)?,
            namespace: non_empty(config.metadata.namespace)?,
            uid: config.metadata.uid.unwrap_or_default(),
            labels: config.labels.unwrap_or_default(),
            privileged,
        })
    }
}

fn parse(json: &[u8]) -> Option<Metadata> {
    if json.len() > MAX_METADATA_BYTES {
        return None;
    }
    let versioned: Versioned = serde_json::from_slice(json).ok()?;
    (versioned.version == "v1").then_some(versioned.metadata)
}

fn non_empty(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

#[derive(Deserialize)]
struct Versioned {
    #[serde(rename = "Version")]
    version: String,
    #[serde(rename = "Metadata")]
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(rename = "SandboxID")]
    sandbox_id: Option<String>,
    #[serde(rename = "ImageRef")]
    image_ref: Option<String>,
    #[serde(rename = "Config")]
    config: Config,
}

#[derive(Deserialize)]
struct Config {
    metadata: Name,
    image: Option<Image>,
    labels: Option<BTreeMap<String, String>>,
    linux: Option<Linux>,
}

#[derive(Deserialize)]
struct Name {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
}

#[derive(Default, Deserialize)]
struct Image {
    image: Option<String>,
    user_specified_image: Option<String>,
}

#[derive(Deserialize)]
struct Linux {
    security_context: Option<SecurityContext>,
}

#[derive(Deserialize)]
struct SecurityContext {
    privileged: Option<bool>,
}

impl Config {
    fn is_privileged(&self) -> bool {
        let context = self.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
        context.and_then(|context| context.privileged).unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_s_request_is_read() {
        // As Debian's containerd 1.6.20 keeps it, shortened.
        let container = CriContainer::parse(
            br#"{"Version":"v1","Metadata":{"ID":"d59f","Name":"app_web_prod_0aa1_0","SandboxID":"dd6b",
            "Config":{"metadata":{"name":"app"},"image":{"image":"sha256:b713"},"command":["sleep"],
              "labels":{"io.kubernetes.pod.name":"web"},"log_path":"app/0.log",
              "linux":{"security_context":{"privileged":true,"namespace_options":{"network":2},"readonly_rootfs":true}}},
            "ImageRef":"sha256:b713","LogPath":"","StopSignal":""}}"#,
        )
        .unwrap();
        assert_eq!(container.name.as_deref(), Some("app"));
        assert_eq!(container.sandbox_id.as_deref(), Some("dd6b"));
        assert_eq!(container.image_config_digest.as_deref(), Some("sha256:b713"));
        assert_eq!(container.image_in_pod_spec, None);
        assert!(container.privileged);
    }

    #[test]
    fn a_sandbox_s_request_is_read() {
        let sandbox = CriSandbox::parse(
            br#"{"Version":"v1","Metadata":{"ID":"dd6b","Config":{"metadata":{"name":"web","uid":"0aa1","namespace":"prod"},
            "labels":{"app":"web"},"annotations":{"a":"x"}},"NetNSPath":"","AdditionalIPs":null}}"#,
        )
        .unwrap();
        assert_eq!((&*sandbox.namespace, &*sandbox.name, &*sandbox.uid), ("prod", "web", "0aa1"));
        assert_eq!(sandbox.labels["app"], "web");
        assert!(!sandbox.privileged);
    }

    #[test]
    fn what_is_not_of_this_version_or_no_request_is_refused() {
        for malformed in [
            &br#"{"Version":"v2","Metadata":{"Config":{"metadata":{"name":"a","namespace":"b"}}}}"#[..],
            br#"{"Version":"v1","Metadata":{"Config":{}}}"#,
            br#"{"Version":"v1","Metadata":{"Config":{"metadata":{"name":["a"]}}}}"#,
            br#"{"Version":"v1"}"#,
            b"",
            b"\x00\x01",
        ] {
            assert!(CriContainer::parse(malformed).is_none(), "{}", String::from_utf8_lossy(malformed));
            assert!(CriSandbox::parse(malformed).is_none(), "{}", String::from_utf8_lossy(malformed));
        }
        assert!(CriSandbox::parse(br#"{"Version":"v1","Metadata":{"Config":{"metadata":{"name":"a"}}}}"#).is_none());
        assert!(CriContainer::parse(&vec![b' '; MAX_METADATA_BYTES + 1]).is_none());
    }
}
