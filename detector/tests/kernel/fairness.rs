//! A cgroup that floods costs itself detail, and its neighbours nothing.

use detector::kernel::attempt::Attempt;
use detector_common::{counter::Counter, operation::Operation, record::RecordKind};

use super::{
    cgroup::{Cgroup, write_numbered},
    sealed::Sealed,
    sensor::Attached,
};

fn of(counted: &[(Attempt, u64)], cgroup: &Cgroup) -> Vec<Attempt> {
    counted.iter().filter(|(attempt, _)| attempt.cgroup_id == cgroup.id).map(|(attempt, _)| attempt.clone()).collect()
}

#[tokio::test]
async fn a_flood_of_distinct_paths_takes_nothing_from_a_quiet_neighbour() {
    const FLOOD: u32 = 100_000;
    const QUIET: u32 = 100;
    let mut attached = Attached::new();
    let (flooding, quiet) = (Cgroup::new("flooding"), Cgroup::new("quiet"));
    let counted = attached.watch_all(|| {
        Sealed::new();
        let flood = flooding.start(|| (0..FLOOD).for_each(|number| write_numbered(number, 0)));
        let neighbour = quiet.start(|| {
            for number in 0..QUIET {
                write_numbered(number, 0);
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
        });
        neighbour.wait();
        flood.wait();
    });
    assert_eq!(of(&counted, &quiet).len(), QUIET as usize, "each of the neighbour's is told in full");
    let tally = attached.tally(flooding.id);
    let open = Operation::Open as usize;
    assert_eq!(tally.denied[open], u64::from(FLOOD));
    let told: u64 =
        counted.iter().filter(|(attempt, _)| attempt.cgroup_id == flooding.id).map(|(_, count)| count).sum();
    assert_eq!(told + tally.untold[open], u64::from(FLOOD), "what was cut is counted");
    assert!(tally.cut_writes > 0 && told > 0, "{told} were told, {} were cut", tally.cut_writes);
}

#[tokio::test]
async fn a_flood_of_mount_attempts_takes_nothing_from_a_quiet_neighbour() {
    const FLOOD: u64 = 20_000;
    let mut attached = Attached::new();
    let (flooding, quiet) = (Cgroup::new("mounts"), Cgroup::new("quiet-mounts"));
    // SAFETY: a NUL-terminated path.
    let unmount = || unsafe { libc::umount2(c"/mnt/etc".as_ptr(), 0) };
    let before = attached.counters.read(Counter::MountAttempt).unwrap();
    // Nobody takes what comes, as if the reader were slow.
    let counted = attached.watch_undrained(|| {
        Sealed::new();
        flooding.run(|| (0..FLOOD).for_each(|_| _ = unmount()));
        quiet.run(|| _ = unmount());
    });
    let of_quiet = of(&counted, &quiet);
    assert!(matches!(of_quiet.as_slice(), [attempt] if attempt.kind == RecordKind::MountAttempt), "{of_quiet:?}");
    let told = u64::try_from(of(&counted, &flooding).len()).unwrap();
    assert_eq!(told + attached.tally(flooding.id).cut_mounts, FLOOD);
    assert!(attached.counters.read(Counter::MountAttempt).unwrap() - before > FLOOD, "each is counted");
    assert_eq!(attached.counters.read(Counter::UrgentRingFull).unwrap(), 0);
}
