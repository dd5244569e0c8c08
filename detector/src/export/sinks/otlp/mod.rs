//! OTLP logs over gRPC (opentelemetry-proto, `collector/logs/v1`), with the messages and the client of OpenTelemetry's crate.
//!
//! A line is delivered when the receiver has answered the request with it. What becomes of a request that fails, OTLP says by
//! the status; rosentry is more patient: it gives up only what the receiver calls wrong in itself, for a token that has run out
//! or a collector without a pipeline for logs is mended in time, and a record with a hole is not.

mod message;

use std::{error::Error, time::Duration};

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataKey, MetadataValue},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};
use tracing::warn;

use super::{
    sender::{Connection, Receiver, SendError},
    spool::{Batch, Position},
    tls::{self, TlsConfig, TlsError},
};
use crate::error_chain::chain;

/// How long a request may take.
const REQUEST: Duration = Duration::from_secs(10);

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);

/// A connection is asked this often whether it still stands.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// The answer is short.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// A receiver of OTLP.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OtlpConfig {
    /// `http://HOST:PORT` or `https://HOST:PORT`.
    pub endpoint: String,
    /// How to speak TLS with it; for `https` alone.
    pub tls: TlsConfig,
    /// Sent along with each request, such as a token: names in lower case and values.
    pub headers: Vec<(String, String)>,
}

/// Why it can't be used.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    /// The certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Anything else.
    #[error("{0}")]
    Unusable(String),
}

/// The receiver.
pub struct Otlp {
    endpoint: Endpoint,
    headers: Vec<(MetadataKey<Ascii>, MetadataValue<Ascii>)>,
}

impl Otlp {
    /// Reads what TLS needs; connects to nothing.
    ///
    /// # Errors
    /// Where that can't be used, or a header is none.
    pub fn new(config: OtlpConfig) -> Result<Self, OtlpError> {
        let OtlpConfig { endpoint, tls, headers } = config;
        let is_encrypted = endpoint.starts_with("https:");
        let unusable = |error: &dyn Error| OtlpError::Unusable(chain(error));
        let mut endpoint = Endpoint::from_shared(endpoint)
            .map_err(|error| unusable(&error))?
            .connect_timeout(CONNECT)
            .timeout(REQUEST)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .user_agent(concat!("rosentry/", env!("CARGO_PKG_VERSION")))
            .map_err(|error| unusable(&error))?;
        if is_encrypted {
            // Said here what is wrong with a file; tonic says it when it connects.
            tls::client(&tls)?;
            let mut settings = ClientTlsConfig::new();
            settings = match &tls.ca {
                Some(path) => settings.ca_certificate(Certificate::from_pem(tls::read(path)?)),
                None => settings.with_native_roots(),
            };
            if let Some((certificate, key)) = &tls.identity {
                settings = settings.identity(Identity::from_pem(tls::read(certificate)?, tls::read(key)?));
            }
            endpoint = endpoint.tls_config(settings).map_err(|error| unusable(&error))?;
        }
        let header = |(name, value): (String, String)| {
            let mut value = value.parse::<MetadataValue<Ascii>>().ok()?;
            value.set_sensitive(true);
            Some((name.parse().ok()?, value))
        };
        let headers = headers.into_iter().map(header).collect::<Option<_>>();
        let headers = headers
            .ok_or_else(|| OtlpError::Unusable("a header has a name or value that HTTP does not take".to_owned()))?;
        Ok(Self { endpoint, headers })
    }
}

impl Receiver for Otlp {
    type Connection = OtlpConnection;

    async fn connect(&mut self) -> Result<OtlpConnection, SendError> {
        let channel = self.endpoint.connect().await.map_err(|error| SendError(chain(&error)))?;
        let client = LogsServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
        Ok(OtlpConnection { client, headers: self.headers.clone(), delivered: None })
    }
}

/// A connection to a receiver.
pub struct OtlpConnection {
    client: LogsServiceClient<Channel>,
    headers: Vec<(MetadataKey<Ascii>, MetadataValue<Ascii>)>,
    /// What was answered and not yet told.
    delivered: Option<Position>,
}

impl Connection for OtlpConnection {
    async fn send(&mut self, batch: Batch) -> Result<u64, SendError> {
        let lines = u64::try_from(batch.lines.len()).unwrap_or(u64::MAX);
        let mut request = Request::new(message::request(batch.lines));
        for (name, value) in &self.headers {
            request.metadata_mut().insert(name.clone(), value.clone());
        }
        let refused = match self.client.export(request).await {
            Ok(answer) => {
                let partial = answer.into_inner().partial_success.unwrap_or_default();
                let refused = u64::try_from(partial.rejected_log_records).unwrap_or_default();
                if refused > 0 {
                    warn!(
                        refused,
                        why = partial.error_message,
                        "the OTLP receiver refuses events; they are not sent again"
                    );
                }
                refused
            }
            Err(status) if is_about_the_request(&status) => {
                warn!(refused = lines, %status, "the OTLP receiver refuses events; they are not sent again");
                lines
            }
            Err(status) => return Err(SendError(chain(&status))),
        };
        self.delivered = Some(batch.end);
        Ok(refused)
    }

    async fn delivered(&mut self) -> Result<Position, SendError> {
        match self.delivered.take() {
            Some(position) => Ok(position),
            None => std::future::pending().await,
        }
    }

    async fn finish(self) -> Result<Position, SendError> {
        Ok(self.delivered.unwrap_or_default())
    }
}

/// Whether the same request would be refused for ever.
fn is_about_the_request(status: &Status) -> bool {
    status.code() == Code::InvalidArgument
}
