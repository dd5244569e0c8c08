//! Where things are in the workspace, and the host's cargo with those places set.

use std::{
    env,
    ffi::OsString,
    path,
    path::{Path, PathBuf},
    process::Command,
};

use crate::process::outside_cargo;

/// The linked kernel programs, in the target directory of the kernel side.
pub const OBJECT: &str = "bpfel-unknown-none/release/rosentry-bpf";

/// The checkout and its target directory.
pub struct Workspace {
    root: PathBuf,
    target: PathBuf,
}

impl Workspace {
    /// The checkout that this run of cargo belongs to, with the target directory that the environment names, else `target`.
    pub fn locate() -> Self {
        // Asked at run time first: two checkouts may share a target directory, and with it this very binary.
        let manifest =
            env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest.parent().map_or_else(|| manifest.clone(), Path::to_path_buf);
        let target = ["CARGO_TARGET_DIR", "CARGO_BUILD_TARGET_DIR"]
            .into_iter()
            .find_map(env::var_os)
            .and_then(|directory| path::absolute(directory).ok())
            .unwrap_or_else(|| root.join("target"));
        Self { root, target }
    }

    /// The checkout.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Cargo's target directory for the host.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// The target directory of the kernel side: its own, because the outer cargo may hold the lock of the other.
    pub fn kernel_target(&self) -> PathBuf {
        self.target.join("bpf")
    }

    /// The linked kernel programs, which `detector/build.rs` hands to the agent.
    pub fn kernel_object(&self) -> PathBuf {
        self.kernel_target().join(OBJECT)
    }

    /// The agent as `cargo xtask build` leaves it.
    pub fn binary(&self) -> PathBuf {
        self.target.join("release/rosentry")
    }

    /// Flags that take the places of this machine out of what is compiled: the checkout, the compiler's, and where cargo keeps crates.
    pub fn remappings(&self, sysroot: &Path) -> Vec<OsString> {
        let cargo = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".cargo")));
        // The last that fits is taken: the target folder is most often in the checkout.
        let places = [
            (cargo, "/cargo"),
            (Some(sysroot.to_path_buf()), "/rust"),
            (Some(self.root.clone()), "/rosentry"),
            (Some(self.target.clone()), "/target"),
        ];
        let remapping = |(place, name): (Option<PathBuf>, &str)| {
            let mut flag = OsString::from("--remap-path-prefix=");
            flag.push(place?);
            flag.push(format!("={name}"));
            Some(flag)
        };
        places.into_iter().filter_map(remapping).collect()
    }

    /// The cargo that runs us, for the host's crates.
    pub fn cargo(&self) -> Command {
        let mut command = outside_cargo(self, env::var_os("CARGO").unwrap_or("cargo".into()));
        self.place(&mut command);
        command
    }

    /// Sets what the builds of the host's crates rely on.
    pub fn place(&self, command: &mut Command) {
        command
            .current_dir(&self.root)
            .env("CARGO_TARGET_DIR", &self.target)
            .env("ROSENTRY_BPF_OBJECT", self.kernel_object());
    }
}
