//! The agent: what ties the rooms together.

pub mod resolve;
