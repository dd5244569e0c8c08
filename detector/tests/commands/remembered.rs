//! What a killed agent had noted, and what it had in its memory alone, of a container of which containerd has not told yet.

use std::time::SystemTime;

use super::stage::{Stage, Unknown, kill, terminate, wait_until};

#[test]
fn what_was_told_as_cut_is_not_told_again() {
    const ATTEMPTS: u64 = 6000;
    let stage = Stage::new();
    let container = Unknown::new();
    // Refused writes and mount attempts of it that no event tells of.
    let cut = || {
        let notes = stage.notes("lost");
        let of_container = notes.iter().filter(|note| note["cgroup"]["id"] == container.id);
        of_container.map(|note| note["agent"]["events"]["budget"].as_u64().unwrap()).sum::<u64>()
    };
    let agent = stage.agent(&[]);
    container.run(|| {
        for _ in 0..ATTEMPTS {
            // SAFETY: a NUL-terminated path.
            unsafe { libc::umount2(c"/mnt/none".as_ptr(), 0) };
        }
    });
    wait_until("it is told that some were cut", || cut() > 0);
    kill(agent);
    terminate(stage.agent(&[]));
    assert_eq!(stage.told_of("mount_attempt", container.id) + cut(), ATTEMPTS);
    stage.verify();
}

#[test]
fn of_a_write_of_which_nothing_but_its_number_is_left_the_time_is_within_what_is_told() {
    let stage = Stage::new();
    let container = Unknown::new();
    let agent = stage.agent(&[]);
    let now = || jiff::Timestamp::try_from(SystemTime::now()).unwrap();
    let before = now();
    container.run(|| {
        // Longer than what is kept of a record.
        let mut path = [b'/'; 4090];
        path[..5].copy_from_slice(b"/mnt/");
        path[4088] = b'x';
        path[4089] = 0;
        // SAFETY: a NUL-terminated path.
        unsafe { libc::open(path.as_ptr().cast(), libc::O_WRONLY | libc::O_CREAT, 0o644) };
    });
    let after = now();
    // The agent looks for writes before it looks for this.
    // SAFETY: a NUL-terminated path.
    unsafe { libc::umount2(c"/mnt/none".as_ptr(), 0) };
    let is_ours = |event: &serde_json::Value| event["process"]["pid"] == std::process::id();
    wait_until("the agent has read it", || stage.events().iter().any(is_ours));
    kill(agent);
    terminate(stage.agent(&[]));
    let events = stage.events();
    let left: Vec<_> = events
        .iter()
        .filter(|event| event["kind"] == "write_denied" && event["cgroup"]["id"] == container.id)
        .collect();
    assert_eq!(left.len(), 1, "{left:#?}");
    assert!(left[0]["count"] == 1 && left[0]["file"].is_null(), "{left:#?}");
    let [first, last] = ["first_time", "last_time"].map(|when| left[0][when].as_str().unwrap().parse().unwrap());
    assert!(first <= before && after <= last, "{before} to {after}: {left:#?}");
    stage.verify();
}
