//! Processes that don't want to be known: short-lived ones, those that share memory, and those that nobody can find in a folder.

use std::{
    fs,
    io::Write as _,
    os::{
        fd::{AsRawFd as _, FromRawFd as _},
        unix::fs::MetadataExt as _,
    },
    ptr,
};

use detector_common::operation::Operation;

use super::{
    case::Case,
    stage::{Said, forked},
    writes::create,
};

fn executes_the_test(attempt: &detector::kernel::attempt::Attempt) {
    let own = std::env::current_exe().unwrap();
    assert_eq!(attempt.process.exe.as_ref().unwrap().in_namespace, own.as_os_str().as_encoded_bytes());
}

/// What a child of vfork does: it has its parent's memory.
extern "C" fn create_and_end(_: *mut libc::c_void) -> i32 {
    create(c"/mnt/etc/by a child of vfork");
    0
}

fn vforked() -> u32 {
    let mut stack = vec![0_u8; 256 << 10];
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: a stack of its own, and the parent waits until the child has ended.
    let pid = unsafe { libc::clone(create_and_end, stack.as_mut_ptr_range().end.cast(), flags, ptr::null_mut()) };
    assert!(pid > 0, "a process can be made");
    // SAFETY: a child of this very process.
    assert_eq!(unsafe { libc::waitpid(pid, ptr::null_mut(), 0) }, pid);
    pid.unsigned_abs()
}

/// A program of two calls: creates the file, and ends. An ELF header, one segment of the whole file, and the code.
fn program() -> Vec<u8> {
    const START: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    #[rustfmt::skip]
    let mut code = vec![
        0xb8, 0x02, 0, 0, 0,                    // mov eax, 2 (open)
        0x48, 0x8d, 0x3d, 0x18, 0, 0, 0,        // lea rdi, [rip + 24]
        0xbe, 0x41, 0, 0, 0,                    // mov esi, O_WRONLY | O_CREAT
        0xba, 0xa4, 0x01, 0, 0,                 // mov edx, 0644
        0x0f, 0x05,                             // syscall
        0xb8, 0x3c, 0, 0, 0,                    // mov eax, 60 (exit)
        0x31, 0xff,                             // xor edi, edi
        0x0f, 0x05,                             // syscall
        0x0f, 0x0b, 0x90,                       // ud2, nop: the path begins 24 bytes behind the lea
    ];
    code.extend_from_slice(b"/mnt/etc/from memory\0");
    let size = HEADERS + code.len() as u64;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let put = |file: &mut Vec<u8>, value: u64, bytes: usize| file.extend_from_slice(&value.to_le_bytes()[..bytes]);
    // Executable, x86-64, version; entry, program headers, sections; flags; sizes and counts.
    for (value, bytes) in [(2, 2), (62, 2), (1, 4), (START + HEADERS, 8), (64, 8), (0, 8), (0, 4)] {
        put(&mut file, value, bytes);
    }
    for value in [64, 56, 1, 64, 0, 0] {
        put(&mut file, value, 2);
    }
    // One segment to be loaded, readable and executable: where in the file, where in memory, how long, how aligned.
    for (value, bytes) in [(1, 4), (5, 4), (0, 8), (START, 8), (START, 8), (size, 8), (size, 8), (0x1000, 8)] {
        put(&mut file, value, bytes);
    }
    file.extend_from_slice(&code);
    file
}

/// Executes a program that is in memory alone.
fn from_memory() -> u32 {
    // SAFETY: a NUL-terminated name; a new descriptor.
    let mut file = unsafe { fs::File::from_raw_fd(libc::memfd_create(c"tool".as_ptr(), 0)) };
    file.write_all(&program()).unwrap();
    forked(|| {
        let args = [c"tool".as_ptr(), ptr::null()];
        // SAFETY: an open file, and arguments that end with a null pointer.
        unsafe { libc::fexecve(file.as_raw_fd(), args.as_ptr(), [ptr::null()].as_ptr()) };
        panic!("the program is executed: {}", std::io::Error::last_os_error());
    })
}

/// The cgroup2 hierarchy's mount point.
pub fn hierarchy() -> String {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let points = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    points.into_iter().find(|words| words[2] == "cgroup2").expect("cgroup2 is mounted")[1].to_owned()
}

/// Of the process that moves itself elsewhere: a name that its parent knows, too.
const ELSEWHERE: &str = "rosentry-test-elsewhere";

/// In a new cgroup, to which the process moves itself. It is left there until the process has ended.
fn in_another_cgroup() -> Said {
    let folder = format!("{}/{ELSEWHERE}", hierarchy());
    let _ = fs::remove_dir(&folder);
    fs::create_dir(&folder).unwrap();
    let inode = fs::metadata(&folder).unwrap().ino();
    let pid = forked(|| {
        fs::write(format!("{folder}/cgroup.procs"), "0").unwrap();
        create(c"/mnt/etc/elsewhere");
        // For the check, which can't be told the number otherwise.
        // SAFETY: a NUL-terminated name.
        unsafe { libc::prctl(libc::PR_SET_NAME, format!("cg{inode}\0").as_ptr()) };
        create(c"/mnt/etc/elsewhere by name");
    });
    fs::remove_dir(&folder).unwrap();
    Said::Did(pid)
}

#[rustfmt::skip]
pub const CASES: &[Case] = &[
    Case::write("a process that ends right after", || Said::Did(forked(|| create(c"/mnt/etc/short-lived"))),
        Operation::Open, "/mnt/etc/short-lived").check(executes_the_test),
    Case::write("a process that executes another program right after", || Said::Did(forked(|| {
        create(c"/mnt/etc/before exec");
        let args = [c"kernel".as_ptr(), c"--help".as_ptr(), ptr::null()];
        // SAFETY: a NUL-terminated path, and arguments that end with a null pointer.
        unsafe {
            // What it says is of no use here.
            libc::close(1);
            libc::execv(c"/proc/self/exe".as_ptr(), args.as_ptr());
        }
    })), Operation::Open, "/mnt/etc/before exec").check(executes_the_test),
    Case::write("a child of vfork", || Said::Did(vforked()), Operation::Open, "/mnt/etc/by a child of vfork")
        .check(executes_the_test),
    Case::write("a program that is in memory alone", || Said::Did(from_memory()), Operation::Open, "/mnt/etc/from memory")
        .check(|attempt| assert_eq!(attempt.process.exe.as_ref().unwrap().in_namespace, b"/memfd:tool")),
    Case::write("a process that moves itself to another cgroup", in_another_cgroup,
        Operation::Open, "/mnt/etc/elsewhere by name")
        .check(|attempt| assert_eq!(attempt.process.comm, format!("cg{}", attempt.cgroup_id).as_bytes())),
];
