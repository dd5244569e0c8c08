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
#[cfg(any(test, fuzzing))]
#[expect(clippy::expect_used, reason = "for tests and for fuzzing, which say no so")]
#[cfg_attr(not(test), expect(dead_code, reason = "fuzzing takes a part of it"))]
pub(crate) mod testing;

pub use assess::{Sighting, assess, questions};
pub use effect::is_runtime_setup;
pub use event::Event;
