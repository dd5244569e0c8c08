//! What counts as an answer to a call.

use detector_common::abi::Abi;

use super::*;
use crate::finding::event::{AgentNote, AgentWhat, File, Process, Severity};

const PID: u32 = 7;
const EROFS: i64 = -30;

fn attempt(name: &str) -> (&'static Attempt, &'static Call) {
    let attempt = crate::cli::demo::attempts::find(name).unwrap();
    (attempt, &attempt.calls[0])
}

/// What the attempt "mkdir" should make.
fn mkdir() -> Seen {
    let note = AgentNote { what: AgentWhat::Start, details: Vec::new() };
    let (attempt, call) = attempt("mkdir");
    let process = Process {
        pid: PID,
        tid: PID,
        ppid: 1,
        container_pid: PID,
        uid: 0,
        gid: 0,
        comm: b"mkdir".to_vec(),
        exe: None,
        args: Vec::new(),
        cwd: None,
        start_time_unix_ns: 0,
        cap_sys_admin: true,
        user_ns_level: 0,
        ancestors: Vec::new(),
        truncated: Vec::new(),
    };
    let event = Event {
        kind: Kind::WriteDenied,
        operation: Some(Operation::Mkdir),
        outcome: Some(Outcome::Denied),
        file: Some(File { path: Some(b"/var/cache/app".to_vec()), ..File::default() }),
        process: Some(process),
        abi: attempt.abi(),
        agent: None,
        ..Event::agent(note, 0, Severity::Low)
    };
    Seen { syscall: call.syscall, result: EROFS, event }
}

fn judged(name: &str, result: i64, mut seen: Vec<Seen>) -> Answer {
    let (attempt, call) = attempt(name);
    judge(attempt, call, PID, result, &mut seen)
}

/// The words of a wrong answer.
fn fault(change: impl FnOnce(&mut Seen)) -> String {
    let mut seen = mkdir();
    change(&mut seen);
    match judged("mkdir", EROFS, vec![seen]) {
        Answer::Wrong(Some(_), how) => how,
        other => panic!("a wrong answer, not {other:?}"),
    }
}

#[test]
fn one_event_that_is_right_is_an_answer() {
    assert!(matches!(judged("mkdir", EROFS, vec![mkdir()]), Answer::Right(_)));
}

#[test]
fn no_event_and_two_events_are_none() {
    assert!(matches!(judged("mkdir", EROFS, vec![]), Answer::Wrong(None, how) if how == "not seen"));
    let twice = judged("mkdir", EROFS, vec![mkdir(), mkdir()]);
    assert!(matches!(twice, Answer::Wrong(Some(_), how) if how == "seen 2 times"));
}

#[test]
fn an_event_that_says_something_else_is_none_and_says_what() {
    let other_path = |seen: &mut Seen| seen.event.file.as_mut().unwrap().path = Some(b"/var".to_vec());
    assert_eq!(fault(other_path), "seen, but with the path /var instead of /var/cache/app");
    assert!(
        fault(|seen| seen.event.operation = Some(Operation::Rmdir)).contains("the operation rmdir instead of mkdir")
    );
    assert!(fault(|seen| seen.event.kind = Kind::WriteObserved).contains("the kind write_observed"));
    assert!(fault(|seen| seen.result = -17).contains("the answer -17 instead of -30"));
    assert!(fault(|seen| seen.event.outcome = Some(Outcome::Succeeded)).contains("the outcome succeeded"));
    assert!(fault(|seen| seen.event.abi = Some(Abi::IoUring)).contains("the door io_uring"));
    assert!(
        fault(|seen| seen.event.process.as_mut().unwrap().container_pid = 8).contains("the process 8 instead of 7")
    );
    assert!(fault(|seen| seen.event.process = None).contains("the process - instead of mkdir"));
}

#[test]
fn a_write_that_the_seal_lets_through_is_no_answer_even_unseen() {
    assert!(matches!(judged("mkdir", 0, vec![]), Answer::Wrong(None, _)));
}

#[test]
fn a_call_that_needs_no_event_has_none() {
    assert!(matches!(judged("mkdir-existing", -17, vec![]), Answer::Nothing));
    assert!(matches!(judged("mkdir-existing", -17, vec![mkdir()]), Answer::Wrong(Some(_), _)));
}
