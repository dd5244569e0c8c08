//! Files that a user names.

use std::{ffi::OsString, fs::File, io::Write as _, os::fd::AsRawFd as _, path::PathBuf};

use rustix::fs::{MemfdFlags, memfd_create};

use crate::{
    cli::{self, Stop},
    export::native::NativeEncoder,
    kernel,
    report::{
        lines::Input,
        verify::{Demand, Verdict, verify},
    },
};

/// A file in memory with this content, and its name as long as it is open.
fn file(bytes: &[u8]) -> (File, PathBuf) {
    let mut file = File::from(memfd_create("fuzz", MemfdFlags::CLOEXEC).expect("there is memory"));
    file.write_all(bytes).expect("there is memory");
    let path = format!("/proc/self/fd/{}", file.as_raw_fd()).into();
    (file, path)
}

/// Whatever it is, `verify` tells it in text that steers no terminal.
pub(super) fn events(bytes: &[u8]) -> bool {
    let (_open, path) = file(bytes);
    let mut is_whole = false;
    for demand in [Demand::Usual, Demand::Part, Demand::All] {
        let told = match verify(&[Input::of(&path)], demand) {
            Ok(Verdict::Whole(whole)) => {
                is_whole = true;
                whole.to_string()
            }
            Ok(Verdict::Bad(bad)) => bad.to_string(),
            Ok(Verdict::Lacking(what)) => what.to_string(),
            Err(error) => error.to_string(),
        };
        assert!(!told.contains(|letter: char| letter.is_control() && letter != '\n'), "{told:?}");
    }
    is_whole
}

pub(super) fn event_files() -> Vec<Vec<u8>> {
    let mut encoder = NativeEncoder::new("n1");
    let mut plain = Vec::new();
    for event in kernel::fuzzing::events() {
        encoder.encode(&event, &mut plain).expect("an event can be told");
    }
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).expect("there is memory");
    vec![gzip.finish().expect("there is memory"), plain]
}

/// A refusal is one sentence.
pub(super) fn config(bytes: &[u8]) -> bool {
    let (_open, path) = file(bytes);
    let arguments = [OsString::from("rosentry"), "run".into(), "--config".into(), path.into()];
    let parsed = cli::parse(arguments, |_| None);
    if let Err(Stop::Refused(refusal) | Stop::Text(refusal)) = &parsed {
        assert!(!refusal.contains(char::is_control), "{refusal:?}");
    }
    parsed.is_ok()
}

pub(super) fn configs() -> Vec<Vec<u8>> {
    vec![include_bytes!("seeds/rosentry.toml").to_vec(), b"hooks = 'fexit'\n".to_vec(), Vec::new()]
}
