//! Every write that a ring can be asked for.

use std::{fs::File, os::fd::IntoRawFd};

use detector::kernel::plan::Hooks;
use io_uring::{opcode, squeue, squeue::Flags, types};

use super::{EROFS, EXISTING, NEW};
use crate::{ring::Ring, sensor::hooks_under_test};

/// Whether the programs are at kernel functions, which the requests of a ring end in like everything else: then most limits of the
/// tracepoints are none.
pub fn at_functions() -> bool {
    hooks_under_test() == Hooks::Fexit
}

pub const CWD: types::Fd = types::Fd(libc::AT_FDCWD);

/// A write as a test asks for it: the syscall of the same meaning, the entry, and the path that should be seen.
struct Write {
    name: &'static str,
    entry: squeue::Entry,
    path: &'static str,
}

pub fn open(path: *const libc::c_char) -> squeue::Entry {
    opcode::OpenAt::new(CWD, path).flags(libc::O_CREAT | libc::O_WRONLY).mode(0o640).build()
}

pub fn mkdir(path: *const libc::c_char) -> squeue::Entry {
    opcode::MkDirAt::new(CWD, path).mode(0o755).build()
}

/// Every operation of the table, on a sealed root.
fn every_write() -> Vec<Write> {
    static HOW: types::OpenHow = types::OpenHow::new().flags(0o101).mode(0o640);
    let (existing, new) = (c"/mnt/etc/passwd".as_ptr(), c"/mnt/etc/new".as_ptr());
    let (name, value) = (c"user.a".as_ptr(), c"1".as_ptr().cast());
    let file = types::Fd(File::open(EXISTING).unwrap().into_raw_fd());
    // SAFETY: no pointers.
    let socket = types::Fd(unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0) });
    // Without a NUL: the length says where the path ends.
    static ADDRESS: [u8; 14] = *b"\x01\0/mnt/etc/new";
    let length = u32::try_from(ADDRESS.len()).unwrap();
    let write = |name, entry, path| Write { name, entry, path };
    vec![
        write("openat", open(new), NEW),
        write("openat2", opcode::OpenAt2::new(CWD, new, &raw const HOW).build(), NEW),
        write("mkdirat", mkdir(new), NEW),
        write("unlinkat", opcode::UnlinkAt::new(CWD, existing).build(), EXISTING),
        write(
            "unlinkat",
            opcode::UnlinkAt::new(CWD, c"/mnt/tmp".as_ptr()).flags(libc::AT_REMOVEDIR).build(),
            "/mnt/tmp",
        ),
        write(
            "renameat2",
            opcode::RenameAt::new(CWD, existing, CWD, new).flags(libc::RENAME_NOREPLACE).build(),
            EXISTING,
        ),
        write("linkat", opcode::LinkAt::new(CWD, existing, CWD, new).flags(libc::AT_SYMLINK_FOLLOW).build(), EXISTING),
        write("symlinkat", opcode::SymlinkAt::new(CWD, c"target".as_ptr(), new).build(), NEW),
        write("setxattr", opcode::SetXattr::new(name, value, existing, 1).build(), EXISTING),
        write("fsetxattr", opcode::FSetXattr::new(file, name, value, 1).build(), ""),
        write("bind", opcode::Bind::new(socket, ADDRESS.as_ptr().cast(), length).build(), NEW),
    ]
}

/// Asks for every write through `ring`, one after the other, each with `flags`; those that this kernel has: name of the syscall of
/// the same meaning, path that should be seen.
pub fn ask_for_every_write(ring: &mut Ring, flags: Flags) -> Vec<(&'static str, &'static str)> {
    let mut asked_for = Vec::new();
    for Write { name, entry, path } in every_write() {
        let [result] = ring.ask(vec![entry.flags(flags)])[..] else { panic!("one result") };
        if result == -libc::EINVAL && name == "bind" {
            println!("bind: skipped, this kernel does not have it");
            continue;
        }
        assert_eq!(result, EROFS, "{name} is refused by the seal");
        // Kernel functions can't tell the two.
        let name = if at_functions() && name == "openat2" { "openat" } else { name };
        asked_for.push((name, path));
    }
    asked_for
}
