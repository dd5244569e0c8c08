//! bpf-linker, which turns the compiler's bitcode into one kernel object: found, tried for real, or built.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    process::{outside_cargo, probe, run},
    requirements::{find_program, installed_programs},
    toolchain::Compiler,
    workspace::Workspace,
};

/// The release that goes with aya 0.14.
const VERSION: &str = "0.13.0";

/// The major versions of LLVM that this release can be built with.
const LLVM_MAJORS: [u32; 3] = [21, 22, 23];

/// The smallest program there is: it needs no `core`, so linking it tries the linker and the compiler alone, in a moment.
const EMPTY_PROGRAM: &str = "#![feature(no_core)]\n#![no_core]\n#![crate_type = \"cdylib\"]\n";

/// A bpf-linker on this machine that links what this compiler makes.
pub fn find(workspace: &Workspace, compiler: &Compiler) -> Option<PathBuf> {
    let installed = installed_programs().join("bpf-linker");
    find_program("bpf-linker")
        .into_iter()
        .chain(installed.exists().then_some(installed))
        .find(|linker| works(workspace, compiler, linker))
}

fn works(workspace: &Workspace, compiler: &Compiler, linker: &Path) -> bool {
    // An older LLVM may read an empty module and stumble over a real one, so its version is asked for too, where it can be.
    let libraries = probe(Command::new("ldd").arg(linker)).unwrap_or_default();
    llvm_major_among(&libraries).is_none_or(|major| major == compiler.version.llvm_major)
        && link_empty_program(workspace, compiler, linker).is_some()
}

fn link_empty_program(workspace: &Workspace, compiler: &Compiler, linker: &Path) -> Option<()> {
    let folder = workspace.target().join("xtask");
    let source = folder.join("empty.rs");
    let object = folder.join("empty.o");
    fs::create_dir_all(&folder).ok()?;
    fs::write(&source, EMPTY_PROGRAM).ok()?;
    let mut rustc = compiler.rustc(workspace);
    rustc
        .env("RUSTC_BOOTSTRAP", "1")
        .args(["--target", "bpfel-unknown-none", "-C", "panic=abort"])
        .arg(format!("-Clinker={}", linker.display()))
        .arg("-o")
        .args([&object, &source]);
    probe(&mut rustc).map(drop)
}

/// The LLVM that a program is linked to, from what `ldd` prints; `None` where it has it inside.
fn llvm_major_among(libraries: &str) -> Option<u32> {
    let (_, version) = libraries.split_once("libLLVM")?;
    version
        .trim_start_matches(['.', '-', 's', 'o'])
        .split(|character: char| !character.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}

/// What building it needs besides a C compiler: (a file that shows that it is there, Debian's package).
pub fn build_requirements(llvm_major: u32) -> [(String, String); 5] {
    let llvm = format!("/usr/lib/llvm-{llvm_major}");
    [
        (format!("{llvm}/bin/llvm-config"), format!("llvm-{llvm_major}-dev")),
        (format!("{llvm}/lib/libPolly.a"), format!("libpolly-{llvm_major}-dev")),
        ("/usr/include/zstd.h".into(), "libzstd-dev".into()),
        ("/usr/include/zlib.h".into(), "zlib1g-dev".into()),
        ("/usr/bin/g++".into(), "g++".into()),
    ]
}

/// Builds it for this compiler, with cargo's own way of installing programs.
pub fn install(workspace: &Workspace, compiler: &Compiler) -> Result<PathBuf> {
    let major = compiler.version.llvm_major;
    if !LLVM_MAJORS.contains(&major) {
        bail!(
            "rustc {} is made with LLVM {major}, which bpf-linker {VERSION} does not know: run this with Rust 1.95 to 1.97",
            compiler.version.release
        );
    }
    let llvm = format!("/usr/lib/llvm-{major}");
    let cargo = env::var_os("CARGO").unwrap_or("cargo".into());
    run(
        "building bpf-linker (about a minute, once)",
        outside_cargo(workspace, cargo)
            // llvm-sys reads the one, bpf-linker's own build script the other.
            .env(format!("LLVM_SYS_{major}1_PREFIX"), &llvm)
            .env("LLVM_PREFIX", &llvm)
            // `--force`, because one that is there and does not work has to give way.
            .args(["install", "bpf-linker", "--version", VERSION, "--locked", "--force"])
            .args(["--no-default-features", "--features"])
            .arg(format!("llvm-{major}")),
    )?;
    find(workspace, compiler).with_context(|| {
        format!(
            "bpf-linker is built, yet links nothing that rustc {} makes: run it by hand and see what it says",
            compiler.version.release
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_llvm_that_a_linker_is_linked_to_is_read_from_what_ldd_prints() {
        let upstream = "\tlibLLVM.so.22.1 => /usr/lib/llvm-22/lib/libLLVM.so.22.1 (0x00007f98dac00000)\n";
        let debian = "\tlibLLVM-16.so.1 => /lib/x86_64-linux-gnu/libLLVM-16.so.1 (0x00007f0000000000)\n";
        assert_eq!(llvm_major_among(upstream), Some(22));
        assert_eq!(llvm_major_among(debian), Some(16));
    }

    #[test]
    fn a_linker_with_llvm_inside_does_not_tell_its_version() {
        assert_eq!(llvm_major_among("\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6\n"), None);
        assert_eq!(llvm_major_among("\tnot a dynamic executable\n"), None);
    }

    #[test]
    fn the_linkers_packages_follow_the_compilers_llvm() {
        let packages = build_requirements(23).map(|(_, package)| package);
        assert!(packages.contains(&"llvm-23-dev".to_owned()));
        assert!(packages.contains(&"libpolly-23-dev".to_owned()));
    }
}
