//! What a program can try: the writing operations and the changes of mounts.

macro_rules! operations {
    ($( $(#[$doc:meta])* $variant:ident = $wire:literal, $name:literal; )+) => {
        /// An operation. The numbers are on the wire: never reuse one.
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        #[repr(u8)]
        pub enum Operation { $( $(#[$doc])* $variant = $wire, )+ }

        #[cfg(feature = "user")]
        impl Operation {
            /// Every operation, in the order of their wire numbers.
            pub const ALL: &'static [Self] = &[$( Self::$variant, )+];

            /// The operation with this number on the wire.
            pub const fn from_wire(wire: u8) -> Option<Self> {
                Some(match wire { $( $wire => Self::$variant, )+ _ => return None })
            }

            /// The name in events and in the label `operation`. Unique among the writes and among the changes of mounts;
            /// `bind` names one of each.
            pub const fn name(self) -> &'static str {
                match self { $( Self::$variant => $name, )+ }
            }
        }
    };
}

operations! {
    /// Every way to open a file for writing or to create one: open, creat, openat2, O_TMPFILE, file handles.
    Open = 1, "open";
    /// A new folder.
    Mkdir = 2, "mkdir";
    /// Removal of a folder.
    Rmdir = 3, "rmdir";
    /// Removal of a file.
    Unlink = 4, "unlink";
    /// A new name in place of an old one.
    Rename = 5, "rename";
    /// A further name for a file.
    Link = 6, "link";
    /// A symbolic link.
    Symlink = 7, "symlink";
    /// A device, fifo or socket file.
    Mknod = 8, "mknod";
    /// The mode of a file.
    Chmod = 9, "chmod";
    /// The owner of a file.
    Chown = 10, "chown";
    /// The times of a file.
    Utimes = 11, "utimes";
    /// The size of a file, by its path.
    Truncate = 12, "truncate";
    /// An extended attribute set.
    Setxattr = 13, "setxattr";
    /// An extended attribute removed.
    Removexattr = 14, "removexattr";
    /// The file of a unix socket.
    BindSocket = 15, "bind";
    /// Inode flags (chattr), by ioctl or file_setattr.
    Setflags = 16, "setflags";
    /// A mount, or a change of its propagation.
    Mount = 32, "mount";
    /// Other flags for a mount or its superblock.
    Remount = 33, "remount";
    /// A bind mount.
    BindMount = 34, "bind";
    /// A mount moved by mount(2).
    Move = 35, "move";
    /// An unmount.
    Umount = 36, "umount";
    /// Another root for the mount namespace.
    PivotRoot = 37, "pivot_root";
    /// Another root for the process.
    Chroot = 38, "chroot";
    /// New mount API: a context for a new superblock.
    Fsopen = 39, "fsopen";
    /// New mount API: a context for an existing superblock.
    Fspick = 40, "fspick";
    /// New mount API: an option, the creation or the reconfiguration of a superblock.
    Fsconfig = 41, "fsconfig";
    /// New mount API: a detached mount of a context.
    Fsmount = 42, "fsmount";
    /// New mount API: a mount attached or moved.
    MoveMount = 43, "move_mount";
    /// New mount API: a mount picked or cloned.
    OpenTree = 44, "open_tree";
    /// New mount API: attributes of mounts.
    MountSetattr = 45, "mount_setattr";
}

impl Operation {
    /// Whether this is a change of mounts (the others are writes).
    pub const fn changes_mounts(self) -> bool {
        self as u8 >= Self::Mount as u8
    }
}
