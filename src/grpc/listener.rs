//! The accept loop: HTTP/2 connections with bounded windows, streams, age and drain, in TLS if that is configured.
//!
//! # Design
//! tonic's own server waits for ever for connections to end, and turns a passed deadline into CANCELLED; both are decided here
//! instead: after the drain budget connections are dropped, and deadlines are the engine's. Everything else of tonic is used.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};
use tracing::warn;

use crate::grpc::{
    WebConfig,
    auth::AuthConfig,
    connection::{Terms, connection, turned_true},
    reloaded::ReloadError,
    tls::{Tls, TlsConfig},
};

/// Transport settings of the gRPC port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GrpcConfig {
    /// Address and port to listen on; port 0 takes a free one. Default `0.0.0.0:50051`.
    pub listen: SocketAddr,
    /// Largest request message, in bytes. Default 36 MiB: an image of 32 MiB and its options.
    pub max_message_bytes: usize,
    /// Connections at once; further ones wait. Default 1024.
    pub max_connections: usize,
    /// Calls at once on one connection. Default 128.
    pub max_streams_per_connection: u32,
    /// HTTP/2 receive window of a stream, in bytes. Default 8 MiB.
    pub stream_window_bytes: u32,
    /// HTTP/2 receive window of a connection, in bytes. Default 32 MiB.
    pub connection_window_bytes: u32,
    /// Largest HTTP/2 frame that is accepted, in bytes. Default 256 KiB: larger ones cost buffers of their size and save nothing (`benches/wire`).
    pub max_frame_bytes: u32,
    /// Bytes that wait for a slow reader on one stream before it is no longer served. Default 1 MiB.
    pub send_buffer_bytes: usize,
    /// Seconds between pings on an idle connection. Default 30.
    pub keepalive_s: u64,
    /// Seconds after which an unanswered ping ends a connection. Default 10.
    pub keepalive_timeout_s: u64,
    /// Seconds without a byte in either direction after which a connection is dropped; 0: never. Live peers answer pings, so this
    /// should be longer than `keepalive_s`. Default 120.
    pub idle_timeout_s: u64,
    /// Seconds after which a connection is told to go, give or take a tenth; calls on it finish. 0, the default: never.
    pub max_connection_age_s: u64,
    /// Seconds that calls may still take then. Default 300.
    pub max_connection_age_grace_s: u64,
    /// Bytes of requests that have begun and not ended to arrive, in all; a quarter of it on one connection, but always one message.
    /// Default 1 GiB.
    pub max_arriving_bytes: usize,
    /// Seconds that one message may take from its first byte to its last; 0: for ever. Default 300.
    pub receive_timeout_s: u64,
    /// Seconds that bytes of an answer may wait for a client that does not read, before that call is reset; 0: for ever. Default 60.
    pub send_timeout_s: u64,
    /// Largest headers of a call, in bytes. Default 16 KiB.
    pub max_header_bytes: u32,
    /// Transport security.
    pub tls: TlsConfig,
    /// Who may call.
    pub auth: AuthConfig,
    /// gRPC-Web, for browsers.
    pub web: WebConfig,
}

impl Default for GrpcConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 50051)),
            max_message_bytes: 36 << 20,
            max_connections: 1024,
            max_streams_per_connection: 128,
            stream_window_bytes: 8 << 20,
            connection_window_bytes: 32 << 20,
            max_frame_bytes: 256 << 10,
            send_buffer_bytes: 1 << 20,
            keepalive_s: 30,
            keepalive_timeout_s: 10,
            idle_timeout_s: 120,
            max_connection_age_s: 0,
            max_connection_age_grace_s: 300,
            max_arriving_bytes: 1 << 30,
            receive_timeout_s: 300,
            send_timeout_s: 60,
            max_header_bytes: 16 << 10,
            tls: TlsConfig::default(),
            auth: AuthConfig::default(),
            web: WebConfig::default(),
        }
    }
}

/// A bound port.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    tls: Option<Tls>,
    config: GrpcConfig,
}

/// Why a port cannot be served.
#[derive(Debug, Error)]
pub enum ListenError {
    /// The address is taken or not ours.
    #[error("cannot bind it")]
    Bind(#[source] io::Error),
    /// Certificate or key cannot be used.
    #[error("cannot set up TLS")]
    Tls(#[source] ReloadError),
}

impl Listener {
    /// Reads the certificates, if any are configured, and binds the configured address.
    ///
    /// # Errors
    /// When a certificate cannot be used, or the address is taken or not ours.
    pub async fn bind(config: GrpcConfig) -> Result<Self, ListenError> {
        let tls = Tls::open(&config.tls, config.web.enabled).map_err(ListenError::Tls)?;
        let listener = TcpListener::bind(config.listen).await.map_err(ListenError::Bind)?;
        Ok(Self { listener, tls, config })
    }

    /// The address that was bound.
    ///
    /// # Errors
    /// When the socket cannot tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves `app` until `draining` turns true; then takes no new connections, lets calls in flight finish within `budget`,
    /// and drops what is left. Returns the number of connections that had to be dropped.
    pub async fn serve(self, app: Router, mut draining: watch::Receiver<bool>, budget: Duration) -> usize {
        let slots = Arc::new(Semaphore::new(self.config.max_connections.max(1)));
        let terms = Terms::new(&self.config, self.tls.clone());
        let mut open = JoinSet::new();
        loop {
            tokio::select! {
                () = turned_true(&mut draining) => break,
                Some(_ended) = open.join_next(), if !open.is_empty() => {}
                accepted = self.accept(&slots) => {
                    if let Some((stream, slot)) = accepted {
                        open.spawn(connection(terms.clone(), stream, app.clone(), draining.clone(), slot));
                    }
                }
            }
        }
        drop(self.listener);
        let all_ended = async { while open.join_next().await.is_some() {} };
        if timeout(budget, all_ended).await.is_ok() {
            return 0;
        }
        let n_dropped = open.len();
        open.shutdown().await;
        n_dropped
    }

    async fn accept(&self, slots: &Arc<Semaphore>) -> Option<(TcpStream, OwnedSemaphorePermit)> {
        let slot = Arc::clone(slots).acquire_owned().await.ok()?;
        match self.listener.accept().await {
            Ok((stream, _peer)) => {
                // Small answers must not wait for the acknowledgement of earlier ones.
                let _unsupported = stream.set_nodelay(true);
                Some((stream, slot))
            }
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                // Out of file descriptors, usually: give other connections time to end.
                sleep(Duration::from_millis(50)).await;
                None
            }
        }
    }
}
