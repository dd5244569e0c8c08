//! The words that events choose from, each with its name in events and labels.

use detector_common::operation::Operation;

use crate::finding::seal::Cause;

/// A type whose values are words in events.
pub trait Named: Copy + 'static {
    /// Every value.
    const WORDS: &'static [Self];

    /// The word.
    fn word(self) -> &'static str;
}

impl Named for Operation {
    const WORDS: &'static [Self] = Self::ALL;

    fn word(self) -> &'static str {
        self.name()
    }
}

impl Named for Cause {
    const WORDS: &'static [Self] = &[Self::Remount, Self::Mount, Self::Runtime];

    fn word(self) -> &'static str {
        self.name()
    }
}

macro_rules! named {
    ($(#[$meta:meta])* $type:ident { $( $(#[$doc:meta])* $variant:ident = $name:literal, )+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub enum $type { $( $(#[$doc])* $variant, )+ }

        impl $type {
            /// Every one, in order.
            pub const ALL: &'static [Self] = &[$( Self::$variant, )+];

            /// The name in events and labels.
            pub const fn name(self) -> &'static str {
                match self { $( Self::$variant => $name, )+ }
            }
        }

        impl Named for $type {
            const WORDS: &'static [Self] = Self::ALL;

            fn word(self) -> &'static str {
                self.name()
            }
        }
    };
}

named! {
    /// What an event is about.
    Kind {
        /// An operation ended with EROFS.
        WriteDenied = "write_denied",
        /// A try to change mounts, whatever its result.
        MountAttempt = "mount_attempt",
        /// A root that was declared read-only is writable.
        SealBroken = "seal_broken",
        /// A root that was declared read-only, and was found writable, is so no longer.
        SealMended = "seal_mended",
        /// A write that succeeded on a root filesystem.
        WriteObserved = "write_observed",
        /// rosentry itself: start, stop, coverage, loss.
        Agent = "agent",
    }
}

named! {
    /// How bad an event is.
    Severity {
        /// Nobody need look.
        Info = "info",
        /// For the team that owns the workload, in its own time.
        Low = "low",
        /// Worth a ticket.
        Medium = "medium",
        /// Worth a look today.
        High = "high",
        /// Worth waking someone.
        Critical = "critical",
    }
}

named! {
    /// Why a program wrote there, as far as the path tells.
    Category {
        /// A temporary file.
        TempFile = "temp_file",
        /// A log file.
        Log = "log",
        /// A cache that can be rebuilt.
        Cache = "cache",
        /// A pid file, a lock or a socket.
        PidFile = "pid_file",
        /// The installation of a package or a plug-in.
        PackageInstall = "package_install",
        /// A downloaded model or data set.
        ModelCache = "model_cache",
        /// Configuration.
        Config = "config",
        /// A program or library of the image.
        SystemBinary = "system_binary",
        /// Accounts, keys, secrets.
        Credentials = "credentials",
        /// Anything else.
        Other = "other",
    }
}

named! {
    /// How a path became absolute.
    Resolution {
        /// Every folder of it was read from the kernel's directory entries at the time of the call.
        Kernel = "kernel",
        /// Symbolic links were followed in the process's or the container's real root, shortly after the call.
        Root = "root",
        /// By its text alone: symbolic links on the way were not seen.
        Lexical = "lexical",
    }
}

named! {
    /// What a mount attempt would do to the seal, did it succeed.
    Effect {
        /// Makes something read-only writable.
        Unseal = "unseal",
        /// Puts a writable mount over part of a sealed root.
        Shadow = "shadow",
        /// Takes a mount away.
        Detach = "detach",
        /// Nothing of these.
        None = "none",
    }
}

named! {
    /// What kind of place a write hit.
    PlaceKind {
        /// The container's root filesystem.
        Rootfs = "rootfs",
        /// A volume of the pod.
        Volume = "volume",
        /// A volume that was declared writable, yet refuses writes.
        VolumeFailed = "volume_failed",
        /// Neither: proc, sys, dev, a mount that the specification does not name, a process without a container.
        Other = "other",
    }
}

named! {
    /// What rosentry says of itself.
    AgentWhat {
        /// It began to watch.
        Start = "start",
        /// It ends.
        Stop = "stop",
        /// What it can see on this node.
        Coverage = "coverage",
        /// Events were lost.
        Lost = "lost",
        /// For some time it was blind.
        Gap = "gap",
    }
}
