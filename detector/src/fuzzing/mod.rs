//! What reads bytes that somebody else has chosen, as a fuzzer calls it: each [`Target`] takes any bytes, and panics where what is
//! made of them breaks a promise.
//!
//! `cargo xtask fuzz` gives them to libFuzzer (the folder `fuzz/` has a program for each); the tests below give them arbitrary
//! bytes and seeds that were tampered with, on every run of the tests.

mod files;
mod proc;
#[cfg(test)]
mod tests;

use std::{fs, io, path::Path, sync::Arc};

use crate::{
    agent,
    clock::BootClock,
    export::{
        chain::{Link, START},
        native::NativeEncoder,
    },
    finding::Event,
    identity, kernel,
};

/// Something that reads hostile bytes.
pub struct Target {
    /// Its name, which is that of its program in `fuzz/`.
    pub name: &'static str,
    run: fn(&[u8]) -> bool,
    seeds: fn() -> Vec<Vec<u8>>,
}

/// Records of the kernel side, up to the lines that tell of them.
pub const KERNEL_RECORD: Target =
    Target { name: "kernel_record", run: kernel::fuzzing::record, seeds: kernel::fuzzing::records };

/// OCI specs.
pub const OCI_SPEC: Target = Target { name: "oci_spec", run: identity::fuzzing::spec, seeds: identity::fuzzing::specs };

/// containerd's records of containers, up to the lines that name them.
pub const CONTAINERD_RECORD: Target = Target {
    name: "containerd_record",
    run: identity::fuzzing::container_record,
    seeds: identity::fuzzing::container_records,
};

/// containerd's events.
pub const CONTAINERD_EVENTS: Target =
    Target { name: "containerd_events", run: identity::fuzzing::events, seeds: identity::fuzzing::event_streams };

/// Event files, as `verify` reads them.
pub const EVENT_FILE: Target = Target { name: "event_file", run: files::events, seeds: files::event_files };

/// The configuration.
pub const CONFIG: Target = Target { name: "config", run: files::config, seeds: files::configs };

/// Files of `/proc`.
pub const PROC: Target = Target { name: "proc", run: proc::run, seeds: proc::seeds };

/// The slots in which the kernel side counts repeats, and what is kept of each.
pub const FOLDS: Target = Target { name: "folds", run: agent::fuzzing::folds, seeds: agent::fuzzing::lives };

/// All of them.
pub const TARGETS: [Target; 8] =
    [KERNEL_RECORD, OCI_SPEC, CONTAINERD_RECORD, CONTAINERD_EVENTS, EVENT_FILE, CONFIG, PROC, FOLDS];

impl Target {
    /// Reads the bytes, and says whether they are what they ought to be. Panics where a promise is broken.
    pub fn run(&self, bytes: &[u8]) -> bool {
        (self.run)(bytes)
    }

    /// Bytes that are.
    pub fn seeds(&self) -> Vec<Vec<u8>> {
        (self.seeds)()
    }

    /// Puts the seeds into the corpus that `cargo fuzz` keeps of this target below `folder`.
    ///
    /// # Errors
    /// Where they can't be written.
    pub fn plant(&self, folder: &Path) -> io::Result<()> {
        let corpus = folder.join("corpus").join(self.name);
        fs::create_dir_all(&corpus)?;
        for (number, seed) in self.seeds().iter().enumerate() {
            fs::write(corpus.join(format!("seed-{number}")), seed)?;
        }
        Ok(())
    }
}

/// Times as they are some days after boot.
pub(crate) const CLOCK: BootClock = BootClock { unix_ns_at_boot: 1_767_323_035_123_456_789 };

/// Tells the event: it is one line that steers no terminal, is JSON, and is the first of a chain.
pub(crate) fn tell(event: &Event) -> Vec<u8> {
    let mut line = Vec::new();
    let told = NativeEncoder::new("n1").encode(event, &mut line);
    assert!(told.is_ok(), "{told:?}");
    let (end, text) = line.split_last().expect("a line has an end");
    assert_eq!(*end, b'\n');
    let text = std::str::from_utf8(text).expect("a line is text");
    assert!(!text.contains(char::is_control), "{text:?}");
    let link = Link::parse(text.as_bytes()).expect("verify reads what the agent writes");
    assert!(link.follows(START) && link.seq == 1, "{text}");
    line
}

/// What stands for a container that is declared read-only.
pub(crate) fn sealed() -> Arc<identity::model::Container> {
    crate::finding::testing::sealed()
}
