//! What is in `deploy/`: the chart, and what is rendered from it.

pub mod charts;
pub mod readme;
pub mod render;
pub mod tools;
