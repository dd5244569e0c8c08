//! Debian's packages: those that are missing are installed in one go; those that only a virtual machine needs are unpacked.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    privilege::Privilege,
    process::{attempt, run},
    requirements::find_program,
};

/// Which archives were unpacked to a folder, one a line.
const LIST: &str = "unpacked-packages";

/// Installs the packages, as root or with a sudo that asks for no password.
///
/// # Errors
/// One sentence that says what to install by hand, where this machine has no apt-get or does not let us use it.
pub fn install(packages: &[String]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let names = packages.join(" ");
    if find_program("apt-get").is_empty() {
        bail!(
            "this machine has no apt-get: install what Debian calls {names} with its own package manager, then run this again"
        );
    }
    let Some(privilege) = Privilege::held() else {
        bail!(
            "packages are missing and only root may install them: run `sudo apt-get install {names}`, then this again"
        );
    };
    let apt_get = || {
        let mut command = privilege.command("apt-get", &[("DEBIAN_FRONTEND", "noninteractive")]);
        // An automatic upgrade may hold the lock for a while.
        command.args(["-o", "DPkg::Lock::Timeout=300"]);
        command
    };
    // One broken list among several need not matter; installing tells.
    let updated = attempt("refreshing Debian's package lists", apt_get().args(["update", "-qq"]))?;
    if !updated.success() {
        eprintln!("  not all lists could be refreshed; trying with those that are there");
    }
    run(
        "installing Debian packages",
        apt_get().args(["install", "-y", "-qq", "--no-install-recommends"]).args(packages),
    )
    .with_context(|| format!("install what Debian calls {names} by hand, then run this again"))
}

/// Gets the lists of packages anew.
///
/// # Errors
/// One sentence, where only root may and we are not.
pub fn refresh_lists() -> Result<()> {
    let Some(privilege) = Privilege::held() else {
        bail!("Debian's package lists may be missing and only root may get them: run `sudo apt-get update`");
    };
    // One broken list among several need not matter; what is in them tells.
    attempt("refreshing Debian's package lists", privilege.command("apt-get", &[]).args(["update", "-qq"])).map(drop)
}

/// Downloads packages and unpacks them to this folder, which holds all of them or is not there. Nothing of this machine changes.
///
/// # Errors
/// Where Debian's lists here don't have one of them, or it can't be fetched.
pub fn unpack(what: &str, packages: &[&str], folder: &Path) -> Result<()> {
    // Unpacked beside its place and moved there, so that what is there is whole.
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let partial = folder.with_file_name(format!("{name}.partial"));
    if partial.exists() {
        fs::remove_dir_all(&partial).with_context(|| format!("{} could not be removed", partial.display()))?;
    }
    fs::create_dir_all(&partial).with_context(|| format!("{} could not be made", partial.display()))?;
    run(
        &format!("downloading {what}"),
        Command::new("apt-get")
            .current_dir(&partial)
            // Else apt warns root that the user whom it would rather be can't write here.
            .args(["-o", "APT::Sandbox::User=root", "download", "-qq"])
            .args(packages),
    )?;
    let archives: Vec<PathBuf> =
        files_in(&partial).filter(|path| path.extension().is_some_and(|extension| extension == "deb")).collect();
    if archives.len() != packages.len() {
        bail!("apt-get downloaded {} of {} packages to {}", archives.len(), packages.len(), partial.display());
    }
    let names: Vec<_> = archives.iter().filter_map(|archive| archive.file_name()?.to_str()).collect();
    let list = partial.join(LIST);
    fs::write(&list, names.join("\n")).with_context(|| format!("{} could not be written", list.display()))?;
    for archive in archives {
        let mut unpack = Command::new("dpkg");
        run(&format!("unpacking {what}"), unpack.current_dir(&partial).arg("-x").arg(&archive).arg("."))?;
        fs::remove_file(&archive).with_context(|| format!("{} could not be removed", archive.display()))?;
    }
    fs::rename(&partial, folder).with_context(|| format!("{} could not be moved", partial.display()))
}

/// The version of a package that was unpacked to this folder.
pub fn version(package: &str, folder: &Path) -> Option<String> {
    let list = fs::read_to_string(folder.join(LIST)).ok()?;
    version_among(&list, package)
}

/// In names such as `auditd_1%3a3.0.9-1_amd64.deb`.
fn version_among(archives: &str, package: &str) -> Option<String> {
    let of = |line: &str| {
        let mut parts = line.split('_');
        (parts.next()? == package).then(|| parts.next().map(|version| version.replace("%3a", ":"))).flatten()
    };
    archives.lines().find_map(of)
}

/// What is in a folder; nothing where there is none.
pub fn files_in(folder: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_an_unpacked_package_stands_in_the_name_of_its_archive() {
        let archives = "libaudit1_1%3a3.0.9-1_amd64.deb\nbpftrace_0.17.0-1_amd64.deb";
        assert_eq!(version_among(archives, "libaudit1").as_deref(), Some("1:3.0.9-1"));
        assert_eq!(version_among(archives, "libaudit"), None);
    }
}
