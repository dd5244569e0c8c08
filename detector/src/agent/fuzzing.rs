//! [`super::repeats`] and the kernel side's slots, for [`crate::fuzzing`].

use std::sync::{Arc, LazyLock};

use detector_common::{fold::SLOTS, operation::Operation, record::RecordKind};

use super::repeats::{First, Repeated, Repeats, Told};
use crate::{
    finding::Event,
    kernel::{
        self,
        folds::{FoldId, testing},
    },
};

/// Bytes of one step: what is done, with which slot, and a number.
const STEP: usize = 10;
/// Steps of one run at most.
const STEPS_MAX: usize = 4096;
/// Slots that are used: two would do, but for those at the table's ends.
const USED: [u32; 4] = [0, 1, 7, SLOTS as u32 - 1];

static EVENT: LazyLock<Event> = LazyLock::new(|| kernel::fuzzing::events().remove(0));

/// Does what the bytes say, each step as the kernel side or the agent would: in whatever order that is, each repeat is told once.
/// With words that no kernel side writes, nothing else is promised than that it ends. Whether the steps are whole.
pub(crate) fn folds(bytes: &[u8]) -> bool {
    let folds = Arc::new(testing::folds());
    let repeats = Repeats::new(RecordKind::WriteDenied, Arc::clone(&folds), None);
    let (mut counted, mut told, mut forged) = (0, 0, false);
    let mut tell = |repeated: &Repeated<'_>| {
        assert!(repeated.count > 0, "no repeat is no event");
        told += repeated.count;
        if let Some(event) = repeated.event() {
            assert!(event.count == repeated.count && event.first_time_unix_ns <= event.last_time_unix_ns);
        }
    };
    let steps = bytes.chunks_exact(STEP).take(STEPS_MAX);
    let whole = bytes.len().is_multiple_of(STEP);
    for step in steps {
        let slot = USED[usize::from(step[1]) % USED.len()];
        let number = u64::from_le_bytes(step[2..STEP].try_into().expect("eight of them"));
        match step[0] % 8 {
            // The kernel side gives a slot away only when nothing waits in it.
            0 => {
                testing::claim(&folds, slot);
            }
            1 => {
                if let Some(id) = testing::publish(&folds, slot) {
                    repeats.keep(first(id, number), &mut tell);
                }
            }
            // A record that was lost on its way.
            2 => {
                testing::publish(&folds, slot);
            }
            3 => counted += testing::count(&folds, slot, number % 8),
            4 => repeats.sweep(&mut tell),
            5 => repeats.forget(number % 2, &mut tell),
            // One that comes late, or never was.
            6 => repeats.keep(first(FoldId { slot, generation: number as u32 }, number), &mut tell),
            _ => {
                forged = true;
                testing::forge(&folds, slot, number);
            }
        }
        repeats.with_untold(|untold| assert!(untold.len() <= USED.len()));
    }
    for slot in USED {
        testing::publish(&folds, slot);
    }
    let left = repeats.finish(&mut tell);
    assert!(repeats.is_empty());
    assert!(forged || told + left == counted, "{told} were told and {left} left of {counted}");
    whole
}

fn first(id: FoldId, number: u64) -> First {
    let told = match number % 4 {
        0 => Told::Ignored("host_process"),
        1 => Told::Unknown("no_answer"),
        2 => Told::Unattributed(Box::new(EVENT.clone())),
        _ => Told::Event(Box::new(EVENT.clone())),
    };
    First { id, cgroup_id: number % 2, operation: Operation::Open, time_ns: number, told }
}

/// The lives of slots.
pub(crate) fn lives() -> Vec<Vec<u8>> {
    let step = |what: u8, slot: u8, number: u64| [[what, slot].as_slice(), &number.to_le_bytes()].concat();
    let life =
        |slot, of: u64| [step(0, slot, 0), step(1, slot, of), step(3, slot, 5), step(4, slot, 0), step(3, slot, 2)];
    vec![
        life(0, 3).concat(),
        [life(0, 3).concat(), life(3, 2).concat(), step(5, 0, 1), life(0, 0).concat()].concat(),
        [step(0, 1, 0), step(2, 1, 0), step(3, 1, 7), step(6, 1, 1 << 32), step(4, 1, 0)].concat(),
        [life(2, 3).concat(), step(7, 2, u64::MAX), step(4, 2, 0), life(2, 3).concat()].concat(),
    ]
}
