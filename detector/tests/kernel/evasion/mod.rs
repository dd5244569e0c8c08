//! The evasion suite: every door that a refused write or a change of mounts can come through, and every trick that we know of.
//!
//! A case is a process of its own that does one thing; what is told of it must be so, or must be the limit that the README tells
//! ([`table`]). Then programs of rosentry's are left out, in turn: a case is seen as long as its program is there, and not
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
    collections::BTreeSet,
    fs,
    time::{Duration, Instant},
};

use detector::kernel::{attempt::Attempt, plan::Hooks, points::POINTS, stream::Record};

use self::{
    calls::{Call, RUNS},
    case::Case,
    stage::{Player, Said},
};
use super::sensor::{Attached, hooks_under_test};

/// How long what is expected may take to come.
const PATIENCE: Duration = Duration::from_secs(10);

/// Every case.
pub fn cases() -> impl Iterator<Item = &'static Case> {
    [writes::CASES, processes::CASES, mounts::CASES].into_iter().flatten()
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
        let player = Player::play(&case.act);
        let pid = match &player.said {
            Said::Did(pid) => *pid,
            Said::Skipped(why) => {
                println!("    skipped: {why}");
                continue;
            }
        };
        let attempts = watch(&mut attached, &player, |attempts| !case.seen(attempts).is_empty());
        let [attempt] = case.seen(&attempts)[..] else {
            let told: Vec<_> = attempts.iter().map(case::event).collect();
            panic!("{}: seen {} times among {told:#?}", case.name, case.seen(&attempts).len());
        };
        assert_eq!(attempt.process.pid, pid, "{}: it is told who did it", case.name);
        (case.check)(attempt);
    }
}

/// Programs of the mode under test that are seen to matter by leaving them out.
fn hooks() -> Vec<&'static str> {
    let tracepoints = ["sys_exit", "io_uring_complete", "cgroup_mkdir", "cgroup_rmdir"];
    let functions = POINTS.iter().map(|point| point.exit).filter(|_| hooks_under_test() == Hooks::Fexit);
    tracepoints.into_iter().chain(functions).collect()
}

/// What to leave out in one round after the other: the programs are numbered from 1 on, and each round leaves out those with one
/// binary digit set. So every program is there in some rounds and left out in others, and no two in the same ones.
fn rounds() -> Vec<Vec<&'static str>> {
    let hooks = hooks();
    // None may be left out always.
    let digits = (hooks.len() + 2).next_power_of_two().trailing_zeros();
    let has_digit = |number: usize, digit: u32| number >> digit & 1 == 1;
    let numbered = hooks.iter().enumerate().map(|(index, hook)| (index + 1, *hook));
    let round =
        |digit| numbered.clone().filter(|&(number, _)| has_digit(number, digit)).map(|(_, hook)| hook).collect();
    (0..digits).map(round).collect()
}

#[test]
fn every_program_is_left_out_in_other_rounds_than_any_other_and_in_none_with_all() {
    let rounds = rounds();
    let of = |hook: &str| rounds.iter().map(|round| round.contains(&hook)).collect::<Vec<_>>();
    let patterns: BTreeSet<_> = hooks().iter().map(|hook| of(hook)).collect();
    assert_eq!(patterns.len(), hooks().len());
    assert!(patterns.iter().all(|pattern| pattern.contains(&true) && pattern.contains(&false)));
}

#[tokio::test]
async fn a_case_is_seen_by_its_program_and_by_no_other() {
    for left_out in rounds() {
        let mut attached = Attached::without(&left_out);
        for case in cases() {
            let player = Player::play(&case.act);
            if matches!(player.said, Said::Skipped(_)) {
                continue;
            }
            let is_watched = !left_out.contains(&case.hook());
            let attempts = watch(&mut attached, &player, |attempts| !is_watched || !case.seen(attempts).is_empty());
            let seen = !case.seen(&attempts).is_empty();
            assert_eq!(seen, is_watched, "{}: seen, without {left_out:?}", case.name);
        }
        let (made, removed) = are_cgroups_seen(&mut attached, &left_out);
        assert_eq!(made, !left_out.contains(&"cgroup_mkdir"), "a cgroup is made, without {left_out:?}");
        assert_eq!(removed, !left_out.contains(&"cgroup_rmdir"), "a cgroup is removed, without {left_out:?}");
    }
}

/// Whether it is seen that a cgroup is made, and that it is removed.
fn are_cgroups_seen(attached: &mut Attached, left_out: &[&str]) -> (bool, bool) {
    use std::os::unix::fs::MetadataExt as _;
    let folder = format!("{}/rosentry-test-short-lived-{}", processes::hierarchy(), std::process::id());
    fs::create_dir(&folder).unwrap();
    let inode = fs::metadata(&folder).unwrap().ino();
    fs::remove_dir(&folder).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let (mut made, mut removed) = (false, false);
    loop {
        for record in attached.records() {
            match record {
                Record::CgroupCreated { id, .. } => made |= id == inode,
                Record::CgroupRemoved { id, .. } => removed |= id == inode,
                Record::Attempt(_) => {}
            }
        }
        let all = (made || left_out.contains(&"cgroup_mkdir")) && (removed || left_out.contains(&"cgroup_rmdir"));
        if all || Instant::now() > deadline {
            return (made, removed);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test]
async fn a_call_is_seen_by_its_program_and_by_no_other() {
    let mut calls: Vec<BTreeSet<Call>> = Vec::new();
    let all = std::iter::once(Vec::new());
    for left_out in all.chain(rounds()) {
        let mut attached = Attached::without(&left_out);
        for (index, run) in RUNS.iter().enumerate() {
            let player = Player::play(&run.act);
            if left_out.is_empty() {
                // Nobody knows yet for how many to wait.
                std::thread::sleep(Duration::from_millis(100));
            }
            let is_watched = |call: &Call| !left_out.contains(&run.hook(call).as_str());
            let expected =
                calls.get(index).map(|calls| calls.iter().filter(|call| is_watched(call)).cloned().collect());
            let attempts = watch(&mut attached, &player, |attempts| {
                expected.as_ref().is_none_or(|expected| run.seen(attempts).is_superset(expected))
            });
            let seen = run.seen(&attempts);
            match expected {
                Some(expected) => assert_eq!(seen, expected, "{}: seen, without {left_out:?}", run.name),
                // Other tests see to it that these are all.
                None => {
                    assert!(seen.len() > 8, "{}: {seen:?}", run.name);
                    let hooks = hooks();
                    for call in &seen {
                        assert!(hooks.contains(&run.hook(call).as_str()), "{call:?}: {}", run.hook(call));
                    }
                    calls.push(seen);
                }
            }
        }
    }
}
