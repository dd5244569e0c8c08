//! The report room: what a reader of event files wants to know. It reads event files and nothing else.

pub mod lines;
pub mod rules;
pub mod verify;
