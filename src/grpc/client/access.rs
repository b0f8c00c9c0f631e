//! What lets a client in: whose certificates it trusts, its own certificate, its token.

use std::{fs, io, path::PathBuf};

use thiserror::Error;
use tonic::{
    Request, Status,
    metadata::AsciiMetadataValue,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Identity},
};

/// Credentials of a client. The default is none, and trust in the authorities of the system.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Authorities (PEM) of which the server must show a certificate, instead of the system's.
    pub ca: Option<PathBuf>,
    /// The client's own certificate chain and key (PEM).
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Bearer token.
    pub token: Option<String>,
}

/// Why credentials cannot be used.
#[derive(Debug, Error)]
pub enum AccessError {
    /// A file cannot be read.
    #[error("cannot read {}", .file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The token cannot stand in a header.
    #[error("the token holds characters that cannot be sent")]
    Token,
}

impl Access {
    /// Whether a connection must be secure, whatever its address says.
    pub(super) fn needs_tls(&self) -> bool {
        self.ca.is_some() || self.identity.is_some()
    }

    /// Transport security of connections.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub(super) fn tls(&self) -> Result<ClientTlsConfig, AccessError> {
        let read = |file: &PathBuf| fs::read(file).map_err(|source| AccessError::Read { file: file.clone(), source });
        let config = ClientTlsConfig::new();
        let config = match &self.ca {
            Some(ca) => config.ca_certificate(Certificate::from_pem(read(ca)?)),
            None => config.with_enabled_roots(),
        };
        Ok(match &self.identity {
            Some((certificate, key)) => config.identity(Identity::from_pem(read(certificate)?, read(key)?)),
            None => config,
        })
    }

    /// The token as metadata of calls.
    ///
    /// # Errors
    /// [`AccessError::Token`].
    pub(super) fn bearer(&self) -> Result<Bearer, AccessError> {
        let value = |token: &String| {
            let mut value = AsciiMetadataValue::try_from(format!("Bearer {token}")).map_err(|_invalid| AccessError::Token)?;
            value.set_sensitive(true);
            Ok(value)
        };
        Ok(Bearer(self.token.as_ref().map(value).transpose()?))
    }
}

/// A connection on which calls show the token.
pub(super) type Secured = InterceptedService<Channel, Bearer>;

/// Shows the token with every call.
#[derive(Clone, Debug)]
pub(super) struct Bearer(Option<AsciiMetadataValue>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}
