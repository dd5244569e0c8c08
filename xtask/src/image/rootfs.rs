//! What is in the image.

use base64::{Engine as _, engine::general_purpose::STANDARD};

/// A file of the image.
pub struct File {
    /// Without the leading `/`.
    pub path: &'static str,
    /// Permissions.
    pub mode: u32,
    /// What is in it.
    pub content: Vec<u8>,
}

/// Where the program is; the image's `PATH` leads there, so that `kubectl exec … -- rosentry doctor` works.
pub const PROGRAM: &str = "usr/bin/rosentry";

/// Where programs look for the authorities that they trust.
pub const CERTIFICATES: &str = "etc/ssl/certs/ca-certificates.crt";

/// All files, in the order of their paths.
pub fn files(program: Vec<u8>) -> Vec<File> {
    vec![
        File { path: CERTIFICATES, mode: 0o444, content: certificates().into_bytes() },
        File { path: PROGRAM, mode: 0o555, content: program },
    ]
}

/// The certificates as one PEM file.
fn certificates() -> String {
    let mut text = String::new();
    for certificate in webpki_root_certs::TLS_SERVER_ROOT_CERTS {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let encoded = STANDARD.encode(certificate);
        let mut rest = encoded.as_str();
        while !rest.is_empty() {
            let (line, after) = rest.split_at(rest.len().min(64));
            text.push_str(line);
            text.push('\n');
            rest = after;
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_certificates_are_a_pem_file() {
        let text = certificates();
        assert!(text.matches("-----BEGIN CERTIFICATE-----\n").count() > 100);
        assert!(text.lines().all(|line| line.len() <= 64));
        let first = text.split("-----").nth(2).expect("there is a first certificate").replace('\n', "");
        let decoded = STANDARD.decode(first).expect("it is base64");
        assert_eq!(decoded, webpki_root_certs::TLS_SERVER_ROOT_CERTS[0].as_ref());
    }

    #[test]
    fn the_files_come_in_the_order_of_their_paths() {
        assert!(files(Vec::new()).is_sorted_by_key(|file| file.path));
    }
}
