//! `cargo xtask image`: the container image and the list of what it is made of.

use std::{fs, process::ExitCode};

use anyhow::{Context as _, Result, bail};

use crate::{
    commands::setup,
    image::{Architecture, NAME, binary, config::Source, oci, rootfs, sbom},
    process::probe,
    requirements::Need,
    workspace::Workspace,
};

/// What the image must stay below, bytes.
const SIZE_MAX: usize = 20 << 20;

/// Makes the image; says where it is and which digest it has.
pub fn run(workspace: &Workspace, architecture: Architecture) -> Result<ExitCode> {
    let tools = setup::ensure(workspace, Need::Build)?;
    let source = Source::of(workspace)?;
    let program = binary::build(workspace, &tools, architecture)?;
    let files = rootfs::files(program);
    let image = oci::pack(&files, &source, architecture)?;
    if image.archive.len() > SIZE_MAX {
        bail!("the image has {} bytes, more than {SIZE_MAX}: find out what came into it", image.archive.len());
    }

    let folder = binary::folder(workspace);
    let name = format!("rosentry-{}-{}", source.version, architecture.oci());
    for file in &files {
        let place = folder.join("rootfs").join(file.path);
        let parent = place.parent().context("a file of the image is in a folder")?;
        fs::create_dir_all(parent).with_context(|| format!("{} can't be made", parent.display()))?;
        let _ = fs::remove_file(&place);
        fs::write(&place, &file.content).with_context(|| format!("{} can't be written", place.display()))?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(file.mode);
        fs::set_permissions(&place, mode).with_context(|| format!("{} keeps its mode", place.display()))?;
    }
    let told = probe(workspace.cargo().args([
        "metadata",
        "--format-version",
        "1",
        "--locked",
        "--filter-platform",
        architecture.triple(),
    ]))
    .context("`cargo metadata` tells nothing")?;
    let metadata = serde_json::from_str(&told).context("`cargo metadata` tells no JSON")?;
    let lock = fs::read_to_string(workspace.root().join("Cargo.lock")).context("Cargo.lock can't be read")?;
    let c_library = binary::c_library(&tools, architecture);
    let document = sbom::document(&metadata, &lock, c_library.as_deref(), &source, &image.digest)?;

    let archive = folder.join(format!("{name}.oci.tar"));
    fs::write(&archive, &image.archive).with_context(|| format!("{} can't be written", archive.display()))?;
    let bill = folder.join(format!("{name}.cdx.json"));
    fs::write(&bill, serde_json::to_vec_pretty(&document)?)
        .with_context(|| format!("{} can't be written", bill.display()))?;
    println!("{NAME}:{} for {}, {} KiB", source.version, architecture.oci(), image.archive.len() / 1024);
    println!("  digest   {}", image.digest);
    println!("  archive  {}   (ctr -n k8s.io images import, skopeo copy oci-archive:…)", archive.display());
    println!("  SBOM     {}", bill.display());
    Ok(ExitCode::SUCCESS)
}
