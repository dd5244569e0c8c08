//! `cargo xtask bench peers`: what rosentry costs and sees beside other tools, in one kernel and by the same program.

use std::process::ExitCode;

use anyhow::Result;

use super::{beside::Measurement, peer_list::Peer, sheet::Tool};
use crate::{vm::kernel::Series, workspace::Workspace};

/// Of its figures' files.
pub const NAME: &str = "peers";
/// A compiler such as bpftrace's is large.
const MEMORY_MIB: u32 = 2048;
/// What is flooded: kind, processes, writes in all.
const FLOODS: [(&str, u32, u32); 6] = [
    ("again", 1, 40_000),
    ("again", 2, 40_000),
    ("again", 4, 40_000),
    ("new", 1, 40_000),
    ("new", 2, 40_000),
    ("new", 4, 40_000),
];

/// Measures these tools (none: all) in these kernels.
pub fn run(workspace: &Workspace, kernels: &[Series], wanted: &[String]) -> Result<ExitCode> {
    Measurement { name: NAME, job, files: &[], memory_mib: MEMORY_MIB }.run::<Tool>(workspace, kernels, wanted)
}

/// Measures operations, and floods.
fn job(peer: &Peer, words: &str) -> String {
    let mut job = format!("/program beside {words} 2>&1\n");
    for (kind, processes, writes) in FLOODS.into_iter().filter(|_| peer.tells_refused) {
        job += &format!("/program flood {kind} {processes} {writes} {words} 2>&1\n");
    }
    job
}

#[cfg(test)]
mod tests {
    use super::{super::peer_list::PEERS, *};

    #[test]
    fn a_tool_that_does_not_tell_of_refused_writes_is_not_flooded() {
        let floods = |name: &str| {
            let peer = PEERS.iter().find(|peer| peer.name == name).unwrap();
            job(peer, "words").matches("/program flood").count()
        };
        assert_eq!((floods("mountsnoop"), floods("auditd")), (0, FLOODS.len()));
    }
}
