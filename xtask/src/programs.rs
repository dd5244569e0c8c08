//! Programs that nobody here wrote, which the tests run as pods: Debian's packages and all that they need, each unpacked into a root
//! of its own below `target/programs`. Nothing of them is installed on this machine, and none of their scripts is run.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::{packages, process::attempt, workspace::Workspace};

/// The roots, by name, and the package that each is for.
const PROGRAMS: [(&str, &str); 3] = [("nginx", "nginx"), ("redis", "redis-server"), ("gunicorn", "gunicorn")];

/// What every root has besides: the folders of a system, a shell, and `cp`. The last takes the place of a package that would move a
/// system's programs below `/usr`, and that needs a whole Perl for it.
const SYSTEM: [&str; 4] = ["base-files", "dash", "coreutils", "usr-is-merged"];

/// Folders of the root that are links into `/usr`.
const MERGED: [&str; 4] = ["bin", "lib", "lib64", "sbin"];

/// What no program reads of it.
const LEFT_OUT: [&str; 3] = ["./usr/share/doc", "./usr/share/man", "./usr/share/locale"];

/// Unpacks what is missing; else says nothing. To get newer packages, remove `target/programs`.
///
/// # Errors
/// One sentence that says what is missing.
pub fn ensure(workspace: &Workspace) -> Result<()> {
    for (name, package) in PROGRAMS {
        let root = workspace.target().join("programs").join(name);
        if !root.exists() {
            fetch(&root, package).with_context(|| {
                format!("{package} could not be unpacked, which tests run: Debian's package lists must have it")
            })?;
        }
    }
    Ok(())
}

fn fetch(root: &Path, package: &str) -> Result<()> {
    // Made beside its place and moved there, so that what is there is whole.
    let partial = root.with_extension("partial");
    if partial.exists() {
        fs::remove_dir_all(&partial).with_context(|| format!("{} could not be removed", partial.display()))?;
    }
    let archives = partial.join("archives");
    fs::create_dir_all(archives.join("partial"))
        .with_context(|| format!("{} could not be made", archives.display()))?;
    // Lists of yesterday may name packages that are there no longer.
    if !download(package, &partial)? {
        packages::refresh_lists()?;
        if !download(package, &partial)? {
            bail!("apt-get could not download {package} and what it needs");
        }
    }
    let unpacked = partial.join("root");
    for folder in MERGED {
        let place = unpacked.join("usr").join(folder);
        fs::create_dir_all(&place).with_context(|| format!("{} could not be made", place.display()))?;
        symlink(Path::new("usr").join(folder), unpacked.join(folder))
            .with_context(|| format!("{folder} could not be linked"))?;
    }
    for archive in archives_in(&archives)? {
        unpack(&archive, &unpacked)?;
    }
    fs::rename(&unpacked, root).with_context(|| format!("{} could not be moved", unpacked.display()))?;
    fs::remove_dir_all(&partial).with_context(|| format!("{} could not be removed", partial.display()))
}

/// Downloads a package and all that it needs on a machine that has nothing; whether it worked.
fn download(package: &str, folder: &Path) -> Result<bool> {
    let status = folder.join("status");
    fs::write(&status, "").with_context(|| format!("{} could not be written", status.display()))?;
    let option = |name: &str, value: &Path| format!("{name}={}", value.display());
    let mut command = Command::new("apt-get");
    command
        .args(["install", "--download-only", "-y", "-qq", "--no-install-recommends"])
        // As if nothing were installed, and with the packages put here.
        .args(["-o", &option("Dir::State::status", &status)])
        .args(["-o", &option("Dir::Cache::archives", &folder.join("archives"))])
        // The machine's own caches are root's, and locked while somebody installs.
        .args(["-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache=", "-o", "Debug::NoLocking=1"])
        .args(["-o", "APT::Sandbox::User=root"])
        .args(SYSTEM)
        .arg(package);
    attempt(&format!("downloading {package} and what it needs"), &mut command).map(|status| status.success())
}

fn archives_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("{} could not be read", folder.display()))?;
    let mut archives: Vec<PathBuf> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    archives.retain(|path| path.extension().is_some_and(|extension| extension == "deb"));
    archives.sort();
    Ok(archives)
}

/// Unpacks one, following the links into `/usr`, which `dpkg -x` would replace by folders.
fn unpack(archive: &Path, root: &Path) -> Result<()> {
    let mut extract = Command::new("dpkg-deb");
    extract.arg("--fsys-tarfile").arg(archive).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut extracting = extract.spawn().context("`dpkg-deb` could not be run")?;
    let mut tar = Command::new("tar");
    tar.args(["-x", "--keep-directory-symlink", "--no-same-owner", "-C"]).arg(root);
    tar.args(LEFT_OUT.map(|folder| format!("--exclude={folder}")));
    if let Some(files) = extracting.stdout.take() {
        tar.stdin(files);
    }
    let unpacked = tar.status().context("`tar` could not be run")?;
    let extracted = extracting.wait().context("dpkg-deb was lost")?;
    if !unpacked.success() || !extracted.success() {
        bail!("{} could not be unpacked", archive.display());
    }
    Ok(())
}
