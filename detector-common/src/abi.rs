//! The doors through which a program can ask the kernel for something.

/// How a syscall entered the kernel. The numbers are on the wire: never reuse one.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(u8)]
pub enum Abi {
    /// The 64-bit syscalls of x86-64.
    X86_64 = 1,
    /// 32-bit calls on x86-64: `int 0x80` and the compatibility `sysenter`, from 64-bit programs too.
    Ia32 = 2,
    /// The 64-bit syscalls of arm64.
    Aarch64 = 3,
    /// An operation that was queued on an io_uring.
    IoUring = 4,
}

#[cfg(feature = "user")]
impl Abi {
    /// The door with this number on the wire.
    pub const fn from_wire(wire: u8) -> Option<Self> {
        Some(match wire {
            1 => Self::X86_64,
            2 => Self::Ia32,
            3 => Self::Aarch64,
            4 => Self::IoUring,
            _ => return None,
        })
    }

    /// The name in events.
    pub const fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Ia32 => "ia32",
            Self::Aarch64 => "aarch64",
            Self::IoUring => "io_uring",
        }
    }
}
