//! The OTLP sink.
//!
//! The receiver is the official service (opentelemetry-proto) on a server of tonic in this process: no collector of
//! OpenTelemetry is packaged by Debian, and those elsewhere answer before anything is safe, so they can't show what is lost.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use detector::export::sinks::{OtlpConfig, SinksConfig, TlsConfig};
use opentelemetry_proto::tonic::{
    collector::logs::v1::{
        ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
        logs_service_server::{LogsService, LogsServiceServer},
    },
    common::v1::any_value::Value,
};
use tempfile::TempDir;
use tokio::{net::TcpListener, runtime::Runtime};
use tonic::{
    Request, Response, Status,
    transport::{Certificate, Identity, Server, ServerTlsConfig, server::TcpIncoming},
};

use super::{
    certificates::Certificates,
    feeder::{Feeder, PATIENCE, config},
    received::Received,
    rsyslog::free_port,
};

const DELIVERED: &str = r#"rosentry_sink_events_total{result="delivered",sink="otlp"}"#;
const DROPPED: &str = r#"rosentry_sink_events_total{result="dropped",sink="otlp"}"#;
const WAITING: &str = r#"rosentry_sink_spool_bytes{sink="otlp"}"#;

/// What a receiver has got, and how it answers.
#[derive(Clone, Default)]
pub struct Collector {
    bodies: Arc<Mutex<Vec<String>>>,
    /// Requests that are taken in and answered with an error all the same: it can't be known from the answer.
    unanswered: Arc<AtomicUsize>,
    answers: Arc<Mutex<Vec<Result<i64, Status>>>>,
    token: Option<&'static str>,
}

#[tonic::async_trait]
impl LogsService for Collector {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        let given = request.metadata().get("authorization").map(|value| value.to_str().unwrap().to_owned());
        if given.as_deref() != self.token {
            return Err(Status::unauthenticated("who are you?"));
        }
        let answer = self.answers.lock().unwrap().pop();
        if let Some(Err(status)) = answer {
            return Err(status);
        }
        let records = request.into_inner().resource_logs.into_iter().flat_map(|logs| logs.scope_logs);
        for record in records.flat_map(|logs| logs.log_records) {
            let Some(Value::StringValue(line)) = record.body.unwrap().value else { panic!("the body is no text") };
            self.bodies.lock().unwrap().push(line);
        }
        let left = self.unanswered.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if left.is_ok() {
            return Err(Status::unavailable("died before it could answer"));
        }
        let partial = |rejected_log_records| ExportLogsPartialSuccess {
            rejected_log_records,
            error_message: "not these".to_owned(),
        };
        let partial_success = answer.and_then(Result::ok).map(partial);
        Ok(Response::new(ExportLogsServiceResponse { partial_success }))
    }
}

impl Collector {
    /// Waits until it has this line.
    pub fn wait_for(&self, seq: u64) -> Received {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let received = Received::of(self.bodies.lock().unwrap().iter().map(String::as_str));
            if received.lines.contains_key(&seq) {
                return received;
            }
            assert!(
                Instant::now() < deadline,
                "it has {} lines, the last is {}",
                received.lines.len(),
                received.last()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Serves on a port of this machine until what is given back is dropped, which ends it without a word.
    pub fn serve(&self, port: u16, certificates: Option<&Certificates>) -> Runtime {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let mut server = Server::builder();
        if let Some(certificates) = certificates {
            let tls = ServerTlsConfig::new()
                .identity(Identity::from_pem(certificates.pem("server"), certificates.pem("server-key")))
                .client_ca_root(Certificate::from_pem(certificates.pem("ca")));
            server = server.tls_config(tls).unwrap();
        }
        let service = server.add_service(LogsServiceServer::new(self.clone()));
        runtime.spawn(async move {
            // The one before may be on its way out.
            let listener = loop {
                match TcpListener::bind(("127.0.0.1", port)).await {
                    Ok(listener) => break listener,
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            };
            service.serve_with_incoming(TcpIncoming::from(listener)).await.unwrap();
        });
        runtime
    }
}

fn to(endpoint: String, folder: &TempDir) -> SinksConfig {
    let otlp = Some(OtlpConfig { endpoint, tls: TlsConfig::default(), headers: Vec::new() });
    SinksConfig { otlp, ..config(folder.path()) }
}

#[test]
fn a_receiver_that_goes_away_twice_has_every_line_and_each_line_once() {
    let folder = tempfile::tempdir().unwrap();
    let (collector, port) = (Collector::default(), free_port());
    let mut server = collector.serve(port, None);
    let mut feeder = Feeder::start(to(format!("http://127.0.0.1:{port}"), &folder));
    for outage in 1..=2 {
        feeder.put_all(400);
        collector.wait_for(outage * 600 - 300);
        server.shutdown_background();
        feeder.put_all(200);
        server = collector.serve(port, None);
    }
    feeder.put_all(200);
    let received = collector.wait_for(1400);
    assert_eq!(received.whole().lines, 1400);
    assert!(received.went_back <= 2, "{}", received.went_back);
    feeder.wait("all is delivered", |feeder| feeder.metric(DELIVERED) == 1400);
    feeder.wait("nothing waits any more", |feeder| feeder.metric(WAITING) == 0);
    assert_eq!(feeder.metric(DROPPED), 0);
    feeder.close();
    server.shutdown_background();
}

#[test]
fn what_was_taken_in_and_not_answered_is_sent_again_under_the_same_number() {
    let folder = tempfile::tempdir().unwrap();
    let (collector, port) = (Collector::default(), free_port());
    collector.unanswered.store(2, Ordering::Relaxed);
    let server = collector.serve(port, None);
    let mut feeder = Feeder::start(to(format!("http://127.0.0.1:{port}"), &folder));
    feeder.put_all(20);
    feeder.wait("all is delivered", |feeder| feeder.metric(DELIVERED) == 20);
    let received = collector.wait_for(20);
    assert_eq!(received.whole().lines, 20);
    assert!(received.repeated > 0);
    feeder.close();
    server.shutdown_background();
}

#[test]
fn what_a_receiver_calls_wrong_in_itself_is_given_up_and_counted_and_all_else_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let (collector, port) = (Collector::default(), free_port());
    *collector.answers.lock().unwrap() = vec![
        // The last of these is the first answer.
        Ok(1),
        Err(Status::invalid_argument("no such thing")),
        Err(Status::resource_exhausted("slowly")),
        Err(Status::unimplemented("no pipeline for logs yet")),
        Err(Status::permission_denied("the token has run out")),
    ];
    let server = collector.serve(port, None);
    let mut feeder = Feeder::start(to(format!("http://127.0.0.1:{port}"), &folder));
    // One request after the other.
    feeder.put_all(1);
    feeder.wait("the first is refused", |feeder| feeder.metric(DROPPED) == 1);
    feeder.put_all(4);
    feeder.wait("of the next, one is refused", |feeder| feeder.metric(DROPPED) == 2);
    feeder.put_all(1);
    assert_eq!(collector.wait_for(6).lines.len(), 5);
    feeder.wait("all is delivered", |feeder| feeder.metric(DELIVERED) == 4);
    feeder.wait("nothing waits any more", |feeder| feeder.metric(WAITING) == 0);
    feeder.close();
    server.shutdown_background();
}

#[test]
fn tls_with_certificates_of_both_sides_and_a_token_delivers() {
    let folder = tempfile::tempdir().unwrap();
    let certificates = Certificates::make();
    let (collector, port) = (Collector { token: Some("Bearer x"), ..Collector::default() }, free_port());
    let server = collector.serve(port, Some(&certificates));
    let with = |ca| {
        let tls =
            TlsConfig { ca: Some(ca), identity: Some((certificates.path("client"), certificates.path("client-key"))) };
        let headers = vec![("authorization".to_owned(), "Bearer x".to_owned())];
        let otlp = Some(OtlpConfig { endpoint: format!("https://localhost:{port}"), tls, headers });
        SinksConfig { otlp, ..config(folder.path()) }
    };
    let mut feeder = Feeder::start(with(Certificates::make().path("ca")));
    feeder.put_all(5);
    feeder.close();
    assert_eq!(collector.bodies.lock().unwrap().len(), 0, "nobody vouches for it");

    let mut feeder = Feeder::start(with(certificates.path("ca")));
    feeder.put_all(5);
    assert_eq!(collector.wait_for(10).whole().lines, 10);
    feeder.close();
    server.shutdown_background();
}
