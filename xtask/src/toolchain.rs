//! The compiler of the kernel programs: one that has the sources of `core`, which the BPF target has to be given as source.
//!
//! Two kinds are taken: the one that runs us (rustup's component `rust-src`, or Debian's `rust-web-src` beside Debian's own), and
//! Debian's in `/usr/bin` beside a rustup whose server is out of reach.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{
    process::{attempt, outside_cargo, probe},
    workspace::Workspace,
};

/// What Debian calls a compiler, its cargo and the sources of its libraries.
pub const DEBIAN_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

/// What Debian calls their clippy.
pub const DEBIAN_CLIPPY: &str = "rust-web-clippy";

/// Where Debian puts them.
const DEBIAN_BIN: &str = "/usr/bin";

/// A rustc with the cargo beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiler {
    /// The folder that holds rustc, cargo and, perhaps, cargo-clippy.
    bin: PathBuf,
    /// What it says of itself.
    pub version: Version,
    /// Where its libraries and their sources are.
    pub sysroot: PathBuf,
    /// Whether the sources of `core` are in its sysroot.
    has_sources: bool,
}

/// What matters of `rustc -vV`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Such as `1.95.0`.
    pub release: String,
    /// The triple that it compiles for by default.
    pub host: String,
    /// The linker of the kernel programs must be made with the same, because it reads this one's bitcode.
    pub llvm_major: u32,
}

impl Version {
    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        Some(Self {
            release: field("release")?.to_owned(),
            host: field("host")?.to_owned(),
            llvm_major: field("LLVM version")?.split('.').next()?.parse().ok()?,
        })
    }
}

impl Compiler {
    /// The compiler of the cargo that runs us.
    pub fn active(workspace: &Workspace) -> Result<Self> {
        let bin = match env::var_os("CARGO").map(PathBuf::from) {
            Some(cargo) => cargo.parent().map(Path::to_path_buf),
            None => None,
        };
        bin.and_then(|bin| Self::at(workspace, bin))
            .or_else(|| {
                let sysroot = probe(outside_cargo(workspace, "rustc").args(["--print", "sysroot"]))?;
                Self::at(workspace, Path::new(sysroot.trim()).join("bin"))
            })
            .context("no rustc is to be found: install Rust 1.95 or newer with rustup, then run this again")
    }

    /// Debian's compiler, where it is installed.
    pub fn debian(workspace: &Workspace) -> Option<Self> {
        Self::at(workspace, DEBIAN_BIN.into())
    }

    fn at(workspace: &Workspace, bin: PathBuf) -> Option<Self> {
        let rustc = bin.join("rustc");
        // A rustc without a cargo beside it can build no workspace.
        if !bin.join("cargo").exists() {
            return None;
        }
        let version = Version::parse(&probe(outside_cargo(workspace, &rustc).arg("-vV"))?)?;
        let sysroot = probe(outside_cargo(workspace, &rustc).args(["--print", "sysroot"]))?;
        let sysroot = PathBuf::from(sysroot.trim());
        let has_sources = sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs").exists();
        Some(Self { bin, version, sysroot, has_sources })
    }

    /// A compiler that has the sources of `core`, if there is one: the active one before Debian's.
    pub fn for_kernel(workspace: &Workspace) -> Result<Option<Self>> {
        let candidates = [Some(Self::active(workspace)?), Self::debian(workspace)];
        Ok(first_with_sources(candidates.into_iter().flatten()))
    }

    /// Whether this is Debian's.
    pub fn is_debian(&self) -> bool {
        self.bin == Path::new(DEBIAN_BIN)
    }

    /// Whether Debian's compiler has its clippy.
    pub fn debian_has_clippy() -> bool {
        Path::new(DEBIAN_BIN).join("cargo-clippy").exists()
    }

    /// `rustc` itself.
    pub fn rustc(&self, workspace: &Workspace) -> Command {
        outside_cargo(workspace, self.bin.join("rustc"))
    }

    /// The cargo beside it, told to use this rustc and no other that is earlier on the PATH.
    pub fn cargo(&self, workspace: &Workspace) -> Command {
        self.told_to_use_this(outside_cargo(workspace, self.bin.join("cargo")))
    }

    /// `cargo clippy` of this compiler, where it is installed.
    pub fn clippy(&self, workspace: &Workspace) -> Option<Command> {
        let clippy = self.bin.join("cargo-clippy");
        clippy.exists().then(|| {
            let mut command = self.told_to_use_this(outside_cargo(workspace, clippy));
            command.env("CARGO", self.bin.join("cargo")).arg("clippy");
            command
        })
    }

    fn told_to_use_this(&self, mut command: Command) -> Command {
        command.env("RUSTC", self.bin.join("rustc"));
        command.env("RUSTDOC", self.bin.join("rustdoc"));
        for wrapper in ["RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"] {
            command.env_remove(wrapper);
        }
        command
    }
}

fn first_with_sources(candidates: impl IntoIterator<Item = Compiler>) -> Option<Compiler> {
    candidates.into_iter().find(|compiler| compiler.has_sources)
}

/// Asks rustup for components of the active toolchain. Whether they came is for the caller to probe: rustup may be missing, its
/// server out of reach, or the toolchain one of the user's own making.
pub fn add_components(workspace: &Workspace, components: &[&str]) {
    if probe(outside_cargo(workspace, "rustup").arg("--version")).is_none() {
        return;
    }
    let purpose = format!("adding {} with rustup", components.join(" and "));
    // Five minutes, because a server out of reach need not say no.
    let mut command = outside_cargo(workspace, "timeout");
    command.args(["300", "rustup", "component", "add"]).args(components);
    match attempt(&purpose, &mut command) {
        Ok(status) if status.success() => {}
        Ok(_) => eprintln!("  rustup could not; looking for another way"),
        Err(error) => eprintln!("  {error:#}; looking for another way"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUSTUP: &str = "rustc 1.95.0 (59807616e 2026-04-14)\nbinary: rustc\ncommit-hash: 59807616e1fa2540724bfbac14d7976d7e4a3860\n\
        commit-date: 2026-04-14\nhost: x86_64-unknown-linux-gnu\nrelease: 1.95.0\nLLVM version: 22.1.2\n";

    fn compiler(bin: &str, has_sources: bool) -> Compiler {
        let version = Version::parse(RUSTUP).expect("what rustc prints can be read");
        Compiler { bin: bin.into(), version, sysroot: "/rustup".into(), has_sources }
    }

    #[test]
    fn what_rustc_says_of_itself_is_read() {
        let version = Version::parse(RUSTUP).expect("what rustc prints can be read");
        assert_eq!(version.release, "1.95.0");
        assert_eq!(version.host, "x86_64-unknown-linux-gnu");
        assert_eq!(version.llvm_major, 22);
    }

    #[test]
    fn a_rustc_that_does_not_name_its_llvm_is_no_compiler_for_the_kernel() {
        assert_eq!(Version::parse("release: 1.95.0\nhost: x86_64-unknown-linux-gnu\n"), None);
        assert_eq!(Version::parse(&RUSTUP.replace("22.1.2", "unknown")), None);
    }

    #[test]
    fn the_active_compiler_is_taken_before_debians_when_both_have_sources() {
        let taken = first_with_sources([compiler("/rustup/bin", true), compiler("/usr/bin", true)]);
        assert_eq!(taken, Some(compiler("/rustup/bin", true)));
    }

    #[test]
    fn debians_compiler_is_taken_when_the_active_one_lacks_sources() {
        let taken = first_with_sources([compiler("/rustup/bin", false), compiler("/usr/bin", true)]);
        assert!(taken.is_some_and(|compiler| compiler.is_debian()));
    }

    #[test]
    fn no_compiler_is_taken_when_none_has_sources() {
        assert_eq!(first_with_sources([compiler("/rustup/bin", false)]), None);
    }
}
