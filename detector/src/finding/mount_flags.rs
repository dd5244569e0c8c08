//! Flags of mounts and superblocks: as bits in the kernel, as names in `/proc/<pid>/mountinfo` (`fs/proc_namespace.c`, 6.18) and
//! in events.

/// What makes a mount read-only or not, and what else its flags say.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MountFlags {
    /// `mnt_flags`: `MNT_…` (`include/linux/mount.h`, 6.1 to 6.18).
    pub mount: u32,
    /// `s_flags`: `SB_…` (`include/linux/fs.h`, 6.1 to 6.18).
    pub superblock: u32,
}

/// A bit and its name.
type Row = (u32, &'static str);

const OF_MOUNT: &[Row] = &[
    (0x40, READONLY),
    (0x01, "nosuid"),
    (0x02, "nodev"),
    (0x04, "noexec"),
    (0x08, "noatime"),
    (0x10, "nodiratime"),
    (0x20, "relatime"),
    (0x80, "nosymfollow"),
];
const OF_SUPERBLOCK: &[Row] = &[(1, READONLY), (1 << 4, "sync"), (1 << 7, "dirsync"), (1 << 25, "lazytime")];
const READONLY: &str = "ro";
const WRITABLE: &str = "rw";

impl MountFlags {
    /// Whether either makes it read-only.
    pub const fn readonly(self) -> bool {
        self.mount & OF_MOUNT[0].0 != 0 || self.superblock & OF_SUPERBLOCK[0].0 != 0
    }

    /// From the options in a line of mountinfo: the mount's, and its superblock's, most of which are the filesystem's own.
    pub fn among_options(of_mount: &[u8], of_superblock: &[u8]) -> Self {
        Self { mount: bits(OF_MOUNT, of_mount), superblock: bits(OF_SUPERBLOCK, of_superblock) }
    }

    /// Names of the mount's flags, `ro` or `rw` the first.
    pub fn of_mount(self) -> Vec<&'static str> {
        names(OF_MOUNT, self.mount)
    }

    /// Names of the superblock's flags, `ro` or `rw` the first.
    pub fn of_superblock(self) -> Vec<&'static str> {
        names(OF_SUPERBLOCK, self.superblock)
    }
}

fn bits(table: &[Row], options: &[u8]) -> u32 {
    let has = |name: &str| options.split(|byte| *byte == b',').any(|option| option == name.as_bytes());
    table.iter().filter(|(_, name)| has(name)).fold(0, |bits, (bit, _)| bits | bit)
}

fn names(table: &[Row], bits: u32) -> Vec<&'static str> {
    let set = table.iter().filter(|(bit, _)| bits & bit != 0).map(|&(_, name)| name);
    let writable = bits & table[0].0 == 0;
    writable.then_some(WRITABLE).into_iter().chain(set).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_and_options_give_the_same_names() {
        let of_kernel = MountFlags { mount: 0x61, superblock: 1 | 1 << 25 };
        assert_eq!(MountFlags::among_options(b"ro,nosuid,relatime", b"ro,lazytime,lowerdir=/a"), of_kernel);
        assert_eq!(of_kernel.of_mount(), ["ro", "nosuid", "relatime"]);
        assert_eq!(of_kernel.of_superblock(), ["ro", "lazytime"]);
    }

    #[test]
    fn either_the_mount_or_its_superblock_makes_it_read_only() {
        let readonly = |of_mount: &str, of_superblock: &str| {
            MountFlags::among_options(of_mount.as_bytes(), of_superblock.as_bytes()).readonly()
        };
        assert!(readonly("ro,relatime", "rw"));
        assert!(readonly("rw", "ro,lowerdir=/a"));
        assert!(!readonly("rw,errors=remount-ro", "rw"));
    }

    #[test]
    fn what_is_not_read_only_is_writable_and_bits_of_the_kernels_own_have_no_name() {
        let flags = MountFlags { mount: 0x1000_0000, superblock: 1 << 30 };
        assert_eq!((flags.of_mount(), flags.of_superblock()), (vec!["rw"], vec!["rw"]));
    }
}
