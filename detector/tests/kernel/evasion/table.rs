//! The README's table of the doors, as data: what is seen in each mode, the limits, and the tests that each cell stands on.

use std::{collections::BTreeSet, fmt::Write as _, process::Command};

use detector::kernel::plan;

use super::{calls::RUNS, case::Path, cases};

/// One door.
struct Row {
    /// In the README.
    door: &'static str,
    /// The label of `rosentry_coverage`.
    surface: &'static str,
    /// Names of [`super::calls::RUNS`], which are checked with and without their programs.
    runs: &'static [&'static str],
    /// Names of [`super::cases`], which are checked with and without their programs.
    cases: &'static [&'static str],
    /// Further tests of the kernel side.
    tests: &'static [&'static str],
    tracepoint: Cell,
    fexit: Cell,
}

/// What is seen in a mode.
#[derive(Clone, Copy)]
enum Cell {
    Seen,
    /// Seen, but for what the note says.
    Limit(&'static Limit),
}
use Cell::Seen;

/// A note below the table.
struct Limit {
    text: &'static str,
    /// What tells of it on a node: the label of `rosentry_coverage`, or else the member of the event.
    told_by: &'static str,
}

const REWRITTEN: Limit = Limit {
    text: "the call is seen; its path is read when it has ended, and may be the rewritten one",
    told_by: "kernel_paths",
};
const ATTRIBUTES_REWRITTEN: Limit = Limit {
    text: "so are the paths of chown and of extended attributes, at functions too",
    told_by: "kernel_paths_of_attributes",
};
const HANDLE: Limit =
    Limit { text: "the open is seen; which file the handle is of is not known", told_by: "paths_of_handles" };
const OF_PROC: Limit = Limit {
    text: "told by its text, such as `/proc/self/fd/3`, where the call opens by it; the file itself where the hook has it (chmod, \
           utimes, truncate at functions)",
    told_by: "`file.resolved` `lexical`",
};
const HIDDEN: Limit = Limit {
    text: "requests with IOSQE_CQE_SKIP_SUCCESS whose operation tells no failures are counted, not seen; at functions those on \
           extended attributes alone",
    told_by: "writes_io_uring_hidden",
};
const MANY: Limit = Limit {
    text: "of more than 256 requests under way at once some are told without their path",
    told_by: "`file.path` null",
};
const DEEP: Limit = Limit { text: "of a folder more than 128 levels deep the end is told", told_by: "`truncated`" };

const MOUNT: Limit = Limit {
    text: "the mount is looked up in the container's root shortly after, and may have changed",
    told_by: "kernel_mounts",
};

const LIMITS: &[&Limit] = &[&REWRITTEN, &ATTRIBUTES_REWRITTEN, &HANDLE, &OF_PROC, &HIDDEN, &MANY, &DEEP, &MOUNT];

const ROW: Row = Row { door: "", surface: "", runs: &[], cases: &[], tests: &[], tracepoint: Seen, fexit: Seen };

const ROWS: &[Row] = &[
    Row {
        door: "every 64-bit call for a write (43 of them, 16 operations)",
        surface: "writes_x86_64",
        runs: &["every write, 64-bit"],
        tests: &[
            "every_syscall::every_write_is_seen_through_64_bit_calls",
            "generator::of_ten_thousand_random_operations_exactly_the_refused_ones_are_seen_with_their_paths",
        ],
        ..ROW
    },
    Row {
        door: "files without a name, open files by an empty path or none",
        surface: "writes_x86_64",
        cases: &[
            "a file without a name",
            "an open file by an empty path",
            "an open file by an empty path, in a newer call",
            "an open file without a path",
        ],
        ..ROW
    },
    Row {
        door: "the mount that refuses the write",
        surface: "kernel_mounts",
        runs: &["every write, 64-bit"],
        tests: &["mounted::each_operation_tells_the_mount_that_refused_it_with_its_id_and_flags"],
        tracepoint: Cell::Limit(&MOUNT),
        ..ROW
    },
    Row {
        door: "paths relative, through links, `..`, chroot, `RESOLVE_IN_ROOT`",
        surface: "writes_x86_64",
        cases: &[
            "a relative path after chdir",
            "a path from an open folder",
            "a path through symbolic links",
            "a path in a chroot",
            "an absolute path within an open folder",
        ],
        tests: &["paths::in_a_chroot_an_absolute_path_is_based_on_its_root"],
        ..ROW
    },
    Row {
        door: "paths of 4 095 bytes, of any bytes, in deep folders",
        surface: "writes_x86_64",
        cases: &["a name of hostile bytes"],
        tests: &[
            "paths::the_longest_path_comes_whole_and_hostile_bytes_come_as_they_are",
            "paths::a_folder_as_deep_as_the_record_has_steps_is_told_to_be_cut",
        ],
        tracepoint: Cell::Limit(&DEEP),
        fexit: Cell::Limit(&DEEP),
        ..ROW
    },
    Row {
        door: "links of `/proc` (`/proc/self/fd/N`, `/proc/PID/root`)",
        surface: "writes_x86_64",
        cases: &[
            "an open file by its link in proc",
            "chmod by the link in proc",
            "a path through the root of a process",
        ],
        tracepoint: Cell::Limit(&OF_PROC),
        fexit: Cell::Limit(&OF_PROC),
        ..ROW
    },
    Row {
        door: "a handle (`open_by_handle_at`)",
        surface: plan::PATHS_OF_HANDLES,
        cases: &["an open by a handle"],
        tracepoint: Cell::Limit(&HANDLE),
        ..ROW
    },
    Row {
        door: "a second thread that rewrites the path",
        surface: plan::KERNEL_PATHS,
        cases: &["a path that a second thread rewrites"],
        tests: &["racing::a_thread_that_rewrites_the_path_does_not_change_what_is_reported"],
        tracepoint: Cell::Limit(&REWRITTEN),
        ..ROW
    },
    Row {
        door: "the same with chown and extended attributes",
        surface: plan::KERNEL_PATHS_OF_ATTRIBUTES,
        cases: &["a path of chown that a second thread rewrites"],
        tracepoint: Cell::Limit(&ATTRIBUTES_REWRITTEN),
        fexit: Cell::Limit(&ATTRIBUTES_REWRITTEN),
        ..ROW
    },
    Row {
        door: "processes that end or execute something else at once, children of vfork, threads with a working directory of their \
               own, programs in memory alone",
        surface: "writes_x86_64",
        cases: &[
            "a process that ends right after",
            "a process that executes another program right after",
            "a child of vfork",
            "a program that is in memory alone",
            "a thread with a working directory of its own",
        ],
        ..ROW
    },
    Row {
        door: "32-bit calls, `int 0x80` from a 64-bit program: every write",
        surface: "writes_ia32",
        runs: &["every write, int 0x80"],
        tests: &["every_syscall::every_write_is_seen_through_int_0x80_from_a_64_bit_program"],
        ..ROW
    },
    Row {
        door: "io_uring, its workers and polling thread: every write",
        surface: "writes_io_uring",
        runs: &["a ring", "a ring's workers", "a polled ring"],
        cases: &["an absolute path within an open folder, on a ring"],
        tests: &[
            "io_uring::of_a_chain_only_what_was_tried_is_seen",
            "io_uring::a_file_that_the_ring_knows_by_its_own_number_is_seen_by_its_path",
            "io_uring::a_full_queue_of_completions_hides_nothing",
            "io_uring::a_ring_that_a_child_inherits_tells_of_the_child",
        ],
        ..ROW
    },
    Row {
        door: "a ring under another credential's personality",
        surface: "writes_io_uring",
        cases: &["another credential's personality"],
        ..ROW
    },
    Row {
        door: "a ring with more requests at once than are kept",
        surface: "writes_io_uring",
        runs: &["a ring"],
        tests: &["io_uring::more_requests_at_once_than_are_kept_are_all_seen_though_some_without_their_path"],
        tracepoint: Cell::Limit(&MANY),
        ..ROW
    },
    Row {
        door: "a ring's requests that hide their result",
        surface: plan::HIDDEN_RESULTS,
        runs: &["a ring"],
        tests: &[
            "io_uring::a_request_that_hides_its_result_is_counted",
            "evasion::a_ring_hides_a_change_of_attributes_and_it_is_counted",
        ],
        tracepoint: Cell::Limit(&HIDDEN),
        fexit: Cell::Limit(&HIDDEN),
        ..ROW
    },
    Row {
        door: "every 64-bit call that changes mounts",
        surface: "mounts_x86_64",
        runs: &["every change of mounts, 64-bit"],
        tests: &["mounts::every_change_of_mounts_is_seen_through_64_bit_calls"],
        ..ROW
    },
    Row {
        door: "the seal taken off: remount, bind remount, fspick and fsconfig, mount_setattr, open_tree_attr",
        surface: "mounts_x86_64",
        cases: &[
            "remount",
            "remount with the magic number of old programs",
            "remount of the mount alone",
            "remount by a relative path",
            "a remount without any capability",
            "fspick",
            "fsconfig of a picked filesystem",
            "mount_setattr",
            "mount_setattr of all below",
            "open_tree_attr",
        ],
        ..ROW
    },
    Row {
        door: "a writable clone of the root (`open_tree`, `mount_setattr`), while `/` looks sealed",
        surface: "mounts_x86_64",
        cases: &["open_tree of a clone", "a clone that is made writable and written through", "move_mount of a clone"],
        ..ROW
    },
    Row {
        door: "something over a folder: tmpfs, bind, overlay, a moved mount, fsopen to move_mount",
        surface: "mounts_x86_64",
        cases: &[
            "a tmpfs over a folder",
            "a writable folder bound over a folder",
            "an overlay over a folder",
            "a mount moved over a folder",
            "fsopen",
            "fsmount",
            "a new tmpfs by fsopen",
            "propagation",
        ],
        ..ROW
    },
    Row {
        door: "the same in a user and mount namespace of its own",
        surface: "mounts_x86_64",
        cases: &["a tmpfs in a user namespace of its own"],
        ..ROW
    },
    Row {
        door: "out of the root: lazy unmount, pivot_root, chroot",
        surface: "mounts_x86_64",
        cases: &["a lazy unmount", "pivot_root", "chroot", "chroot out of a folder by a relative path"],
        ..ROW
    },
    Row {
        door: "32-bit calls that change mounts",
        surface: "mounts_ia32",
        runs: &["every change of mounts, int 0x80"],
        tests: &["mounts::every_change_of_mounts_is_seen_through_int_0x80_from_a_64_bit_program"],
        ..ROW
    },
    Row {
        door: "cgroups made and removed, a process that moves itself to another",
        surface: "cgroups",
        cases: &["a process that moves itself to another cgroup"],
        tests: &["evasion::a_cgroup_is_seen_until_its_programs_are_detached"],
        ..ROW
    },
];

/// As it stands in the README.
fn table() -> String {
    let mut text = "| door | surface | tracepoint | fexit |\n| --- | --- | --- | --- |\n".to_owned();
    let cell = |cell: Cell| match cell {
        Seen => "seen".to_owned(),
        Cell::Limit(limit) => {
            let number = LIMITS.iter().position(|known| std::ptr::eq(*known, limit) || known.text == limit.text);
            format!("limit {}", number.expect("the limit is listed") + 1)
        }
    };
    for Row { door, surface, tracepoint, fexit, .. } in ROWS {
        writeln!(text, "| {door} | `{surface}` | {} | {} |", cell(*tracepoint), cell(*fexit)).unwrap();
    }
    text.push('\n');
    for (number, Limit { text: limit, told_by }) in (1..).zip(LIMITS) {
        let told_by = if told_by.contains('`') { (*told_by).to_owned() } else { format!("`{told_by}` 0") };
        writeln!(text, "{number}. {limit} ({told_by}).").unwrap();
    }
    text
}

#[test]
fn the_readme_has_the_table_of_the_doors() {
    const BEGIN: &str = "<!-- the doors: detector/tests/kernel/evasion/table.rs -->\n";
    const END: &str = "<!-- end of the doors -->";
    let readme = include_str!("../../../../README.md");
    let told = readme.split_once(BEGIN).and_then(|(_, rest)| rest.split_once(END)).map_or("", |(table, _)| table);
    let table = table();
    assert_eq!(told, table, "the README should say:\n{BEGIN}{table}{END}");
}

#[test]
fn every_surface_has_a_row_and_every_row_a_surface() {
    let of_rows: BTreeSet<_> = ROWS.iter().map(|row| row.surface).collect();
    assert_eq!(of_rows, plan::surfaces().collect::<BTreeSet<_>>());
}

#[test]
fn every_row_stands_on_what_is_checked_with_and_without_its_program() {
    let in_rows =
        |list: fn(&Row) -> &'static [&'static str]| -> Vec<_> { ROWS.iter().flat_map(list).copied().collect() };
    assert!(ROWS.iter().all(|row| !row.runs.is_empty() || !row.cases.is_empty()));
    let runs: BTreeSet<_> = in_rows(|row| row.runs).into_iter().collect();
    assert_eq!(runs, RUNS.iter().map(|run| run.name).collect::<BTreeSet<_>>());
    let mut named = in_rows(|row| row.cases);
    named.sort_unstable();
    let mut all: Vec<_> = cases().map(|case| case.name).collect();
    all.sort_unstable();
    assert_eq!(named, all, "each case is in one row");
}

#[test]
fn a_case_that_is_told_otherwise_in_a_mode_is_a_limit_there() {
    for case in cases() {
        let row = ROWS.iter().find(|row| row.cases.contains(&case.name)).unwrap();
        let limited = matches!(row.tracepoint, Cell::Limit(_));
        assert!(limited || !matches!(case.path, Path::Differs { .. } | Path::Any), "{}", case.name);
    }
}

#[test]
fn a_limit_of_a_surface_is_one_that_the_node_tells() {
    let never: Vec<_> = plan::limits(true).iter().filter(|(_, seen)| !seen).map(|(surface, _)| *surface).collect();
    for row in ROWS.iter().filter(|row| plan::limits(true).iter().any(|(surface, _)| *surface == row.surface)) {
        assert!(matches!(row.tracepoint, Cell::Limit(limit) if limit.told_by == row.surface), "{}", row.door);
        assert_eq!(matches!(row.fexit, Cell::Limit(_)), never.contains(&row.surface), "{}", row.door);
    }
}

#[test]
fn every_test_that_is_named_exists() {
    let listed = Command::new("/proc/self/exe").args(["--list", "--format", "terse"]).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    for test in ROWS.iter().flat_map(|row| row.tests) {
        assert!(listed.lines().any(|line| line == format!("{test}: test")), "{test}");
    }
}
