//! The descriptors that the watch on seals awaits.

use std::{io, os::fd::OwnedFd};

use rustix::{
    event::epoll,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use tracing::debug;

use crate::agent::target::Target;

/// Descriptors that the agent may need besides.
const OTHER_DESCRIPTORS: u64 = 1024;

/// Once: who changes mounts in a loop wakes the thread no more before the next look. The kernel keeps for each open table which
/// change it has told of; whether the table was read does not matter.
const TABLE_EVENTS: epoll::EventFlags =
    epoll::EventFlags::PRI.union(epoll::EventFlags::ERR).union(epoll::EventFlags::ONESHOT);

pub(super) fn await_table(epoll: &OwnedFd, number: u64, target: &Target) -> io::Result<()> {
    Ok(epoll::add(epoll, target.table(), epoll::EventData::new_u64(number * 2), TABLE_EVENTS)?)
}

pub(super) fn await_table_again(epoll: &OwnedFd, number: u64, target: &Target) -> io::Result<()> {
    Ok(epoll::modify(epoll, target.table(), epoll::EventData::new_u64(number * 2), TABLE_EVENTS)?)
}

pub(super) fn await_exit(epoll: &OwnedFd, number: u64, target: &Target) -> io::Result<()> {
    let Some(exit) = target.exit() else { return Ok(()) };
    Ok(epoll::add(epoll, exit, epoll::EventData::new_u64(number * 2 + 1), epoll::EventFlags::IN)?)
}

/// Raises the soft limit of descriptors to what is needed, as far as the hard one allows.
pub(super) fn allow(needed: u64) {
    let wanted = needed + OTHER_DESCRIPTORS;
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(wanted, |maximum| wanted.min(maximum));
    if limit.current.is_some_and(|current| current < wanted) {
        let raised = Rlimit { current: Some(wanted), maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            debug!(%error, "the limit of open descriptors stays as it is");
        }
    }
}
