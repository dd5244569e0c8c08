//! Tests of [`super`], over real connections.

use std::{
    net::Ipv4Addr,
    sync::atomic::{AtomicBool, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use super::*;
use crate::export::metrics::tests::metrics;

/// Longer than whatever the tests wait for takes, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longer than any test: a limit that is not what the test is about.
const NEVER: Duration = Duration::from_secs(3600);
/// So short that it is over before patience is.
const SOON: Duration = Duration::from_millis(50);

/// A server whose containers are known once the flag says so.
async fn server() -> (SocketAddr, Arc<AtomicBool>) {
    server_with(LIMITS).await
}

async fn server_with(limits: Limits) -> (SocketAddr, Arc<AtomicBool>) {
    let known = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&known);
    let readiness: Readiness = Box::new(move || {
        let met = asked.load(Ordering::Relaxed);
        vec![
            Condition { name: "hooks", met: true, detail: "14 attached".to_owned() },
            Condition { name: "containers", met, detail: "first list".to_owned() },
        ]
    });
    (server_of(limits, readiness).await, known)
}

async fn server_of(limits: Limits, readiness: Readiness) -> SocketAddr {
    let bound = HttpServer::bind("127.0.0.1:0".parse().unwrap(), Arc::new(metrics()), readiness).await.unwrap();
    let server = HttpServer { limits, ..bound };
    let address = server.local_addr().unwrap();
    tokio::spawn(server.serve());
    address
}

async fn exchange(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut answer = String::new();
    // A server that refuses while we still write may reset the connection; what came before counts.
    let _ = stream.write_all(request.as_bytes()).await;
    let _ = stream.read_to_string(&mut answer).await;
    answer
}

async fn request(address: SocketAddr, method: &str, path: &str) -> String {
    exchange(address, &format!("{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await
}

#[tokio::test]
async fn metrics_are_served_as_text() {
    let (address, _) = server().await;
    let answer = request(address, "GET", "/metrics").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("text/plain; version=0.0.4"), "{answer}");
    assert!(answer.contains("rosentry_build_info{"), "{answer}");
}

#[tokio::test]
async fn the_agent_is_alive_before_it_is_ready_and_says_what_is_missing() {
    let (address, known) = server().await;
    assert!(request(address, "GET", "/healthz").await.starts_with("HTTP/1.1 200 "));
    let waiting = request(address, "GET", "/readyz").await;
    assert!(waiting.starts_with("HTTP/1.1 503 "), "{waiting}");
    assert!(waiting.ends_with("not ready\nok hooks: 14 attached\nmissing containers: first list\n"), "{waiting}");
    known.store(true, Ordering::Relaxed);
    let ready = request(address, "GET", "/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 200 "), "{ready}");
    assert!(ready.contains("\r\n\r\nready\n"), "{ready}");
}

#[tokio::test]
async fn a_head_has_no_body() {
    let (address, _) = server().await;
    for path in ["/metrics", "/healthz"] {
        let head = request(address, "HEAD", path).await;
        assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
    }
}

#[tokio::test]
async fn every_other_method_is_refused_on_the_three_paths_and_every_other_path_is_not_there() {
    let (address, _) = server().await;
    for path in ["/metrics", "/healthz", "/readyz"] {
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"] {
            let answer = request(address, method, path).await;
            assert!(answer.starts_with("HTTP/1.1 405 "), "{method} {path}: {answer}");
            assert!(answer.to_lowercase().contains("allow: get, head"), "{answer}");
        }
    }
    for path in ["/", "/metrics/", "//metrics", "/METRICS", "/metrics/../healthz", "/debug/pprof", "/%6detrics", "*"] {
        for method in ["GET", "HEAD", "POST", "OPTIONS"] {
            let answer = request(address, method, path).await;
            // `*` is no path of a GET, so hyper has no request to ask us of.
            let refused = answer.starts_with("HTTP/1.1 404 ") || path == "*" && answer.starts_with("HTTP/1.1 400 ");
            assert!(refused, "{method} {path}: {answer}");
        }
    }
}

#[tokio::test]
async fn what_is_no_http_is_no_request() {
    let (address, _) = server().await;
    for garbage in
        ["\x16\x03\x01\x02\x00\x01\x00", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET /metrics\r\n\r\n", "\0\0\0\0\r\n\r\n"]
    {
        let answer = patiently(exchange(address, garbage)).await;
        assert!(!answer.starts_with("HTTP/1.1 200 ") && !answer.contains("rosentry_"), "{garbage:?}: {answer}");
    }
}

#[tokio::test]
async fn a_head_beyond_measure_is_refused_for_its_length_and_for_its_number_of_headers() {
    let (address, _) = server().await;
    let of_length = |length: usize| format!("GET /healthz HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(length));
    let of_headers = |headers: usize| format!("GET /healthz HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(headers));
    for within in [of_length(LIMITS.head_bytes - 100), of_headers(LIMITS.headers)] {
        assert!(exchange(address, &within).await.starts_with("HTTP/1.1 200 "));
    }
    let answer = exchange(address, &of_headers(LIMITS.headers + 1)).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    // The server closes before it has read all of it, and its answer may be lost with that.
    let answer = exchange(address, &of_length(4 * LIMITS.head_bytes)).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[tokio::test]
async fn a_request_that_comes_byte_by_byte_is_not_waited_for() {
    let (address, _) = server_with(Limits { head_time: SOON, connection_time: NEVER, ..LIMITS }).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let (mut answers, mut requests) = stream.split();
    let mut answer = Vec::new();
    // Until the server has closed.
    let drip = async {
        let mut sent = requests.write_all(b"GET /metrics HTTP/1.1\r\nX: ").await;
        while sent.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
            sent = requests.write_all(b"x").await;
        }
    };
    let ended = async {
        tokio::select! {
            () = drip => {}
            _ = answers.read_to_end(&mut answer) => {}
        }
    };
    patiently(ended).await;
    assert!(!answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed_by_either_of_its_times() {
    for (head_time, connection_time) in [(SOON, NEVER), (NEVER, SOON)] {
        let (address, _) = server_with(Limits { head_time, connection_time, ..LIMITS }).await;
        assert_eq!(patiently(exchange(address, "")).await, "");
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answer_is_left_in_time() {
    // More than the buffers of both sides take.
    let detail = "x".repeat(32 << 20);
    let readiness = Box::new(move || vec![Condition { name: "hooks", met: true, detail: detail.clone() }]);
    let address = server_of(Limits { connection_time: SOON, connections_of_peer: 1, ..LIMITS }, readiness).await;
    let mut deaf = TcpStream::connect(address).await.unwrap();
    deaf.write_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    patiently(deaf.readable()).await.unwrap();
    becomes_served(address).await;
}

#[tokio::test]
async fn an_answered_connection_is_closed_whatever_the_client_asks_for() {
    let (address, _) = server_with(Limits { head_time: NEVER, connection_time: NEVER, ..LIMITS }).await;
    let twice = "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n".repeat(2);
    let answer = patiently(exchange(address, &twice)).await;
    assert_eq!(answer.matches("HTTP/1.1 200 ").count(), 1, "{answer}");
    let bodiless = "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\nx";
    let answer = patiently(exchange(address, bodiless)).await;
    assert!(answer.starts_with("HTTP/1.1 405 "), "a body that does not come is not waited for: {answer}");
}

#[tokio::test]
async fn who_finds_no_place_is_turned_away_at_once_and_finds_one_when_others_go() {
    let limits = Limits { connections: 3, connections_of_peer: 2, head_time: NEVER, connection_time: NEVER, ..LIMITS };
    let (address, _) = server_with(limits).await;
    let one = [1, 1].map(|host| connect_from(host, address));
    let mut held: Vec<TcpStream> = Vec::new();
    for connection in one {
        held.push(connection.await);
    }
    assert!(is_turned_away(connect_from(1, address).await).await, "a third from one address");
    held.push(connect_from(2, address).await);
    assert!(is_turned_away(connect_from(3, address).await).await, "a fourth from anywhere");
    drop(held);
    becomes_served(address).await;
}

/// Waits until there is a place for a request.
async fn becomes_served(address: SocketAddr) {
    let served = async {
        while !request(address, "GET", "/healthz").await.starts_with("HTTP/1.1 200 ") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    patiently(served).await;
}

/// A connection from 127.0.0.`host`.
async fn connect_from(host: u8, address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::new(127, 0, 0, host), 0).into()).unwrap();
    socket.connect(address).await.unwrap()
}

/// Whether the server closes the connection, which was accepted after those before it.
async fn is_turned_away(mut stream: TcpStream) -> bool {
    // It says nothing itself: only a server that closes ends this.
    patiently(async { matches!(stream.read(&mut [0]).await, Ok(0) | Err(_)) }).await
}

async fn patiently<T>(awaited: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, awaited).await.expect("it takes no longer than patience does")
}

#[tokio::test]
async fn an_address_in_use_is_named_with_what_to_do() {
    let (address, _) = server().await;
    let error = HttpServer::bind(address, Arc::new(metrics()), Box::new(Vec::new)).await.err().unwrap().to_string();
    assert!(error.contains(&address.to_string()) && error.contains("--metrics-listen"), "{error}");
}
