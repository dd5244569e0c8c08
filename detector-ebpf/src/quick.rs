//! The quick way to a repeat: what a refused write costs a program that tries it again and again.
//!
//! Most refused writes have one path, which is short, and absolute or relative to the working directory. For these all that the
//! key of [`crate::fold`] takes is on the stack and in structures whose types the verifier knows: no record is begun, nothing is
//! walked. A path that is read to the stack also spares the kernel a look at the place that it is copied to, which takes longer
//! than the copy (`check_object_size`).

use core::{
    mem::MaybeUninit,
    ptr::{read_volatile, write_volatile},
};

use detector_common::{
    abi::Abi,
    fold::FIXED_WORDS,
    operation::Operation,
    syscalls::{Call, NONE, TABLE_LEN},
};

use crate::{
    capture::process,
    fold,
    hooks::sys_exit,
    memory::{self, Readable, Structure},
    offsets::offset,
    scratch::{self, Scratch},
};

/// Words of a path that is short: with its NUL, 64 bytes.
pub const WORDS: usize = 8;

/// Nobody has asked.
pub const UNASKED: u32 = 0;
/// It is not one for the quick way; nothing is counted.
pub const NOT_QUICK: u32 = 1;
/// It was told before; it is counted.
pub const REPEAT: u32 = 2;
/// This, and the number of the scratch: it is new; nothing is counted. The scratch is claimed, with its key and the path as it was
/// read: the program may have changed it since.
pub const NEW: u32 = 3;

/// Counts a refused write, if it was told before: that of the syscall which the task is in, with a `number` less than
/// [`TABLE_LEN`]. `name` is the address of the kernel's copy of the path; 0: the program's own string is the path.
///
/// A global function (kernel 5.12): the verifier goes through it once and by itself.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ask_quickly(number: u32, compat: u32, name: u64) -> u32 {
    let compat = compat != 0;
    let call = sys_exit::row(compat, number as usize & (TABLE_LEN - 1));
    if call.has_one_path == 0 {
        return NOT_QUICK;
    }
    ask(number, compat, call, name, Arguments::of_current(call, compat))
}

/// The same at the end of a kernel function that does `operation`, and has this path and these arguments.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ask_at_function(operation: u32, name: u64, dirfd: u32, flags: u32) -> u32 {
    let Some(task) = Structure::current_task() else { return NOT_QUICK };
    let number = memory::current_registers().orig_rax & !sys_exit::X32_BIT;
    if process::is_io_worker(task) || number >= TABLE_LEN as u64 {
        return NOT_QUICK;
    }
    let compat = sys_exit::is_compat(task);
    let number = memory::opaque(number) as usize & (TABLE_LEN - 1);
    let call = sys_exit::row(compat, number);
    if call.has_one_path == 0 || !does(operation, call) {
        return NOT_QUICK;
    }
    ask(number as u32, compat, call, name, Arguments { path: 0, dirfd, flags: flags.into() })
}

#[inline(always)]
fn ask(number: u32, compat: bool, call: &Call, name: u64, arguments: Arguments) -> u32 {
    let Arguments { path, dirfd, flags } = arguments;
    let mut text = MaybeUninit::<[u64; WORDS]>::uninit();
    let text = text.as_mut_ptr();
    // SAFETY: as long as it is.
    if !unsafe { memory::copy(text.cast(), WORDS as u32 * 8, name, path) } {
        return NOT_QUICK;
    }
    // SAFETY: the first word of the text.
    let first = unsafe { read_volatile(text.cast::<u64>()) } as u8;
    let is_absolute = first == b'/';
    if first == 0 || !is_absolute && dirfd != AT_FDCWD {
        return NOT_QUICK;
    }
    let operation = fold::operation(call, flags);
    let abi = if compat { Abi::Ia32 } else { Abi::X86_64 };
    let mut hash = 0;
    fold::add_to_lane(&mut hash, 0, fold::asked(operation, abi as u8, number as u16, flags));
    let mut index = 0;
    loop {
        if index == WORDS {
            return NOT_QUICK;
        }
        // SAFETY: within the text.
        let word = unsafe { read_volatile(text.cast::<u64>().add(index)) };
        // The highest bit of each byte that is NUL, and of none before the first that is.
        let ends = word.wrapping_sub(0x0101_0101_0101_0101) & !word & 0x8080_8080_8080_8080;
        if ends != 0 {
            // Without what stands behind the path.
            let before_end = ((ends & ends.wrapping_neg()) >> 7).wrapping_sub(1);
            fold::add_to_lane(&mut hash, index + FIXED_WORDS, word & before_end);
            break;
        }
        fold::add_to_lane(&mut hash, index + FIXED_WORDS, word);
        index += 1;
    }
    let Some(chosen) = chosen_by_kernel(is_absolute) else { return NOT_QUICK };
    let key = [hash, chosen];
    if fold::is_repeat(key, process::current_cgroup_id(), operation) {
        return REPEAT;
    }
    let Some((scratch, place)) = scratch::claim() else { return NOT_QUICK };
    note(scratch, key, text);
    NEW + place
}

/// Whether a function that does `operation` can be what the syscall of `row` comes to.
#[inline(always)]
pub fn does(operation: u32, row: &Call) -> bool {
    // unlinkat removes folders, too.
    let removes = |operation: u32| operation == Operation::Unlink as u32 || operation == Operation::Rmdir as u32;
    let of_row = u32::from(row.operation);
    of_row == operation || removes(of_row) && removes(operation)
}

#[inline(always)]
fn note(scratch: &mut Scratch, key: [u64; 2], text: *const [u64; WORDS]) {
    scratch.is_new = 1;
    scratch.key = key;
    for word in 0..WORDS {
        // SAFETY: within both; volatile, or the compiler would make a `memcpy` of this, which goes byte by byte.
        unsafe { write_volatile(&raw mut scratch.text[word], read_volatile(text.cast::<u64>().add(word))) };
    }
}

/// The descriptor that stands for the working directory.
const AT_FDCWD: u32 = -100_i32 as u32;

/// The arguments of a call that has one path.
struct Arguments {
    path: u64,
    dirfd: u32,
    flags: u64,
}

impl Arguments {
    #[inline(always)]
    fn of_current(call: &Call, compat: bool) -> Self {
        let registers = memory::current_registers();
        let [first, second] = if compat { [registers.rbx, registers.rcx] } else { [registers.rdi, registers.rsi] };
        // A path comes first, or second, behind what it is relative to.
        let (path, dirfd) = if call.dirfd == NONE { (first, AT_FDCWD) } else { (second, first as u32) };
        let flags = match call.flags {
            1 => second,
            2 => registers.rdx,
            3 if compat => registers.rsi,
            3 => registers.r10,
            4 if compat => registers.rdi,
            4 => registers.r8,
            _ => 0,
        };
        Self { path: if compat { path & 0xffff_ffff } else { path }, dirfd, flags }
    }
}

/// What the path is relative to, root or working directory, and what is executed, in one number.
#[inline(always)]
fn chosen_by_kernel(is_absolute: bool) -> Option<u64> {
    let task = Structure::current_task()?;
    let fs = task.follow(offset!(task_fs))?;
    let [mount, dentry]: [u64; 2] = if is_absolute {
        [fs.load(offset!(fs_root_mnt)), fs.load(offset!(fs_root_dentry))]
    } else {
        [fs.load(offset!(fs_pwd_mnt)), fs.load(offset!(fs_pwd_dentry))]
    };
    let file = task.follow(offset!(task_mm))?.follow(offset!(mm_exe_file))?;
    let executable: u64 = file.load(offset!(file_dentry));
    let inode = file.follow(offset!(file_inode))?;
    let generation: u32 = inode.load(offset!(inode_generation));
    let number: u64 = inode.load(offset!(inode_number));
    let base = fold::mix(memory::number(mount), memory::number(dentry));
    let executable = fold::mix(base, memory::number(executable));
    Some(fold::mix(fold::mix(executable, number), generation.into()))
}
