//! A disk that fills: a small tmpfs of the test's own.

use std::{
    fs,
    path::{Path, PathBuf},
};

use detector::{
    export::sinks::{OtlpConfig, SinksConfig, TlsConfig},
    report::{
        lines::Input,
        verify::{Demand, Verdict, Whole, verify},
    },
};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;

use super::{
    feeder::{Feeder, config},
    otlp::Collector,
    rsyslog::free_port,
};

const WRITTEN: &str = r#"rosentry_sink_events_total{result="delivered",sink="file"}"#;

/// A disk of 24 MiB.
struct Disk {
    folder: TempDir,
}

impl Disk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        mount("tmpfs", folder.path(), "tmpfs", MountFlags::empty(), Some(c"size=24m")).expect("only root may mount");
        Self { folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Leaves so many bytes free.
    fn fill(&self, left: usize) {
        let stat = rustix::fs::statvfs(self.path()).unwrap();
        let free = usize::try_from(stat.f_bavail * stat.f_frsize).unwrap();
        fs::write(self.ballast(), vec![0; free - left]).unwrap();
    }

    fn empty(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }

    fn whole(&self) -> Whole {
        let files = fs::read_dir(self.path()).unwrap().map(|entry| entry.unwrap().path());
        let inputs: Vec<_> = files.filter(|path| path.is_file()).map(Input::File).collect();
        match verify(&inputs, Demand::Usual).unwrap() {
            Verdict::Whole(whole) => whole,
            other => panic!("{other:?}"),
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // What is still open there goes with its process.
        let _ = unmount(self.path(), UnmountFlags::DETACH);
    }
}

#[test]
fn a_disk_that_fills_costs_no_line_as_long_as_the_queue_has_room() {
    let disk = Disk::new();
    let mut feeder = Feeder::start(config(disk.path()));
    disk.fill(100_000);
    feeder.put_all(1000);
    feeder.wait("the disk is full", |feeder| feeder.metric(WRITTEN) > 0);
    assert!(feeder.metric(WRITTEN) < 1000);
    // It may be at one more try at this very moment.
    feeder.wait("no half a line is left there", |_| {
        fs::read(disk.path().join("events.json")).unwrap().ends_with(b"\n")
    });
    disk.empty();
    feeder.wait("all is written", |feeder| feeder.metric(WRITTEN) == 1000);
    feeder.close();
    assert_eq!(disk.whole().lines, 1000);
}

#[test]
fn a_disk_that_stays_full_costs_lines_but_leaves_no_hole_and_what_is_written_then_follows() {
    let disk = Disk::new();
    let mut feeder = Feeder::start(config(disk.path()));
    disk.fill(100_000);
    let taken = (0..40_000).filter(|_| feeder.put()).count();
    assert!(taken < 30_000, "the queue is bounded");
    disk.empty();
    feeder.wait("all that was taken is written", |feeder| feeder.metric(WRITTEN) == taken as u64);
    feeder.put_all(10);
    feeder.close();
    assert_eq!(disk.whole().lines, taken as u64 + 10);
}

#[test]
fn a_spool_on_a_full_disk_goes_on_when_there_is_room() {
    let disk = Disk::new();
    let (collector, port) = (Collector::default(), free_port());
    let otlp =
        OtlpConfig { endpoint: format!("http://127.0.0.1:{port}"), tls: TlsConfig::default(), headers: Vec::new() };
    let mut feeder = Feeder::start(SinksConfig { otlp: Some(otlp), ..config(disk.path()) });
    disk.fill(200_000);
    feeder.put_all(1000);
    disk.empty();
    let server = collector.serve(port, None);
    assert_eq!(collector.wait_for(1000).whole().lines, 1000);
    feeder.close();
    server.shutdown_background();
}
