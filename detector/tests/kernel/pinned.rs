//! Programs that outlive the agent: in either mode the next one goes on with them, and nothing is left when it is told to end.

use std::{
    ffi::{CStr, CString},
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use detector::{
    export::chain::End,
    kernel::{
        Restart, Sensor,
        attempt::{Attempt, Standing},
        counters::Counters,
        kept::Mark,
        pins::Pins,
        plan::Observing,
        stream::{Record, Stream},
    },
};
use detector_common::{counter::Counter, operation::Operation, record::RecordKind};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change, mount_remount};
use tempfile::TempDir;

use super::{
    cgroup::{Cgroup, write_numbered},
    sensor::hooks_under_test,
};

/// A mount namespace of this thread's own, with a bpffs and a read-only filesystem at /mnt.
pub fn stage() -> (TempDir, PathBuf) {
    // SAFETY: changes this thread's mount namespace alone.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNS) }, 0, "{}", io::Error::last_os_error());
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
    let folder = tempfile::tempdir().unwrap();
    mount("bpf", folder.path(), "bpf", MountFlags::empty(), None::<&CStr>).unwrap();
    mount("none", "/mnt", "tmpfs", MountFlags::empty(), None::<&CStr>).unwrap();
    fs::create_dir("/mnt/etc").unwrap();
    mount_remount("/mnt", MountFlags::RDONLY, c"").unwrap();
    let pins = folder.path().join("rosentry");
    (folder, pins)
}

pub fn attach(pins: &Path) -> (Sensor, Stream, Counters, Restart) {
    attach_observing(pins, None)
}

fn attach_observing(pins: &Path, observing: Option<Observing>) -> (Sensor, Stream, Counters, Restart) {
    Sensor::attach_pinned(hooks_under_test(), observing, Pins::open(pins).unwrap(), None).unwrap()
}

/// The refused writes of a cgroup.
pub fn of_cgroup(records: Vec<Record>, id: u64) -> Vec<Attempt> {
    of_kind(records, RecordKind::WriteDenied, id)
}

pub fn of_kind(records: Vec<Record>, kind: RecordKind, id: u64) -> Vec<Attempt> {
    let attempt = |record| match record {
        Record::Attempt(attempt) if attempt.kind == kind && attempt.cgroup_id == id => Some(*attempt),
        _ => None,
    };
    records.into_iter().filter_map(attempt).collect()
}

#[tokio::test]
async fn the_next_agent_goes_on_with_the_programs_and_knows_what_was_told() {
    let (_folder, path) = stage();
    let cgroup = Cgroup::new("pinned");
    let (sensor, mut stream, counters, restart) = attach(&path);
    assert!(restart.before.alive_ns.is_none(), "the first has nobody before it");
    let (mode, coverage, serving) = (sensor.mode(), sensor.coverage().to_vec(), sensor.serving().to_vec());
    cgroup.run(|| write_numbered(1, 0));
    cgroup.run(|| write_numbered(2, 0));
    let mut records = Vec::new();
    while stream.drain(&mut records) {}
    let attempts = of_cgroup(records, cgroup.id);
    assert_eq!(attempts.len(), 2);
    // Of the two, the first gets out.
    let mark = Mark { cgroup_id: cgroup.id, operation: Operation::Open, count: 1, origin: attempts[0].origin };
    restart.kept.begin([Some(&mark)].into_iter());
    restart.kept.commit(1, None);
    sensor.leave();
    drop((stream, counters, restart));
    cgroup.run(|| (0..5).for_each(|_| write_numbered(1, 0)));
    cgroup.run(|| write_numbered(3, 0));

    let (sensor, mut stream, counters, restart) = attach(&path);

    assert!(restart.before.same);
    assert_eq!((sensor.mode(), sensor.serving()), (mode, &*serving));
    let sorted = |mut coverage: Vec<(&'static str, bool)>| {
        coverage.sort_unstable();
        coverage
    };
    assert_eq!(sorted(sensor.coverage().to_vec()), sorted(coverage));
    let left = of_cgroup(restart.before.records, cgroup.id);
    let told: Vec<_> = left.iter().map(|attempt| (attempt.path.requested.clone().unwrap(), attempt.standing)).collect();
    assert_eq!(
        told,
        [
            (b"/mnt/etc/000001".to_vec(), Standing::Told),
            (b"/mnt/etc/000002".to_vec(), Standing::New),
            (b"/mnt/etc/000003".to_vec(), Standing::New),
        ]
    );
    assert_eq!(stream.folds().waiting(left[0].fold.unwrap()), 5);
    assert_eq!(counters.tallies().read()[&cgroup.id].denied[Operation::Open as usize], 8);
    assert_eq!(restart.kept.told()[&cgroup.id].told[Operation::Open as usize], 1);
    cgroup.run(|| write_numbered(4, 0));
    let mut records = Vec::new();
    while stream.drain(&mut records) {}
    assert_eq!(of_cgroup(records, cgroup.id).len(), 1, "they see what comes");
    drop(sensor);
    assert!(!path.exists(), "nothing is left");
}

/// What an agent knows to be told, after one before was killed while it wrote three lines, of which the record has so many; none: nobody
/// can say.
fn told_after_a_crash(written: Option<u64>) -> (u64, Vec<Standing>) {
    let (_folder, path) = stage();
    let cgroup = Cgroup::new("crash");
    let (sensor, mut stream, counters, restart) = attach(&path);
    let end = |seq: u64| End { seq, chain: format!("{seq:064x}") };
    restart.kept.begin(std::iter::repeat_n(None, 10));
    restart.kept.commit(10, Some(&end(10)));
    cgroup.run(|| (1..=3).for_each(|number| write_numbered(number, 0)));
    let mut records = Vec::new();
    while stream.drain(&mut records) {}
    let attempts = of_cgroup(records, cgroup.id);
    let mark =
        |attempt: &Attempt| Mark { cgroup_id: cgroup.id, operation: Operation::Open, count: 1, origin: attempt.origin };
    let marks: Vec<_> = attempts.iter().map(mark).collect();
    restart.kept.begin(marks.iter().map(Some));
    sensor.leave();
    drop((stream, counters, restart));

    let end = written.map(|written| end(10 + written));
    let (_sensor, _stream, _counters, restart) =
        Sensor::attach_pinned(hooks_under_test(), None, Pins::open(&path).unwrap(), end.as_ref()).unwrap();

    assert_eq!(restart.before.end, end, "where the record goes on");
    let told = restart.kept.told().get(&cgroup.id).map_or(0, |told| told.told[Operation::Open as usize]);
    let left = of_cgroup(restart.before.records, cgroup.id);
    (told, left.iter().map(|attempt| attempt.standing).collect())
}

#[tokio::test]
async fn of_lines_that_were_being_written_those_count_that_are_in_the_record() {
    use Standing::{New, Told};
    assert_eq!(told_after_a_crash(Some(2)), (2, vec![Told, Told, New]));
}

#[tokio::test]
async fn where_nobody_can_say_which_lines_are_in_the_record_they_are_told_again() {
    use Standing::New;
    assert_eq!(told_after_a_crash(None), (0, vec![New, New, New]));
}

/// Learning mode, without what others do on this machine meanwhile. To be called before [`stage`].
fn observing() -> Option<Observing> {
    let inode = fs::metadata("/proc/thread-self/ns/mnt").unwrap().ino();
    Some(Observing { node_mount_namespace: Some(inode.try_into().unwrap()) })
}

/// Has a process of the cgroup make so many folders in `folder`, named by `name` and a number.
fn make_folders(cgroup: &Cgroup, folder: &Path, name: &str, count: usize) {
    let path = |number| CString::new(folder.join(format!("{name}{number}")).to_str().unwrap()).unwrap();
    let paths: Vec<_> = (0..count).map(path).collect();
    cgroup.run(|| {
        for path in &paths {
            // SAFETY: a NUL-terminated path.
            unsafe { libc::mkdir(path.as_ptr(), 0o755) };
        }
    });
}

/// What was left of writes that succeeded: in which folder, and what is to be done about it.
fn observed(records: Vec<Record>, cgroup: &Cgroup) -> Vec<(PathBuf, Standing)> {
    let requested =
        |attempt: &Attempt| PathBuf::from(String::from_utf8(attempt.path.requested.clone().unwrap()).unwrap());
    let folder = |attempt: &Attempt| requested(attempt).parent().unwrap().to_owned();
    let attempts = of_kind(records, RecordKind::WriteObserved, cgroup.id);
    attempts.iter().map(|attempt| (folder(attempt), attempt.standing)).collect()
}

#[tokio::test]
async fn the_next_agent_goes_on_with_learning_mode_and_knows_what_was_told() {
    let observing = observing();
    let (_folder, path) = stage();
    let folders = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let cgroup = Cgroup::new("learning");
    let (sensor, mut stream, counters, restart) = attach_observing(&path, observing);
    make_folders(&cgroup, folders[0].path(), "a", 1);
    make_folders(&cgroup, folders[1].path(), "a", 1);
    // In the slot of the same number as one that counts these, for all anybody knows.
    cgroup.run(|| write_numbered(1, 0));
    let mut records = Vec::new();
    while stream.drain(&mut records) {}
    let attempts = of_kind(records, RecordKind::WriteObserved, cgroup.id);
    assert_eq!(attempts.len(), 2);
    let mark = Mark { cgroup_id: cgroup.id, operation: Operation::Mkdir, count: 0, origin: attempts[0].origin };
    restart.kept.begin([Some(&mark)].into_iter());
    restart.kept.commit(1, None);
    let coverage = sensor.coverage().len();
    sensor.leave();
    drop((stream, counters, restart));
    make_folders(&cgroup, folders[0].path(), "b", 5);
    make_folders(&cgroup, folders[2].path(), "b", 1);

    let (sensor, stream, _counters, restart) = attach_observing(&path, observing);

    assert!(restart.before.same);
    assert_eq!(sensor.coverage().len(), coverage);
    assert!(sensor.coverage().contains(&("observed_x86_64", true)));
    let left = restart.before.records;
    assert_eq!(of_cgroup(left.clone(), cgroup.id).len(), 1, "the refused write is not told yet");
    let expected = [Standing::Told, Standing::New, Standing::New];
    let expected: Vec<_> = folders.iter().map(|folder| folder.path().to_owned()).zip(expected).collect();
    assert_eq!(observed(left, &cgroup), expected);
    assert_eq!(stream.observed().unwrap().waiting(attempts[0].fold.unwrap()), 5);
    assert!(restart.kept.told().get(&cgroup.id).is_none_or(|told| told.told[Operation::Mkdir as usize] == 0));
    drop(sensor);
    assert!(!path.exists(), "nothing is left");
}

#[tokio::test]
async fn learning_mode_that_is_turned_off_is_replaced_and_what_it_saw_is_told() {
    let observing = observing();
    let (_folder, path) = stage();
    let [one, other] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let cgroup = Cgroup::new("unlearning");
    let (sensor, stream, counters, restart) = attach_observing(&path, observing);
    let builds = || fs::read_dir(&path).unwrap().map(|build| build.unwrap().file_name()).collect::<Vec<_>>();
    let before = builds();
    make_folders(&cgroup, one.path(), "a", 3);
    cgroup.run(|| (0..4).for_each(|_| write_numbered(1, 0)));
    sensor.leave();
    drop((stream, counters, restart));

    let (sensor, mut stream, counters, restart) = attach(&path);

    assert!(!restart.before.same);
    assert!(builds().len() == 1 && builds() != before, "the programs are others: {before:?}, {:?}", builds());
    let left = restart.before.records;
    let standings = |attempts: &[Attempt]| attempts.iter().map(|attempt| attempt.standing).collect::<Vec<_>>();
    assert_eq!(standings(&of_cgroup(left.clone(), cgroup.id)), [Standing::Left(4)]);
    assert_eq!(observed(left, &cgroup), [(one.path().to_owned(), Standing::Left(3))]);
    make_folders(&cgroup, other.path(), "a", 3);
    cgroup.run(|| write_numbered(2, 0));
    let mut records = Vec::new();
    while stream.drain(&mut records) {}
    assert_eq!(of_cgroup(records.clone(), cgroup.id).len(), 1);
    assert_eq!(observed(records, &cgroup), []);
    assert!(stream.observed().is_none() && counters.read(Counter::WriteObserved).unwrap() == 0);
    drop(sensor);
    assert!(!path.exists(), "nothing is left");
}

#[tokio::test]
async fn programs_that_are_not_whole_any_more_are_replaced_and_what_they_saw_is_told() {
    let (_folder, path) = stage();
    let cgroup = Cgroup::new("damaged");
    let (sensor, stream, counters, restart) = attach(&path);
    cgroup.run(|| (0..4).for_each(|_| write_numbered(1, 0)));
    sensor.leave();
    drop((stream, counters, restart));
    let builds = || fs::read_dir(&path).unwrap().map(|build| build.unwrap().path()).collect::<Vec<_>>();
    for pin in fs::read_dir(&builds()[0]).unwrap().map(|pin| pin.unwrap()) {
        if pin.file_name().to_string_lossy().starts_with("link_") {
            fs::remove_file(pin.path()).unwrap();
        }
    }

    let (sensor, _stream, _counters, restart) = attach(&path);

    assert!(!restart.before.same);
    assert_eq!(builds().len(), 1);
    let left = of_cgroup(restart.before.records, cgroup.id);
    assert_eq!(left.iter().map(|attempt| attempt.standing).collect::<Vec<_>>(), [Standing::Left(4)]);
    drop(sensor);
    assert!(!path.exists(), "nothing is left");
}

#[tokio::test]
async fn an_agent_that_ends_before_it_has_told_the_gap_leaves_it_to_the_next_one() {
    let (_folder, path) = stage();
    let (sensor, stream, counters, restart) = attach(&path);
    let alive_ns = restart.kept.alive_ns();
    sensor.leave();
    drop((stream, counters, restart));
    for observing in [None, Some(Observing { node_mount_namespace: None })] {
        let (sensor, stream, counters, restart) = attach_observing(&path, observing);
        assert_eq!(restart.before.alive_ns, Some(alive_ns));
        restart.kept.gap_is_told_with_line(1);
        restart.kept.is_alive(alive_ns + 1);
        assert_eq!(restart.kept.alive_ns(), alive_ns, "the record does not tell it yet");
        sensor.leave();
        drop((stream, counters, restart));
    }
    let (sensor, _stream, _counters, restart) = attach(&path);
    assert_eq!(restart.before.alive_ns, Some(alive_ns));
    restart.kept.gap_is_told_with_line(1);
    restart.kept.begin([None].into_iter());
    restart.kept.commit(1, None);
    assert!(restart.kept.alive_ns() > alive_ns);
    drop(sensor);
}

#[test]
fn a_folder_that_an_agent_removes_as_it_ends_is_made_anew_by_the_one_that_waits() {
    let (_folder, path) = stage();
    let first = Pins::open(&path).unwrap();
    let next = thread::spawn({
        let path = path.clone();
        move || Pins::open(&path)
    });
    // Until it waits.
    thread::sleep(Duration::from_millis(100));
    first.uninstall().unwrap();
    let next = next.join().unwrap().unwrap();
    assert!(path.is_dir(), "it has what is there");
    next.uninstall().unwrap();
}
