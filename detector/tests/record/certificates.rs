//! An authority of the test's own, and what it vouches for.

use std::{fs, path::PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use tempfile::TempDir;

/// The files, PEM, in a folder that goes with this.
pub struct Certificates {
    folder: TempDir,
}

impl Certificates {
    /// An authority, a server on this machine and a client.
    pub fn make() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, pem: &str| fs::write(folder.path().join(name), pem).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut authority = named("rosentry's test authority");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        write("ca", &authority.self_signed(&key).unwrap().pem());
        let issuer = Issuer::new(authority, key);
        for (name, purpose) in
            [("server", ExtendedKeyUsagePurpose::ServerAuth), ("client", ExtendedKeyUsagePurpose::ClientAuth)]
        {
            let key = KeyPair::generate().unwrap();
            let mut params = named(name);
            params.subject_alt_names = CertificateParams::new(["localhost".to_owned()]).unwrap().subject_alt_names;
            params.extended_key_usages = vec![purpose];
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            write(name, &params.signed_by(&key, &issuer).unwrap().pem());
            write(&format!("{name}-key"), &key.serialize_pem());
        }
        Self { folder }
    }

    /// `ca`, `server`, `server-key`, `client` or `client-key`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What such a file holds.
    pub fn pem(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}
