//! The parts of an OCI runtime spec that rosentry needs, read from the JSON that containerd keeps with a container.
//!
//! Who may create containers may put anything there, so it is read with limits and every part may be missing
//! (<https://github.com/opencontainers/runtime-spec/blob/v1.2.0/config.md>).

use std::collections::HashMap;

use serde::Deserialize;

use super::{model::SpecMount, source::Source};

/// A spec larger than this is not read. Kubernetes allows a pod 1.5 MiB in all (etcd's limit), environment included.
pub(super) const MAX_SPEC_BYTES: usize = 4 << 20;
/// Mounts beyond this many, and read-only paths, are left out.
pub(super) const MAX_MOUNTS: usize = 1024;

/// What a spec says.
#[derive(Debug, Default)]
pub(super) struct Spec {
    /// `root.readonly`; none where there is no root.
    pub readonly_rootfs: Option<bool>,
    /// The mounts in their order, then `linux.readonlyPaths` as what the runtime makes of them: read-only bind mounts of the
    /// paths on themselves (runc v1.1.5, `readonlyPath` in `libcontainer/rootfs_linux.go`). The volumes are not named yet.
    pub mounts: Vec<SpecMount>,
    /// The annotations.
    pub annotations: HashMap<String, String>,
    /// `linux.cgroupsPath`.
    pub cgroups_path: Option<String>,
    /// The bounding capabilities as a bit set.
    pub capabilities: u64,
    /// Whether a device rule gives access to all devices.
    pub all_devices: bool,
}

/// Why a spec was not read.
#[derive(Debug, thiserror::Error)]
pub(super) enum SpecError {
    /// Beyond [`MAX_SPEC_BYTES`].
    #[error("the OCI spec has {0} bytes, more than rosentry reads")]
    TooLarge(usize),
    /// Not JSON, or not an OCI spec.
    #[error("the OCI spec is malformed: {0}")]
    Malformed(#[from] serde_json::Error),
}

impl Spec {
    /// Reads the JSON of a spec.
    pub(super) fn parse(json: &[u8]) -> Result<Self, SpecError> {
        if json.len() > MAX_SPEC_BYTES {
            return Err(SpecError::TooLarge(json.len()));
        }
        let Document { root, mounts, annotations, linux, process } = serde_json::from_slice(json)?;
        let linux = linux.unwrap_or_default();
        let mounts = mounts.unwrap_or_default().into_iter().take(MAX_MOUNTS).map(Mount::into_model);
        let readonly_paths = linux.readonly_paths.unwrap_or_default().into_iter().take(MAX_MOUNTS).map(readonly_path);
        let capabilities = process.and_then(|process| process.capabilities).and_then(|sets| sets.bounding);
        Ok(Self {
            readonly_rootfs: root.map(|root| root.readonly.unwrap_or(false)),
            mounts: mounts.chain(readonly_paths).collect(),
            annotations: annotations.unwrap_or_default(),
            cgroups_path: linux.cgroups_path,
            capabilities: capabilities
                .unwrap_or_default()
                .iter()
                .filter_map(|name| capability_bit(name))
                .fold(0, |set, bit| set | bit),
            all_devices: linux
                .resources
                .and_then(|resources| resources.devices)
                .is_some_and(|rules| rules.iter().any(DeviceRule::allows_all)),
        })
    }

    /// Whether it takes none of the node's capabilities (a bit set) away, nor any device.
    pub(super) const fn is_unconfined(&self, node_capabilities: u64) -> bool {
        self.all_devices && node_capabilities != 0 && node_capabilities & !self.capabilities == 0
    }
}

#[derive(Deserialize)]
struct Document {
    root: Option<Root>,
    mounts: Option<Vec<Mount>>,
    annotations: Option<HashMap<String, String>>,
    linux: Option<Linux>,
    process: Option<Process>,
}

#[derive(Deserialize)]
struct Root {
    readonly: Option<bool>,
}

#[derive(Deserialize)]
struct Mount {
    destination: String,
    r#type: Option<String>,
    source: Option<String>,
    options: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
struct Linux {
    #[serde(rename = "cgroupsPath")]
    cgroups_path: Option<String>,
    #[serde(rename = "readonlyPaths")]
    readonly_paths: Option<Vec<String>>,
    resources: Option<Resources>,
}

#[derive(Deserialize)]
struct Resources {
    devices: Option<Vec<DeviceRule>>,
}

#[derive(Deserialize)]
struct DeviceRule {
    allow: bool,
    r#type: Option<String>,
    major: Option<i64>,
    minor: Option<i64>,
    access: Option<String>,
}

#[derive(Deserialize)]
struct Process {
    capabilities: Option<CapabilitySets>,
}

#[derive(Deserialize)]
struct CapabilitySets {
    bounding: Option<Vec<String>>,
}

impl Mount {
    fn into_model(self) -> SpecMount {
        let options = self.options.unwrap_or_default();
        let is_bind = options.iter().any(|option| option == "bind" || option == "rbind");
        // The later of two that contradict each other counts, as for mount(8).
        let readonly = options.iter().rfind(|option| matches!(option.as_str(), "ro" | "rro" | "rw"));
        SpecMount {
            destination: self.destination,
            // A bind mount need not say its type; what it says then is ignored by the runtime.
            fstype: if is_bind { Some("bind".to_owned()) } else { self.r#type.filter(|fstype| !fstype.is_empty()) },
            source: self.source.as_deref().filter(|source| !source.is_empty()).map(Source::from),
            readonly: readonly.is_some_and(|option| option != "rw"),
            volume: None,
        }
    }
}

fn readonly_path(destination: String) -> SpecMount {
    SpecMount { destination, fstype: Some("bind".to_owned()), source: None, readonly: true, volume: None }
}

impl DeviceRule {
    fn allows_all(&self) -> bool {
        let Self { allow, r#type, major, minor, access } = self;
        *allow
            && r#type.as_deref().is_none_or(|kind| matches!(kind, "" | "a"))
            && major.is_none_or(|major| major < 0)
            && minor.is_none_or(|minor| minor < 0)
            && access.as_deref().is_none_or(|access| "rwm".chars().all(|letter| access.contains(letter)))
    }
}

/// The capabilities in the order of their numbers (`include/uapi/linux/capability.h`, v6.18).
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

fn capability_bit(name: &str) -> Option<u64> {
    let name = name.strip_prefix("CAP_")?;
    CAPABILITIES.iter().position(|known| *known == name).map(|number| 1 << number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: u64 = (1 << CAPABILITIES.len()) - 1;

    #[test]
    fn the_seal_and_the_mounts_are_read() {
        let spec = Spec::parse(
            br#"{"ociVersion":"1.0.2-dev","root":{"path":"rootfs","readonly":true},
            "mounts":[
              {"destination":"/proc","type":"proc","source":"proc","options":["nosuid"]},
              {"destination":"/conf","type":"bind","source":"/var/x","options":["rbind","rprivate","ro"]},
              {"destination":"/data","source":"/var/y","options":["bind","ro","rw"]},
              {"destination":"/tmp","type":"tmpfs","source":"","options":null}],
            "linux":{"cgroupsPath":"/kubepods/x"},"annotations":{"a":"b"}}"#,
        )
        .unwrap();
        assert_eq!(spec.readonly_rootfs, Some(true));
        assert_eq!(spec.cgroups_path.as_deref(), Some("/kubepods/x"));
        assert_eq!(spec.annotations["a"], "b");
        let mounts: Vec<_> = spec
            .mounts
            .iter()
            .map(|mount| (mount.destination.as_str(), mount.fstype.as_deref(), mount.source.clone(), mount.readonly))
            .collect();
        assert_eq!(
            mounts,
            [
                ("/proc", Some("proc"), Some("proc".into()), false),
                ("/conf", Some("bind"), Some("/var/x".into()), true),
                ("/data", Some("bind"), Some("/var/y".into()), false),
                ("/tmp", Some("tmpfs"), None, false),
            ]
        );
    }

    #[test]
    fn read_only_paths_are_read_only_mounts_that_come_last() {
        let spec = Spec::parse(
            br#"{"mounts":[{"destination":"/proc","type":"proc"}],"linux":{"readonlyPaths":["/proc/sys","/proc/bus"]}}"#,
        )
        .unwrap();
        let mounts: Vec<_> = spec.mounts.iter().map(|mount| (mount.destination.as_str(), mount.readonly)).collect();
        assert_eq!(mounts, [("/proc", false), ("/proc/sys", true), ("/proc/bus", true)]);
        assert!(Spec::parse(br#"{"linux":{"readonlyPaths":null}}"#).unwrap().mounts.is_empty());
    }

    #[test]
    fn a_root_that_does_not_say_is_writable_and_no_root_is_unknown() {
        assert_eq!(Spec::parse(br#"{"root":{"path":"rootfs"}}"#).unwrap().readonly_rootfs, Some(false));
        assert_eq!(Spec::parse(b"{}").unwrap().readonly_rootfs, None);
        assert_eq!(Spec::parse(br#"{"root":null,"mounts":null,"linux":null}"#).unwrap().readonly_rootfs, None);
    }

    #[test]
    fn unconfined_means_every_capability_of_the_node_and_every_device() {
        let spec = |capabilities: &[&str], devices: &str| {
            let capabilities: Vec<String> = capabilities.iter().map(|name| format!("\"CAP_{name}\"")).collect();
            let json = format!(
                r#"{{"process":{{"capabilities":{{"bounding":[{}]}}}},"linux":{{"resources":{{"devices":[{devices}]}}}}}}"#,
                capabilities.join(",")
            );
            Spec::parse(json.as_bytes()).unwrap()
        };
        let all_devices = r#"{"allow":false,"access":"rwm"},{"allow":true,"access":"rwm"}"#;
        assert!(spec(&CAPABILITIES, all_devices).is_unconfined(ALL));
        let without_one: Vec<&str> = CAPABILITIES.into_iter().filter(|name| *name != "SYS_RESOURCE").collect();
        assert!(!spec(&without_one, all_devices).is_unconfined(ALL));
        assert!(spec(&without_one, all_devices).is_unconfined(ALL & !(1 << 24)));
        assert!(!spec(&CAPABILITIES, r#"{"allow":false,"access":"rwm"}"#).is_unconfined(ALL));
        assert!(
            !spec(&CAPABILITIES, r#"{"allow":true,"type":"c","major":1,"minor":3,"access":"rwm"}"#).is_unconfined(ALL)
        );
        assert!(!Spec::default().is_unconfined(0));
    }

    #[test]
    fn what_is_no_spec_is_refused_not_guessed_at() {
        for malformed in [
            &b""[..],
            b"not json",
            b"[]",
            b"null",
            b"\xff\xfe\x00",
            br#"{"root":{"readonly":"yes"}}"#,
            br#"{"root":[]}"#,
            br#"{"mounts":{"destination":"/"}}"#,
            br#"{"mounts":[{"destination":7}]}"#,
            br#"{"root":{"readonly":true}"#,
        ] {
            let result = Spec::parse(malformed);
            assert!(matches!(result, Err(SpecError::Malformed(_))), "{}", String::from_utf8_lossy(malformed));
        }
    }

    #[test]
    fn a_huge_spec_costs_nothing_and_a_deep_one_does_not_overflow_the_stack() {
        let huge = vec![b' '; MAX_SPEC_BYTES + 1];
        assert!(matches!(Spec::parse(&huge), Err(SpecError::TooLarge(size)) if size == huge.len()));
        let deep = format!(r#"{{"hooks":{}}}"#, "[".repeat(1_000_000));
        assert!(matches!(Spec::parse(deep.as_bytes()), Err(SpecError::Malformed(_))));
    }

    #[test]
    fn of_countless_mounts_the_first_are_kept() {
        let mounts = vec![r#"{"destination":"/m"}"#; 5_000].join(",");
        let spec = Spec::parse(format!(r#"{{"mounts":[{mounts}]}}"#).as_bytes()).unwrap();
        assert_eq!(spec.mounts.len(), MAX_MOUNTS);
    }

    proptest! {
        #[test]
        fn no_bytes_crash_the_parser(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = Spec::parse(&bytes);
        }

        #[test]
        fn a_spec_cut_anywhere_is_refused(cut in 1usize..60) {
            let whole = br#"{"root":{"readonly":true},"mounts":[{"destination":"/proc"}]}"#;
            prop_assert!(Spec::parse(&whole[..whole.len() - cut]).is_err());
        }
    }
}
