//! The moment at which the programs of one build stop and those of another begin. As long as they share a map in which they agree on
//! who reports a call, each call is reported by one of them ([`detector_common::takeover`]).

use std::thread;

use detector_common::takeover::{COMING, LEAVING, OFF, ON};

use super::{before::IN_THE_MIDDLE, load::KernelError, maps::Maps};

/// Has the programs of `next` report, with what is `covered` ([`Maps::arm`]), and those of the others report no more.
pub(super) fn switch(next: &mut Maps, covered: [u64; 2], others: &mut [&mut Maps]) -> Result<(), KernelError> {
    if let Some(before) = settle(next, others)? {
        let (covered_before, _) = before.covered()?;
        let is_younger = next.number()? > before.number()?;
        // Another take-over, so nothing counts that was noted in one before.
        let turn = (next.turn()? | 1).wrapping_add(1);
        next.set_coming_first(coming_first(is_younger, covered, covered_before))?;
        next.set_turn(turn | LEAVING & 1)?;
        before.ask(covered_before, LEAVING)?;
        next.ask(covered, COMING)?;
        // From then on both are asked about every call that is under way.
        thread::sleep(IN_THE_MIDDLE);
        next.set_turn(turn | COMING & 1)?;
        // From then on none is under way that was agreed on before.
        thread::sleep(IN_THE_MIDDLE);
    }
    next.arm(covered)?;
    // Of a build with which nothing can be agreed on, what ends between these two is reported by both.
    others.iter_mut().try_for_each(|other| other.disarm())
}

/// The operations of which `next` is asked before those that it replaces, of syscalls and of io_uring. A function ends before its
/// syscall does, and before a request of an io_uring is completed. At one function the programs that were attached last run first
/// (`__bpf_trampoline_link_prog`, `kernel/bpf/trampoline.c`, 6.1 to 6.18), at one tracepoint those that were attached first
/// (`func_add`, `kernel/tracepoint.c`). So what the younger have at functions they are asked about first, and all else last.
fn coming_first(is_younger: bool, next: [u64; 2], before: [u64; 2]) -> [u64; 2] {
    if is_younger { next } else { before.map(|covered| !covered) }
}

/// Of those that share the map, leaves one that reports, the one whose turn it is: an agent that was killed while it took over has
/// left two. That one, unless it is `next` itself or there is none.
fn settle<'a>(next: &mut Maps, others: &'a mut [&mut Maps]) -> Result<Option<&'a mut Maps>, KernelError> {
    let Some(agreement) = next.agreement() else { return Ok(None) };
    let turn = next.turn()?;
    let mut reporting = None;
    let weight_of = |maps: &Maps| maps.covered().map(|(_, party)| weight(party, turn));
    let mut heaviest = weight_of(next)?;
    for (index, other) in others.iter().enumerate().filter(|(_, other)| other.agreement() == Some(agreement)) {
        let weight = weight_of(other)?;
        if weight > heaviest {
            (heaviest, reporting) = (weight, Some(index));
        }
    }
    let steady = |maps: &mut Maps, reports: bool| match maps.covered()? {
        (_, OFF) => Ok(()),
        (covered, _) if reports => maps.arm(covered),
        _ => maps.disarm(),
    };
    let mut agree = next.is_agreeing()?;
    for other in others.iter().filter(|other| other.agreement() == Some(agreement)) {
        agree |= other.is_agreeing()?;
    }
    // Whose turn it is first: never do both fall silent.
    match reporting {
        Some(index) => {
            if let Some(other) = others.get_mut(index) {
                steady(other, true)?;
            }
            steady(next, false)?;
        }
        None => steady(next, true)?,
    }
    for (index, other) in others.iter_mut().enumerate() {
        if other.agreement() == Some(agreement) && reporting != Some(index) {
            steady(other, false)?;
        }
    }
    if agree {
        // From then on nobody goes by the turn any more.
        thread::sleep(IN_THE_MIDDLE);
    }
    Ok(reporting.and_then(|index| others.get_mut(index)).map(|other| &mut **other))
}

/// How much speaks for it that those who are told to be this `party` are those whose turn it is; 0: they report nothing.
fn weight(party: u64, turn: u64) -> u8 {
    match party {
        ON => 2,
        OFF => 0,
        party => u8::from(party & 1 == turn & 1),
    }
}

#[cfg(test)]
mod tests {
    use detector_common::takeover::AT_EXIT;

    use super::*;

    #[test]
    fn of_two_that_agree_the_one_whose_turn_it_is_goes_on_in_each_take_over() {
        for take_over in (0..10).step_by(2) {
            let [leaving, coming] = [LEAVING, COMING].map(|party| take_over | party & 1);
            assert_eq!((weight(LEAVING, leaving), weight(COMING, leaving)), (1, 0), "{leaving}");
            assert_eq!((weight(LEAVING, coming), weight(COMING, coming)), (0, 1), "{coming}");
            assert_eq!((weight(ON, coming), weight(OFF, coming)), (2, 0));
        }
    }

    #[test]
    fn at_functions_the_younger_ask_first_and_at_the_exits_of_syscalls_the_older() {
        const FUNCTION: u64 = 1 << 3;
        let has = |bits: u64, operation: u8| bits >> operation & 1 != 0;
        for (is_younger, next, before, first) in [
            (true, FUNCTION, FUNCTION, true),
            (true, FUNCTION, 0, true),
            (true, 0, FUNCTION, false),
            (true, 0, 0, false),
            // Back to an older build, of which the younger was killed when it took over.
            (false, FUNCTION, FUNCTION, false),
            (false, FUNCTION, 0, true),
            (false, 0, FUNCTION, false),
            (false, 0, 0, true),
        ] {
            let [syscalls, io_uring] = coming_first(is_younger, [next, 0], [before, 0]);
            assert_eq!(has(syscalls, 3), first, "{is_younger} {next} {before}");
            assert_eq!((has(syscalls, AT_EXIT), has(io_uring, 3)), (!is_younger, !is_younger));
        }
    }
}
