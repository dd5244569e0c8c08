//! The kernel side: `detector-ebpf` compiled for the BPF target, with `core` built from source beside it.

use std::{env::consts::ARCH, ffi::OsString, process::Command};

use anyhow::{Context as _, Result};

use crate::{commands::setup::Tools, process::run, workspace::Workspace};

/// Builds the object that the agent embeds.
pub fn build(workspace: &Workspace, tools: &Tools) -> Result<()> {
    let mut cargo = tools.compiler.cargo(workspace);
    cargo.arg("build");
    run("building the kernel programs", for_bpf(&mut cargo, workspace, tools)).with_context(|| {
        format!(
            "the kernel programs could not be built with rustc {} and {}",
            tools.compiler.version.release,
            tools.linker.display()
        )
    })
}

/// Completes a cargo command for the BPF target; flags are those of aya-build 0.2.0, and the linker by its path, which need not
/// be on the PATH.
pub fn for_bpf<'a>(cargo: &'a mut Command, workspace: &Workspace, tools: &Tools) -> &'a mut Command {
    let mut linker = OsString::from("-Clinker=");
    linker.push(&tools.linker);
    let flags = [
        // Which registers hold a probe's arguments.
        format!("--cfg=bpf_target_arch=\"{ARCH}\"").into(),
        linker,
        // BTF is made from debug information, of `core` and the dependencies too.
        "-Cdebuginfo=2".into(),
        "-Clink-arg=--btf".into(),
        "-Ctarget-cpu=v3".into(),
    ];
    cargo
        .current_dir(workspace.root())
        // `-Z build-std` on a stable compiler.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}".as_ref()))
        // bpf-linker optimises the whole program itself.
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_TARGET_DIR", workspace.kernel_target())
        .args(["-Z", "build-std=core", "--release", "--package", "detector-ebpf"])
        .args(["--target", "bpfel-unknown-none"])
}
