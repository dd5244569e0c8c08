//! A reader of BTF, the kernel's description of its own types: just enough to find members of structures.
//!
//! The format is that of `Documentation/bpf/btf.rst` and `include/uapi/linux/btf.h` (6.18). One pass notes where each type
//! starts and which structures have a name; members are read from the bytes when they are asked for. Why no crate does this:
//! `docs/decisions/0004-reading-btf.md`.

use std::collections::HashMap;

/// Why BTF could not be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum BtfError {
    /// Not BTF of this machine's byte order, or of another version.
    #[error("it does not begin as BTF of version 1 does")]
    Header,
    /// A section or a type goes on beyond the end.
    #[error("it ends early")]
    TooShort,
    /// A kind of type whose length is not known, so that nothing behind it can be read.
    #[error("it has types of the unknown kind {0}")]
    Kind(u32),
}

/// The types of a kernel.
pub(super) struct Types<'a> {
    /// The section of the types.
    types: &'a [u8],
    /// Where each type starts in it, by its id; id 0 is `void` and has none.
    starts: Vec<usize>,
    /// The structures and unions that have a name; the first of a name.
    structures: HashMap<&'a [u8], u32>,
    /// The functions; the first of a name.
    functions: HashMap<&'a [u8], u32>,
    /// The section of the names.
    names: &'a [u8],
}

// enum BTF_KIND_*
const INT: u32 = 1;
const POINTER: u32 = 2;
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;
const FORWARD: u32 = 7;
const TYPEDEF: u32 = 8;
const VOLATILE: u32 = 9;
const CONST: u32 = 10;
const RESTRICT: u32 = 11;
const FUNCTION: u32 = 12;
const PROTOTYPE: u32 = 13;
const VARIABLE: u32 = 14;
const SECTION: u32 = 15;
const FLOAT: u32 = 16;
const DECLARATION_TAG: u32 = 17;
const TYPE_TAG: u32 = 18;
const ENUM64: u32 = 19;

/// `struct btf_type`.
const TYPE_LEN: usize = 12;
/// `struct btf_member`.
const MEMBER_LEN: usize = 12;
/// Structures within structures, and names for them, that are followed; real ones are a handful deep.
const MAX_DEPTH: u32 = 32;

/// One `struct btf_type`.
#[derive(Clone, Copy)]
struct Type {
    name: u32,
    kind: u32,
    /// How many members, values or parameters follow.
    length: usize,
    /// Whether the offsets of members carry the size of a bit field in their upper byte.
    has_bit_fields: bool,
    /// The type that it refers to, or its size.
    refers_to: u32,
}

/// One `struct btf_member`.
struct Member {
    name: u32,
    type_id: u32,
    /// From the start of the structure; none for a bit field.
    offset: Option<u32>,
}

impl<'a> Types<'a> {
    /// Reads the table of types.
    ///
    /// # Errors
    /// See [`BtfError`].
    pub(super) fn parse(btf: &'a [u8]) -> Result<Self, BtfError> {
        // struct btf_header: magic, version, flags, hdr_len, type_off, type_len, str_off, str_len.
        const MAGIC_AND_VERSION_1: [u8; 3] = [0xeb_9f_u16.to_ne_bytes()[0], 0xeb_9f_u16.to_ne_bytes()[1], 1];
        if !btf.starts_with(&MAGIC_AND_VERSION_1) {
            return Err(BtfError::Header);
        }
        let section = |at: usize| {
            let from_header = |at| word(btf, at).map(|value| value as usize);
            let start = from_header(4)?.checked_add(from_header(at)?)?;
            btf.get(start..start.checked_add(from_header(at + 4)?)?)
        };
        let types = section(8).ok_or(BtfError::TooShort)?;
        let names = section(16).ok_or(BtfError::TooShort)?;
        let mut table =
            Self { types, starts: vec![usize::MAX], structures: HashMap::new(), functions: HashMap::new(), names };
        let mut start = 0;
        while start < types.len() {
            let found = table.type_at(start).ok_or(BtfError::TooShort)?;
            if matches!(found.kind, STRUCT | UNION) && found.name != 0 {
                let name = table.name(found.name).ok_or(BtfError::TooShort)?;
                let id = u32::try_from(table.starts.len()).map_err(|_| BtfError::TooShort)?;
                table.structures.entry(name).or_insert(id);
            } else if found.kind == FUNCTION {
                let name = table.name(found.name).ok_or(BtfError::TooShort)?;
                let id = u32::try_from(table.starts.len()).map_err(|_| BtfError::TooShort)?;
                table.functions.entry(name).or_insert(id);
            }
            table.starts.push(start);
            start += TYPE_LEN + payload_length(found)?;
        }
        Ok(table)
    }

    /// The offset in bytes of a member from the start of the structure or union `type_name`. `member` may go into nested ones by
    /// dots; unnamed ones are looked through. None where there is no such member, or it is a bit field.
    pub(super) fn offset_of(&self, type_name: &str, member: &str) -> Option<u32> {
        let mut structure = *self.structures.get(type_name.as_bytes())?;
        let mut offset = 0_u32;
        for name in member.split('.') {
            let (within, type_id) = self.find_member(structure, name.as_bytes(), MAX_DEPTH)?;
            offset = offset.checked_add(within)?;
            structure = type_id;
        }
        Some(offset)
    }

    /// Whether there is a function of this name, whose parameters are of these types (none: whatever they are): of a pointer,
    /// what it points to, behind a `*`.
    pub(super) fn has_function(&self, name: &str, parameters: Option<&[&str]>) -> bool {
        let found = || {
            let function = self.type_at(*self.starts.get(*self.functions.get(name.as_bytes())? as usize)?)?;
            let Some(parameters) = parameters else { return Some(()) };
            let start = *self.starts.get(function.refers_to as usize)?;
            let prototype = self.type_at(start)?;
            let is = |(index, wanted): (usize, &&str)| {
                let type_id = word(self.types, start + TYPE_LEN + index * 8 + 4)?;
                self.is_type(type_id, wanted)?.then_some(())
            };
            if prototype.length != parameters.len() {
                return None;
            }
            parameters.iter().enumerate().try_for_each(|parameter| is(parameter).ok_or(())).ok()
        };
        found().is_some()
    }

    /// Whether the type is the one that `wanted` names.
    fn is_type(&self, mut type_id: u32, wanted: &str) -> Option<bool> {
        let mut wanted = wanted;
        for _ in 0..MAX_DEPTH {
            if type_id == 0 {
                return Some(wanted == "void");
            }
            let found = self.type_at(*self.starts.get(usize::try_from(type_id).ok()?)?)?;
            match found.kind {
                POINTER => {
                    wanted = match wanted.strip_prefix('*') {
                        Some(pointee) => pointee,
                        None => return Some(false),
                    }
                }
                VOLATILE | CONST | RESTRICT | TYPE_TAG => {}
                _ => return Some(self.name(found.name)? == wanted.as_bytes()),
            }
            type_id = found.refers_to;
        }
        None
    }

    /// Offset and type of the member `name`.
    fn find_member(&self, type_id: u32, name: &[u8], depth: u32) -> Option<(u32, u32)> {
        let depth = depth.checked_sub(1)?;
        let (start, structure) = self.structure(type_id)?;
        (0..structure.length).find_map(|index| {
            let member = self.member_at(start + TYPE_LEN + index * MEMBER_LEN, structure.has_bit_fields)?;
            let offset = member.offset?;
            if member.name == 0 {
                let (within, type_id) = self.find_member(member.type_id, name, depth)?;
                return Some((offset.checked_add(within)?, type_id));
            }
            (self.name(member.name)? == name).then_some((offset, member.type_id))
        })
    }

    /// Start and head of the structure or union with this id, behind its names and qualifiers.
    fn structure(&self, mut type_id: u32) -> Option<(usize, Type)> {
        for _ in 0..MAX_DEPTH {
            let start = *self.starts.get(usize::try_from(type_id).ok()?)?;
            let found = self.type_at(start)?;
            match found.kind {
                STRUCT | UNION => return Some((start, found)),
                TYPEDEF | VOLATILE | CONST | RESTRICT | TYPE_TAG => type_id = found.refers_to,
                _ => return None,
            }
        }
        None
    }

    fn type_at(&self, start: usize) -> Option<Type> {
        let [name, info, refers_to] = words(self.types, start)?;
        Some(Type {
            name,
            kind: info >> 24 & 0x1f,
            length: (info & 0xffff) as usize,
            has_bit_fields: info >> 31 != 0,
            refers_to,
        })
    }

    fn member_at(&self, start: usize, has_bit_fields: bool) -> Option<Member> {
        let [name, type_id, place] = words(self.types, start)?;
        let (bits, bit_field_size) = if has_bit_fields { (place & 0xff_ffff, place >> 24) } else { (place, 0) };
        let offset = (bits % 8 == 0 && bit_field_size == 0).then_some(bits / 8);
        Some(Member { name, type_id, offset })
    }

    /// The name at `offset`, without its NUL.
    fn name(&self, offset: u32) -> Option<&'a [u8]> {
        let name = self.names.get(usize::try_from(offset).ok()?..)?;
        name.split(|&byte| byte == 0).next()
    }
}

/// Bytes behind the head of a type.
const fn payload_length(of: Type) -> Result<usize, BtfError> {
    Ok(match of.kind {
        INT | VARIABLE | DECLARATION_TAG => 4,
        ARRAY => 12,
        STRUCT | UNION => of.length * MEMBER_LEN,
        ENUM | PROTOTYPE => of.length * 8,
        SECTION | ENUM64 => of.length * 12,
        POINTER | FORWARD | TYPEDEF | VOLATILE | CONST | RESTRICT | FUNCTION | FLOAT | TYPE_TAG => 0,
        unknown => return Err(BtfError::Kind(unknown)),
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|&word| u32::from_ne_bytes(word))
}

/// Three words: what types and members begin with. Written without loops, because unoptimised, as in the tests, this takes most of
/// the time of an attach.
fn words(bytes: &[u8], at: usize) -> Option<[u32; 3]> {
    let &[a, b, c, d, e, f, g, h, i, j, k, l] = bytes.get(at..)?.first_chunk::<12>()?;
    Some([[a, b, c, d], [e, f, g, h], [i, j, k, l]].map(u32::from_ne_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Puts BTF together, type by type.
    #[derive(Default)]
    struct Builder {
        types: Vec<u8>,
        names: Vec<u8>,
        count: u32,
    }

    impl Builder {
        fn name(&mut self, name: &str) -> u32 {
            if self.names.is_empty() {
                self.names.push(0);
            }
            if name.is_empty() {
                return 0;
            }
            let offset = self.names.len();
            self.names.extend_from_slice(name.as_bytes());
            self.names.push(0);
            u32::try_from(offset).unwrap()
        }

        /// A type with its payload, and its id.
        fn add(&mut self, name: &str, info: u32, refers_to: u32, payload: &[u32]) -> u32 {
            let name = self.name(name);
            for word in [name, info, refers_to].iter().chain(payload) {
                self.types.extend_from_slice(&word.to_ne_bytes());
            }
            self.count += 1;
            self.count
        }

        /// A structure of members (name, type, place).
        fn structure(&mut self, name: &str, flag: u32, members: &[(&str, u32, u32)]) -> u32 {
            let payload: Vec<u32> =
                members.iter().flat_map(|&(name, id, place)| [self.name(name), id, place]).collect();
            self.add(name, flag << 31 | STRUCT << 24 | u32::try_from(members.len()).unwrap(), 64, &payload)
        }

        fn finish(&self) -> Vec<u8> {
            let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap();
            let mut btf = vec![];
            btf.extend_from_slice(&0xeb9f_u16.to_ne_bytes());
            btf.extend_from_slice(&[1, 0]);
            for word in [24, 0, length(&self.types), length(&self.types), length(&self.names)] {
                btf.extend_from_slice(&word.to_ne_bytes());
            }
            btf.extend_from_slice(&self.types);
            btf.extend_from_slice(&self.names);
            btf
        }
    }

    fn kernel() -> Vec<u8> {
        let mut builder = Builder::default();
        let int = builder.add("int", INT << 24, 4, &[32]);
        builder.add("values", ENUM << 24 | 2, 4, &[0, 0, 0, 1]);
        let inner = builder.structure("inner", 0, &[("a", int, 0), ("b", int, 32)]);
        let named = builder.add("inner_t", TYPEDEF << 24, inner, &[]);
        let constant = builder.add("", CONST << 24, named, &[]);
        let unnamed = builder.structure("", 0, &[("c", int, 0), ("d", constant, 64)]);
        builder.structure("outer", 0, &[("first", int, 0), ("", unnamed, 128), ("last", inner, 256)]);
        builder.structure("bits", 1, &[("whole", int, 32), ("part", int, 3 << 24 | 64), ("odd", int, 67)]);
        builder.structure("inner", 0, &[("b", int, 0)]);
        builder.finish()
    }

    #[test]
    fn a_member_is_found_at_its_offset_in_bytes() {
        let btf = kernel();
        let types = Types::parse(&btf).unwrap();
        assert_eq!(types.offset_of("outer", "first"), Some(0));
        assert_eq!(types.offset_of("outer", "last"), Some(32));
    }

    #[test]
    fn unnamed_structures_are_looked_through_and_dots_lead_into_named_ones() {
        let btf = kernel();
        let types = Types::parse(&btf).unwrap();
        assert_eq!(types.offset_of("outer", "c"), Some(16));
        assert_eq!(types.offset_of("outer", "last.b"), Some(36));
        assert_eq!(types.offset_of("outer", "d.b"), Some(28), "through const and typedef");
    }

    #[test]
    fn the_first_of_two_structures_with_one_name_counts() {
        let btf = kernel();
        assert_eq!(Types::parse(&btf).unwrap().offset_of("inner", "b"), Some(4));
    }

    #[test]
    fn a_bit_field_and_what_is_not_there_have_no_offset() {
        let btf = kernel();
        let types = Types::parse(&btf).unwrap();
        assert_eq!(types.offset_of("bits", "whole"), Some(4));
        for member in ["part", "odd", "nothing", "whole.deeper"] {
            assert_eq!(types.offset_of("bits", member), None, "{member}");
        }
        assert_eq!(types.offset_of("nothing", "a"), None);
    }

    #[test]
    fn a_structure_within_itself_ends_the_search() {
        let mut builder = Builder::default();
        builder.structure("endless", 0, &[("", 1, 0)]);
        let btf = builder.finish();
        assert_eq!(Types::parse(&btf).unwrap().offset_of("endless", "a"), None);
    }

    #[test]
    fn what_is_cut_short_or_no_btf_is_an_error() {
        let btf = kernel();
        for end in 0..btf.len() {
            assert!(Types::parse(&btf[..end]).is_err(), "{end} bytes of {}", btf.len());
        }
        assert_eq!(Types::parse(b"\x7fELF and so on").err(), Some(BtfError::Header));
    }

    #[test]
    fn an_unknown_kind_is_named() {
        let mut builder = Builder::default();
        builder.add("new", 30 << 24, 0, &[]);
        assert_eq!(Types::parse(&builder.finish()).err(), Some(BtfError::Kind(30)));
    }
}
