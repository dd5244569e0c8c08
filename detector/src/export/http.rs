//! `/metrics`, `/healthz` and `/readyz` over HTTP/1.1.
//!
//! Three paths and two methods need no router. Limits stand before everything: connections, the size and number of headers,
//! and the time that a connection may take from its first byte to its last. Each request has a connection of its own, so
//! that an idle one holds no place.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet};

use super::Metrics;

const CONNECTIONS_MAX: usize = 64;
const HEADERS_MAX: usize = 64;
/// The request line and all headers, bytes.
const HEAD_BYTES_MAX: usize = 16 << 10;
const HEAD_TIME_MAX: Duration = Duration::from_secs(5);
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(15);
/// After a failed accept: it is most often for want of file descriptors, which takes time to pass.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Something that must hold before the agent is ready.
#[derive(Clone, Debug)]
pub struct Condition {
    /// What: `hooks`, `containers`, `containerd`.
    pub name: &'static str,
    /// Whether it holds.
    pub met: bool,
    /// How things stand, for whoever asks why not.
    pub detail: String,
}

/// What answers for readiness, asked at each `/readyz`.
pub type Readiness = Box<dyn Fn() -> Vec<Condition> + Send + Sync>;

/// Why the port can't be had.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Somebody has it.
    #[error("{0} is in use: choose another address with --metrics-listen, or end what listens there")]
    InUse(SocketAddr),
    /// Anything else.
    #[error("can't listen on {address}: {source}; choose another address with --metrics-listen")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
}

/// The server, bound and not yet serving.
pub struct HttpServer {
    listener: TcpListener,
    answers: Arc<Answers>,
}

struct Answers {
    metrics: Arc<Metrics>,
    readiness: Readiness,
}

impl HttpServer {
    /// Takes the address.
    ///
    /// # Errors
    /// Where it can't be had.
    pub async fn bind(address: SocketAddr, metrics: Arc<Metrics>, readiness: Readiness) -> Result<Self, HttpError> {
        match TcpListener::bind(address).await {
            Ok(listener) => Ok(Self { listener, answers: Arc::new(Answers { metrics, readiness }) }),
            Err(source) if source.kind() == io::ErrorKind::AddrInUse => Err(HttpError::InUse(address)),
            Err(source) => Err(HttpError::Listen { address, source }),
        }
    }

    /// The address that it has, with the port that the kernel chose where 0 was asked for.
    ///
    /// # Errors
    /// Where the socket is gone.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until dropped.
    pub async fn serve(self) -> Infallible {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::debug!("accepting a connection failed: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // Without a place it is closed at once: a scraper that comes in vain sees that, one that waits sees nothing.
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
            let answers = Arc::clone(&self.answers);
            connections.spawn(async move {
                let _place = place;
                let service = service_fn(move |request| {
                    let response = answers.answer(&request);
                    async move { Ok::<_, Infallible>(response) }
                });
                let connection = http1::Builder::new()
                    .keep_alive(false)
                    .max_headers(HEADERS_MAX)
                    .max_buf_size(HEAD_BYTES_MAX)
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_TIME_MAX)
                    .serve_connection(TokioIo::new(stream), service);
                // Whatever ends it early is the other side's affair.
                let _ = tokio::time::timeout(CONNECTION_TIME_MAX, connection).await;
            });
        }
    }
}

impl Answers {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        if !matches!(path, "/metrics" | "/healthz" | "/readyz") {
            return response(StatusCode::NOT_FOUND, "there are /metrics, /healthz and /readyz\n".to_owned());
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refusal = response(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".to_owned());
            refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refusal;
        }
        match path {
            "/metrics" => self.metrics(),
            "/readyz" => self.ready(),
            _ => response(StatusCode::OK, "ok\n".to_owned()),
        }
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        match self.metrics.render() {
            Ok(text) => {
                let mut answer = response(StatusCode::OK, text);
                let format = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
                answer.headers_mut().insert(CONTENT_TYPE, format);
                answer
            }
            Err(error) => response(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        }
    }

    fn ready(&self) -> Response<Full<Bytes>> {
        let conditions = (self.readiness)();
        let ready = conditions.iter().all(|condition| condition.met);
        let mut body = String::from(if ready { "ready\n" } else { "not ready\n" });
        for Condition { name, met, detail } in conditions {
            let state = if met { "ok" } else { "missing" };
            body.push_str(&format!("{state} {name}: {detail}\n"));
        }
        response(if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, body)
    }
}

fn response(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
