//! The doors into the kernel, for the calls of the list alone.

use std::{io, ptr};

use rustix::{
    mm::{MapFlags, ProtFlags, mmap_anonymous},
    process::{Resource, Rlimit, setrlimit},
};

use super::attempts::Door;

#[cfg(target_arch = "x86_64")]
mod int80;

/// A watched call, ready to be made.
///
/// Every call of the list of attempts reads the memory that its arguments point at, and writes none. The pointers among
/// them are those of an [`Arena`], which lives as long as the process.
pub(in super::super) struct Ready {
    pub number: u16,
    pub args: [u64; 6],
}

/// Makes the call; what the kernel answers, an errno negated.
pub(super) fn ask(door: Door, ready: &Ready) -> i64 {
    match door {
        Door::Native => native(ready),
        Door::Ia32 => ia32(ready),
    }
}

fn native(&Ready { number, args: [a, b, c, d, e, f] }: &Ready) -> i64 {
    // SAFETY: there is no safe wrapper that takes its call from a list. The call only reads memory, and the pointers are
    // valid for ever (see `Ready`).
    let result = unsafe { libc::syscall(number.into(), a, b, c, d, e, f) };
    if result == -1 { -i64::from(io::Error::last_os_error().raw_os_error().unwrap_or(0)) } else { result }
}

/// Ends the process by SIGSEGV where the kernel has no door for 32-bit calls.
#[cfg(target_arch = "x86_64")]
pub(in super::super) fn ia32(&Ready { number, args }: &Ready) -> i64 {
    // SAFETY: the call only reads memory, and an arena's pointers fit 32 bits (see `Ready`).
    unsafe { int80::ask(number, args.map(|arg| arg as u32)) }
}

#[cfg(not(target_arch = "x86_64"))]
pub(in super::super) fn ia32(_: &Ready) -> i64 {
    -i64::from(libc::ENOSYS)
}

/// For a process that may end by SIGSEGV.
pub(in super::super) fn no_core_dump() -> io::Result<()> {
    Ok(setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?)
}

/// Memory that 32-bit calls can point at: below 4 GiB. It stays until the process ends.
pub(super) struct Arena {
    next: u64,
    end: u64,
}

impl Arena {
    /// # Errors
    /// Where there is no such memory.
    pub fn new() -> io::Result<Self> {
        const LENGTH: usize = 1 << 16;
        // 32-bit calls exist on x86-64 alone, and so does the flag, which rustix does not name.
        #[cfg(target_arch = "x86_64")]
        let flags = MapFlags::PRIVATE | MapFlags::from_bits_retain(libc::MAP_32BIT as u32);
        #[cfg(not(target_arch = "x86_64"))]
        let flags = MapFlags::PRIVATE;
        // SAFETY: memory at a place of its own choice can only be had by mmap(2); a new mapping that the kernel places
        // touches nothing that exists.
        let start = unsafe { mmap_anonymous(ptr::null_mut(), LENGTH, ProtFlags::READ | ProtFlags::WRITE, flags) }?;
        let start = start as u64;
        Ok(Self { next: start, end: start + LENGTH as u64 })
    }

    /// Copies `bytes` there; the address.
    ///
    /// # Errors
    /// Where the arena is full.
    pub fn place(&mut self, bytes: &[u8]) -> io::Result<u64> {
        let address = self.next.next_multiple_of(8);
        let next = address + bytes.len() as u64;
        if next > self.end {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        self.next = next;
        // SAFETY: the raw mapping has no reference to copy through. The range lies within it, as checked, and was given to
        // no one else.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), address as *mut u8, bytes.len()) };
        Ok(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_placed_lies_below_4_gib_and_apart() {
        let mut arena = Arena::new().unwrap();
        let (first, second) = (arena.place(b"abc\0").unwrap(), arena.place(b"d").unwrap());
        assert!(second >= first + 4);
        assert!(cfg!(not(target_arch = "x86_64")) || second < 1 << 32);
    }

    #[test]
    fn a_full_arena_says_so() {
        let mut arena = Arena::new().unwrap();
        assert!(arena.place(&[0; 1 << 16]).is_ok());
        assert!(arena.place(b"x").is_err());
    }

    #[test]
    fn an_errno_comes_negated() {
        // close(2) of no descriptor reads no memory.
        let ready = Ready { number: libc::SYS_close as u16, args: [u64::MAX, 0, 0, 0, 0, 0] };
        assert_eq!(native(&ready), -i64::from(libc::EBADF));
    }
}
