//! The report room: what a reader of event files wants to know. It reads event files and nothing else.

pub mod advise;
pub mod event;
pub mod filter;
pub mod learned;
pub mod lines;
pub mod printable;
pub mod rules;
pub mod timeline;
pub mod verify;
