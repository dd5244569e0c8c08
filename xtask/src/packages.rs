//! Debian's packages: those that are missing, in one go.

use anyhow::{Context as _, Result, bail};

use crate::{
    privilege::Privilege,
    process::{attempt, run},
    requirements::find_program,
};

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
