//! Hands the kernel programs that `cargo xtask build` left to the agent, which embeds them from `OUT_DIR/rosentry-bpf`.

use std::{env, fs, path::Path};

/// Where the object is; set in `.cargo/config.toml`.
const OBJECT: &str = "ROSENTRY_BPF_OBJECT";

fn main() {
    println!("cargo::rerun-if-env-changed={OBJECT}");
    if let Err(sentence) = hand_over() {
        println!("cargo::error={sentence}");
    }
}

fn hand_over() -> Result<(), String> {
    let object = env::var_os(OBJECT).ok_or_else(|| {
        format!("{OBJECT} does not say where the kernel programs are: build with `cargo xtask build`")
    })?;
    let object = Path::new(&object);
    println!("cargo::rerun-if-changed={}", object.display());
    let out = env::var_os("OUT_DIR").ok_or("cargo did not set OUT_DIR")?;
    fs::copy(object, Path::new(&out).join("rosentry-bpf")).map(drop).map_err(|error| {
        format!("the kernel programs are not at {} ({error}): run `cargo xtask build` first", object.display())
    })
}
