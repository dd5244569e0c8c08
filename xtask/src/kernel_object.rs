//! The kernel side: `detector-ebpf` compiled for the BPF target, with `core` built from source beside it.

use std::{
    env::consts::ARCH,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{
    commands::setup::Tools,
    process::run,
    workspace::{OBJECT, Workspace},
};

/// Builds the object that the agent embeds.
pub fn build(workspace: &Workspace, tools: &Tools) -> Result<()> {
    build_for(workspace, tools, ARCH, &workspace.kernel_target()).map(drop)
}

/// Builds it for an architecture, in a target folder, without the places of this machine in it; returns where it is.
pub fn build_for(workspace: &Workspace, tools: &Tools, architecture: &str, target: &Path) -> Result<PathBuf> {
    let mut cargo = tools.compiler.cargo(workspace);
    cargo.arg("build");
    let command = for_bpf(&mut cargo, workspace, tools, architecture).env("CARGO_TARGET_DIR", target);
    run("building the kernel programs", command).with_context(|| {
        format!(
            "the kernel programs could not be built with rustc {} and {}",
            tools.compiler.version.release,
            tools.linker.display()
        )
    })?;
    Ok(target.join(OBJECT))
}

/// Clippy on the kernel programs, where it is installed beside their compiler.
pub fn clippy(workspace: &Workspace, tools: &Tools) -> Option<Command> {
    let mut clippy = tools.compiler.clippy(workspace)?;
    for_bpf(&mut clippy, workspace, tools, ARCH);
    Some(clippy)
}

/// Completes a cargo command for the BPF target; flags are those of aya-build 0.2.0, and the linker by its path, which need not
/// be on the PATH.
fn for_bpf<'a>(cargo: &'a mut Command, workspace: &Workspace, tools: &Tools, architecture: &str) -> &'a mut Command {
    let mut linker = OsString::from("-Clinker=");
    linker.push(&tools.linker);
    let mut flags = vec![
        // Which registers hold a probe's arguments.
        format!("--cfg=bpf_target_arch=\"{architecture}\"").into(),
        linker,
        // BTF is made from debug information, of `core` and the dependencies too.
        "-Cdebuginfo=2".into(),
        "-Clink-arg=--btf".into(),
        "-Ctarget-cpu=v3".into(),
    ];
    flags.extend(workspace.remappings(&tools.compiler.sysroot));
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
