//! Folders that stay sealed: nothing is mounted over them.

use super::{
    path::is_at_or_below,
    table::{KERNEL, NEVER_OVER, SCRATCH},
};

/// Whether something may be mounted over a folder.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sealed {
    /// It may.
    No,
    /// It may not; the sentence says why.
    Never(&'static str),
}

impl Sealed {
    /// Of a folder.
    pub fn of(folder: &str) -> Self {
        let is_scratch = SCRATCH.iter().any(|(scratch, _)| is_at_or_below(folder, scratch));
        if !is_scratch && KERNEL.iter().any(|kernel| is_at_or_below(folder, kernel)) {
            Self::Never("No volume mends what the kernel has there")
        } else if folder == "/" {
            Self::Never("Nothing is mounted over /: let the program write to a folder below it")
        } else if NEVER_OVER.contains(&folder) {
            Self::Never(
                "Nothing is mounted over that folder, for it has files of the image: let the program write to one of its own",
            )
        } else {
            Self::No
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_the_system_s_folders_and_the_kernel_s_stay_sealed() {
        for folder in ["/", "/etc", "/usr", "/usr/bin", "/var/lib", "/proc/sys", "/dev", "/sys/fs"] {
            assert_ne!(Sealed::of(folder), Sealed::No, "{folder}");
        }
        for folder in ["/tmp", "/etc/nginx", "/dev/shm", "/app", "/var/lib/app"] {
            assert_eq!(Sealed::of(folder), Sealed::No, "{folder}");
        }
    }
}
