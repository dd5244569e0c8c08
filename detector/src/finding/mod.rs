//! The finding room: what an attempt means. No serialisation formats, no I/O.
//!
//! [`questions`] says which paths are worth resolving in the container's real root; whoever may do I/O answers them; and
//! [`assess()`] makes of the attempt, its container and those answers one [`Event`]; [`rules`] write into it what it means.

pub mod assess;
pub mod effect;
pub mod errno;
pub mod event;
pub mod flags;
pub mod mount;
pub mod mount_flags;
pub mod operation;
pub mod paths;
pub mod rules;
pub mod seal;
#[cfg(test)]
pub(crate) mod testing;

pub use assess::{Sighting, assess, questions};
pub use effect::is_runtime_setup;
pub use event::Event;
