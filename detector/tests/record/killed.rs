//! The agent's side killed while it writes to all sinks: each record goes on where it ended.

use std::time::Duration;

use detector::report::{
    lines::Input,
    verify::{Demand, Verdict, verify},
};

use super::{
    feeder::Process,
    otlp::Collector,
    rsyslog::{Rsyslog, free_port},
};

const KILLS: u64 = 6;

#[test]
fn each_record_is_whole_after_every_kill() {
    let folder = tempfile::tempdir().unwrap();
    let rsyslog = Rsyslog::start(None);
    let (collector, port) = (Collector::default(), free_port());
    let server = collector.serve(port, None);
    for kill in 1..=KILLS {
        let process = Process::start(folder.path(), rsyslog.port(), port);
        // At another point of its work each time.
        std::thread::sleep(Duration::from_millis(150 + 37 * kill));
        process.kill();
    }
    // The last one delivers what the others left.
    let process = Process::start(folder.path(), rsyslog.port(), port);
    let file = folder.path().join("events.json");
    let of_syslog = rsyslog.wait_for(rsyslog.received().last() + 300);
    let of_otlp = collector.wait_for(collector.wait_for(1).last() + 300);
    process.kill();

    for (sink, whole) in [("syslog", of_syslog.whole()), ("otlp", of_otlp.whole())] {
        assert_eq!((whole.streams, whole.before.len()), (1, 0), "{sink}");
    }
    // On a busy machine it has been rotated meanwhile, be it at the very end.
    if let Ok(mut lines) = std::fs::read(&file) {
        // The run that was killed last may have left half a line, which only the next one would take away.
        lines.truncate(lines.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1));
        std::fs::write(&file, lines).unwrap();
    }
    let files = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<_> = files.filter(|path| path.is_file()).map(Input::File).collect();
    let Verdict::Whole(whole) = verify(&files, Demand::Usual).unwrap() else { panic!("a hole in the file") };
    assert_eq!((whole.streams, whole.before.len()), (1, 0));
    assert!(whole.lines > 300);
    server.shutdown_background();
}
