//! Learning mode: which folders of its root a program writes.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::Write as _,
    os::{
        fd::AsRawFd as _,
        unix::{
            fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink},
            net::{UnixDatagram, UnixListener},
        },
    },
};

use detector::kernel::{
    attempt::{Attempt, PathBase},
    plan::Observing,
};
use detector_common::{counter::Counter, operation::Operation, record::RecordKind};
use rustix::mount::{MountFlags, mount};

use super::sensor::{Attached, begin, named};

/// Makes a writable root of the calling thread's own, with a volume at `/volume`, and nothing of this is told.
fn enter_writable_root() {
    mount("root", "/mnt", "tmpfs", MountFlags::empty(), None).unwrap();
    std::os::unix::fs::chroot("/mnt").unwrap();
    std::env::set_current_dir("/").unwrap();
    for folder in ["volume", "tmp", "var/log", "etc"] {
        fs::create_dir_all(format!("/{folder}")).unwrap();
    }
    // By another operation than those of the tests, of which nothing shall be a repeat.
    // SAFETY: a NUL-terminated path.
    assert_eq!(unsafe { libc::mknod(c"/etc/there".as_ptr(), libc::S_IFREG | 0o600, 0) }, 0);
    mount("volume", "/volume", "tmpfs", MountFlags::empty(), None).unwrap();
    begin();
}

fn observing() -> Attached {
    Attached::observing(Observing::default())
}

/// What was told of writes that succeeded: the operation and the path, with how often its like was seen.
fn observed(counted: &[(Attempt, u64)]) -> Vec<(Operation, String, u64)> {
    let observed = counted.iter().filter(|(attempt, _)| attempt.kind == RecordKind::WriteObserved);
    observed.map(|(attempt, count)| (attempt.operation, named(attempt), *count)).collect()
}

fn told(operation: Operation, path: &str, count: u64) -> (Operation, String, u64) {
    (operation, path.to_owned(), count)
}

#[tokio::test]
async fn each_folder_is_told_once_and_its_further_files_are_counted() {
    let mut attached = observing();
    let before = attached.counters.read(Counter::WriteObserved).unwrap();
    let seen = attached.watch(|| {
        enter_writable_root();
        for number in 0..100 {
            fs::write(format!("/tmp/{number}"), "x").unwrap();
            fs::write(format!("/var/log/{number}"), "x").unwrap();
        }
        for number in 0..50 {
            fs::create_dir(format!("/tmp/folder{number}")).unwrap();
            fs::remove_file(format!("/tmp/{number}")).unwrap();
        }
    });
    use Operation::{Mkdir, Open, Unlink};
    let expected = [
        told(Open, "/mnt/tmp/0", 100),
        told(Open, "/mnt/var/log/0", 100),
        told(Mkdir, "/tmp/folder0", 50),
        told(Unlink, "/tmp/0", 50),
    ];
    assert_eq!(observed(&seen.counted), expected);
    assert!(attached.counters.read(Counter::WriteObserved).unwrap() - before >= 300);
    let first = &seen.counted[0].0;
    assert!(first.process.exe.is_some() && !first.process.args.is_empty(), "in full: {first:?}");
    assert_eq!(first.path.requested.as_deref(), Some(b"/tmp/0".as_slice()));
}

#[tokio::test]
async fn an_open_is_told_with_the_mount_that_it_is_on_and_none_on_another_mount_is() {
    let mut attached = observing();
    let seen = attached.watch(|| {
        enter_writable_root();
        symlink("/volume", "/tmp/to-volume").unwrap();
        symlink("/etc", "/volume/to-etc").unwrap();
        fs::write("/volume/x", "x").unwrap();
        fs::write("/tmp/to-volume/y", "x").unwrap();
        fs::write("/volume/to-etc/x", "x").unwrap();
    });
    let opens: Vec<_> = seen.counted.into_iter().filter(|(attempt, _)| attempt.operation == Operation::Open).collect();
    assert_eq!(observed(&opens), [told(Operation::Open, "/mnt/etc/x", 1)]);
    let attempt = &opens[0].0;
    let mount = attempt.mount.as_ref().expect("the open file has one");
    assert_eq!(mount.fstype, b"tmpfs");
    assert_eq!(mount.point.as_ref().unwrap().in_root.as_deref(), Some(b"/".as_slice()));
}

#[tokio::test]
async fn what_only_reads_or_fails_is_not_told() {
    let mut attached = observing();
    let seen = attached.watch(|| {
        enter_writable_root();
        fs::read("/etc/there").unwrap();
        let with = |flags: i32| OpenOptions::new().read(true).custom_flags(flags).open("/etc/there");
        // The standard library knows no such flags together: a lock file that was there.
        // SAFETY: a NUL-terminated path; a descriptor of our own.
        unsafe { libc::close(libc::open(c"/etc/there".as_ptr(), libc::O_RDONLY | libc::O_CREAT, 0o600)) };
        with(libc::O_PATH | libc::O_NOFOLLOW).unwrap();
        fs::write("/none/x", "x").unwrap_err();
        fs::create_dir("/etc").unwrap_err();
        fs::remove_file("/none").unwrap_err();
        File::open("/etc").unwrap();
    });
    assert_eq!(observed(&seen.counted), []);
}

#[tokio::test]
async fn every_kind_of_write_is_told() {
    let mut attached = observing();
    let seen = attached.watch(|| {
        enter_writable_root();
        // SAFETY: a NUL-terminated path; a descriptor of our own.
        unsafe { libc::close(libc::open(c"/tmp/lock".as_ptr(), libc::O_RDONLY | libc::O_CREAT, 0o600)) };
        fs::hard_link("/tmp/lock", "/tmp/hard").unwrap();
        symlink("lock", "/tmp/soft").unwrap();
        fs::rename("/tmp/hard", "/var/log/hard").unwrap();
        fs::set_permissions("/tmp/lock", fs::Permissions::from_mode(0o640)).unwrap();
        let file = File::open("/etc/there").unwrap();
        file.set_permissions(fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::chown("/tmp/lock", Some(0), Some(0)).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        // SAFETY: NUL-terminated paths.
        unsafe {
            libc::truncate(c"/tmp/lock".as_ptr(), 7);
            libc::mknod(c"/tmp/fifo".as_ptr(), libc::S_IFIFO | 0o600, 0);
        }
        drop(UnixListener::bind("/tmp/socket").unwrap());
        fs::create_dir("/tmp/folder").unwrap();
        fs::remove_dir("/tmp/folder").unwrap();
        // Neither has a path.
        let _abstract = UnixDatagram::unbound().unwrap();
        drop(std::net::TcpListener::bind("127.0.0.1:0"));
    });
    use Operation as O;
    let expected: Vec<_> = [
        (O::Open, "/mnt/tmp/lock"),
        (O::Link, "/tmp/lock"),
        (O::Symlink, "/tmp/soft"),
        (O::Rename, "/tmp/hard"),
        (O::Chmod, "/tmp/lock"),
        (O::Chmod, "/mnt/etc/there"),
        (O::Chown, "/tmp/lock"),
        (O::Utimes, "/mnt/etc/there"),
        (O::Truncate, "/tmp/lock"),
        (O::Mknod, "/tmp/fifo"),
        (O::BindSocket, "/tmp/socket"),
        (O::Mkdir, "/tmp/folder"),
    ]
    .map(|(operation, path)| told(operation, path, 1))
    .into();
    let mut seen_of = observed(&seen.counted);
    // rmdir(2), or unlinkat(2), as the C library has it.
    let removal = seen_of.pop().unwrap();
    assert_eq!((removal.1.as_str(), removal.2), ("/tmp/folder", 1));
    assert_eq!(seen_of, expected);
}

#[tokio::test]
async fn folders_by_a_relative_path_are_told_apart() {
    let mut attached = observing();
    let seen = attached.watch(|| {
        enter_writable_root();
        for folder in ["/tmp", "/etc", "/tmp"] {
            std::env::set_current_dir(folder).unwrap();
            for name in ["a", "b"] {
                fs::create_dir(name).unwrap();
                fs::remove_dir(name).unwrap();
            }
        }
        let folder = File::open("/var/log").unwrap();
        // SAFETY: a NUL-terminated path.
        unsafe { libc::mkdirat(folder.as_raw_fd(), c"a".as_ptr(), 0o755) };
    });
    let made = seen.counted.iter().filter(|(attempt, _)| attempt.operation == Operation::Mkdir);
    let mut by_folder = BTreeMap::new();
    for (attempt, count) in made {
        let folder = match &attempt.path.base {
            PathBase::Cwd => attempt.process.cwd.as_ref().unwrap(),
            PathBase::Dirfd(walk) => walk,
            base => panic!("{base:?}"),
        };
        by_folder.insert(String::from_utf8(folder.in_root.clone().unwrap()).unwrap(), *count);
    }
    let expected = [("/etc", 2), ("/tmp", 4), ("/var/log", 1)];
    assert_eq!(by_folder.iter().map(|(folder, count)| (folder.as_str(), *count)).collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn what_is_written_by_a_descriptor_is_not_told_again() {
    let mut attached = observing();
    let seen = attached.watch(|| {
        enter_writable_root();
        let mut file = File::create("/tmp/x").unwrap();
        for _ in 0..100 {
            file.write_all(b"x").unwrap();
        }
        file.set_len(3).unwrap();
    });
    assert_eq!(observed(&seen.counted), [told(Operation::Open, "/mnt/tmp/x", 1)]);
}

#[tokio::test]
async fn what_is_in_the_mount_namespace_of_the_node_is_not_told() {
    let namespace = fs::metadata("/proc/self/ns/mnt").unwrap().ino();
    let observing = Observing { node_mount_namespace: Some(namespace.try_into().unwrap()) };
    let mut attached = Attached::observing(observing);
    let folder = tempfile::tempdir().unwrap();
    let before = attached.counters.read(Counter::WriteObserved).unwrap();
    fs::write(folder.path().join("x"), "x").unwrap();
    let records = attached.records();
    let own = std::process::id();
    let of_us = records.iter().filter(
        |record| matches!(record, detector::kernel::stream::Record::Attempt(attempt) if attempt.process.pid == own),
    );
    assert_eq!(of_us.count(), 0);
    let seen = attached.watch(|| {
        enter_writable_root();
        fs::write("/tmp/x", "x").unwrap();
    });
    assert_eq!(observed(&seen.counted), [told(Operation::Open, "/mnt/tmp/x", 1)]);
    assert!(attached.counters.read(Counter::WriteObserved).unwrap() > before);
}

#[tokio::test]
async fn without_the_mode_no_program_of_it_is_loaded_and_nothing_is_told() {
    let mut attached = Attached::new();
    let seen = attached.watch(|| {
        enter_writable_root();
        fs::write("/tmp/x", "x").unwrap();
    });
    assert_eq!(observed(&seen.counted), []);
    assert!(attached.sensor.verified().iter().all(|verified| verified.program != "observe_exit"));
    assert_eq!(attached.counters.read(Counter::WriteObserved).unwrap(), 0);
}

#[tokio::test]
async fn the_verifier_stays_far_from_its_limit_in_learning_mode() {
    let attached = observing();
    let verified = attached.sensor.verified().iter().find(|verified| verified.program == "observe_exit");
    let instructions = verified.unwrap().instructions.expect("kernel 5.16 and newer tell");
    println!("{instructions} verified instructions");
    assert!(instructions < 500_000, "{instructions}");
    let coverage = attached.sensor.coverage();
    for (surface, seen) in [("observed_x86_64", true), ("observed_io_uring", false), ("observed_open_before", false)] {
        assert!(coverage.contains(&(surface, seen)), "{surface}: {coverage:?}");
    }
}
