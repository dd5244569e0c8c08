//! Tests of [`super`], over real connections.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::*;
use crate::export::metrics::tests::metrics;

/// A server whose containers are known once the flag says so.
async fn server() -> (SocketAddr, Arc<AtomicBool>) {
    let known = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&known);
    let readiness: Readiness = Box::new(move || {
        let met = asked.load(Ordering::Relaxed);
        vec![
            Condition { name: "hooks", met: true, detail: "14 attached".to_owned() },
            Condition { name: "containers", met, detail: "first list".to_owned() },
        ]
    });
    let server = HttpServer::bind("127.0.0.1:0".parse().unwrap(), Arc::new(metrics()), readiness).await.unwrap();
    let address = server.local_addr().unwrap();
    tokio::spawn(server.serve());
    (address, known)
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
async fn a_head_has_no_body_and_other_methods_and_paths_are_refused() {
    let (address, _) = server().await;
    let head = request(address, "HEAD", "/healthz").await;
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
    let post = request(address, "POST", "/metrics").await;
    assert!(post.starts_with("HTTP/1.1 405 ") && post.to_lowercase().contains("allow: get, head"), "{post}");
    assert!(request(address, "GET", "/").await.starts_with("HTTP/1.1 404 "));
}

#[tokio::test]
async fn a_head_without_end_or_of_too_many_headers_is_refused() {
    let (address, _) = server().await;
    let long = format!("GET /metrics HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(64 << 10));
    let answer = exchange(address, &long).await;
    assert!(!answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let many = format!("GET /metrics HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(100));
    let answer = exchange(address, &many).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[tokio::test]
async fn connections_that_say_nothing_do_not_keep_others_out_for_ever() {
    let (address, _) = server().await;
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    // All places may be taken now; the one over the limit is closed at once rather than left waiting.
    let answered = tokio::time::timeout(CONNECTION_TIME_MAX / 2, request(address, "GET", "/healthz")).await;
    assert!(answered.is_ok(), "neither answered nor closed");
    drop(silent);
    let served = async {
        while !request(address, "GET", "/healthz").await.starts_with("HTTP/1.1 200 ") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(CONNECTION_TIME_MAX / 2, served).await.is_ok(), "their places are given anew");
}

#[tokio::test]
async fn an_address_in_use_is_named_with_what_to_do() {
    let (address, _) = server().await;
    let error = HttpServer::bind(address, Arc::new(metrics()), Box::new(Vec::new)).await.err().unwrap().to_string();
    assert!(error.contains(&address.to_string()) && error.contains("--metrics-listen"), "{error}");
}
