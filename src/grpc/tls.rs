//! TLS of the gRPC port, one-sided or mutual.
//!
//! # Design
//! tonic's own TLS cannot change its certificate while it runs. Here every handshake takes the configuration in force, and [`Reloaded`]
//! makes a new one when the files change; connections that are open keep theirs. `ring` does the cryptography: it builds everywhere with
//! a C compiler alone.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        crypto::{CryptoProvider, ring},
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
        server::WebPkiClientVerifier,
    },
    server::TlsStream,
};

use crate::grpc::reloaded::{NamedFile, ReloadError, Reloaded};

/// Protocols that are negotiated.
const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// Transport security of the gRPC port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsConfig {
    /// Certificate chain (PEM), the server's own first. Empty, the default: no TLS.
    pub certificate: PathBuf,
    /// Private key of the certificate (PEM).
    pub key: PathBuf,
    /// Authorities (PEM) of which clients must show a certificate. Empty, the default: clients need none.
    pub client_ca: PathBuf,
    /// Seconds between looks at the files for new contents; 0: never. Default 30.
    pub reload_s: u64,
    /// Seconds within which a handshake must end. Default 10.
    pub handshake_timeout_s: u64,
}

impl Default for TlsConfig {
    fn default() -> Self {
        Self {
            certificate: PathBuf::new(),
            key: PathBuf::new(),
            client_ca: PathBuf::new(),
            reload_s: 30,
            handshake_timeout_s: 10,
        }
    }
}

/// Takes connections into TLS.
#[derive(Clone, Debug)]
pub(super) struct Tls {
    configuration: Arc<Reloaded<ServerConfig>>,
    handshake_timeout: Duration,
}

impl Tls {
    /// Reads the files, if any are named, and looks at them again as configured. Browsers may speak HTTP/1.1.
    ///
    /// # Errors
    /// When one is missing or cannot be used.
    pub(super) fn open(config: &TlsConfig, with_browsers: bool) -> Result<Option<Self>, ReloadError> {
        let named = |key, file: &PathBuf| NamedFile { key, file: file.clone() };
        let files = [
            named("grpc.tls.certificate", &config.certificate),
            named("grpc.tls.key", &config.key),
            named("grpc.tls.client_ca", &config.client_ca),
        ];
        let [certificate, key, client_ca] = &files;
        let is_set = |of: &NamedFile| !of.file.as_os_str().is_empty();
        match (is_set(certificate), is_set(key), is_set(client_ca)) {
            (false, false, false) => return Ok(None),
            (false, ..) => return Err(certificate.problem("it must be given with grpc.tls.key and grpc.tls.client_ca")),
            (_, false, _) => return Err(key.problem("it must be given with grpc.tls.certificate")),
            _ => {}
        }
        let files = files.into_iter().filter(is_set).collect();
        let protocols = if with_browsers { vec![HTTP2.to_vec(), HTTP1.to_vec()] } else { vec![HTTP2.to_vec()] };
        let make = move |files: &[NamedFile], contents: &[Vec<u8>]| {
            let mut config = configuration(files, contents)?;
            config.alpn_protocols.clone_from(&protocols);
            Ok(config)
        };
        let configuration = Arc::new(Reloaded::open("certificates", files, Box::new(make))?);
        configuration.watch(config.reload_s);
        Ok(Some(Self { configuration, handshake_timeout: Duration::from_secs(config.handshake_timeout_s.max(1)) }))
    }

    /// Makes a connection secure.
    ///
    /// # Errors
    /// A handshake that fails or takes too long.
    pub(super) async fn accept<S>(&self, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let acceptor = TlsAcceptor::from(self.configuration.current());
        let elapsed = |_elapsed| io::Error::new(io::ErrorKind::TimedOut, "the handshake took too long");
        timeout(self.handshake_timeout, acceptor.accept(stream)).await.map_err(elapsed)?
    }
}

/// The configuration of handshakes that the files describe: certificate, key and, if there is a third, authorities of clients.
fn configuration(files: &[NamedFile], contents: &[Vec<u8>]) -> Result<ServerConfig, ReloadError> {
    let of = |idx: usize| contents.get(idx).map(Vec::as_slice).unwrap_or_default();
    let (certificate, key) = (&files[0], &files[1]);
    let chain = certificates(certificate, of(0))?;
    let private = PrivateKeyDer::from_pem_slice(of(1)).map_err(|error| key.problem(error))?;
    let provider: Arc<CryptoProvider> = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| certificate.problem(error))?;
    let builder = match files.get(2) {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates(file, of(2))? {
                roots.add(authority).map_err(|error| file.problem(error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| file.problem(error))?)
        }
    };
    builder.with_single_cert(chain, private).map_err(|error| certificate.problem(error))
}

fn certificates(file: &NamedFile, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, ReloadError> {
    let chain = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().map_err(|error| file.problem(error))?;
    if chain.is_empty() {
        return Err(file.problem("it holds no certificate"));
    }
    Ok(chain)
}
