//! The commands, one file each.

pub mod bench;
pub mod build;
pub mod demo;
pub mod fuzz;
pub mod image;
pub mod lint;
pub mod render;
pub mod setup;
pub mod test;
pub mod test_vm;
