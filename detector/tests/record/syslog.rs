//! The syslog sink with a real rsyslog: over TCP and TLS, which is killed and started again.

use detector::export::sinks::{SinksConfig, SyslogConfig, TlsConfig};
use tempfile::TempDir;

use super::{
    certificates::Certificates,
    feeder::{Feeder, config},
    rsyslog::Rsyslog,
};

const DELIVERED: &str = r#"rosentry_sink_events_total{result="delivered",sink="syslog"}"#;
const RETRIED: &str = r#"rosentry_sink_events_total{result="retried",sink="syslog"}"#;
const DROPPED: &str = r#"rosentry_sink_events_total{result="dropped",sink="syslog"}"#;
const WAITING: &str = r#"rosentry_sink_spool_bytes{sink="syslog"}"#;

fn to(port: u16, tls: Option<TlsConfig>, folder: &TempDir) -> SinksConfig {
    let syslog = Some(SyslogConfig { host: "localhost".to_owned(), port, tls });
    SinksConfig { syslog, ..config(folder.path()) }
}

#[test]
fn an_rsyslog_that_is_killed_twice_has_every_line_and_duplicates_only_at_the_cuts() {
    let folder = tempfile::tempdir().unwrap();
    let mut rsyslog = Rsyslog::start(None);
    let mut feeder = Feeder::start(to(rsyslog.port(), None, &folder));
    for outage in 1..=2 {
        feeder.put_all(700);
        rsyslog.wait_for(outage * 1000 - 500);
        rsyslog.kill();
        feeder.put_all(300);
        rsyslog.start_again();
    }
    feeder.put_all(500);
    let received = rsyslog.wait_for(2500);
    assert_eq!(received.whole().lines, 2500);
    assert!(received.went_back <= 2 && received.repeated > 0, "{} {}", received.went_back, received.repeated);
    feeder.wait("all is delivered", |feeder| feeder.metric(DELIVERED) == 2500);
    feeder.wait("nothing waits any more", |feeder| feeder.metric(WAITING) == 0);
    assert_eq!(feeder.metric(DROPPED), 0);
    assert!(feeder.metric(RETRIED) >= received.repeated as u64);
    feeder.close();
}

#[test]
fn tls_with_certificates_of_both_sides_delivers_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let certificates = Certificates::make();
    let mut rsyslog = Rsyslog::start(Some(&certificates));
    let tls = TlsConfig {
        ca: Some(certificates.path("ca")),
        identity: Some((certificates.path("client"), certificates.path("client-key"))),
    };
    let mut feeder = Feeder::start(to(rsyslog.port(), Some(tls), &folder));
    feeder.put_all(200);
    rsyslog.wait_for(200);
    rsyslog.kill();
    feeder.put_all(200);
    rsyslog.start_again();
    let received = rsyslog.wait_for(400);
    assert_eq!(received.whole().lines, 400);
    feeder.close();
}

#[test]
fn a_receiver_that_nobody_vouches_for_gets_nothing_and_all_stays_in_the_spool() {
    let folder = tempfile::tempdir().unwrap();
    let (theirs, ours) = (Certificates::make(), Certificates::make());
    let rsyslog = Rsyslog::start(Some(&theirs));
    let tls =
        TlsConfig { ca: Some(ours.path("ca")), identity: Some((theirs.path("client"), theirs.path("client-key"))) };
    let mut feeder = Feeder::start(to(rsyslog.port(), Some(tls), &folder));
    feeder.put_all(20);
    feeder.wait("it is in the spool", |feeder| feeder.metric(WAITING) > 0);
    feeder.close();
    assert_eq!(rsyslog.received().lines.len(), 0);

    // The next run knows better, and delivers what the one before could not.
    let tls =
        TlsConfig { ca: Some(theirs.path("ca")), identity: Some((theirs.path("client"), theirs.path("client-key"))) };
    let mut feeder = Feeder::start(to(rsyslog.port(), Some(tls), &folder));
    feeder.put_all(20);
    assert_eq!(rsyslog.wait_for(40).whole().lines, 40);
    feeder.close();
}

#[test]
fn what_an_orderly_end_has_delivered_is_not_sent_again() {
    let folder = tempfile::tempdir().unwrap();
    let rsyslog = Rsyslog::start(None);
    for run in 1..=2 {
        let mut feeder = Feeder::start(to(rsyslog.port(), None, &folder));
        feeder.put_all(50);
        // The end does not wait for a receiver that is slow.
        rsyslog.wait_for(run * 50);
        feeder.close();
        let received = rsyslog.wait_for(run * 50);
        assert_eq!((received.whole().lines, received.repeated), (run * 50, 0));
    }
}
