//! TLS towards receivers: whom to trust, and who we are.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

/// How to speak TLS with a receiver.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TlsConfig {
    /// A file with the certificates (PEM) of those who may vouch for the receiver; none: the system's.
    pub ca: Option<PathBuf>,
    /// Files with our own certificate and its key (PEM), where the receiver asks who we are.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// What is wrong with the files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// It can't be read.
    #[error("{path} can't be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is not what it should be.
    #[error("{path} has no {what} in PEM")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What it should have.
        what: &'static str,
    },
    /// The system has none.
    #[error("the system has no certificates of authorities: install ca-certificates, or name a file")]
    NoSystemRoots,
    /// They don't go together.
    #[error("the certificates can't be used: {0}")]
    Unusable(#[from] rustls::Error),
}

/// The settings of a connection.
///
/// # Errors
/// See [`TlsError`].
pub fn client(config: &TlsConfig) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    match &config.ca {
        Some(path) => {
            for certificate in certificates(path)? {
                roots.add(certificate)?;
            }
        }
        None => {
            // One that rustls does not understand need not be the one that is wanted.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err(TlsError::NoSystemRoots);
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    Ok(Arc::new(match &config.identity {
        Some((certificate, key)) => builder.with_client_auth_cert(certificates(certificate)?, private_key(key)?)?,
        None => builder.with_no_client_auth(),
    }))
}

/// The bytes of a file.
///
/// # Errors
/// Where it can't be read.
pub fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(path)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    all.ok().filter(|all| !all.is_empty()).ok_or_else(|| TlsError::Pem { path: path.to_owned(), what: "certificate" })
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(&read(path)?)
        .map_err(|_| TlsError::Pem { path: path.to_owned(), what: "private key" })
}
