//! The settings of TLS to the server: files that are read again for every connection, so that they can be renewed,
//! and the name that the server's certificate must have.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// The setting of the authorities' file.
pub(super) const CA: &str = "redis-tls-ca";
/// The setting of the client certificate's file.
pub(super) const CERT: &str = "redis-tls-cert";
/// The setting of its key's file.
pub(super) const KEY: &str = "redis-tls-key";
/// The setting of the server's name.
pub(super) const NAME: &str = "redis-tls-name";

/// Where the certificates are, and the name to check. Without a file of authorities, the system's are used; without a
/// file of a client certificate, none is sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates of the authorities that are trusted, in place of the machine's.
    pub ca: Option<PathBuf>,
    /// The client certificate, with the certificates up to its authority.
    pub cert: Option<PathBuf>,
    /// Its private key.
    pub key: Option<PathBuf>,
    /// The name that every server's certificate must have, instead of the host at which the server is reached.
    pub name: Option<String>,
}

/// A file that cannot be used for TLS.
#[derive(Debug, thiserror::Error)]
#[error("{setting}: {path:?} {why}")]
pub struct TlsFileError {
    /// The setting that names it.
    pub setting: &'static str,
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it; never a part of its content.
    pub why: String,
}

impl TlsFiles {
    /// The settings that were given, as texts.
    pub fn given(&self) -> Vec<(&'static str, String)> {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let all = [
            (CA, path(&self.ca)),
            (CERT, path(&self.cert)),
            (KEY, path(&self.key)),
            (NAME, self.name.clone()),
        ];
        all.into_iter().filter_map(|(setting, text)| Some((setting, text?))).collect()
    }

    /// The configuration for connections from now on: reads the files.
    ///
    /// # Errors
    /// Names the file that cannot be used.
    pub fn client(&self) -> Result<ClientConfig, TlsFileError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| refused(CA, self.ca.as_deref(), error.to_string()))?
            .with_root_certificates(self.authorities()?);
        let (Some(cert), Some(key)) = (&self.cert, &self.key) else {
            return Ok(builder.with_no_client_auth());
        };
        let own = |error: rustls::Error| {
            let why = match error {
                rustls::Error::InconsistentKeys(_) => format!(
                    "is not the key of the certificate in {cert:?}; use a certificate and key that belong together"
                ),
                other => format!("cannot be used with the certificate in {cert:?}: {other}"),
            };
            refused(KEY, Some(key), why)
        };
        builder.with_client_auth_cert(certificates(CERT, cert)?, private_key(key)?).map_err(own)
    }

    fn authorities(&self) -> Result<RootCertStore, TlsFileError> {
        let mut store = RootCertStore::empty();
        match &self.ca {
            None => {
                let found = rustls_native_certs::load_native_certs();
                store.add_parsable_certificates(found.certs);
            }
            Some(path) => {
                for certificate in certificates(CA, path)? {
                    store.add(certificate).map_err(|error| {
                        refused(
                            CA,
                            Some(path),
                            format!("contains a certificate that is not an authority's: {error}"),
                        )
                    })?;
                }
            }
        }
        Ok(store)
    }
}

fn certificates(
    setting: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsFileError> {
    let text = read(setting, path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => {
            let why = "contains no certificate; it must be PEM: -----BEGIN CERTIFICATE-----";
            Err(refused(setting, Some(path), why.to_owned()))
        }
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsFileError> {
    PrivateKeyDer::from_pem_slice(&read(KEY, path)?).map_err(|_| {
        let why = "contains no usable private key; it must be PEM without a passphrase: \
                   -----BEGIN PRIVATE KEY-----";
        refused(KEY, Some(path), why.to_owned())
    })
}

fn read(setting: &'static str, path: &Path) -> Result<Vec<u8>, TlsFileError> {
    let unreadable =
        |error: io::Error| refused(setting, Some(path), format!("cannot be read: {error}"));
    std::fs::read(path).map_err(unreadable)
}

fn refused(setting: &'static str, path: Option<&Path>, why: String) -> TlsFileError {
    TlsFileError { setting, path: path.unwrap_or(Path::new("")).to_owned(), why }
}
