//! Puts the offsets of members into the instructions that load them. rustc emits no CO-RE relocations; instead, what is loaded for
//! each repeat has a [`PLACEHOLDER`] in the object.

use detector_common::offsets::{Offsets, PLACEHOLDER, UNAVAILABLE};
use object::{Object as _, ObjectSection as _, SectionKind};

use super::load::KernelError;

/// Bytes of an instruction (`struct bpf_insn`, `include/uapi/linux/bpf.h`): operation, registers, offset in two bytes, operand.
const INSTRUCTION: usize = 8;
/// The class of an operation and its mode (`include/uapi/linux/bpf_common.h`): to load a value from where a register points.
const CLASS_AND_MODE: u8 = 0xe7;
const LOAD: u8 = 0x61;

/// The object with the offsets of this kernel.
///
/// # Errors
/// [`KernelError::Mismatch`] where it is no object, and [`KernelError::FarMember`] where an instruction has no room for an offset.
pub(super) fn put_offsets(object: &[u8], offsets: &Offsets) -> Result<Vec<u8>, KernelError> {
    let malformed = |error: object::Error| KernelError::Mismatch(error.to_string());
    let sections: Vec<_> = object::File::parse(object)
        .map_err(malformed)?
        .sections()
        .filter(|section| section.kind() == SectionKind::Text)
        .filter_map(|section| section.file_range())
        .collect();
    let offsets: Vec<u32> = offsets.all().collect();
    let mut object = object.to_vec();
    for (start, length) in sections {
        let range = usize::try_from(start).unwrap_or(usize::MAX)..usize::try_from(start + length).unwrap_or(usize::MAX);
        for instruction in object.get_mut(range).unwrap_or_default().chunks_exact_mut(INSTRUCTION) {
            put_offset(instruction, &offsets)?;
        }
    }
    Ok(object)
}

fn put_offset(instruction: &mut [u8], offsets: &[u32]) -> Result<(), KernelError> {
    let &mut [operation, _, ref mut low, ref mut high, ..] = instruction else { return Ok(()) };
    if operation & CLASS_AND_MODE != LOAD {
        return Ok(());
    }
    let number = i16::from_le_bytes([*low, *high]).wrapping_sub(PLACEHOLDER);
    let Some(&offset) = usize::try_from(number).ok().and_then(|number| offsets.get(number)) else { return Ok(()) };
    // What is not there is not loaded: the programs look whether it is, and the verifier doesn't go on to the load.
    let offset = if offset == UNAVAILABLE { 0 } else { offset };
    let Ok(offset) = i16::try_from(offset) else { return Err(KernelError::FarMember(offset)) };
    [*low, *high] = offset.to_le_bytes();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loads so many bits to r1 from where r2 points.
    fn load(operation: u8, offset: i16) -> [u8; INSTRUCTION] {
        let [low, high] = offset.to_le_bytes();
        [operation, 0x21, low, high, 0, 0, 0, 0]
    }

    fn put(mut instruction: [u8; INSTRUCTION], offsets: &[u32]) -> Result<[u8; INSTRUCTION], KernelError> {
        put_offset(&mut instruction, offsets).map(|()| instruction)
    }

    #[test]
    fn a_load_gets_the_offset_of_its_member_whatever_its_size() {
        for operation in [0x61, 0x69, 0x71, 0x79] {
            assert_eq!(put(load(operation, PLACEHOLDER + 1), &[8, 0x980]).unwrap(), load(operation, 0x980));
        }
    }

    #[test]
    fn nothing_else_is_touched() {
        let of_stack = load(0x79, -512);
        let store = load(0x7b, PLACEHOLDER);
        let second_half_of_a_wide_number = [0, 0, 0, 0x80, 1, 0, 0, 0x80];
        for instruction in [of_stack, store, second_half_of_a_wide_number, load(0x79, 16)] {
            assert_eq!(put(instruction, &[8, 16]).unwrap(), instruction);
        }
    }

    #[test]
    fn an_offset_that_no_instruction_can_have_is_an_error() {
        assert!(matches!(put(load(0x79, PLACEHOLDER), &[40_000]), Err(KernelError::FarMember(40_000))));
        assert_eq!(put(load(0x79, PLACEHOLDER), &[UNAVAILABLE]).unwrap(), load(0x79, 0));
    }
}
