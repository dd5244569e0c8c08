//! The io_uring operations that mean the same as a syscall, with that syscall's arguments.

use io_uring::{opcode, squeue, types};

/// The entry that asks for what the syscall `name` with `args` would.
pub fn entry(name: &str, args: &[u64]) -> squeue::Entry {
    let number = |index: usize| args[index] as u32;
    let fd = |index: usize| types::Fd(args[index] as i32);
    let text = |index: usize| args[index] as *const libc::c_char;
    match name {
        "openat" => opcode::OpenAt::new(fd(0), text(1)).flags(number(2) as i32).mode(number(3)).build(),
        "openat2" => opcode::OpenAt2::new(fd(0), text(1), args[2] as *const types::OpenHow).build(),
        "mkdirat" => opcode::MkDirAt::new(fd(0), text(1)).mode(number(2)).build(),
        "unlinkat" => opcode::UnlinkAt::new(fd(0), text(1)).flags(number(2) as i32).build(),
        "renameat2" => opcode::RenameAt::new(fd(0), text(1), fd(2), text(3)).flags(number(4)).build(),
        "linkat" => opcode::LinkAt::new(fd(0), text(1), fd(2), text(3)).flags(number(4) as i32).build(),
        "symlinkat" => opcode::SymlinkAt::new(fd(1), text(0), text(2)).build(),
        "setxattr" => opcode::SetXattr::new(text(1), args[2] as *const libc::c_void, text(0), number(3)).build(),
        "fsetxattr" => opcode::FSetXattr::new(fd(0), text(1), args[2] as *const libc::c_void, number(3)).build(),
        "bind" => opcode::Bind::new(fd(0), args[1] as *const libc::sockaddr, number(2)).build(),
        other => panic!("no io_uring operation means {other}"),
    }
}
