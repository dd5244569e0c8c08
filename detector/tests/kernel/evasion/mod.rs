//! The evasion suite: every door that a refused write or a change of mounts can come through, and every trick that we know of.
//!
//! A case is a process of its own that does one thing; what is told of it must be so, or must be the limit that the README tells
//! ([`table`]). Then one program of rosentry's after the other is detached: a case is seen as long as its program is there, and not
//! without it, so that nothing else can have seen it.

mod calls;
mod case;
mod mounts;
mod processes;
mod rewriting;
mod stage;
mod table;
mod writes;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::{Duration, Instant},
};

use detector::kernel::{attempt::Attempt, points::POINTS, stream::Record};
use detector_common::{abi::Abi, counter::Counter};
use io_uring::{opcode, squeue::Flags};

use self::{
    calls::{Call, RUNS, Run},
    case::Case,
    stage::{Player, Said},
};
use super::{ring::Ring, sensor::Attached};

/// How long what is expected may take to come.
const PATIENCE: Duration = Duration::from_secs(60);

/// Every case.
pub fn cases() -> impl Iterator<Item = &'static Case> {
    [writes::CASES, processes::CASES, mounts::CASES].into_iter().flatten()
}

/// Plays a case. Nothing it does is a repeat of what a player before it has done, whose mounts may have stood at the same address.
fn play(attached: &mut Attached, act: &dyn Fn() -> Said) -> Player {
    attached.begin_anew();
    Player::play(act)
}

/// What is seen of the player, once `enough` of it has come, or patience has ended.
fn watch(attached: &mut Attached, player: &Player, enough: impl Fn(&[Attempt]) -> bool) -> Vec<Attempt> {
    let deadline = Instant::now() + PATIENCE;
    let mut attempts = attached.take(player.pid);
    while !enough(&attempts) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
        attempts.extend(attached.take(player.pid));
    }
    attempts
}

#[tokio::test]
async fn every_case_is_seen_once_with_its_path_its_effect_and_its_process() {
    let mut attached = Attached::new();
    for case in cases() {
        println!("{}", case.name);
        let player = play(&mut attached, &case.act);
        let pid = match &player.said {
            Said::Did(pid) => *pid,
            Said::Skipped(why) => {
                println!("    skipped: {why}");
                continue;
            }
        };
        let attempts = watch(&mut attached, &player, |attempts| !case.seen(attempts).is_empty());
        let [attempt] = case.seen(&attempts)[..] else {
            let told: Vec<_> = attempts.iter().map(case::shown).collect();
            panic!("{}: seen {} times among\n{}", case.name, case.seen(&attempts).len(), told.join("\n"));
        };
        assert_eq!(attempt.process.pid, pid, "{}: it is told who did it", case.name);
        (case.check)(attempt);
    }
}

/// Programs that something is seen by, in any mode.
fn programs() -> impl Iterator<Item = &'static str> {
    POINTS.iter().map(|point| point.exit).chain(["sys_exit", "io_uring_complete"])
}

#[tokio::test]
async fn a_case_is_seen_until_its_program_is_detached() {
    let mut attached = Attached::new();
    for program in programs() {
        // Whether it could be played.
        let seen = |attached: &mut Attached, case: &Case, wanted: bool| {
            let player = play(attached, &case.act);
            let skipped = matches!(player.said, Said::Skipped(_));
            let attempts = watch(attached, &player, |attempts| skipped || !wanted || !case.seen(attempts).is_empty());
            assert!(
                skipped || case.seen(&attempts).is_empty() != wanted,
                "{}: seen with {program}: {}",
                case.name,
                !wanted
            );
            !skipped
        };
        let of_program: Vec<_> = cases().filter(|case| case.hook() == program).collect();
        let played = of_program.iter().filter(|case| seen(&mut attached, case, true)).count();
        assert!(attached.sensor.detach(program) || played == 0, "{program} is attached");
        for case in of_program {
            seen(&mut attached, case, false);
        }
    }
}

#[tokio::test]
async fn a_call_is_seen_until_its_program_is_detached() {
    let mut attached = Attached::new();
    let seen_of = |attached: &mut Attached, run: &Run, wanted: Option<&BTreeSet<Call>>| {
        let player = play(attached, &run.act);
        if wanted.is_none() {
            // Nobody knows yet for how many to wait.
            std::thread::sleep(Duration::from_millis(100));
        }
        let is_all = |attempts: &[Attempt]| wanted.is_none_or(|wanted| run.seen(attempts).is_superset(wanted));
        run.seen(&watch(attached, &player, is_all))
    };
    // Other tests see to it that these are all. Of some times, as one that comes late may be missed.
    let all_of = |attached: &mut Attached, run| (0..3).flat_map(|_| seen_of(attached, run, None)).collect();
    let mut left: Vec<BTreeSet<Call>> = RUNS.iter().map(|run| all_of(&mut attached, run)).collect();
    assert!(left.iter().all(|calls| calls.len() > 8), "{left:?}");
    let hooks: Vec<BTreeMap<Call, String>> = RUNS
        .iter()
        .zip(&left)
        .map(|(run, calls)| calls.iter().map(|call| (call.clone(), run.hook(call))).collect())
        .collect();
    for program in programs() {
        let was_attached = attached.sensor.detach(program);
        for ((run, left), hooks) in RUNS.iter().zip(&mut left).zip(&hooks) {
            let before = left.len();
            left.retain(|call| hooks[call] != program);
            if left.len() < before {
                assert!(was_attached, "{program} is attached");
                assert_eq!(seen_of(&mut attached, run, Some(left)), *left, "{}: seen without {program}", run.name);
            }
        }
    }
    assert!(left.iter().all(BTreeSet::is_empty), "each call has its program: {left:?}");
}

/// Whether it is seen that a cgroup is made, and that it is removed; waits for those that are wanted.
fn are_cgroups_seen(attached: &mut Attached, wanted: [bool; 2]) -> [bool; 2] {
    use std::os::unix::fs::MetadataExt as _;
    let folder = format!("{}/rosentry-test-short-lived-{}", processes::hierarchy(), std::process::id());
    fs::create_dir(&folder).unwrap();
    let inode = fs::metadata(&folder).unwrap().ino();
    fs::remove_dir(&folder).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let mut seen = [false; 2];
    loop {
        for record in attached.records() {
            match record {
                Record::CgroupCreated { id, .. } => seen[0] |= id == inode,
                Record::CgroupRemoved { id, .. } => seen[1] |= id == inode,
                Record::Attempt(_) => {}
            }
        }
        if seen == wanted || Instant::now() > deadline {
            return seen;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test]
async fn a_cgroup_is_seen_until_its_programs_are_detached() {
    let mut attached = Attached::new();
    assert_eq!(are_cgroups_seen(&mut attached, [true, true]), [true, true]);
    assert!(attached.sensor.detach("cgroup_mkdir"));
    assert_eq!(are_cgroups_seen(&mut attached, [false, true]), [false, true]);
    assert!(attached.sensor.detach("cgroup_rmdir"));
    assert_eq!(are_cgroups_seen(&mut attached, [false, false]), [false, false]);
}

#[tokio::test]
async fn a_ring_hides_a_change_of_attributes_and_it_is_counted() {
    let mut attached = Attached::new();
    let hidden = |attached: &Attached| attached.counters.read(Counter::ResultHidden).unwrap();
    let before = hidden(&attached);
    let player = play(&mut attached, &|| {
        let (name, value) = (c"user.a".as_ptr(), c"1".as_ptr().cast());
        let entry = opcode::SetXattr::new(name, value, c"/mnt/etc/passwd".as_ptr(), 1).build();
        let ring = &mut Ring::new();
        ring.submit(vec![entry.flags(Flags::SKIP_SUCCESS | Flags::IO_HARDLINK), opcode::Nop::new().build()]);
        assert_eq!(ring.results(1), [0], "the kernel tells of the second alone");
        Said::myself()
    });
    let attempts = watch(&mut attached, &player, |_| true);
    assert!(attempts.iter().all(|attempt| attempt.abi != Abi::IoUring), "a limit that the README tells: {attempts:?}");
    assert_eq!(hidden(&attached) - before, 1);
}
