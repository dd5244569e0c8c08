//! The door for 32-bit calls. A file of its own, which the tests of the kernel side are built with, too.

use std::arch::asm;

/// Makes the call; what the kernel answers, an errno negated. Ends the process by SIGSEGV where the kernel has no such door.
///
/// # Safety
/// The arguments must be what the syscall wants.
pub unsafe fn ask(number: u16, args: [u32; 6]) -> i64 {
    let mut result = u64::from(number);
    // SAFETY: no library function enters the kernel by `int 0x80`. The convention: arguments in ebx, ecx, edx, esi, edi,
    // ebp, the answer in eax; r8 to r11 are lost. The compiler keeps rbx and rbp for itself, so they are saved by hand,
    // below the red zone that the compiler gives up for a block which may push. The caller answers for the arguments.
    unsafe {
        asm!(
            "push rbx", "push rbp",
            "mov ebx, [rdi]", "mov ecx, [rdi + 4]", "mov edx, [rdi + 8]", "mov esi, [rdi + 12]", "mov ebp, [rdi + 20]",
            "mov edi, [rdi + 16]",
            "int 0x80",
            "pop rbp", "pop rbx",
            inout("rax") result, inout("rdi") args.as_ptr() => _,
            out("rcx") _, out("rdx") _, out("rsi") _, out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    // The answer is an int in the lower half.
    i64::from(result as i32)
}
