//! Given a sealed root, when a write is queued on an io_uring, then the kernel side sees it once, with its path and the process
//! that queued it, whoever does it for the process in the kernel.

mod paths;
pub mod requests;

use std::{
    ffi::CString,
    fs::{self, File},
    os::fd::AsRawFd,
    ptr,
    time::{Duration, Instant},
};

use detector::kernel::attempt::{Attempt, PathBase};
use detector_common::{abi::Abi, counter::Counter, operation::Operation, syscalls::SYSCALLS};
use io_uring::{opcode, squeue::Flags, types};

use requests::{CWD, ask_for_every_write, at_functions, mkdir, open};

use super::{
    ring::Ring,
    sealed::Sealed,
    sensor::{Attached, PATIENCE, Seen, begin, only, requested},
};

const EROFS: i32 = -30;
const EXISTING: &str = "/mnt/etc/passwd";
const NEW: &str = "/mnt/etc/new";
/// Asks for every write through `ring`, each with `flags`, and checks what was seen.
fn every_write_is_seen(ring: fn() -> Ring, flags: Flags) -> Seen<Vec<(&'static str, &'static str)>> {
    let mut attached = Attached::new();
    let seen = attached.watch(|| {
        Sealed::new();
        let mut ring = ring();
        begin();
        ask_for_every_write(&mut ring, flags)
    });
    let saw: Vec<_> = seen.attempts.iter().map(|attempt| (attempt.syscall.name, requested(attempt))).collect();
    let wanted: Vec<_> = seen.returned.iter().map(|&(name, path)| (name, path.to_owned())).collect();
    assert_eq!(saw, wanted, "each write is seen once, in order, by its name and path");
    for attempt in &seen.attempts {
        let name = attempt.syscall.name;
        assert_eq!((attempt.abi, attempt.result), (Abi::IoUring, EROFS.into()), "{name}");
        is_of_this_process(attempt);
    }
    seen
}

fn is_of_this_process(attempt: &Attempt) {
    let process = &attempt.process;
    let own = std::env::current_exe().unwrap();
    assert_eq!((process.pid, process.ppid), (std::process::id(), std::os::unix::process::parent_id()));
    assert_eq!(process.exe.as_ref().unwrap().in_namespace, own.as_os_str().as_encoded_bytes());
    assert_eq!(process.args, std::env::args_os().map(|arg| arg.into_encoded_bytes()).collect::<Vec<_>>());
    assert_eq!(process.ancestors[0].pid, process.ppid);
    let comm = String::from_utf8_lossy(&process.comm).into_owned();
    assert!(!comm.starts_with("iou-"), "{comm}: the kernel's own threads are not who asked");
    assert_eq!(attempt.cgroup_id, own_cgroup_id());
}

/// Of the cgroup2 hierarchy, as the kernel's programs tell it.
fn own_cgroup_id() -> u64 {
    use std::os::unix::fs::MetadataExt;
    let of_process = fs::read_to_string("/proc/self/cgroup").unwrap();
    let path = of_process.lines().find_map(|line| line.strip_prefix("0::")).unwrap();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let mounted = mounts.lines().map(|line| line.split(' ')).find_map(|mut words| {
        let point = words.nth(1)?;
        (words.next()? == "cgroup2").then(|| point.to_owned())
    });
    fs::metadata(format!("{}{path}", mounted.expect("cgroup2 is mounted"))).unwrap().ino()
}

#[tokio::test]
async fn every_write_is_seen_that_an_io_uring_does_at_once() {
    let seen = every_write_is_seen(Ring::new, Flags::empty());
    let by_name = |name| seen.attempts.iter().find(|attempt| attempt.syscall.name == name).unwrap();
    let tids: Vec<_> = seen.attempts.iter().map(|attempt| attempt.process.tid).collect();
    assert!(tids.iter().all(|&tid| tid == tids[0] && tid != std::process::id()), "the thread that submitted: {tids:?}");
    let told_apart = |name: &str| name != "bind" && !(at_functions() && name == "openat2");
    for row in SYSCALLS.iter().filter(|row| row.io_uring.is_some() && told_apart(row.name)) {
        assert_eq!(by_name(row.name).operation, Operation::from_wire(row.call.operation).unwrap(), "{}", row.name);
    }
    let open = by_name("openat");
    assert_eq!((open.args[2], open.args[3]), (0o101, 0o640), "the flags and the mode as passed");
    if !at_functions() {
        assert_eq!(by_name("openat2").extra, [0o101, 0o640, 0, 0]);
    }
    assert_eq!(by_name("mkdirat").args[2], 0o755);
    let removals: Vec<_> = seen.attempts.iter().filter(|attempt| attempt.syscall.name == "unlinkat").collect();
    assert_eq!(removals.iter().map(|attempt| attempt.args[2]).collect::<Vec<_>>(), [0, 0x200]);
    for (name, flags) in [("renameat2", libc::RENAME_NOREPLACE), ("linkat", libc::AT_SYMLINK_FOLLOW as u32)] {
        assert_eq!(by_name(name).path2.requested.as_deref(), Some(NEW.as_bytes()), "{name}");
        assert_eq!(by_name(name).args[4], u64::from(flags), "{name}");
    }
    assert_eq!(by_name("symlinkat").source.as_deref(), Some(&b"target"[..]));
    for name in ["setxattr", "fsetxattr"] {
        assert_eq!(by_name(name).data.as_deref(), Some(&b"user.a"[..]), "{name}");
    }
    let PathBase::File(file) = &by_name("fsetxattr").path.base else { panic!("the base is the open file") };
    assert_eq!(file.in_namespace, EXISTING.as_bytes());
}

#[tokio::test]
async fn every_write_is_seen_that_a_worker_thread_does() {
    every_write_is_seen(Ring::new, Flags::ASYNC);
}

#[tokio::test]
async fn every_write_is_seen_that_the_polling_thread_takes() {
    let seen = every_write_is_seen(Ring::polled, Flags::empty());
    let first = &seen.attempts[0].process;
    assert_eq!(first.tid, std::process::id(), "the process's first thread speaks for the kernel's");
}

#[tokio::test]
async fn of_a_chain_only_what_was_tried_is_seen() {
    let mut attached = Attached::new();
    let seen = attached.watch(|| {
        Sealed::new();
        begin();
        let chain = vec![
            opcode::Nop::new().build().flags(Flags::IO_LINK),
            open(c"/mnt/etc/first".as_ptr()).flags(Flags::IO_LINK),
            open(c"/mnt/etc/second".as_ptr()),
        ];
        assert_eq!(Ring::new().ask(chain), [0, EROFS, -libc::ECANCELED]);
    });
    assert_eq!(requested(only(&seen.attempts)), "/mnt/etc/first");
}

#[tokio::test]
async fn a_refusal_is_seen_though_the_program_wants_to_hear_of_failures_only() {
    let mut attached = Attached::new();
    let seen = attached.watch(|| {
        Sealed::new();
        begin();
        assert_eq!(Ring::new().ask(vec![open(c"/mnt/etc/new".as_ptr()).flags(Flags::SKIP_SUCCESS)]), [EROFS]);
    });
    assert_eq!(requested(only(&seen.attempts)), NEW);
}

#[tokio::test]
async fn a_request_that_hides_its_result_is_counted() {
    let mut attached = Attached::new();
    let seen = attached.watch(|| {
        Sealed::new();
        begin();
        let entries = vec![
            mkdir(c"/mnt/etc/new".as_ptr()).flags(Flags::SKIP_SUCCESS | Flags::IO_HARDLINK),
            opcode::Nop::new().build(),
        ];
        let ring = &mut Ring::new();
        ring.submit(entries);
        ring.results(1)
    });
    assert_eq!(seen.returned, [0], "the kernel tells of the second alone");
    if at_functions() {
        assert_eq!(only(&seen.attempts).operation, Operation::Mkdir);
        return;
    }
    assert!(seen.attempts.is_empty(), "a limit that the decision record tells: {:?}", seen.attempts);
    assert_eq!(attached.counters.read(Counter::ResultHidden).unwrap(), 1);
}

#[tokio::test]
async fn a_file_that_the_ring_knows_by_its_own_number_is_seen_by_its_path() {
    let mut attached = Attached::new();
    let seen = attached.watch(|| {
        Sealed::new();
        let ring = &mut Ring::new();
        ring.register(File::open(EXISTING).unwrap().as_raw_fd());
        begin();
        let (name, value) = (c"user.a".as_ptr(), c"1".as_ptr().cast());
        ring.ask(vec![opcode::FSetXattr::new(types::Fixed(0), name, value, 1).build()])
    });
    // Linux 6.1 to 6.18 refuse to look a registered file up for this operation.
    if seen.returned == [-libc::EBADF] {
        assert!(seen.attempts.is_empty());
        return;
    }
    assert_eq!(seen.returned, [EROFS]);
    let PathBase::File(file) = &only(&seen.attempts).path.base else { panic!("the base is the open file") };
    assert_eq!(file.in_namespace, EXISTING.as_bytes());
}

#[tokio::test]
async fn what_succeeds_or_fails_for_another_reason_is_no_refused_write() {
    let mut attached = Attached::new();
    let seen = attached.watch(|| {
        Sealed::new();
        begin();
        let ring = &mut Ring::new();
        let read = opcode::OpenAt::new(CWD, c"/mnt/etc/passwd".as_ptr()).flags(libc::O_RDONLY).build();
        let socket = opcode::OpenAt::new(CWD, c"/dev/null".as_ptr()).flags(libc::O_WRONLY).build();
        let exists = mkdir(c"/mnt/etc".as_ptr());
        let absent = opcode::OpenAt::new(CWD, c"/mnt/nothing".as_ptr()).flags(libc::O_RDWR).build();
        let results = ring.ask(vec![read, socket, exists, absent]);
        assert!(results[0] >= 0 && results[1] >= 0, "{results:?}");
        assert_eq!(results[2..], [-libc::EEXIST, -libc::ENOENT]);
    });
    assert!(seen.attempts.is_empty(), "{:?}", seen.attempts);
}

#[tokio::test]
async fn after_many_writes_that_succeed_a_refused_one_is_seen_whole() {
    let mut attached = Attached::new();
    let seen = attached.watch(|| {
        Sealed::new();
        let ring = &mut Ring::new();
        begin();
        for _ in 0..100 {
            let opens = (0..100).map(|_| opcode::OpenAt::new(CWD, c"/dev/null".as_ptr()).flags(libc::O_WRONLY).build());
            for file in ring.ask(opens.collect()) {
                assert!(file >= 0, "{file}");
                // SAFETY: just opened, and known to no one else.
                unsafe { libc::close(file) };
            }
        }
        assert_eq!(ring.ask(vec![open(c"/mnt/etc/new".as_ptr())]), [EROFS]);
    });
    assert_eq!(requested(only(&seen.attempts)), NEW);
}

#[tokio::test]
async fn a_full_queue_of_completions_hides_nothing() {
    const TIMES: usize = 20;
    let mut attached = Attached::new();
    let names: Vec<_> = (0..TIMES).map(|number| CString::new(format!("/mnt/etc/{number}")).unwrap()).collect();
    let seen = attached.watch(|| {
        Sealed::new();
        let ring = &mut Ring::of_completions(2);
        begin();
        for name in &names {
            // All with the same number, 0, so that it does not tell them apart.
            ring.submit(vec![mkdir(name.as_ptr())]);
        }
        // What is not done when the thread ends is not done at all.
        let begun = Instant::now();
        while ring.overflowed() < TIMES - 2 {
            assert!(begun.elapsed() < PATIENCE, "{} found no room in the queue", ring.overflowed());
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    let mut saw: Vec<_> = seen.attempts.iter().map(requested).collect();
    saw.sort();
    let mut wanted: Vec<_> = names.iter().map(|name| name.to_str().unwrap().to_owned()).collect();
    wanted.sort();
    assert_eq!(saw, wanted, "each is seen once");
}

#[tokio::test]
async fn more_requests_at_once_than_are_kept_are_all_seen_though_some_without_their_path() {
    const TIMES: usize = 1000;
    let mut attached = Attached::new();
    let before = attached.counters.tallies().write_denied();
    let seen = attached.watch(|| {
        Sealed::new();
        let ring = &mut Ring::new();
        let pause = types::Timespec::new().nsec(50_000_000);
        begin();
        // They wait for the first one, which takes its time.
        let mut chain = vec![opcode::Timeout::new(&raw const pause).build().flags(Flags::IO_HARDLINK)];
        chain.extend((0..TIMES).map(|_| mkdir(c"/mnt/etc/new".as_ptr()).flags(Flags::IO_HARDLINK)));
        let results = ring.ask(chain);
        assert_eq!(results[1..], [EROFS; TIMES]);
    });
    assert!(attached.counters.tallies().write_denied() - before >= TIMES as u64);
    assert_eq!(seen.attempts.len(), TIMES);
    let whole = seen.attempts.iter().filter(|attempt| requested(attempt) == NEW).count();
    let expected = if at_functions() { TIMES..TIMES + 1 } else { 256..TIMES };
    assert!(expected.contains(&whole), "{whole}");
    for attempt in &seen.attempts {
        assert_eq!((attempt.operation, attempt.process.pid), (Operation::Mkdir, std::process::id()));
    }
}

#[tokio::test]
async fn a_ring_that_a_child_inherits_tells_of_the_child() {
    let mut attached = Attached::new();
    // A polled ring's submissions are its maker's; of any other's, whose call it is.
    let seen = attached.watch(|| {
        Sealed::new();
        let mut ring = Ring::new();
        begin();
        // SAFETY: the child does system calls only, and ends without unwinding.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // What is not done when the child ends is not done at all.
            ring.ask(vec![mkdir(c"/mnt/etc/by the child".as_ptr())]);
            // SAFETY: ends the child.
            unsafe { libc::_exit(0) };
        }
        // SAFETY: a child of this very thread.
        assert_eq!(unsafe { libc::waitpid(child, ptr::null_mut(), 0) }, child);
        u32::try_from(child).unwrap()
    });
    let all = seen.attempts.iter().filter(|attempt| attempt.abi == Abi::IoUring);
    let of_child: Vec<_> = all.filter(|attempt| attempt.process.pid == seen.returned).collect();
    assert_eq!(of_child.len(), 1, "{:?}", seen.attempts);
    assert_eq!(requested(of_child[0]), "/mnt/etc/by the child");
    assert_eq!(of_child[0].process.ppid, std::process::id());
}
