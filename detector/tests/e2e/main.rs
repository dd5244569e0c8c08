//! End to end: the agent beside a real containerd, real pods over CRI, real refused writes. By topic; `support` is the
//! lab they share. They need root and Debian's containerd, runc, busybox-static and gcc, and run one at a time.

#![expect(clippy::expect_used, clippy::panic, reason = "a test stops at the first thing that is not as it should be")]

mod advise;
mod cli_errors;
mod daemonset;
mod dashboards;
mod hostile;
mod identity;
mod intrusion;
mod lab;
mod learning;
mod mounts;
mod outage;
mod places;
mod posture;
mod privileges;
mod real_programs;
mod refused_writes;
mod repeats;
mod seal;
mod short_lived;
mod stopping;
mod support;
