//! What threads try again and again: where an open that a thread has repeated is counted, so that the next time the place is found by
//! comparing.
//!
//! The key of [`crate::quick`] takes a hash of the path, and five structures that tell what is executed. A thread that has not
//! executed another program since still executes that, and a path that is the same word by word has the same hash. Where another
//! thread comes to the same place, the latest of the two has it; what is not found is asked for by its key.
//!
//! A process that has the kernel take another file for its executable without executing it (`PR_SET_MM_EXE_FILE`) is counted on
//! under the one that it was told with. A thread that is moved to another cgroup has another set of cgroups.

use core::{
    cell::UnsafeCell,
    ptr::{read_volatile, write_volatile},
};

use detector_common::offsets::UNAVAILABLE;

use crate::{
    atomic::Claim,
    fold::{self, Place},
    memory::{self, Readable as _, Structure},
    offsets::{member, offset},
    quick::{self, WORDS},
};

/// How many opens are kept; a power of two.
const PLACES: usize = 1024;

/// An open that was counted as a repeat.
#[repr(C)]
struct Latest {
    /// Address of the thread; 0: nobody's; [`WRITTEN`].
    thread: Claim,
    /// The call, and its flags.
    asked: u64,
    /// The words of the path, with zeros behind its end.
    text: [u64; WORDS],
    /// How many whole words come before the one with its end.
    whole: u64,
    /// Which bits of that one are the path's, its NUL among them.
    last: u64,
    /// Address of the directory entry that the path is relative to.
    base: u64,
    since: Since,
    counted: Place,
    /// How often its own thread found another attempt here.
    missed: u64,
}

/// How often a thread that repeats more than one by turns finds another of its own in the place before it writes anew, which takes as
/// long as asking for the key; a power of two.
const PATIENCE: u64 = 32;

/// What stands for the thread while the rest is written.
const WRITTEN: u64 = 1;

/// What a thread is the same since: another may come to have its address.
#[derive(Clone, Copy, Eq, PartialEq)]
#[repr(C)]
struct Since {
    /// When it was started.
    started: u64,
    /// How often it had executed a program.
    executed: u64,
    /// Address of its set of cgroups.
    cgroups: u64,
}

impl Since {
    const NEVER: Self = Self { started: 0, executed: 0, cgroups: 0 };

    #[inline(always)]
    fn of(task: Structure) -> Self {
        Self {
            started: member!(task, "u64", task_start_boottime),
            executed: member!(task, "u64", task_self_exec_id),
            cgroups: member!(task, "u64", task_cgroups),
        }
    }
}

impl Latest {
    /// Nobody's.
    const fn nothing() -> Self {
        Self {
            thread: Claim::new(),
            asked: 0,
            text: [0; WORDS],
            whole: 0,
            last: 0,
            base: 0,
            since: Since::NEVER,
            counted: Place { slot: 0, state: 0 },
            missed: 0,
        }
    }

    /// Where an open is kept, by thread and the second half of the first word: a thread may repeat more than one.
    #[inline(always)]
    fn at(thread: u64, first: u64) -> *mut Self {
        // The factor is part of an instruction, as it has 31 bits.
        let number = memory::lower_half(thread).wrapping_add((first >> 32) as u32).wrapping_mul(0x7ed5_58cd) >> 16;
        // SAFETY: within the table.
        unsafe { LATEST.0.get().cast::<Self>().add(number as usize & (PLACES - 1)) }
    }
}

/// Of all threads.
struct Table(UnsafeCell<[Latest; PLACES]>);

// SAFETY: what is written is claimed by exchanging the thread, and who reads looks at the thread before and after.
unsafe impl Sync for Table {}

static LATEST: Table = Table(UnsafeCell::new([const { Latest::nothing() }; PLACES]));

/// Counts an open of `task`, the running one, if it is known where; `filename` has its path, and `dirfd` reads what a relative one
/// is relative to.
#[inline(always)]
pub fn count(task: Structure, filename: Structure, dirfd: impl FnOnce() -> u32, flags: u32) -> bool {
    let asked = quick::asked(quick::call_of(task), flags.into());
    let short = offset!(filename_short);
    if short == UNAVAILABLE {
        return false;
    }
    // Where the path is not short, nothing or its beginning stands here: no end of it.
    let text = filename.part(short);
    let word = |index: usize| text.load::<u64>(index as u32 * 8);
    let first = word(0);
    let Some(base) = quick::base(task, first, dirfd) else { return false };
    let thread = task.address();
    let place = Latest::at(thread, first);
    // SAFETY: a live place; volatile, because another thread may be about to write it: what was read of it counts if the thread
    // is the same afterwards.
    let counted = unsafe {
        let of_thread = &(*place).thread;
        if of_thread.get() != thread
            || read_volatile(&raw const (*place).asked) != asked
            || read_volatile(&raw const (*place).base) != base
            || read_volatile(&raw const (*place).since) != Since::of(task)
        {
            return false;
        }
        let whole = read_volatile(&raw const (*place).whole);
        let text = (&raw const (*place).text).cast::<u64>();
        let mut this = first;
        let mut index = 0;
        while index as u64 != whole {
            if this != read_volatile(text.add(index)) {
                return false;
            }
            index += 1;
            if index == WORDS {
                return false;
            }
            this = word(index);
        }
        if this & read_volatile(&raw const (*place).last) != read_volatile(text.add(index)) {
            return false;
        }
        let counted = read_volatile(&raw const (*place).counted);
        if of_thread.get() != thread {
            return false;
        }
        counted
    };
    fold::repeated_open_at(counted)
}

/// Keeps where an open of `task`, the running one, was counted. Its path, which is short, stands at `name` in the kernel's memory.
#[inline(always)]
pub fn keep(task: Structure, asked: u64, base: u64, name: u64, counted: Place) {
    let thread = task.address();
    let place = Latest::at(thread, memory::kernel_at(name, 0));
    // SAFETY: a live place; volatile, because others may write it. Should one do so at once, it is written sooner or later.
    unsafe {
        if (*place).thread.get() == thread {
            let missed = read_volatile(&raw const (*place).missed).wrapping_add(1);
            write_volatile(&raw mut (*place).missed, missed);
            if missed & (PATIENCE - 1) != 0 {
                return;
            }
        }
    }
    let mut text: [u64; WORDS] = memory::kernel_at(name, 0);
    let mut whole = WORDS;
    let mut last = 0;
    for (index, word) in text.iter_mut().enumerate() {
        let end = quick::end(*word);
        if whole < WORDS {
            *word = 0;
        } else if end != 0 {
            whole = index;
            last = (end << 1).wrapping_sub(1);
            *word &= last;
        }
    }
    if whole == WORDS {
        return;
    }
    // SAFETY: a live place, whose thread is changed by exchanging it; the rest is written by who has claimed it.
    unsafe {
        let of_thread = &(*place).thread;
        let before = of_thread.get();
        if before == WRITTEN || !of_thread.replace(before, WRITTEN) {
            return;
        }
        write_volatile(&raw mut (*place).asked, asked);
        for (index, word) in text.into_iter().enumerate() {
            write_volatile((&raw mut (*place).text).cast::<u64>().add(index), word);
        }
        write_volatile(&raw mut (*place).whole, whole as u64);
        write_volatile(&raw mut (*place).last, last);
        write_volatile(&raw mut (*place).base, base);
        write_volatile(&raw mut (*place).since, Since::of(task));
        write_volatile(&raw mut (*place).counted, counted);
        of_thread.swap(thread);
    }
}
