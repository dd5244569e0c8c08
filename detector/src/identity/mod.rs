//! The identity room: from a cgroup to its container and its pod.
//!
//! Nothing about findings lives here.

pub mod model;
