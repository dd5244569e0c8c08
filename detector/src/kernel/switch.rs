//! The moment at which the programs of one build stop and those of another begin. As long as they share a map in which they agree on
//! who reports a call, each call is reported by one of them ([`detector_common::takeover`]).

use std::thread;

use detector_common::takeover::{COMING, LEAVING, OFF, ON};

use super::{before::IN_THE_MIDDLE, load::KernelError, maps::Maps};

/// Has the programs of `next` report, with what is `covered` ([`Maps::arm`]), and those of the others report no more.
pub(super) fn switch(next: &mut Maps, covered: [u64; 2], others: &mut [&mut Maps]) -> Result<(), KernelError> {
    if let Some(before) = settle(next, others)? {
        let (covered_before, _) = before.covered()?;
        next.set_turn(LEAVING)?;
        before.ask(covered_before, LEAVING)?;
        next.ask(covered, COMING)?;
        // From then on every call that is under way is asked about by both, and nothing is noted that only one has asked about.
        thread::sleep(IN_THE_MIDDLE);
        next.forget_agreed()?;
        next.set_turn(COMING)?;
        // From then on none is under way that was agreed on before.
        thread::sleep(IN_THE_MIDDLE);
    }
    next.arm(covered)?;
    // Of a build with which nothing can be agreed on, what ends between these two is reported by both.
    others.iter_mut().try_for_each(|other| other.disarm())
}

/// Of those that share the map, leaves one that reports, the one whose turn it is: an agent that was killed while it took over has
/// left two. That one, unless it is `next` itself or there is none.
fn settle<'a>(next: &mut Maps, others: &'a mut [&mut Maps]) -> Result<Option<&'a mut Maps>, KernelError> {
    let Some(agreement) = next.agreement() else { return Ok(None) };
    let turn = next.turn()?;
    let mut reporting = None;
    let mut heaviest = weight(next, turn)?;
    for (index, other) in others.iter().enumerate().filter(|(_, other)| other.agreement() == Some(agreement)) {
        let weight = weight(other, turn)?;
        if weight > heaviest {
            (heaviest, reporting) = (weight, Some(index));
        }
    }
    let steady = |maps: &mut Maps, reports: bool| match maps.covered()? {
        (_, OFF) => Ok(()),
        (covered, _) if reports => maps.arm(covered),
        _ => maps.disarm(),
    };
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
    Ok(reporting.and_then(|index| others.get_mut(index)).map(|other| &mut **other))
}

/// How much speaks for it that the programs are those whose turn it is; 0: they report nothing.
fn weight(maps: &Maps, turn: u64) -> Result<u8, KernelError> {
    let (_, party) = maps.covered()?;
    Ok(match party {
        ON => 2,
        OFF => 0,
        party => u8::from(party & 1 == turn),
    })
}
