//! The kernels: which ones, and how to get them from Debian's packages.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use crate::{
    packages::{self, files_in},
    process::probe,
    workspace::Workspace,
};

/// A series of kernels that rosentry is tested with, both of Debian 12: its own and the one of its backports and security
/// updates. The cloud images are the smallest and know all that we need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Series {
    /// Linux 6.1
    #[value(name = "6.1")]
    V6_1,
    /// Linux 6.12
    #[value(name = "6.12")]
    V6_12,
}

impl Series {
    /// As people write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
        }
    }

    /// The names of its packages, as a regular expression. Debian puts the number of a build into the name, so there are many.
    const fn packages(self) -> &'static str {
        match self {
            Self::V6_1 => r"^linux-image-6\.1\.0-[0-9]+-cloud-amd64$",
            Self::V6_12 => r"^linux-image-6\.12\.[0-9]+(\+deb[0-9]+)?-cloud-amd64$",
        }
    }

    /// The kernel to boot: unpacked by an earlier run, or fetched now. To get a newer one, remove its folder under `target/vm`.
    pub fn image(self, workspace: &Workspace) -> Result<PathBuf> {
        let folder = workspace.target().join("vm").join(self.name());
        if let Some(image) = image_in(&folder) {
            return Ok(image);
        }
        self.fetch(&folder).with_context(|| format!("Linux {} could not be fetched", self.name()))?;
        image_in(&folder).with_context(|| format!("Debian's package of Linux {} holds no boot/vmlinuz-…", self.name()))
    }

    /// Its modules of these names, once [`image`](Self::image) has been there.
    pub fn modules(self, workspace: &Workspace, names: &[&str]) -> Result<Vec<PathBuf>> {
        let folder = workspace.target().join("vm").join(self.name()).join("lib/modules");
        let find = |name: &&str| {
            module_in(&folder, name)
                .with_context(|| format!("Debian's package of Linux {} holds no module {name}", self.name()))
        };
        names.iter().map(find).collect()
    }

    fn fetch(self, folder: &Path) -> Result<()> {
        let package = match self.newest_package() {
            Some(package) => package,
            None => {
                packages::refresh_lists()?;
                self.newest_package().with_context(|| {
                    format!("Debian's lists here have no package like `{}`: add Debian 12's sources", self.packages())
                })?
            }
        };
        packages::unpack(&format!("Linux {}", self.name()), &[&package], folder)
    }

    fn newest_package(self) -> Option<String> {
        let found = probe(Command::new("apt-cache").args(["search", "--names-only", self.packages()]))?;
        newest(&found).map(str::to_owned)
    }
}

/// The highest version among lines of `NAME - DESCRIPTION`.
fn newest(lines: &str) -> Option<&str> {
    lines.lines().filter_map(|line| line.split_whitespace().next()).max_by_key(|name| numbers(name))
}

/// The numbers in a name, in turn: what makes 6.12.100 newer than 6.12.57.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|character: char| !character.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

/// A module beneath this folder: `name.ko`, or that compressed.
fn module_in(folder: &Path, name: &str) -> Option<PathBuf> {
    let file = format!("{name}.ko");
    files_in(folder).find_map(|path| {
        if path.is_dir() {
            return module_in(&path, name);
        }
        let found = path.file_name()?.to_string_lossy().strip_prefix(&file)?.to_owned();
        ["", ".xz"].contains(&found.as_str()).then_some(path)
    })
}

fn image_in(folder: &Path) -> Option<PathBuf> {
    files_in(&folder.join("boot"))
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-")))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_newest_package_is_the_one_with_the_highest_numbers_whatever_the_order_of_the_list() {
        let list = "linux-image-6.12.57+deb12-cloud-amd64 - Linux 6.12 for x86-64 cloud (signed)\n\
            linux-image-6.12.100+deb12-cloud-amd64 - Linux 6.12 for x86-64 cloud (signed)\n\
            linux-image-6.12.9+deb12-cloud-amd64 - Linux 6.12 for x86-64 cloud (signed)\n";
        assert_eq!(newest(list), Some("linux-image-6.12.100+deb12-cloud-amd64"));
        assert_eq!(newest(""), None);
    }

    #[test]
    fn a_module_is_found_by_its_whole_name_compressed_or_not() {
        let folder = std::env::temp_dir().join(format!("rosentry-modules-{}", std::process::id()));
        let fs_folder = folder.join("6.1/kernel/fs/overlayfs");
        fs::create_dir_all(&fs_folder).unwrap();
        fs::write(fs_folder.join("overlay.ko.xz"), "").unwrap();
        fs::write(fs_folder.join("over.ko"), "").unwrap();
        let found = ["overlay", "over", "ver"].map(|name| module_in(&folder, name));
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(found, [Some(fs_folder.join("overlay.ko.xz")), Some(fs_folder.join("over.ko")), None]);
    }

    #[test]
    fn a_folder_without_a_kernel_has_to_be_fetched() {
        assert_eq!(image_in(Path::new("/nowhere")), None);
    }
}
