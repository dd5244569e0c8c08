//! The static program: `rosentry` with its C library inside, without the paths of the machine that built it.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::Architecture;
use crate::{
    commands::setup::Tools,
    kernel_object,
    process::{outside_cargo, probe, run},
    requirements::{find_program, is_static},
    workspace::Workspace,
};

/// Builds it in a target folder of its own, as its flags would make cargo build everything anew elsewhere.
///
/// # Errors
/// Where the compiler lacks the target or, for another architecture than this machine's, a linker.
pub fn build(workspace: &Workspace, tools: &Tools, architecture: Architecture) -> Result<Vec<u8>> {
    let target = workspace.target().join("image/build");
    let triple = architecture.triple();
    // Asked before the builds, which would be in vain.
    let linker = (tools.compiler.version.host != triple).then(|| cross_linker(workspace, architecture)).transpose()?;
    let object = kernel_object::build_for(workspace, tools, architecture.bpf(), &target.join("bpf"))?;
    let mut flags = vec![OsString::from("-Ctarget-feature=+crt-static"), "-Clink-arg=-Wl,--build-id=none".into()];
    flags.extend(workspace.remappings(&tools.compiler.sysroot));

    let mut cargo = workspace.cargo();
    cargo
        .env("CARGO_TARGET_DIR", &target)
        .env("ROSENTRY_BPF_OBJECT", object)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}".as_ref()))
        .env("CARGO_PROFILE_RELEASE_STRIP", "symbols")
        // In one piece and on one thread, so that nothing depends on how many there are.
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .args(["build", "--release", "--locked", "--package", "detector", "--bin", "rosentry", "--target", triple]);
    if let Some(linker) = linker {
        cargo.env(format!("CARGO_TARGET_{}_LINKER", triple.to_uppercase().replace('-', "_")), linker);
    }
    run("building rosentry as one static program", &mut cargo)?;

    let path = target.join(triple).join("release/rosentry");
    let program = fs::read(&path).with_context(|| format!("{} can't be read", path.display()))?;
    if !is_static(&program) {
        bail!("{} asks for shared libraries, which the image has none of", path.display());
    }
    Ok(program)
}

/// What links for another architecture than this machine's, as Debian names it.
fn linker_for(architecture: Architecture) -> String {
    format!("{}-linux-gnu-gcc", architecture.bpf())
}

/// What links for another architecture than this machine's, where the compiler has the library for it.
fn cross_linker(workspace: &Workspace, architecture: Architecture) -> Result<String> {
    let triple = architecture.triple();
    let libraries = probe(outside_cargo(workspace, "rustc").args(["--print", "target-libdir", "--target", triple]));
    if !libraries.is_some_and(|libraries| Path::new(libraries.trim()).exists()) {
        bail!("the compiler has no library for {triple}: run `rustup target add {triple}`");
    }
    let linker = linker_for(architecture);
    if find_program(&linker).is_empty() {
        bail!(
            "{linker} is missing, which links for {triple}: install what Debian calls gcc-{}-linux-gnu",
            architecture.bpf()
        );
    }
    Ok(linker)
}

/// The version of the C library that is linked in, where it can be told.
pub fn c_library(tools: &Tools, architecture: Architecture) -> Option<String> {
    let crosses = tools.compiler.version.host != architecture.triple();
    c_library_of(crosses.then(|| linker_for(architecture)).as_deref())
}

/// That of this machine; where another linker is named, the one that it brings along.
fn c_library_of(linker: Option<&str>) -> Option<String> {
    let Some(linker) = linker else {
        let told = probe(Command::new("ldd").arg("--version"))?;
        return told.lines().next()?.rsplit(' ').next().map(str::to_owned);
    };
    let macros = probe(Command::new(linker).args(["-E", "-dM", "-include", "features.h", "-x", "c", "/dev/null"]))?;
    let value = |name: &str| {
        let mut lines = macros.lines();
        lines.find_map(|line| line.strip_prefix("#define ")?.strip_prefix(name)?.strip_prefix(' ')).map(str::to_owned)
    };
    Some(format!("{}.{}", value("__GLIBC__")?, value("__GLIBC_MINOR__")?))
}

/// Where everything of the image is left.
pub fn folder(workspace: &Workspace) -> PathBuf {
    workspace.target().join("image")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_c_library_is_that_of_the_linker_and_none_is_named_where_that_tells_nothing() {
        let of_machine = c_library_of(None);
        assert!(of_machine.is_some());
        assert_eq!(c_library_of(Some("cc")), of_machine);
        assert_eq!(c_library_of(Some("no-such-linux-gnu-gcc")), None);
    }
}
