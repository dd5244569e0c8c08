//! The container image, made from nothing: one static program with the kernel programs inside, certificates, and no more.
//!
//! The same source, compiler and C library give the same bytes, wherever the checkout is: paths are taken out of the program, times
//! are those of the commit, and the layer is packed by a library whose version the lock file holds.

pub mod binary;
pub mod config;
pub mod oci;
pub mod rootfs;
pub mod sbom;

use clap::ValueEnum;

/// The name under which registries know the image.
pub const NAME: &str = "ghcr.io/rosentry/rosentry";

/// What the image runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Architecture {
    /// x86-64.
    Amd64,
    /// arm64: prepared, and untested as long as no machine of that kind has run it.
    Arm64,
}

impl Architecture {
    /// In OCI's words, which are Go's.
    pub const fn oci(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// In Rust's words.
    pub const fn triple(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// In the words of the kernel programs: which registers hold a probe's arguments.
    pub const fn bpf(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64",
            Self::Arm64 => "aarch64",
        }
    }
}
