//! Tests of [`super`], over records as the kernel side sends them.

use detector_common::record::{COMM_LEN, FSTYPE_LEN, FoldRecord, LENGTHS_ROOM, MAX_ANCESTORS};

use super::*;
use crate::finding::testing::{attempt, walk, walk_in};

/// A record as the kernel side sends it of an io_uring's mkdirat("/mnt", "new").
fn of_io_uring(opcode: u16) -> Vec<u8> {
    let path = b"new";
    let base = b"mnt\0";
    let (point, args) = (b"app\0srv\0", b"touch\0");
    let mut lengths = [0; LENGTHS_ROOM];
    lengths[Section::Path as usize] = 3;
    lengths[Section::Base as usize] = 4;
    lengths[Section::Mount as usize] = 8;
    lengths[Section::Args as usize] = 6;
    let payload = [path.as_slice(), base, point, args].concat();
    let length = u32::try_from(size_of::<SyscallRecord>() + payload.len()).unwrap();
    let mut fstype = [0; FSTYPE_LEN];
    fstype[..5].copy_from_slice(b"tmpfs");
    let ancestor = AncestorRecord { start_time_ns: 0, pid: 0, padding: 0, comm: [0; COMM_LEN] };
    let record = SyscallRecord {
        header: RecordHeader {
            version: WIRE_VERSION,
            kind: RecordKind::WriteDenied as u16,
            length,
            time_ns: 1,
            cgroup_id: 2,
        },
        process: ProcessRecord {
            start_time_ns: 0,
            cap_effective: 0,
            parent_cgroup_id: 0,
            pid: 100,
            tid: 101,
            ppid: 1,
            container_pid: 7,
            uid: 0,
            gid: 0,
            mnt_ns: 0,
            user_ns_level: 0,
            flags: 0,
            same_program_as_parent: 0,
            in_node_mount_namespace: 0,
            ancestor_count: 0,
            comm: [0; COMM_LEN],
            ancestors: [ancestor; MAX_ANCESTORS],
        },
        call: CallRecord {
            args: [5, 0, 0o755, 0, 0, 0, 0, 0],
            extra: [0; 4],
            result: -30,
            syscall: opcode,
            operation: Operation::Mkdir as u8,
            abi: Abi::IoUring as u8,
            hook: Hook::Tracepoint as u8,
            base: Base::Dirfd as u8,
            base2: Base::None as u8,
            extra_unreadable: 0,
            truncated: 0,
            unreadable: 0,
            root_at: [1, ROOT_NOT_MET, ROOT_NOT_MET, ROOT_NOT_MET, 2, 0, 0, 0],
            lengths,
            padding2: 0,
            mount: MountRecord { known: 1, id: 36, flags: 0x61, super_flags: 1, fstype },
            fold: FoldRecord { slot: 7, generation: 3 },
        },
    };
    // SAFETY: a live record without implicit padding, as its definition asserts.
    let fixed = unsafe { std::slice::from_raw_parts((&raw const record).cast::<u8>(), size_of::<SyscallRecord>()) };
    [fixed, payload.as_slice()].concat()
}

#[test]
fn an_operation_of_an_io_uring_is_told_as_the_syscall_of_the_same_meaning() {
    let Ok(Record::Attempt(attempt)) = record(&of_io_uring(37)) else { panic!("an attempt") };
    assert_eq!((attempt.abi, attempt.syscall.name), (Abi::IoUring, "mkdirat"));
    assert_eq!(attempt.args[usize::from(attempt.syscall.call.mode)], 0o755);
    assert_eq!(attempt.path.requested.as_deref(), Some(&b"new"[..]));
    let PathBase::Dirfd(folder) = attempt.path.base else { panic!("based on a folder") };
    assert_eq!((folder.in_namespace, folder.in_root), (b"/mnt".to_vec(), Some(b"/mnt".to_vec())));
}

#[test]
fn the_mount_is_told_with_its_point_though_that_has_a_later_number_than_what_stands_behind_it() {
    let Ok(Record::Attempt(attempt)) = record(&of_io_uring(37)) else { panic!("an attempt") };
    assert_eq!(attempt.process.args, [b"touch"]);
    let mount = attempt.mount.unwrap();
    assert_eq!((mount.id, mount.flags, mount.super_flags), (36, 0x61, 1));
    assert_eq!((mount.fstype, mount.point.unwrap().in_namespace), (b"tmpfs".to_vec(), b"/srv/app".to_vec()));
}

#[test]
fn what_the_process_s_root_does_not_lead_to_is_known_where_that_is_a_namespace_s_own() {
    let detached = || Walk { in_root: None, ..walk("/etc") };
    let mut open = attempt("openat");
    open.path.base = PathBase::Dirfd(detached());
    open.process.exe = Some(detached());
    mark_unreachable(&mut open);
    let PathBase::Dirfd(folder) = &open.path.base else { panic!("based on a folder") };
    assert!(folder.unreachable && open.process.exe.as_ref().unwrap().unreachable);
    assert!(!open.process.cwd.as_ref().unwrap().unreachable);

    let mut chrooted = attempt("openat");
    chrooted.process.cwd = Some(walk_in("/srv", "/x"));
    chrooted.process.exe = Some(detached());
    mark_unreachable(&mut chrooted);
    assert!(!chrooted.process.exe.unwrap().unreachable, "it may be outside of the chroot, in the same tree");

    let mut deep = attempt("openat");
    deep.process.exe = Some(Walk { truncated: true, ..detached() });
    mark_unreachable(&mut deep);
    assert!(!deep.process.exe.unwrap().unreachable, "the walk did not come so far");
}

#[test]
fn the_name_of_a_socket_ends_where_the_length_of_its_address_says() {
    let bound = |abi, length| {
        let mut bind = Attempt { abi, ..attempt("bind").arg(2, length).path("/run/sock-and-what-stood-there") };
        cut_socket_name(&mut bind);
        bind.path.requested.map(|name| String::from_utf8(name).unwrap())
    };
    assert_eq!(bound(Abi::X86_64, 2 + 9).as_deref(), Some("/run/sock"));
    assert_eq!(bound(Abi::Ia32, 0xdead_0000_0000_000b).as_deref(), Some("/run/sock"), "the length is an int");
    assert_eq!(bound(Abi::X86_64, 110).as_deref(), Some("/run/sock-and-what-stood-there"));
    assert_eq!(bound(Abi::X86_64, 2), None);
    assert_eq!(bound(Abi::X86_64, u64::MAX), None);
    assert_eq!(bound(Abi::IoUring, 0).as_deref(), Some("/run/sock-and-what-stood-there"), "cut already");
}

#[test]
fn of_a_cgroup_s_path_that_may_be_cut_the_whole_names_alone_are_told() {
    let id = "d".repeat(64);
    let above = format!("/{}", "a/".repeat(479));
    let path = format!("{above}{id}-and-more");
    let cut = &path.as_bytes()[..CGROUP_PATH_ROOM - 1];
    assert!(cut.ends_with(id.as_bytes()), "what is left is another's name");
    assert_eq!(cgroup_path(cut), format!("{above}…"));
    assert_eq!(cgroup_path(&cut[1..]), String::from_utf8_lossy(&cut[1..]));
}

#[test]
fn an_operation_of_an_io_uring_that_is_not_watched_is_unknown() {
    // IORING_OP_READ; as a syscall 22 is pipe.
    assert_eq!(record(&of_io_uring(22)).err(), Some(DecodeError::Unknown("syscall", 22)));
}

#[test]
fn a_name_ends_at_its_first_nul_and_without_one_at_the_end_of_its_room() {
    assert_eq!(name(b"touch\0\0\0\0\0\0\0\0\0\0\0"), b"touch");
    assert_eq!(name(b"a\n\x1b[2J\0left over"), b"a\n\x1b[2J");
    assert_eq!(name(&[0xff; COMM_LEN]), [0xff; COMM_LEN]);
    assert_eq!(name(&[0; COMM_LEN]), b"");
}
