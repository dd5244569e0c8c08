//! What is in `deploy/` and the runbooks: rendered by real Helm, checked by Kubernetes' schemas, promtool and the agent's own
//! settings. None of it touches the kernel or the network. Helm is where `cargo xtask test` puts it.

#![expect(clippy::expect_used, clippy::panic, reason = "a test stops at the first thing that is not as it should be")]

mod advise;
mod chart;
mod dashboards;
mod docs;
mod integrations;
mod manifests;
mod metrics;
mod policies;
mod rules;
mod runbooks;
mod support;
