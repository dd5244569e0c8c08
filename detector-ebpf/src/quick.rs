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

use aya_ebpf::bindings::pt_regs;
use detector_common::{
    fold::FIXED_WORDS,
    offsets::UNAVAILABLE,
    operation::Operation,
    syscalls::{Call, NONE, TABLE_LEN},
    takeover::Kind,
};

use crate::{
    capture::process,
    fold,
    hooks::{covers, sys_exit},
    latest,
    memory::{self, Readable, Structure},
    offsets::{member, offset},
    scratch::{self, Scratch},
};

/// Words of a path that is short: with its NUL, 64 bytes.
pub const WORDS: usize = 8;
/// Of these, what most paths have room in.
const HALF: usize = WORDS / 2;

/// What nearly every program and library opens with (`arch/x86/entry/syscalls/syscall_64.tbl`); of 32-bit calls this is
/// `remap_file_pages`.
const OPENAT: u64 = 257;

/// Nobody has asked, not even whether it is these programs' to report.
pub const UNASKED: u32 = 0;
/// It is not one for the quick way; nothing is counted.
pub const NOT_QUICK: u32 = 1;
/// It was told before, and is counted; or it is not these programs' to report.
pub const DONE: u32 = 2;
/// This, and the number of the scratch: it is new; nothing is counted. The scratch is claimed, with its key and the path as it was
/// read: the program may have changed it since.
pub const NEW: u32 = 3;

/// Counts a refused write, if it was told before: that of the syscall which the task is in, and which has ended in a kernel function.
/// `name` is the address of the kernel's copy of the path; 0: the program's own string is the path.
///
/// A global function (kernel 5.12): the verifier goes through it once and by itself.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ask_at_function(name: u64) -> u32 {
    let Some(task) = Structure::current_task() else { return NOT_QUICK };
    let Some(call) = Asked::of_current(task) else { return NOT_QUICK };
    ask_of_string(task, name, call)
}

/// The same at the exit of the syscall, which counts nothing that such a function does.
#[inline(always)]
pub fn ask_at_exit(registers: &pt_regs) -> u32 {
    let Some(task) = Structure::current_task() else { return UNASKED };
    match Asked::of(task, registers) {
        Some(call) if covers::syscalls(call.operation, Kind::Refused) => DONE,
        Some(call) => ask_of_string(task, 0, call),
        None => UNASKED,
    }
}

/// The same at the end of the function that opens, with the kernel's copy of the path and these arguments.
///
/// A short path stands in its `struct filename` itself, from where a word is one load.
#[inline(always)]
pub fn ask_at_open(task: Structure, filename: Structure, dirfd: u32, flags: u32) -> u32 {
    let short = offset!(filename_short);
    if short == UNAVAILABLE || process::is_current_io_worker(task) {
        return NOT_QUICK;
    }
    let call = match Asked::of_current(task) {
        Some(call) if call.operation == Operation::Open as u8 => Asked { dirfd, flags: flags.into(), ..call },
        _ => return NOT_QUICK,
    };
    let name = member!(filename, "u64", filename_name);
    let text = filename.part(short);
    if name != text.address() {
        return NOT_QUICK;
    }
    let word = |index: usize| Some(text.load::<u64>(index as u32 * 8));
    let Some((key, base)) = key(task, &call, word) else { return NOT_QUICK };
    if let Some(place) = fold::repeated_open(key, process::current_cgroup_id()) {
        latest::keep(task, call.asked(), base, name, place);
        return DONE;
    }
    // It is the kernel's, which nobody changes: read once more it is the same.
    claim(key, |scratch| scratch.text = memory::kernel_at(name, 0))
}

/// A call that has one path, as its key takes it.
struct Asked {
    operation: u8,
    /// Which call it is, by its number and its table.
    call: u32,
    /// Address of the program's own string.
    path: u64,
    dirfd: u32,
    flags: u64,
}

impl Asked {
    /// What is asked for but the path: see [`asked`].
    #[inline(always)]
    fn asked(&self) -> u64 {
        asked(self.call, self.flags)
    }

    /// That of the syscall which the task is in, which is the running one.
    #[inline(always)]
    fn of_current(task: Structure) -> Option<Self> {
        Self::of(task, task.registers())
    }

    /// The same, with the registers that it began with.
    #[inline(always)]
    fn of(task: Structure, registers: &pt_regs) -> Option<Self> {
        let number = registers.orig_rax;
        let compat = sys_exit::is_compat(task);
        if number == OPENAT && !compat {
            // What the table says of it, without a look at it.
            return Some(Self {
                operation: Operation::Open as u8,
                call: OPENAT as u32,
                path: registers.rsi,
                dirfd: registers.rdi as u32,
                flags: registers.rdx,
            });
        }
        let number = number & !sys_exit::X32_BIT;
        if number >= TABLE_LEN as u64 {
            return None;
        }
        // Old verifiers don't connect the comparison with this copy.
        let call = sys_exit::row(compat, memory::opaque(number) as usize & (TABLE_LEN - 1));
        if call.has_one_path == 0 {
            return None;
        }
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
        let operation = fold::operation(call, flags);
        let path = if compat { path & 0xffff_ffff } else { path };
        Some(Self { operation, call: number_of(number, compat), path, dirfd, flags })
    }
}

/// The same, where the path is read to the stack first: by `name`, or where that is 0, by the program's own string.
#[inline(always)]
fn ask_of_string(task: Structure, name: u64, call: Asked) -> u32 {
    let mut text = MaybeUninit::<[u64; WORDS]>::uninit();
    let text = text.as_mut_ptr().cast::<u64>();
    // Of the kernel's memory a copy costs by its length, of the program's hardly.
    // SAFETY: both are as long as the text, or shorter; volatile, or the compiler would make a `memset` of the zeros.
    let is_read = unsafe {
        if name == 0 {
            memory::user_bytes(text.cast(), WORDS as u32 * 8, call.path)
        } else {
            for word in HALF..WORDS {
                write_volatile(text.add(word), 0);
            }
            memory::kernel_bytes(text.cast(), HALF as u32 * 8, name)
        }
    };
    if !is_read {
        return NOT_QUICK;
    }
    let word = |index: usize| {
        if index == HALF && name != 0 {
            let rest = name.wrapping_add(HALF as u64 * 8);
            // SAFETY: the second half of the text.
            if !unsafe { memory::kernel_bytes(text.add(HALF).cast(), HALF as u32 * 8, rest) } {
                return None;
            }
        }
        // SAFETY: within the text.
        Some(unsafe { read_volatile(text.add(index)) })
    };
    let Some((key, _)) = key(task, &call, word) else { return NOT_QUICK };
    if fold::is_repeat(key, process::current_cgroup_id(), call.operation) {
        return DONE;
    }
    claim(key, |scratch| {
        for word in 0..WORDS {
            // SAFETY: within both; volatile, or the compiler would make a `memcpy` of this, which goes byte by byte.
            unsafe { write_volatile(&raw mut scratch.text[word], read_volatile(text.add(word))) };
        }
    })
}

/// The key of a call whose path `word` reads, and the address of the directory entry that it is relative to.
#[inline(always)]
fn key(task: Structure, call: &Asked, mut word: impl FnMut(usize) -> Option<u64>) -> Option<([u64; 2], u64)> {
    let first = word(0)?;
    let base = base(task, first, || call.dirfd)?;
    Some(([hash(first, word)?, chosen(task, base, call.asked())?], base))
}

/// The hash of the path that begins with the word `first`, and whose others `word` reads in turn, as long as it has not come to the
/// end.
#[inline(always)]
fn hash(first: u64, mut word: impl FnMut(usize) -> Option<u64>) -> Option<u64> {
    let mut hash = 0;
    let mut this = first;
    let mut index = 0;
    loop {
        let end = end(this);
        if end != 0 {
            // Without what stands behind the path.
            let before_end = (end >> 7).wrapping_sub(1);
            fold::add_to_lane(&mut hash, index + FIXED_WORDS, this & before_end);
            return Some(hash);
        }
        fold::add_to_lane(&mut hash, index + FIXED_WORDS, this);
        index += 1;
        if index == WORDS {
            return None;
        }
        this = word(index)?;
    }
}

/// The highest bit of the first byte of `word` that is NUL; 0: none is.
#[inline(always)]
pub fn end(word: u64) -> u64 {
    // The highest bit of each byte that is NUL, and of none before the first that is.
    let ends = word.wrapping_sub(0x0101_0101_0101_0101) & !word & 0x8080_8080_8080_8080;
    ends & ends.wrapping_neg()
}

/// Claims a scratch for the attempt that has this key, which is new; `note` keeps its path there.
#[inline(always)]
fn claim(key: [u64; 2], note: impl FnOnce(&mut Scratch)) -> u32 {
    let Some((scratch, place)) = scratch::claim() else { return NOT_QUICK };
    scratch.is_new = 1;
    scratch.key = key;
    note(scratch);
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

/// The descriptor that stands for the working directory.
const AT_FDCWD: u32 = -100_i32 as u32;

/// Which call it is, with its flags: they tell the operation, too.
#[inline(always)]
pub fn asked(call: u32, flags: u64) -> u64 {
    flags << 32 | u64::from(call)
}

/// Which open the task, which is the running one, is in.
#[inline(always)]
pub fn call_of(task: Structure) -> u32 {
    let number = task.registers().orig_rax;
    // A 32-bit call of this number opens nothing.
    if number == OPENAT { OPENAT as u32 } else { number_of(number & !sys_exit::X32_BIT, sys_exit::is_compat(task)) }
}

/// A call by its number and its table.
#[inline(always)]
fn number_of(number: u64, compat: bool) -> u32 {
    number as u32 | if compat { TABLE_LEN as u32 } else { 0 }
}

/// Address of the directory entry that a path which begins with the word `first` is relative to, root or working directory; nothing
/// where it is relative to what the quick way does not look at.
#[inline(always)]
pub fn base(task: Structure, first: u64, dirfd: impl FnOnce() -> u32) -> Option<u64> {
    let is_absolute = match first as u8 {
        b'/' => true,
        0 => return None,
        _ if dirfd() != AT_FDCWD => return None,
        _ => false,
    };
    let fs = Structure::at(member!(task, "u64", task_fs))?;
    // Not its mount: the same path of another mount namespace is the same attempt.
    Some(if is_absolute { member!(fs, "u64", fs_root_dentry) } else { member!(fs, "u64", fs_pwd_dentry) })
}

/// What the path is relative to, what is executed, and what was `asked`, in one number.
#[inline(always)]
fn chosen(task: Structure, base: u64, asked: u64) -> Option<u64> {
    let mm = Structure::at(member!(task, "u64", task_mm))?;
    let file = Structure::at(member!(mm, "u64", mm_exe_file))?;
    let executable = member!(file, "u64", file_dentry);
    let inode = Structure::at(member!(file, "u64", file_inode))?;
    let generation = member!(inode, "u32", inode_generation);
    let number = member!(inode, "u64", inode_number);
    // Nobody can choose these, so a sum does, each with a factor of its own. What was asked is chosen, but with all else the same
    // another number makes another sum.
    let inode = number ^ generation << 32;
    let sum = [memory::number(base), memory::number(executable), inode, asked]
        .into_iter()
        .zip(FACTORS)
        .fold(0_u64, |sum, (word, factor)| sum.wrapping_add(word.wrapping_mul(factor)));
    Some(sum)
}

/// Odd primes of 31 bits: each is part of an instruction, where a wider number takes one of its own.
const FACTORS: [u64; 4] = [0x7ed5_58cd, 0x6b2f_b655, 0x5d5b_83f7, 0x4cf5_ad5f];
