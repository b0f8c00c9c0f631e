//! Flags that let a client in.

use std::path::PathBuf;

use clap::Args;

use crate::grpc::client::Access;

/// Credentials for a server.
#[derive(Clone, Debug, Default, Args)]
pub struct AccessArgs {
    /// Authorities (PEM) that the server's certificate must come from; connects in TLS, as an address that begins with https:// does
    /// [default: the system's authorities].
    #[arg(long, value_name = "FILE", env = "DENSEVIT_CA")]
    ca: Option<PathBuf>,
    /// The client's own certificate (PEM), where the server asks for one.
    #[arg(long, value_name = "FILE", env = "DENSEVIT_CERTIFICATE", requires = "key")]
    certificate: Option<PathBuf>,
    /// Key of the client's certificate (PEM).
    #[arg(long, value_name = "FILE", env = "DENSEVIT_KEY", requires = "certificate")]
    key: Option<PathBuf>,
    /// Token, where the server asks for one. The environment variable is better: others see command lines.
    #[arg(long, value_name = "TOKEN", env = "DENSEVIT_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

impl AccessArgs {
    /// The credentials.
    #[must_use]
    pub fn access(&self) -> Access {
        let identity = self.certificate.clone().zip(self.key.clone());
        Access { ca: self.ca.clone(), identity, token: self.token.clone() }
    }
}
