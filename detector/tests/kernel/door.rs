//! The doors into the kernel, opened by hand: `syscall` and `int 0x80`, with any number and any arguments.

use std::{arch::asm, ffi::CStr};

use detector_common::abi::Abi;

#[path = "../../src/cli/demo/door/int80.rs"]
mod int80;

/// Asks the kernel through `door`; what it answers, an errno negated.
///
/// # Safety
/// The arguments must be what the syscall wants.
pub unsafe fn ask(door: Abi, number: u16, args: [u64; 6]) -> i64 {
    match door {
        // SAFETY: the caller answers for the arguments.
        Abi::X86_64 => unsafe { ask_64(number, args) },
        // SAFETY: the caller answers for the arguments.
        Abi::Ia32 => unsafe { int80::ask(number, args.map(|arg| u32::try_from(arg & 0xffff_ffff).unwrap())) },
        other => panic!("the tests have no key to the door {}", other.name()),
    }
}

unsafe fn ask_64(number: u16, [a, b, c, d, e, f]: [u64; 6]) -> i64 {
    let result: i64;
    // SAFETY: the calling convention of `syscall`; the caller answers for the arguments.
    unsafe {
        asm!("syscall", inlateout("rax") i64::from(number) => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            lateout("rcx") _, lateout("r11") _);
    }
    result
}

/// Memory below 4 GiB, so that 32-bit calls can be given its addresses. Never freed: a test is short.
pub struct Arena {
    start: usize,
    next: usize,
    end: usize,
}

impl Arena {
    pub fn new() -> Self {
        const LENGTH: usize = 1 << 20;
        // SAFETY: a fresh private mapping.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                LENGTH,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT | libc::MAP_POPULATE,
                -1,
                0,
            )
        };
        assert_ne!(start, libc::MAP_FAILED, "there is room below 4 GiB");
        let start = start as usize;
        Self { start, next: start, end: start + LENGTH }
    }

    /// Gives back all that was copied there.
    pub fn clear(&mut self) {
        self.next = self.start;
    }

    /// Copies `bytes` there; the address.
    pub fn bytes(&mut self, bytes: &[u8]) -> u64 {
        let address = self.next.next_multiple_of(8);
        self.next = address + bytes.len();
        assert!(self.next <= self.end, "the arena is large enough for a test");
        // SAFETY: within the mapping, as checked, and given to no one else.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), address as *mut u8, bytes.len()) };
        address as u64
    }

    /// Copies a string with its NUL.
    pub fn string(&mut self, string: &CStr) -> u64 {
        self.bytes(string.to_bytes_with_nul())
    }

    /// Copies a string without a NUL, and adds that.
    pub fn string_of(&mut self, string: &[u8]) -> u64 {
        self.bytes(&[string, b"\0"].concat())
    }

    /// Copies words of 64 bits.
    pub fn words(&mut self, words: &[u64]) -> u64 {
        self.bytes(&words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<_>>())
    }
}
