//! The binary `rosentry`; its commands come with the command line.

fn main() {}
