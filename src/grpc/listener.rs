//! The accept loop: HTTP/2 connections with bounded windows, streams, age and drain, in TLS if that is configured.
//!
//! # Design
//! tonic's own server waits for ever for connections to end, and turns a passed deadline into CANCELLED; both are decided here
//! instead: after the drain budget connections are dropped, and deadlines are the engine's. Everything else of tonic is used.
//!
//! A connection ends by itself in three ways. At its age it is told to go (GOAWAY), so that clients behind a balancer spread over new
//! servers; ages differ by a tenth, lest all come back at once. Without a byte in either direction for the idle time it is dropped. And
//! hyper ends one whose peer resets streams faster than they are served (CVE-2023-44487) or sends longer headers than allowed.

use std::{
    hash::{BuildHasher as _, RandomState},
    io,
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, warn};

use crate::grpc::{
    auth::AuthConfig,
    reloaded::ReloadError,
    tls::{Tls, TlsConfig},
    watched::{Activity, Watched},
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
    /// Largest HTTP/2 frame that is accepted, in bytes. Default 1 MiB.
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
    /// Largest headers of a call, in bytes. Default 16 KiB.
    pub max_header_bytes: u32,
    /// Transport security.
    pub tls: TlsConfig,
    /// Who may call.
    pub auth: AuthConfig,
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
            max_frame_bytes: 1 << 20,
            send_buffer_bytes: 1 << 20,
            keepalive_s: 30,
            keepalive_timeout_s: 10,
            idle_timeout_s: 120,
            max_connection_age_s: 0,
            max_connection_age_grace_s: 300,
            max_header_bytes: 16 << 10,
            tls: TlsConfig::default(),
            auth: AuthConfig::default(),
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
        let tls = Tls::open(&config.tls).map_err(ListenError::Tls)?;
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
        let _watching = self.tls.clone().map(|tls| AbortOnDropHandle::new(tokio::spawn(tls.watch())));
        let terms = Terms::new(&self.config, self.tls.clone());
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = turned_true(&mut draining) => break,
                Some(_ended) = connections.join_next(), if !connections.is_empty() => {}
                accepted = self.accept(&slots) => {
                    if let Some((stream, slot)) = accepted {
                        connections.spawn(connection(terms.clone(), stream, app.clone(), draining.clone(), slot));
                    }
                }
            }
        }
        drop(self.listener);
        let all_ended = async { while connections.join_next().await.is_some() {} };
        if timeout(budget, all_ended).await.is_ok() {
            return 0;
        }
        let n_dropped = connections.len();
        connections.shutdown().await;
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

/// Resolves once the drain has begun; a dropped sender counts as begun.
async fn turned_true(draining: &mut watch::Receiver<bool>) {
    let _sender_gone = draining.wait_for(|draining| *draining).await;
}

fn http2(config: &GrpcConfig) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new()).http2_only();
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(config.stream_window_bytes)
        .initial_connection_window_size(config.connection_window_bytes)
        .max_frame_size(config.max_frame_bytes)
        .max_send_buf_size(config.send_buffer_bytes)
        .max_concurrent_streams(config.max_streams_per_connection)
        .max_header_list_size(config.max_header_bytes)
        .keep_alive_interval((config.keepalive_s > 0).then(|| Duration::from_secs(config.keepalive_s)))
        .keep_alive_timeout(Duration::from_secs(config.keepalive_timeout_s));
    builder
}

/// What every connection is served under.
#[derive(Clone)]
struct Terms {
    builder: auto::Builder<TokioExecutor>,
    tls: Option<Tls>,
    /// Longest silence.
    idle: Option<Duration>,
    age: Option<Duration>,
    grace: Duration,
}

impl Terms {
    fn new(config: &GrpcConfig, tls: Option<Tls>) -> Self {
        let limit = |seconds: u64| (seconds > 0).then(|| Duration::from_secs(seconds));
        Self {
            builder: http2(config),
            tls,
            idle: limit(config.idle_timeout_s),
            age: limit(config.max_connection_age_s),
            grace: Duration::from_secs(config.max_connection_age_grace_s),
        }
    }
}

/// Resolves after a time, or never.
async fn after(time: Option<Duration>) {
    match time {
        Some(time) => sleep(time).await,
        None => std::future::pending().await,
    }
}

/// An age, a tenth more or less. Fresh hashers have random keys, which is random enough here.
fn jittered(age: Duration) -> Duration {
    let draw = u32::try_from(RandomState::new().hash_one(0u8) % 1001).unwrap_or_default();
    age.mul_f64(0.9 + 0.2 * f64::from(draw) / 1000.0)
}

/// Serves one connection until it ends, is told to go, or falls silent.
async fn connection(terms: Terms, stream: TcpStream, app: Router, draining: watch::Receiver<bool>, _slot: OwnedSemaphorePermit) {
    let activity = Activity::new();
    let stream = Watched::new(stream, activity.clone());
    let serving = async {
        match &terms.tls {
            None => serve(&terms, stream, app, draining).await,
            Some(tls) => match tls.accept(stream).await {
                Ok(stream) => serve(&terms, stream, app, draining).await,
                Err(error) => debug!(%error, "handshake failed"),
            },
        }
    };
    let silence = async {
        match terms.idle {
            Some(limit) => activity.ceased(limit).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = serving => {}
        () = silence => debug!("connection dropped: no byte came or went for the idle time"),
    }
}

async fn serve<S>(terms: &Terms, stream: S, app: Router, mut draining: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let serving = terms.builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(app));
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = turned_true(&mut draining) => {
            // GOAWAY: the client opens no further streams here, and the connection ends with its last call.
            serving.as_mut().graceful_shutdown();
            serving.await
        }
        () = after(terms.age.map(jittered)) => {
            serving.as_mut().graceful_shutdown();
            match timeout(terms.grace, serving).await {
                Ok(ended) => ended,
                Err(_elapsed) => return debug!("connection dropped: its calls outlived its age and grace"),
            }
        }
    };
    if let Err(error) = ended {
        debug!(%error, "connection ended early");
    }
}
