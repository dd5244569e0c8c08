//! Reads of memory that may not be there: every one is checked by the kernel and fails cleanly.

use core::{
    mem::MaybeUninit,
    ptr::{NonNull, read_volatile, write_volatile},
};

use aya_ebpf::{
    bindings::{pt_regs, task_struct},
    helpers::generated::{
        bpf_get_current_task_btf, bpf_probe_read_kernel, bpf_probe_read_kernel_str, bpf_probe_read_user,
        bpf_probe_read_user_str, bpf_task_pt_regs,
    },
};

/// Plain numbers and arrays of them: any bytes are a value.
pub trait Plain: Copy {}
impl Plain for u8 {}
impl Plain for u16 {}
impl Plain for u32 {}
impl Plain for u64 {}
impl<T: Plain, const N: usize> Plain for [T; N] {}

/// A kernel structure whose type the verifier knows (`PTR_TO_BTF_ID`): a member of it is one load, where [`kernel_at`] calls a
/// helper for some sixty instructions. The kernel mends a load that faults: it gives 0.
///
/// The verifier knows the type as long as the pointer is in a register or on the stack. In a map it is a number.
///
/// Some pointers it takes for ones that may be null, more of them with each kernel, and wants them compared before anything is
/// added to them. So [`Readable::follow`] compares each, and offsets are read where they are used, behind the comparison.
///
/// Following is cheap when it runs and dear when it is verified: see `process::describe_current`.
#[derive(Clone, Copy)]
pub struct Structure(NonNull<u8>);

impl Structure {
    /// The `task_struct` of the running thread.
    #[inline(always)]
    pub fn current_task() -> Option<Self> {
        // SAFETY: the helper has no preconditions.
        NonNull::new(unsafe { bpf_get_current_task_btf() }.cast()).map(Self)
    }
}

impl Structure {
    /// A parameter of the function that the program is attached to.
    #[inline(always)]
    pub fn parameter(pointer: *const u8) -> Option<Self> {
        NonNull::new(pointer.cast_mut()).map(Self)
    }

    /// The registers of a task, as [`current_registers`].
    #[inline(always)]
    pub fn registers(self) -> &'static pt_regs {
        registers_of(self.0.as_ptr().cast())
    }

    /// What a member points to, that was loaded as a number.
    #[inline(always)]
    pub fn at(address: u64) -> Option<Self> {
        Self::parameter(address as *const u8)
    }

    /// What stands at `offset` within it.
    #[inline(always)]
    pub fn part(self, offset: u32) -> Self {
        // SAFETY: not null, and far from the end of the address space.
        Self(unsafe { self.0.add(offset as usize) })
    }

    /// The same, as a number.
    #[inline(always)]
    pub fn untyped(self) -> Untyped {
        Untyped(self.address())
    }
}

/// The registers of the syscall that the running thread is in (kernel 5.15); of a thread of the kernel's, what it began with.
#[inline(always)]
pub fn current_registers() -> &'static pt_regs {
    // SAFETY: the helper has no preconditions.
    registers_of(unsafe { bpf_get_current_task_btf() })
}

#[inline(always)]
fn registers_of(task: *mut task_struct) -> &'static pt_regs {
    // SAFETY: the verifier checks that it is a task, and each load from the registers, which stand on the task's stack.
    unsafe { &*(bpf_task_pt_regs(task) as *const pt_regs) }
}

/// A kernel structure whose members can be read.
pub trait Readable: Copy {
    /// Reads the member at `offset`, a plain number.
    fn load<T: Plain>(self, offset: u32) -> T;

    /// The structure that the member at `offset` points to.
    fn follow(self, offset: u32) -> Option<Self>;

    /// Where it is, for [`kernel_at`].
    fn address(self) -> u64;
}

impl Readable for Structure {
    #[inline(always)]
    fn load<T: Plain>(self, offset: u32) -> T {
        // SAFETY: the verifier checks the offset against the type of the structure, and the kernel mends a fault.
        unsafe { read_volatile(self.0.as_ptr().wrapping_add(offset as usize).cast()) }
    }

    #[inline(always)]
    fn follow(self, offset: u32) -> Option<Self> {
        // SAFETY: as in `load`.
        NonNull::new(unsafe { read_volatile(self.0.as_ptr().wrapping_add(offset as usize).cast()) }).map(Self)
    }

    #[inline(always)]
    fn address(self) -> u64 {
        self.0.as_ptr() as u64
    }
}

/// A kernel structure at an address that the verifier takes for a number: another task's, say. Its members are read by a helper.
#[derive(Clone, Copy)]
pub struct Untyped(pub u64);

impl Readable for Untyped {
    #[inline(always)]
    fn load<T: Plain>(self, offset: u32) -> T {
        kernel_at(self.0, offset)
    }

    #[inline(always)]
    fn follow(self, offset: u32) -> Option<Self> {
        let address = kernel_at(self.0, offset);
        (address != 0).then_some(Self(address))
    }

    #[inline(always)]
    fn address(self) -> u64 {
        self.0
    }
}

/// Reads the `T` at `offset` from `base` in kernel memory; zeros where it can't be read.
///
/// Without a branch, so that a chain of reads is one path for the verifier: reading on from 0 fails, and is 0 again.
#[inline(always)]
pub fn kernel_at<T: Plain>(base: u64, offset: u32) -> T {
    let mut value = MaybeUninit::<T>::uninit();
    let address = base.wrapping_add(u64::from(offset));
    // SAFETY: `value` is writable for its size; the helper checks the address, and zeroes the value on a fault.
    unsafe { bpf_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, address as *const _) };
    // SAFETY: all bytes are written, and any are a value of a `Plain` type.
    unsafe { value.assume_init() }
}

/// Reads two words at `first` and `second` from `base`: with one call where they stand close together, which is known when the
/// program is loaded, so that the other way is left out then.
#[inline(always)]
pub fn kernel_words(base: u64, first: u32, second: u32) -> [u64; 2] {
    const WORD: u32 = size_of::<u64>() as u32;
    if second == first + WORD {
        kernel_at(base, first)
    } else if second == first + 2 * WORD {
        let [first, _, second] = kernel_at::<[u64; 3]>(base, first);
        [first, second]
    } else {
        [kernel_at(base, first), kernel_at(base, second)]
    }
}

/// Reads a `T` of the process's memory; a page that is not resident is a failure.
#[inline(always)]
pub fn user<T: Plain>(address: u64) -> Option<T> {
    // Zeroed, because the compiler may move a read of the value before the check of the error, and the verifier then
    // finds a register that nothing was written to.
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: `value` is writable for its size; the helper checks the address and fails on a fault.
    let error = unsafe { bpf_probe_read_user(value.as_mut_ptr().cast(), size_of::<T>() as u32, address as *const _) };
    // SAFETY: all bytes are written, and any are a value of a `Plain` type.
    (error == 0).then(|| unsafe { value.assume_init() })
}

/// Copies a kernel string with its NUL to `to`, at most `room` bytes; its length with the NUL, or a negated errno.
///
/// # Safety
/// `to` must be writable for `room` bytes.
#[inline(always)]
pub unsafe fn kernel_string(to: *mut u8, room: u32, address: u64) -> i64 {
    // SAFETY: the caller answers for `to`; the helper checks the address.
    unsafe { bpf_probe_read_kernel_str(to.cast(), room, address as *const _) }
}

/// Copies a string of the process with its NUL to `to`, at most `room` bytes; its length with the NUL, or a negated errno.
///
/// # Safety
/// `to` must be writable for `room` bytes.
#[inline(always)]
pub unsafe fn user_string(to: *mut u8, room: u32, address: u64) -> i64 {
    // SAFETY: the caller answers for `to`; the helper checks the address.
    unsafe { bpf_probe_read_user_str(to.cast(), room, address as *const _) }
}

/// Sets each value. What zeroes an array otherwise is a call of `memset`, which for this target goes byte by byte.
#[inline(always)]
pub fn fill<T: Plain, const N: usize>(values: &mut [T; N], with: T) {
    for value in values {
        // SAFETY: a live value; volatile, or the compiler would make a `memset` of it.
        unsafe { write_volatile(value, with) };
    }
}

/// Copies `length` bytes of the kernel's memory; whether all could be read.
///
/// # Safety
/// `to` must be writable for `length` bytes.
#[inline(always)]
pub unsafe fn kernel_bytes(to: *mut u8, length: u32, address: u64) -> bool {
    // SAFETY: the caller answers for `to`; the helper checks the address.
    unsafe { bpf_probe_read_kernel(to.cast(), length, address as *const _) == 0 }
}

/// Copies `length` bytes of the process's memory; whether all could be read.
///
/// # Safety
/// `to` must be writable for `length` bytes.
#[inline(always)]
pub unsafe fn user_bytes(to: *mut u8, length: u32, address: u64) -> bool {
    // SAFETY: the caller answers for `to`; the helper checks the address.
    unsafe { bpf_probe_read_user(to.cast(), length, address as *const _) == 0 }
}

/// A number for a pointer of the kernel's, the same for the same pointer: for the verifier a difference of pointers is one, a pointer
/// is none.
#[inline(always)]
pub fn number(pointer: u64) -> u64 {
    pointer.wrapping_sub(core::ptr::from_ref(crate::offsets::get()) as u64)
}

/// The lower half of a pointer of the kernel's, as a number.
#[inline(always)]
pub fn lower_half(pointer: u64) -> u32 {
    let half;
    // A copy of half a pointer is a number for the verifier; what the compiler would make of it is arithmetic on the pointer itself.
    // SAFETY: it only fills a register.
    unsafe {
        core::arch::asm!("{half} = {pointer}", half = lateout(wreg) half, pointer = in(wreg) pointer as u32,
            options(pure, nomem, nostack, preserves_flags));
    }
    half
}

/// A number, of which the compiler knows nothing: neither where it came from nor what it was compared with.
#[inline(always)]
pub fn opaque(number: u64) -> u64 {
    // SAFETY: a live local.
    unsafe { read_volatile(&raw const number) }
}
