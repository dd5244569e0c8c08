//! Which folder a write goes to, as a key: learning mode tells each folder once, and counts the rest.

use aya_ebpf::{cty::c_void, helpers::generated::bpf_loop};
use detector_common::record::{PATH_MAX, PAYLOAD_MAX, Section};

use crate::{
    capture::path,
    fold,
    memory::{self, Readable as _, Structure},
    offsets::offset,
    scratch::Scratch,
};

/// The folder of the open file whose `struct path` is at `path`, in one number. By its directory entry, and by its inode, should
/// another folder have had that entry before.
#[inline(always)]
pub fn of_file([mnt, dentry]: [u64; 2]) -> u64 {
    let parent: u64 = memory::kernel_at(dentry, offset!(dentry_parent));
    let inode: u64 = memory::kernel_at(memory::kernel_at(parent, offset!(dentry_inode)), offset!(inode_number));
    fold::mix(fold::mix(fold::mix(0, mnt), parent), inode)
}

/// The folders of both paths of the call in the scratch, in one number: what they are relative to, and their text without the
/// last name.
#[inline(always)]
pub fn of_paths(scratch: &mut Scratch) -> u64 {
    let record = &scratch.record.call;
    let mut bases = u64::from(record.base) | u64::from(record.base2) << 8;
    for [mnt, dentry] in scratch.bases {
        bases = fold::mix(fold::mix(bases, mnt), dentry);
    }
    let length = |section: Section| u32::from(record.lengths[section as usize]);
    let first = length(Section::Path);
    let all = first + length(Section::Path2);
    let mut text = Text { scratch, first, all, sum: 0, folders: 0 };
    // SAFETY: `add` has the signature that the helper calls, and `text` outlives the call.
    unsafe { bpf_loop(all, add as *const () as *mut c_void, (&raw mut text).cast(), 0) };
    fold::mix(bases, text.folders)
}

/// What the steps need; on the stack, because that is what `bpf_loop` hands on.
struct Text<'a> {
    scratch: &'a Scratch,
    /// Bytes of the first path.
    first: u32,
    /// Bytes of both.
    all: u32,
    /// Hash of what has been read.
    sum: u64,
    /// The same up to the last slash that has a name behind it.
    folders: u64,
}

/// Adds a byte. As [`fold`] does with words, a factor for each place, because a program chooses the text.
extern "C" fn add(index: u64, text: *mut c_void) -> i64 {
    const _: () = assert!(2 * PATH_MAX <= MASK + 1 && MASK < PAYLOAD_MAX);
    const MASK: usize = 0x3fff;
    /// No byte of the first path is like one of the second.
    const OF_SECOND: u64 = 256;
    // SAFETY: `of_paths` handed on its own live `Text`, and touches it again only after the loop.
    let text = unsafe { &mut *text.cast::<Text<'_>>() };
    let index = index as u32;
    let byte = text.scratch.payload[index as usize & MASK];
    let is_second = index >= text.first;
    if index == text.first {
        // Without the name in the first folder.
        text.sum = text.folders;
    }
    let (position, end, of_path) =
        if is_second { (index - text.first, text.all, OF_SECOND) } else { (index, text.first, 0) };
    let weight = u64::from(byte) + 1 + of_path;
    text.sum = text.sum.wrapping_add(weight.wrapping_mul(fold::factor(position as usize)));
    if byte == b'/' && index + 1 < end {
        text.folders = text.sum;
    }
    0
}

/// The executable of the running task, in one number; none of a thread of the kernel.
#[inline(always)]
pub fn executable(task: Structure) -> Option<u64> {
    let file = task.follow(offset!(task_mm))?.follow(offset!(mm_exe_file))?;
    let dentry: u64 = file.load(offset!(file_dentry));
    let inode = file.follow(offset!(file_inode))?;
    let number: u64 = inode.load(offset!(inode_number));
    let generation: u32 = inode.load(offset!(inode_generation));
    Some(fold::mix(fold::mix(memory::number(dentry), number), generation.into()))
}

/// The key of what `executable` does in these folders.
#[inline(always)]
pub fn key(operation: u8, folders: u64, executable: u64) -> [u64; 2] {
    let what = fold::mix(executable, operation.into());
    [fold::mix(folders, what), fold::mix(what, folders)]
}

/// The `struct file` of the descriptor of the running task; 0 where it has none.
#[inline(always)]
pub fn open_file(task: Structure, descriptor: u32) -> u64 {
    task.follow(offset!(task_files)).map_or(0, |files| path::open_file(files.address(), descriptor))
}
