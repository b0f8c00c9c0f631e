//! The accept loop: HTTP/2 connections with bounded windows, streams and drain.
//!
//! # Design
//! tonic's own server waits for ever for connections to end, and turns a passed deadline into CANCELLED; both are decided here
//! instead: after the drain budget connections are dropped, and deadlines are the engine's. Everything else of tonic is used.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use serde::{Deserialize, Serialize};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use crate::grpc::WebConfig;

/// How long the headers of an HTTP/1.1 request may take, and how long such a connection may idle.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

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
            max_frame_bytes: 1 << 20,
            send_buffer_bytes: 1 << 20,
            keepalive_s: 30,
            keepalive_timeout_s: 10,
            web: WebConfig::default(),
        }
    }
}

/// A bound port.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    config: GrpcConfig,
}

impl Listener {
    /// Binds the configured address.
    ///
    /// # Errors
    /// When the address is taken or not ours.
    pub async fn bind(config: GrpcConfig) -> io::Result<Self> {
        let listener = TcpListener::bind(config.listen).await?;
        Ok(Self { listener, config })
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
        let builder = connections(&self.config);
        let mut open = JoinSet::new();
        loop {
            tokio::select! {
                () = turned_true(&mut draining) => break,
                Some(_ended) = open.join_next(), if !open.is_empty() => {}
                accepted = self.accept(&slots) => {
                    if let Some((stream, slot)) = accepted {
                        open.spawn(connection(builder.clone(), stream, app.clone(), draining.clone(), slot));
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

/// Resolves once the drain has begun; a dropped sender counts as begun.
async fn turned_true(draining: &mut watch::Receiver<bool>) {
    let _sender_gone = draining.wait_for(|draining| *draining).await;
}

/// HTTP/2, and HTTP/1.1 where browsers are answered: without TLS they speak nothing else.
fn connections(config: &GrpcConfig) -> auto::Builder<TokioExecutor> {
    let builder = auto::Builder::new(TokioExecutor::new());
    let mut builder = if config.web.enabled { builder } else { builder.http2_only() };
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(config.stream_window_bytes)
        .initial_connection_window_size(config.connection_window_bytes)
        .max_frame_size(config.max_frame_bytes)
        .max_send_buf_size(config.send_buffer_bytes)
        .max_concurrent_streams(config.max_streams_per_connection)
        .keep_alive_interval((config.keepalive_s > 0).then(|| Duration::from_secs(config.keepalive_s)))
        .keep_alive_timeout(Duration::from_secs(config.keepalive_timeout_s));
    builder
}

async fn connection(
    builder: auto::Builder<TokioExecutor>,
    stream: TcpStream,
    app: Router,
    mut draining: watch::Receiver<bool>,
    _slot: OwnedSemaphorePermit,
) {
    let service = TowerToHyperService::new(app);
    let serving = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = turned_true(&mut draining) => {
            // GOAWAY: the client opens no further streams here, and the connection ends with its last call.
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "connection ended early");
    }
}
