//! What was told once is counted from then on, and nothing is folded together that differs.

use std::{collections::HashMap, ffi::CStr, fs, os::unix::process::CommandExt, path::Path, process::Command};

use detector::kernel::attempt::Attempt;
use detector_common::{counter::Counter, operation::Operation, record::RecordKind};

use super::{
    cgroup::{Cgroup, write_numbered},
    sealed::Sealed,
    sensor::{Attached, begin, requested},
};

fn write(path: impl AsRef<Path>) {
    fs::write(path, "x").unwrap_err();
}

/// The paths of refused writes, with how often each was seen.
fn by_path(counted: &[(Attempt, u64)]) -> Vec<(String, u64)> {
    let writes = counted.iter().filter(|(attempt, _)| attempt.kind == RecordKind::WriteDenied);
    let mut paths: Vec<_> = writes.map(|(attempt, count)| (requested(attempt), *count)).collect();
    paths.sort();
    paths
}

#[tokio::test]
async fn the_first_attempt_comes_in_full_and_its_repeats_are_counted() {
    let mut attached = Attached::new();
    let seen = attached.watch(|| {
        Sealed::new();
        begin();
        for _ in 0..1000 {
            write("/mnt/etc/x");
        }
        write("/mnt/etc/y");
    });
    assert_eq!(by_path(&seen.counted), [("/mnt/etc/x".to_owned(), 1000), ("/mnt/etc/y".to_owned(), 1)]);
    let first = &seen.counted[0].0;
    assert!(first.process.exe.is_some() && !first.process.args.is_empty(), "in full: {first:?}");
}

#[tokio::test]
async fn long_paths_that_differ_anywhere_are_told_apart() {
    let mut attached = Attached::new();
    // Around the lengths at which words of the text end, and the longest.
    let lengths: Vec<usize> = (100..140).chain([250, 256, 1000, 4095]).collect();
    let path = |length: usize, different_at: Option<usize>| {
        let mut path = b"/mnt/etc/".to_vec();
        path.resize(length, b'/');
        path[length - 1] = b'x';
        if let Some(at) = different_at {
            path[at] = b'.';
        }
        String::from_utf8(path).unwrap()
    };
    let seen = attached.watch(|| {
        Sealed::new();
        begin();
        for &length in &lengths {
            for different_at in [None, Some(9), Some(length / 2), Some(length - 2)] {
                for _ in 0..2 {
                    write(path(length, different_at));
                }
            }
        }
    });
    assert_eq!(seen.counted.len(), lengths.len() * 4);
    for (attempt, count) in &seen.counted {
        assert_eq!(*count, 2, "{}", requested(attempt));
    }
}

#[tokio::test]
async fn short_paths_that_differ_anywhere_are_told_apart() {
    const FOLDER: &str = "/mnt/etc/";
    let mut attached = Attached::new();
    // From one word of the text to one more than the quick way reads.
    let paths: Vec<String> = (FOLDER.len() + 2..=72)
        .flat_map(|length| {
            let [first, last] = [FOLDER.len(), length - 2];
            let mut places = vec![first, (first + last) / 2, last];
            places.dedup();
            let path = move |different_at: Option<usize>| {
                (0..length)
                    .map(|at| match FOLDER.chars().nth(at) {
                        Some(character) => character,
                        None if at == length - 1 => 'x',
                        None if Some(at) == different_at => '.',
                        None => '/',
                    })
                    .collect::<String>()
            };
            std::iter::once(path(None)).chain(places.into_iter().map(move |at| path(Some(at)))).collect::<Vec<_>>()
        })
        .collect();
    let seen = attached.watch(|| {
        Sealed::new();
        begin();
        for path in &paths {
            for _ in 0..3 {
                write(path);
            }
        }
    });
    let mut expected: Vec<_> = paths.iter().map(|path| (path.clone(), 3)).collect();
    expected.sort();
    assert_eq!(by_path(&seen.counted), expected);
}

#[tokio::test]
async fn operations_are_told_apart() {
    let mut attached = Attached::new();
    let seen = attached.watch(|| {
        Sealed::new();
        begin();
        for _ in 0..3 {
            fs::create_dir("/mnt/etc/x").unwrap_err();
            fs::remove_dir("/mnt/etc").unwrap_err();
            fs::remove_file("/mnt/etc").unwrap_err();
            fs::rename("/mnt/etc", "/mnt/a").unwrap_err();
            fs::rename("/mnt/etc", "/mnt/b").unwrap_err();
            std::os::unix::fs::symlink("one", "/mnt/etc/x").unwrap_err();
            std::os::unix::fs::symlink("two", "/mnt/etc/x").unwrap_err();
        }
    });
    let operations: Vec<_> = seen.counted.iter().map(|(attempt, count)| (attempt.operation, *count)).collect();
    use Operation::{Mkdir, Rename, Rmdir, Symlink, Unlink};
    let each = [Mkdir, Rmdir, Unlink, Rename, Rename, Symlink, Symlink];
    assert_eq!(operations, each.map(|operation| (operation, 3)));
}

#[tokio::test]
async fn what_many_calls_do_with_the_same_path_is_folded_for_each() {
    let mut attached = Attached::new();
    let seen = attached.watch(|| {
        Sealed::new();
        begin();
        for _ in 0..100 {
            let (folder, path) = (libc::AT_FDCWD, c"/mnt/etc".as_ptr());
            // SAFETY: NUL-terminated paths.
            let results = unsafe {
                [
                    libc::rmdir(path),
                    libc::unlink(path),
                    libc::unlinkat(folder, path, 0),
                    libc::unlinkat(folder, path, libc::AT_REMOVEDIR),
                    libc::chmod(path, 0o700),
                    libc::fchmodat(folder, path, 0o700, 0),
                    libc::chown(path, 7, 7),
                    libc::lchown(path, 7, 7),
                    libc::fchownat(folder, path, 7, 7, 0),
                ]
            };
            assert_eq!(results, [-1; 9]);
        }
    });
    let counts: Vec<_> = seen.counted.iter().map(|(attempt, count)| (attempt.operation, *count)).collect();
    assert_eq!(counts.len(), 9, "{counts:?}");
    assert!(counts.iter().all(|(_, count)| *count == 100), "{counts:?}");
}

#[tokio::test]
async fn an_unlinkat_that_removes_a_folder_is_told_apart_from_one_that_removes_a_file() {
    let mut attached = Attached::new();
    let seen = attached.watch(|| {
        Sealed::new();
        begin();
        for flags in [0, libc::AT_REMOVEDIR, 0, libc::AT_REMOVEDIR] {
            // SAFETY: a NUL-terminated path.
            unsafe { libc::unlinkat(libc::AT_FDCWD, c"/mnt/etc".as_ptr(), flags) };
        }
    });
    let counts: Vec<_> = seen.counted.iter().map(|(attempt, count)| (attempt.args[2], *count)).collect();
    assert_eq!(counts, [(0, 2), (0x200, 2)]);
}

#[tokio::test]
async fn the_same_text_relative_to_another_folder_is_another_path() {
    let mut attached = Attached::new();
    let seen = attached.watch(|| {
        Sealed::new();
        begin();
        for folder in ["/mnt/etc", "/mnt/usr", "/mnt/etc"] {
            std::env::set_current_dir(folder).unwrap();
            write("x");
        }
        let folder = fs::File::open("/mnt/tmp").unwrap();
        for _ in 0..2 {
            // SAFETY: an open folder and a NUL-terminated path.
            unsafe {
                libc::openat(
                    std::os::fd::AsRawFd::as_raw_fd(&folder),
                    c"x".as_ptr(),
                    libc::O_WRONLY | libc::O_CREAT | libc::O_CLOEXEC | libc::O_TRUNC,
                    0o666,
                )
            };
        }
        for root in ["/mnt/usr", "lib"] {
            rustix::process::chroot(root).unwrap();
            rustix::process::chdir("/").unwrap();
            write("/x");
        }
    });
    assert_eq!(
        by_path(&seen.counted),
        [("/x", 1), ("/x", 1), ("x", 1), ("x", 2), ("x", 2)].map(|(path, count)| (path.to_owned(), count))
    );
}

#[tokio::test]
async fn what_a_thread_repeats_is_told_apart_by_all_that_makes_an_attempt() {
    const CREATE: i32 = libc::O_CREAT | libc::O_CLOEXEC;
    let mut attached = Attached::new();
    let open = |number: libc::c_long, folder: &str, path: &CStr, flags: i32| {
        std::env::set_current_dir(folder).unwrap();
        // Each is told, then found by its key, then found as the thread's latest.
        for _ in 0..3 {
            // SAFETY: a NUL-terminated path.
            let result = unsafe {
                match number {
                    libc::SYS_open => libc::syscall(number, path.as_ptr(), flags, 0o600),
                    _ => libc::syscall(number, libc::AT_FDCWD, path.as_ptr(), flags, 0o600),
                }
            };
            assert_eq!(result, -1);
        }
    };
    let attempts = || {
        for (number, flags) in [
            (libc::SYS_openat, CREATE | libc::O_WRONLY),
            (libc::SYS_openat, CREATE | libc::O_RDWR),
            (libc::SYS_open, CREATE | libc::O_WRONLY),
        ] {
            for path in [c"/mnt/etc", c"/mnt/etc/", c"/mnt/etc/a", c"/mnt/etc/b", c"/mnt/etc/a/", c"/mnt/etc/a/b"] {
                open(number, "/", path, flags);
            }
            for folder in ["/mnt/etc", "/mnt/usr"] {
                for path in [c"a", c"b", c"ab", c"./././././a", c"./././././b", c"./././././ab"] {
                    open(number, folder, path, flags);
                }
            }
        }
    };
    let seen = attached.watch(|| {
        Sealed::new();
        begin();
        for _ in 0..3 {
            attempts();
        }
    });
    let refused: Vec<_> = by_path(&seen.counted);
    // No file comes to be where the path ends in a slash, or where a part of it is missing.
    let [absolute, relative] =
        [["/mnt/etc/a", "/mnt/etc/b"].as_slice(), &["a", "b", "ab", "./././././a", "./././././b", "./././././ab"]];
    let mut expected: Vec<(String, u64)> = Vec::new();
    for _ in 0..3 {
        expected.extend(absolute.iter().map(|path| ((*path).to_owned(), 9)));
        for _ in 0..2 {
            expected.extend(relative.iter().map(|path| ((*path).to_owned(), 9)));
        }
    }
    expected.sort();
    assert_eq!(refused, expected);
}

#[tokio::test]
async fn what_a_thread_repeats_is_told_apart_by_what_it_executes_meanwhile() {
    const AGAIN: &str = "for i in 1 2 3 4; do true > /mnt/etc/x; done";
    let mut attached = Attached::new();
    let folder = tempfile::tempdir().unwrap();
    let shells = ["one", "two"].map(|name| folder.path().join(name).join("sh"));
    for shell in &shells {
        fs::create_dir(shell.parent().unwrap()).unwrap();
        fs::copy("/bin/busybox", shell).expect("busybox is installed: apt-get install busybox-static");
    }
    let counted = attached.watch_all(|| {
        Sealed::new();
        let script = format!("{AGAIN}; exec {} -c '{AGAIN}'", shells[1].display());
        let refused = Command::new(&shells[0]).args(["-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&refused.stderr).matches("Read-only file system").count(), 8, "{refused:?}");
    });
    let of_shell = |shell: &Path| -> Vec<u64> {
        let shell = shell.as_os_str().as_encoded_bytes();
        let is_its =
            |attempt: &Attempt| attempt.process.exe.as_ref().is_some_and(|exe| exe.in_namespace.ends_with(shell));
        counted.iter().filter(|(attempt, _)| is_its(attempt)).map(|(_, count)| *count).collect()
    };
    assert_eq!(shells.each_ref().map(|shell| of_shell(shell)), [vec![4], vec![4]]);
}

#[tokio::test]
async fn what_a_thread_repeats_is_told_apart_by_the_cgroup_that_it_is_moved_to() {
    let mut attached = Attached::new();
    let cgroups = ["from", "to"].map(Cgroup::new);
    let counted = attached.watch_all(|| {
        Sealed::new();
        let to = cgroups[1].processes();
        cgroups[0].run(|| {
            (0..4).for_each(|_| write_numbered(1, 0));
            assert_eq!(rustix::io::write(&to, b"0"), Ok(1));
            (0..5).for_each(|_| write_numbered(1, 0));
        });
    });
    let count = |cgroup: &Cgroup| -> u64 {
        counted.iter().filter(|(attempt, _)| attempt.cgroup_id == cgroup.id).map(|(_, count)| count).sum()
    };
    assert_eq!(cgroups.each_ref().map(count), [4, 5]);
}

#[tokio::test]
async fn cgroups_are_told_apart() {
    let mut attached = Attached::new();
    let cgroups = ["a", "b"].map(Cgroup::new);
    let counted = attached.watch_all(|| {
        Sealed::new();
        for cgroup in &cgroups {
            cgroup.run(|| (0..5).for_each(|_| write_numbered(1, 0)));
        }
    });
    let is_theirs = |attempt: &Attempt| cgroups.iter().any(|cgroup| cgroup.id == attempt.cgroup_id);
    let theirs = counted.iter().filter(|(attempt, _)| is_theirs(attempt));
    let ids: Vec<_> = theirs.map(|(attempt, count)| (attempt.cgroup_id, *count)).collect();
    assert_eq!(ids, cgroups.each_ref().map(|cgroup| (cgroup.id, 5)));
}

#[tokio::test]
async fn executables_are_told_apart_but_not_their_processes() {
    let mut attached = Attached::new();
    let folder = tempfile::tempdir().unwrap();
    let copies = ["one", "two"].map(|name| folder.path().join(name));
    for copy in &copies {
        fs::copy("/bin/busybox", copy).expect("busybox is installed: apt-get install busybox-static");
    }
    let counted = attached.watch_all(|| {
        Sealed::new();
        for copy in [&copies[0], &copies[1], &copies[0]] {
            // It does what the name says by which it is called.
            let refused = Command::new(copy).arg0("rmdir").arg("/mnt/etc").output().unwrap();
            assert!(String::from_utf8_lossy(&refused.stderr).contains("Read-only file system"), "{refused:?}");
        }
    });
    let of_copy = |copy: &Path| -> Vec<u64> {
        let copy = copy.as_os_str().as_encoded_bytes();
        let is_its =
            |attempt: &Attempt| attempt.process.exe.as_ref().is_some_and(|exe| exe.in_namespace.ends_with(copy));
        counted.iter().filter(|(attempt, _)| is_its(attempt)).map(|(_, count)| *count).collect()
    };
    assert_eq!(copies.each_ref().map(|copy| of_copy(copy)), [vec![2], vec![1]]);
}

#[tokio::test]
async fn no_count_is_lost_between_threads_that_try_the_same() {
    const THREADS: u64 = 4;
    const TIMES: u64 = 20_000;
    let mut attached = Attached::new();
    let cgroup = Cgroup::new("threads");
    let before = attached.counters.tallies().write_denied();
    let counted = attached.watch_all(|| {
        Sealed::new();
        let children: Vec<_> = (0..THREADS)
            .map(|_| {
                cgroup.start(|| {
                    for number in 0..TIMES {
                        write_numbered(u32::try_from(number % 3).unwrap_or_default(), 0);
                    }
                })
            })
            .collect();
        children.into_iter().for_each(super::cgroup::Child::wait);
    });
    let total: u64 = counted.iter().filter(|(attempt, _)| attempt.cgroup_id == cgroup.id).map(|(_, count)| count).sum();
    assert_eq!(total, THREADS * TIMES);
    assert_eq!(attached.denied(cgroup.id, Operation::Open), THREADS * TIMES);
    assert!(attached.counters.tallies().write_denied() - before >= THREADS * TIMES);
    assert!(counted.len() < 100, "most were folded: {}", counted.len());
}

#[tokio::test]
async fn what_found_the_ring_full_is_told_in_full_the_next_time() {
    // Longer than what is left of a ring that took no more of them.
    const SLASHES: usize = 4000;
    let mut attached = Attached::new();
    let floods: Vec<_> = (0..16).map(|number| Cgroup::new(&format!("flood{number}"))).collect();
    let late = Cgroup::new("late");
    let first = attached.watch_undrained(|| {
        Sealed::new();
        for flood in &floods {
            flood.run(|| (0..400).for_each(|number| write_numbered(number, SLASHES)));
        }
        // Two attempts of the same that can't be told.
        late.run(|| (0..2).for_each(|_| write_numbered(0, SLASHES)));
        // A flood of refused writes must not drown a mount attempt.
        // SAFETY: a NUL-terminated path.
        unsafe { libc::umount2(c"/mnt/etc".as_ptr(), 0) };
    });
    assert!(attached.counters.read(Counter::WriteRingFull).unwrap() > 0, "the floods are larger than the ring");
    let of_late = |counted: &[(Attempt, u64)]| -> Vec<u64> {
        counted.iter().filter(|(attempt, _)| attempt.cgroup_id == late.id).map(|(_, count)| *count).collect()
    };
    assert_eq!(of_late(&first), [0_u64; 0]);
    let is_unmount = |attempt: &Attempt| attempt.operation == Operation::Umount && requested(attempt) == "/mnt/etc";
    assert!(first.iter().any(|(attempt, _)| is_unmount(attempt)));
    assert_eq!(attached.tally(late.id).untold[Operation::Open as usize], 2);
    let then = attached.watch_all(|| {
        Sealed::new();
        late.run(|| (0..3).for_each(|_| write_numbered(0, SLASHES)));
    });
    assert_eq!(of_late(&then), [3]);
    // Nothing of all that is missing in the counts.
    let mut told: HashMap<u64, u64> = HashMap::new();
    for (attempt, count) in &first {
        *told.entry(attempt.cgroup_id).or_default() += count;
    }
    for flood in &floods {
        let tally = attached.tally(flood.id);
        let untold = tally.untold[Operation::Open as usize];
        assert_eq!(told.get(&flood.id).copied().unwrap_or_default() + untold, 400);
    }
}
