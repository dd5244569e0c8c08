//! Where io_uring keeps the arguments of the operations that are watched: members of the command within `struct io_kiocb`.
//!
//! Which operation stands for which syscall is in [`crate::syscalls::SYSCALLS`]. User space looks the members up in the
//! kernel's BTF and hands the programs one table of offsets. Source: `io_uring/{openclose,fs,xattr,net}.c`, Linux 6.1 to 6.18.

use crate::offsets::UNAVAILABLE;

/// Numbers of operations at and above this are not in the table.
pub const OPCODES: usize = 64;

/// Where the arguments of one operation stand, in bytes from the start of its `struct io_kiocb`; [`UNAVAILABLE`] for those that
/// it does not have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(C)]
pub struct Members {
    /// File descriptor that the path is relative to, `int`.
    pub dirfd: u32,
    /// The path, `struct filename *`.
    pub path: u32,
    /// File descriptor that the second path is relative to, `int`.
    pub dirfd2: u32,
    /// The second path, `struct filename *`.
    pub path2: u32,
    /// Target of a symbolic link, `struct filename *`.
    pub source: u32,
    /// Name of an extended attribute, `struct xattr_name *`: the string itself.
    pub data: u32,
    /// Flags, the lower 32 bits; of an open the start of its `struct open_how`.
    pub flags: u32,
    /// Mode, the lower 16 bits.
    pub mode: u32,
    /// Length of the address of a socket, `int`.
    pub length: u32,
}

impl Members {
    /// No member at all.
    pub const NONE: Self = Self {
        dirfd: UNAVAILABLE,
        path: UNAVAILABLE,
        dirfd2: UNAVAILABLE,
        path2: UNAVAILABLE,
        source: UNAVAILABLE,
        data: UNAVAILABLE,
        flags: UNAVAILABLE,
        mode: UNAVAILABLE,
        length: UNAVAILABLE,
    };
}

/// The members of each operation, by its number.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(transparent)]
pub struct MembersTable(pub [Members; OPCODES]);

impl MembersTable {
    /// Nothing looked up yet.
    pub const UNSET: Self = Self([Members::NONE; OPCODES]);
}

#[cfg(feature = "user")]
mod user {
    use super::{Members, MembersTable};

    /// One row of the table: an operation, and its members by their names.
    #[derive(Clone, Copy, Debug)]
    struct Command {
        opcode: usize,
        /// The structure that lies over `io_kiocb.cmd`.
        structure: &'static str,
        /// Which member of [`Members`], and its name.
        members: &'static [(Place, &'static str)],
    }

    type Place = fn(&mut Members) -> &mut u32;

    const DIRFD: Place = |members| &mut members.dirfd;
    const PATH: Place = |members| &mut members.path;
    const DIRFD2: Place = |members| &mut members.dirfd2;
    const PATH2: Place = |members| &mut members.path2;
    const SOURCE: Place = |members| &mut members.source;
    const DATA: Place = |members| &mut members.data;
    const FLAGS: Place = |members| &mut members.flags;
    const MODE: Place = |members| &mut members.mode;
    const LENGTH: Place = |members| &mut members.length;

    const OPEN: &[(Place, &str)] = &[(DIRFD, "dfd"), (PATH, "filename"), (FLAGS, "how.flags"), (MODE, "how.mode")];
    const TWO_PATHS: &[(Place, &str)] =
        &[(DIRFD, "old_dfd"), (PATH, "oldpath"), (DIRFD2, "new_dfd"), (PATH2, "newpath"), (FLAGS, "flags")];

    /// The oldest kernel that the programs run on has all operations below this; newer ones may be missing.
    const NEWER: usize = 47;

    /// Every watched operation. The address of a bind is in the request's `async_data`.
    const COMMANDS: &[Command] = &[
        Command { opcode: 18, structure: "io_open", members: OPEN },
        Command { opcode: 28, structure: "io_open", members: OPEN },
        Command { opcode: 35, structure: "io_rename", members: TWO_PATHS },
        Command {
            opcode: 36,
            structure: "io_unlink",
            members: &[(DIRFD, "dfd"), (PATH, "filename"), (FLAGS, "flags")],
        },
        Command { opcode: 37, structure: "io_mkdir", members: &[(DIRFD, "dfd"), (PATH, "filename"), (MODE, "mode")] },
        Command {
            opcode: 38,
            structure: "io_link",
            members: &[(SOURCE, "oldpath"), (DIRFD, "new_dfd"), (PATH, "newpath")],
        },
        Command { opcode: 39, structure: "io_link", members: TWO_PATHS },
        Command { opcode: 41, structure: "io_xattr", members: &[(DATA, "ctx.kname")] },
        Command { opcode: 42, structure: "io_xattr", members: &[(PATH, "filename"), (DATA, "ctx.kname")] },
        // Linux 6.11.
        Command { opcode: 56, structure: "io_bind", members: &[(LENGTH, "addr_len")] },
    ];

    impl MembersTable {
        /// Asks `look_up` for the offset of each member (structure, member; nested ones joined by dots). None where the kernel
        /// lacks one of an operation that it must have.
        pub fn from_lookup(look_up: impl Fn(&'static str, &'static str) -> Option<u32>) -> Option<Self> {
            let command_at = look_up("io_kiocb", "cmd")?;
            let mut table = Self::UNSET;
            for &Command { opcode, structure, members } in COMMANDS {
                for &(place, name) in members {
                    let Some(within) = look_up(structure, name) else {
                        if opcode >= NEWER {
                            continue;
                        }
                        return None;
                    };
                    *place(table.0.get_mut(opcode)?) = within.checked_add(command_at)?;
                }
            }
            Some(table)
        }
    }

    // SAFETY: `repr(C)` with only `u32` members, hence no padding and no invalid bit patterns.
    unsafe impl aya::Pod for MembersTable {}

    #[cfg(test)]
    mod tests {
        use super::*;
        use crate::{
            offsets::UNAVAILABLE,
            syscalls::{Form, IO_URING, NONE},
        };

        #[test]
        fn each_watched_operation_has_a_member_for_each_argument_of_its_syscall() {
            let table = MembersTable::from_lookup(|_, _| Some(8)).unwrap();
            for (opcode, (call, members)) in IO_URING.iter().zip(table.0).enumerate() {
                let has = |member: u32| member != UNAVAILABLE;
                // What a file is by its descriptor has it in the request, not in the command.
                let on_a_file = call.path == NONE;
                assert_eq!(has(members.dirfd), call.dirfd != NONE && !on_a_file, "{opcode}");
                assert_eq!(has(members.path), call.path != NONE, "{opcode}");
                assert_eq!(has(members.dirfd2), call.dirfd2 != NONE, "{opcode}");
                assert_eq!(has(members.path2), call.path2 != NONE, "{opcode}");
                assert_eq!(has(members.source), call.source != NONE, "{opcode}");
                assert_eq!(has(members.data), call.data != NONE, "{opcode}");
                let how = call.form == Form::OpenHow as u8;
                assert_eq!(has(members.flags), call.flags != NONE || how, "{opcode}");
                assert_eq!(has(members.length), call.form == Form::SockAddr as u8, "{opcode}");
                assert_eq!(has(members.mode), call.mode != NONE || how, "{opcode}");
            }
        }

        #[test]
        fn a_kernel_that_lacks_a_member_has_no_table() {
            assert_eq!(MembersTable::from_lookup(|_, member| (member != "newpath").then_some(0)), None);
            let without_bind = MembersTable::from_lookup(|structure, _| (structure != "io_bind").then_some(0));
            assert!(without_bind.is_some(), "which came with Linux 6.11");
        }

        #[test]
        fn members_count_from_the_start_of_the_request() {
            let table = MembersTable::from_lookup(|structure, _| Some(if structure == "io_kiocb" { 16 } else { 8 }));
            assert_eq!(table.unwrap().0[18].path, 24);
        }
    }
}
