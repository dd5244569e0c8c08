//! What rosentry's kernel side and user side must agree on: the operations, the table of syscalls that ask for them, the
//! records on the wire, the counters, and the offsets of kernel structures.
//!
//! No logic of either side lives here. What only user space needs is behind the feature `user`.

#![no_std]

pub mod abi;
pub mod budget;
pub mod counter;
pub mod fold;
pub mod kept;
pub mod offsets;
pub mod operation;
pub mod record;
pub mod ring;
pub mod syscalls;
pub mod takeover;
pub mod uring;

/// Version of every record in [`record`]; the two sides refuse to talk when it differs.
pub const WIRE_VERSION: u16 = 2;
