//! The exits of the kernel functions that all doors share: 64-bit and 32-bit calls and io_uring end in the same function, with
//! the kernel's own copy of the path, or with the file itself. Calls that have nothing to do with these functions pay nothing.
//!
//! Each program here only looks at the result; what goes into a record is put together by one program for all of them, behind
//! [`gate`](super::gate). Where the functions are in the running kernel, and that their parameters are as here, user space
//! finds out (`detector/src/kernel/points.rs`). Positions are those of Linux 6.1 to 6.18.

use aya_ebpf::{
    EbpfContext as _,
    cty::c_void,
    macros::{fentry, fexit},
    programs::{FEntryContext, FExitContext},
};
use detector_common::{
    operation::Operation,
    syscalls::NONE,
    takeover::{Door, Kind},
};

use crate::{
    capture::{
        mount,
        names::{self, Kept},
        path,
    },
    hooks::{
        covers,
        gate::{self, Request},
        sys_exit::EROFS,
    },
    latest,
    memory::{Readable as _, Structure},
    offsets::{member, offset},
    quick, scratch,
};

/// The parameter at `index`, which is a pointer.
#[inline(always)]
fn parameter(context: &FExitContext, index: usize) -> u64 {
    let value: *const u8 = context.arg(index);
    value as u64
}

/// The same, whose type the verifier knows.
#[inline(always)]
fn structure(context: &FExitContext, index: usize) -> Option<Structure> {
    Structure::parameter(context.arg(index))
}

/// Whether a function with so many parameters has returned -EROFS as an int (or a long, which holds the same).
///
/// The result stands behind the parameters. `bpf_get_func_ret` would find it without their number, but before 6.12 the verifier
/// believes that the helper leaves the place alone that it writes to, and drops the branch that this is about.
#[inline(always)]
fn is_refused(context: &FExitContext, parameters: usize) -> bool {
    context.arg::<i32>(parameters) == -(EROFS as i32)
}

/// The same, where it returns a pointer.
#[inline(always)]
fn is_error_pointer(context: &FExitContext, parameters: usize) -> bool {
    parameter(context, parameters) as i64 == -EROFS
}

/// What is done at a refusal, in a function of its own that reads the context anew: so that a call which is not refused saves no
/// registers for it.
macro_rules! apart {
    ($context:ident, $body:block) => {{
        #[inline(never)]
        fn refused(context: *mut c_void) {
            let $context = FExitContext::new(context);
            let _ = &$context;
            $body
        }
        refused($context.as_ptr());
    }};
}

/// The end of a function that has a path by name, and frees it: one program at the entry keeps it, one at the exit reports.
macro_rules! keeps_names {
    ($(
        $entry:ident, $exit:ident: $count:literal, $operation:ident, $opcode:expr, name $name:literal
        $(, name2 $name2:literal)? $(, source $source:literal)?, [$($argument:ident $position:literal),*];
    )+) => {$(
        #[fentry]
        fn $entry(context: FEntryContext) -> i32 {
            // The target of a symbolic link has the second name's place: no function has both.
            let second = None;
            $( let second = { let _: Option<Structure> = second; Structure::parameter(context.arg($name2)) }; )?
            $( let second = { let _: Option<Structure> = second; Structure::parameter(context.arg($source)) }; )?
            // Where no slot is free the exit finds none, and says that the path is unknown.
            names::keep(Structure::parameter(context.arg($name)), second);
            0
        }

        #[fexit]
        fn $exit(context: FExitContext) -> i32 {
            if !is_refused(&context, $count) {
                names::drop();
                return 0;
            }
            apart!(context, {
                names::take(|Kept { names: [name, second], refused }| {
                    let has_name2 = $(keeps_names!(@has $name2) ||)? false;
                    let has_source = $(keeps_names!(@has $source) ||)? false;
                    gate::report(Request {
                        name,
                        name2: if has_name2 { second } else { 0 },
                        source: if has_source { second } else { 0 },
                        refused,
                        $( $argument: context.arg($position), )*
                        ..Request::of(Operation::$operation, $opcode)
                    });
                });
            });
            0
        }
    )+};
    (@has $position:literal) => { true };
}

keeps_names! {
    enter_mkdir, exit_mkdir: 3, Mkdir, 37, name 1, [dirfd 0, mode 2];
    enter_rmdir, exit_rmdir: 2, Rmdir, 36, name 1, [dirfd 0];
    enter_unlink, exit_unlink: 2, Unlink, 36, name 1, [dirfd 0];
    enter_rename, exit_rename: 5, Rename, 35, name 1, name2 3, [dirfd 0, dirfd2 2, flags 4];
    enter_link, exit_link: 5, Link, 39, name 1, name2 3, [dirfd 0, dirfd2 2, flags 4];
    enter_symlink, exit_symlink: 3, Symlink, 38, name 2, source 0, [dirfd 1];
    enter_mknod, exit_mknod: 4, Mknod, NONE, name 1, [dirfd 0, mode 2];
}

/// `mnt_want_write`, in the course of an operation on a name. At its entry, which costs two thirds of an exit, and looks at what the
/// function will look at: whoever may write pays for it, too. Where the mount is made read-only, or writable, at this very moment,
/// it is not noted, or the operation goes well and drops the note.
#[fentry]
fn enter_want_write(context: FEntryContext) -> i32 {
    if let Some(vfsmount) = Structure::parameter(context.arg(0))
        && mount::refuses(vfsmount)
    {
        mount::note(vfsmount);
    }
    0
}

/// `do_filp_open`: every way to open by name. The name lives on. Most of what is refused comes here, so this asks for itself whether
/// it is a repeat.
#[fexit]
fn exit_open(context: FExitContext) -> i32 {
    if is_error_pointer(&context, 3) {
        apart!(context, {
            refuse_open(&context);
        });
    } else if mount::is_any_of_an_open() {
        apart!(context, {
            mount::drop();
        });
    }
    0
}

#[inline(always)]
fn refuse_open(context: &FExitContext) {
    let (Some(filename), Some(how), Some(task)) =
        (structure(context, 1), structure(context, 2), Structure::current_task())
    else {
        return;
    };
    // Of requests on an io_uring the same ask first: what has this program has both.
    let is_done = !covers::report(Kind::Refused, Door::Syscall, Operation::Open as u8)
        || latest::count(task, filename, || context.arg(0), member!(how, "u32", open_flags_flags) as u32);
    if is_done {
        mount::drop_of_open(task);
    } else {
        ask_and_tell(context.as_ptr());
    }
}

/// Counts an open that is refused, or tells it. A function of its own, so that what a thread repeats saves no registers for it.
#[inline(never)]
fn ask_and_tell(context: *mut c_void) {
    let context = FExitContext::new(context);
    let (Some(filename), Some(how), Some(task)) =
        (structure(&context, 1), structure(&context, 2), Structure::current_task())
    else {
        return;
    };
    let flags = member!(how, "u32", open_flags_flags) as u32;
    let answer = quick::ask_at_open(task, filename, context.arg(0), flags);
    if answer == quick::DONE {
        mount::drop_of_open(task);
    } else {
        tell_open(context.as_ptr(), answer);
    }
}

/// Tells an open that is refused, and of which `answer` is known. A function of its own, so that a repeat saves no registers for it.
#[inline(never)]
fn tell_open(context: *mut c_void, answer: u32) {
    let context = FExitContext::new(context);
    let (Some(filename), Some(how)) = (structure(&context, 1), structure(&context, 2)) else { return };
    mount::take(filename.address(), |refused| {
        gate::report(Request {
            name: filename.load(offset!(filename_name)),
            refused,
            dirfd: context.arg(0),
            flags: how.load(offset!(open_flags_flags)),
            mode: u32::from(how.load::<u16>(offset!(open_flags_mode)) & 0o7777),
            has_how: 1,
            resolve: resolve(how.load(offset!(open_flags_lookup))),
            answer,
            ..Request::of(Operation::Open, 18)
        });
    });
    // By who has claimed it: the gate may have been closed.
    if let Some(place) = answer.checked_sub(quick::NEW) {
        scratch::release(place);
    }
}

/// The `RESOLVE_` bits of an open, from the `LOOKUP_` bits that the kernel has made of them: six in a row from the 16th on, of which
/// the first and the third have changed places (`build_open_flags`, `fs/open.c`; `include/linux/namei.h`).
#[inline(always)]
fn resolve(lookup: u32) -> u32 {
    let bits = lookup >> 16 & 0x3f;
    bits & !5 | bits >> 2 & 1 | (bits & 1) << 2
}

/// `do_file_open_root`: an open by a handle.
#[fexit]
fn exit_open_handle(context: FExitContext) -> i32 {
    if is_error_pointer(&context, 3) {
        apart!(context, {
            mount::drop();
            gate::report(Request { path: parameter(&context, 0), ..Request::of(Operation::Open, NONE) });
        });
    } else if mount::is_any_of_an_open() {
        apart!(context, {
            mount::drop();
        });
    }
    0
}

/// `unix_bind`, with the kernel's copy of the address.
#[fexit]
fn exit_bind(context: FExitContext) -> i32 {
    if is_refused(&context, 3) {
        apart!(context, {
            mount::take(0, |refused| {
                // Behind the family of the address.
                let name = parameter(&context, 1).wrapping_add(2);
                gate::report(Request { name, refused, ..Request::of(Operation::BindSocket, 56) });
            });
        });
    } else {
        mount::drop();
    }
    0
}

/// `mnt_want_write_file`, with the file that an ioctl is about to change.
#[fexit]
fn exit_setflags(context: FExitContext) -> i32 {
    if is_refused(&context, 1) {
        apart!(context, {
            let path = path::of_file(parameter(&context, 0)).unwrap_or(0);
            gate::report(Request { path, ..Request::of(Operation::Setflags, NONE) });
        });
    }
    0
}

/// Functions that have the `struct path` of the object itself as their first parameter.
macro_rules! has_path {
    ($($exit:ident: $count:literal, $operation:ident;)+) => {$(
        #[fexit]
        fn $exit(context: FExitContext) -> i32 {
            if is_refused(&context, $count) {
                apart!(context, {
                    mount::drop();
                    gate::report(Request { path: parameter(&context, 0), ..Request::of(Operation::$operation, NONE) });
                });
            }
            0
        }
    )+};
}

has_path! {
    exit_chmod: 2, Chmod;
    exit_utimes: 2, Utimes;
    exit_truncate: 2, Truncate;
}

/// Functions that get the path as the program's own string, or none. What they are asked for is read from the program's
/// registers and memory after the call, as at the exit of the syscall.
macro_rules! has_user_string {
    ($($exit:ident: $count:literal, $operation:ident;)+) => {$(
        #[fexit]
        fn $exit(context: FExitContext) -> i32 {
            if is_refused(&context, $count) {
                apart!(context, {
                    mount::take(0, |refused| {
                        gate::report(Request { refused, ..Request::of_syscall(Operation::$operation, -EROFS) });
                    });
                });
            }
            0
        }
    )+};
}

has_user_string! {
    exit_chown: 5, Chown;
    exit_setxattr: 6, Setxattr;
    exit_removexattr: 3, Removexattr;
    exit_setxattrat: 7, Setxattr;
    exit_removexattrat: 4, Removexattr;
    // The functions of syscalls themselves (`__x64_sys_…`, `__ia32_sys_…`), for those on open files.
    x64_fsetxattr: 1, Setxattr;
    ia32_fsetxattr: 1, Setxattr;
    x64_fremovexattr: 1, Removexattr;
    ia32_fremovexattr: 1, Removexattr;
    x64_fchown: 1, Chown;
    ia32_fchown: 1, Chown;
    ia32_fchown16: 1, Chown;
    x64_file_setattr: 1, Setflags;
    ia32_file_setattr: 1, Setflags;
}

/// The functions of syscalls that change mounts: reported whatever their result.
macro_rules! changes_mounts {
    ($($exit:ident: $operation:ident;)+) => {$(
        #[fexit]
        fn $exit(context: FExitContext) -> i32 {
            gate::report(Request::of_syscall(Operation::$operation, context.arg(1)));
            0
        }
    )+};
}

changes_mounts! {
    x64_mount: Mount;
    x64_umount: Umount;
    x64_pivot_root: PivotRoot;
    x64_chroot: Chroot;
    x64_open_tree: OpenTree;
    x64_open_tree_attr: OpenTree;
    x64_move_mount: MoveMount;
    x64_fsopen: Fsopen;
    x64_fsconfig: Fsconfig;
    x64_fsmount: Fsmount;
    x64_fspick: Fspick;
    x64_mount_setattr: MountSetattr;
    ia32_mount: Mount;
    ia32_umount: Umount;
    ia32_oldumount: Umount;
    ia32_pivot_root: PivotRoot;
    ia32_chroot: Chroot;
    ia32_open_tree: OpenTree;
    ia32_open_tree_attr: OpenTree;
    ia32_move_mount: MoveMount;
    ia32_fsopen: Fsopen;
    ia32_fsconfig: Fsconfig;
    ia32_fsmount: Fsmount;
    ia32_fspick: Fspick;
    ia32_mount_setattr: MountSetattr;
}
