//! `/metrics`, `/healthz` and `/readyz` over HTTP/1.1.
//!
//! Three paths and two methods need no router. [`Limits`] stand before everything: connections, of all and of one peer, the
//! size and number of headers, and the time that a connection may take from its first byte to its last. Each request has a
//! connection of its own, so that an idle one holds no place.

mod places;

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
use tokio::{net::TcpListener, task::JoinSet};

use self::places::Places;
use super::Metrics;

/// What a client may take at most.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Connections at once.
    connections: usize,
    /// Of these, from one address: a pod must not keep the kubelet's probes out, whose failure would have the agent restarted.
    connections_of_peer: usize,
    /// Headers of a request.
    headers: usize,
    /// The request line and all headers, bytes.
    head_bytes: usize,
    /// From the connection's begin to the end of the headers.
    head_time: Duration,
    /// From the connection's begin to its end.
    connection_time: Duration,
}

const LIMITS: Limits = Limits {
    connections: 64,
    connections_of_peer: 8,
    headers: 64,
    head_bytes: 16 << 10,
    head_time: Duration::from_secs(5),
    connection_time: Duration::from_secs(15),
};

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
    limits: Limits,
}

/// Where the metrics are.
const METRICS: &str = "/metrics";

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
            Ok(listener) => Ok(Self { listener, answers: Arc::new(Answers { metrics, readiness }), limits: LIMITS }),
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
        let Limits { connections, connections_of_peer, headers, head_bytes, head_time, connection_time } = self.limits;
        let places = Places::new(connections, connections_of_peer);
        let mut serving = JoinSet::new();
        loop {
            while serving.try_join_next().is_some() {}
            let (stream, peer) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::debug!("accepting a connection failed: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // Without a place it is closed at once: a scraper that comes in vain sees that, one that waits sees nothing.
            let Some(place) = places.take(peer.ip()) else { continue };
            let answers = Arc::clone(&self.answers);
            serving.spawn(async move {
                let _place = place;
                let service = service_fn(move |request| {
                    let answers = Arc::clone(&answers);
                    async move {
                        if request.uri().path() != METRICS {
                            return Ok::<_, Infallible>(answers.answer(&request));
                        }
                        // It looks at containers: not on a thread that others wait for.
                        let answered = tokio::task::spawn_blocking(move || answers.answer(&request));
                        Ok(answered.await.unwrap_or_else(|error| failed(&error)))
                    }
                });
                let connection = http1::Builder::new()
                    .keep_alive(false)
                    .max_headers(headers)
                    .max_buf_size(head_bytes)
                    .timer(TokioTimer::new())
                    .header_read_timeout(head_time)
                    .serve_connection(TokioIo::new(stream), service);
                // Whatever ends it early is the other side's affair.
                let _ = tokio::time::timeout(connection_time, connection).await;
            });
        }
    }
}

impl Answers {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        if !matches!(path, METRICS | "/healthz" | "/readyz") {
            return response(StatusCode::NOT_FOUND, "there are /metrics, /healthz and /readyz\n".to_owned());
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refusal = response(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".to_owned());
            refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refusal;
        }
        match path {
            METRICS => self.metrics(),
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
            Err(error) => failed(&error),
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

fn failed(error: &dyn std::error::Error) -> Response<Full<Bytes>> {
    response(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"))
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
