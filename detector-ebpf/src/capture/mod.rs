//! What a record holds: the process, the paths, the strings of the call.
//!
//! Decides nothing about reporting.

pub mod call;
pub mod mount;
pub mod names;
pub mod path;
pub mod process;
pub mod request;
pub mod slots;
pub mod text;
