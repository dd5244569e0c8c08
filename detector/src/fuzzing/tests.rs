//! The targets, with bytes of chance: arbitrary ones, and seeds that were tampered with.

use proptest::{collection::vec, prelude::*, sample::Index, test_runner::TestRunner};

use super::*;

/// One thing that is done to bytes.
#[derive(Clone, Debug)]
enum Change {
    /// A byte becomes another.
    Byte(Index, u8),
    /// A number of two, four or eight bytes becomes one at the edge of what it can be.
    Number(Index, usize, bool),
    /// The end is missing.
    Cut(Index),
    /// A part is missing.
    Remove(Index, Index),
    /// A part is there twice.
    Repeat(Index, Index),
    /// Something stands in between.
    Insert(Index, Vec<u8>),
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<Index>;
    prop_oneof![
        4 => (at(), any::<u8>()).prop_map(|(at, byte)| Change::Byte(at, byte)),
        2 => (at(), prop_oneof![Just(2), Just(4), Just(8)], any::<bool>())
            .prop_map(|(at, size, most)| Change::Number(at, size, most)),
        1 => at().prop_map(Change::Cut),
        1 => (at(), at()).prop_map(|(from, to)| Change::Remove(from, to)),
        1 => (at(), at()).prop_map(|(from, to)| Change::Repeat(from, to)),
        1 => (at(), vec(any::<u8>(), 1..20)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        1 => (at(), "[\\x00-\\x1f\"\\\\{}\\[\\]:,= ]{1,5}|(\\x1b\\[2J)").prop_map(|(at, text)| Change::Insert(at, text.into())),
    ]
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let place = |at: &Index, bytes: &[u8]| at.index(bytes.len() + 1);
        let part = |from: &Index, to: &Index, bytes: &[u8]| {
            let (from, to) = (place(from, bytes), place(to, bytes));
            from.min(to)..from.max(to)
        };
        match self {
            Self::Byte(at, byte) => {
                let at = place(at, bytes);
                if let Some(changed) = bytes.get_mut(at) {
                    *changed = *byte;
                }
            }
            Self::Number(at, size, most) => {
                let at = place(at, bytes);
                if let Some(number) = bytes.get_mut(at..at + size) {
                    number.fill(if *most { 0xff } else { 0 });
                }
            }
            Self::Cut(at) => bytes.truncate(place(at, bytes)),
            Self::Remove(from, to) => drop(bytes.drain(part(from, to, bytes))),
            Self::Repeat(from, to) => {
                let part = part(from, to, bytes);
                let (end, copy) = (part.end, bytes[part].to_vec());
                bytes.splice(end..end, copy);
            }
            Self::Insert(at, inserted) => {
                let at = place(at, bytes);
                bytes.splice(at..at, inserted.iter().copied());
            }
        }
    }
}

fn tampered(target: &Target) -> impl Strategy<Value = Vec<u8>> + use<> {
    (proptest::sample::select(target.seeds()), vec(change(), 0..6)).prop_map(|(mut bytes, changes)| {
        changes.iter().for_each(|change| change.apply(&mut bytes));
        bytes
    })
}

fn run(target: &Target) {
    let bytes = prop_oneof![1 => vec(any::<u8>(), 0..600), 7 => tampered(target)];
    let result = TestRunner::new(ProptestConfig::default()).run(&bytes, |bytes| {
        target.run(&bytes);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{}: {error}", target.name);
    }
}

#[test]
fn no_record_of_the_kernel_side_makes_a_broken_line() {
    run(&KERNEL_RECORD);
}

#[test]
fn no_oci_spec_crashes_its_reader() {
    run(&OCI_SPEC);
}

#[test]
fn no_record_of_containerd_makes_a_broken_line() {
    run(&CONTAINERD_RECORD);
}

#[test]
fn no_event_of_containerd_crashes_its_follower() {
    run(&CONTAINERD_EVENTS);
}

#[test]
fn no_event_file_crashes_verify_or_makes_it_tell_more_than_text() {
    run(&EVENT_FILE);
}

#[test]
fn a_configuration_is_taken_or_refused_in_one_sentence() {
    run(&CONFIG);
}

#[test]
fn no_file_of_proc_crashes_its_reader() {
    run(&PROC);
}

#[test]
fn no_order_of_what_happens_to_a_slot_loses_a_repeat_or_tells_it_twice() {
    run(&FOLDS);
}

#[test]
fn every_seed_is_what_its_reader_takes() {
    for target in TARGETS {
        for (number, seed) in target.seeds().iter().enumerate() {
            assert!(target.run(seed), "{} {number}", target.name);
        }
    }
}

#[test]
fn no_seed_that_is_cut_does_harm() {
    for target in TARGETS {
        for seed in target.seeds() {
            // At each place of a short one, at some of a long one.
            (0..seed.len()).step_by(1 + seed.len() / 500).for_each(|end| {
                target.run(&seed[..end]);
            });
        }
    }
}

#[test]
fn each_target_has_a_program_for_the_fuzzer_and_each_program_a_target() {
    let manifest = include_str!("../../../fuzz/Cargo.toml").parse::<toml::Table>().unwrap();
    let programs = manifest["bin"].as_array().unwrap().iter().map(|program| program["name"].as_str().unwrap());
    assert_eq!(programs.collect::<Vec<_>>(), TARGETS.map(|target| target.name));
    for target in TARGETS {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../fuzz/fuzz_targets/{}.rs", target.name));
        let program = fs::read_to_string(program).unwrap();
        assert!(program.contains(&target.name.to_uppercase()), "{}", target.name);
    }
}
