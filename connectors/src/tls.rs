//! TLS from PEM files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::table::{At, Review};

/// `tls`: certificates are PEM files.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// Certificate authority to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// Client certificate chain; needs `key`.
    pub cert: Option<PathBuf>,
    /// Client private key; needs `cert`.
    pub key: Option<PathBuf>,
}

impl TlsConfig {
    /// Says what is wrong with the table `tls`, and resolves its paths.
    pub(crate) fn check(&mut self, review: &mut Review<'_>) {
        for (there, there_key, absent, absent_key) in
            [(&self.cert, "cert", &self.key, "key"), (&self.key, "key", &self.cert, "cert")]
        {
            if there.is_some() && absent.is_none() {
                let message = format!("`{there_key}` is given without `{absent_key}`");
                let help = format!(
                    "add `{absent_key} = \"..\"`: a client certificate is always a certificate and its key"
                );
                review.error(At::key(&["tls", there_key]), message, help);
            }
        }
        for (key, path) in [("ca", &mut self.ca), ("cert", &mut self.cert), ("key", &mut self.key)] {
            let Some(path) = path else { continue };
            *path = review.base_dir.join(&*path);
            check_file(path, key, review);
        }
    }
}

fn check_file(path: &Path, key: &str, review: &mut Review<'_>) {
    let at = At::value(&["tls", key]);
    // A file that cannot be looked at may still be readable for the user that the box runs as.
    match std::fs::metadata(path) {
        Ok(found) if !found.is_file() => {
            review.error(at, format!("`{key}` names {}, which is not a file", path.display()), None);
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let help = "relative paths start at the directory of the configuration file".to_owned();
            review.error(at, format!("`{key}` names {}, which does not exist", path.display()), help);
        }
        _ => {}
    }
}

/// TLS that cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or has not in it what it should.
    #[error("tls.{setting}: {}: {why}", path.display())]
    File {
        /// `ca`, `cert` or `key`
        setting: &'static str,
        /// the file
        path: PathBuf,
        /// what is wrong with it
        why: String,
    },
    /// One of `cert` and `key` is missing.
    #[error("tls.{present} needs tls.{missing} beside it: a client certificate consists of both")]
    Half {
        /// the one that is there
        present: &'static str,
        /// the one that is not
        missing: &'static str,
    },
    /// The system has no roots.
    #[error(
        "the system has no trusted certificate authorities ({0}): install ca-certificates, or name one with \
        tls.ca"
    )]
    NoRoots(String),
    /// The certificate and the key do not go together, or similar.
    #[error("tls: {0}")]
    Rustls(#[from] rustls::Error),
}

impl TlsError {
    /// Where in the table of the connection.
    #[must_use]
    pub fn keys(&self) -> Vec<&'static str> {
        match self {
            Self::File { setting, .. } => vec!["tls", setting],
            Self::Half { .. } | Self::NoRoots(_) | Self::Rustls(_) => vec!["tls"],
        }
    }
}

/// Builds the client's side of TLS, with ring for cryptography.
pub(crate) fn client_config(tls: &TlsConfig) -> Result<Arc<ClientConfig>, TlsError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots(tls.ca.as_deref())?);
    let config = match (&tls.cert, &tls.key) {
        (None, None) => builder.with_no_client_auth(),
        (Some(cert), Some(key)) => {
            let key_der = PrivateKeyDer::from_pem_slice(&read("key", key)?)
                .map_err(|error| wrong("key", key, format!("no PEM private key in it ({error})")))?;
            builder.with_client_auth_cert(certificates("cert", cert)?, key_der)?
        }
        (Some(_), None) => return Err(TlsError::Half { present: "cert", missing: "key" }),
        (None, Some(_)) => return Err(TlsError::Half { present: "key", missing: "cert" }),
    };
    Ok(Arc::new(config))
}

/// TLS that trusts nobody, for a client that also speaks without.
pub(crate) fn no_roots() -> Result<Arc<ClientConfig>, TlsError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder =
        builder.with_safe_default_protocol_versions()?.with_root_certificates(RootCertStore::empty());
    Ok(Arc::new(builder.with_no_client_auth()))
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = ca {
        for certificate in certificates("ca", path)? {
            roots
                .add(certificate)
                .map_err(|error| wrong("ca", path, format!("not a certificate authority ({error})")))?;
        }
        return Ok(roots);
    }
    let native = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(native.certs);
    if roots.is_empty() {
        let why = native.errors.first().map_or_else(|| "none found".to_owned(), ToString::to_string);
        return Err(TlsError::NoRoots(why));
    }
    Ok(roots)
}

fn certificates(setting: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(setting, path)?;
    let certificates = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| wrong(setting, path, format!("not a PEM file ({error})")))?;
    if certificates.is_empty() {
        return Err(wrong(
            setting,
            path,
            "no PEM certificate in it (`-----BEGIN CERTIFICATE-----`)".to_owned(),
        ));
    }
    Ok(certificates)
}

fn read(setting: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|error| wrong(setting, path, format!("cannot be read: {error}")))
}

fn wrong(setting: &'static str, path: &Path, why: String) -> TlsError {
    TlsError::File { setting, path: path.to_owned(), why }
}
