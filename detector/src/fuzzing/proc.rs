//! Files of `/proc`: their text is the kernel's, and names in it are whoever's.

use crate::{agent::mountinfo, identity, process_stat::Stat};

const STAT: &[u8] = b"7 (a) 1 (b c) S 1 7 7 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 4242 1000 5\n";
const STATUS: &[u8] = b"Name:\tinit\nUid:\t0\t0\t0\t0\nCapEff:\t000001fffeffffff\nCapBnd:\t000001fffeffffff\n";

pub(super) fn run(bytes: &[u8]) -> bool {
    let mounts = mountinfo::parse_all(bytes);
    for mount in &mounts {
        assert!(!mount.point.contains(&b' ') || bytes.contains(&b'\\'), "a blank ends a field: {mount:?}");
        assert!(mount.point.len() <= bytes.len() && mount.root.len() <= bytes.len());
    }
    let stat = Stat::parse(bytes);
    if let Some(stat) = &stat {
        assert!(stat.comm.len() <= bytes.len());
        assert!(stat.started_at(stat.start_time_ns()));
    }
    identity::fuzzing::node(&String::from_utf8_lossy(bytes)) || !mounts.is_empty() || stat.is_some()
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    vec![
        include_bytes!("seeds/mountinfo").to_vec(),
        STAT.to_vec(),
        STATUS.to_vec(),
        b"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0aa1.slice/cri-containerd-d59f.scope".to_vec(),
    ]
}
