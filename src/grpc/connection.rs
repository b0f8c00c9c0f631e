//! One connection: its protocols and windows, TLS, its age and its silence.
//!
//! # Design
//! A connection ends by itself in three ways. At its age it is told to go (GOAWAY), so that clients behind a balancer spread over new
//! servers; ages differ by a tenth, lest all come back at once. Without a byte in either direction for the idle time it is dropped. And
//! hyper ends one whose peer breaks a bound (GOAWAY, ENHANCE_YOUR_CALM): streams that are reset before they are served (CVE-2023-44487), streams
//! that must be reset for their errors, header blocks that never end (CVE-2024-27316), empty frames. Pings and settings must be answered before
//! more is read, so a flood of them is slowed by its own answers: it costs time of this connection's task, and no memory.

use std::{
    hash::{BuildHasher as _, RandomState},
    time::Duration,
};

use axum::Router;
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, watch},
    time::{sleep, timeout},
};
use tower::ServiceExt as _;
use tracing::debug;

use crate::{
    grpc::{
        GrpcConfig,
        arriving::OfConnection,
        calls::CallExecutor,
        tls::Tls,
        watched::{Activity, Watched},
    },
    telemetry::record,
};

/// How long the headers of an HTTP/1.1 request may take, and how long such a connection may idle.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// Streams that a peer may have reset before they were accepted. h2's default, stated because it is the bound on rapid resets.
const MAX_PENDING_RESETS: usize = 20;
/// Streams that may be reset for errors of a peer in the life of a connection. A client that makes no errors causes none; h2's default is 1024.
const MAX_ERROR_RESETS: usize = 128;

/// Resolves once the drain has begun; a dropped sender counts as begun.
pub(super) async fn turned_true(draining: &mut watch::Receiver<bool>) {
    let _sender_gone = draining.wait_for(|draining| *draining).await;
}

/// HTTP/2, and HTTP/1.1 where browsers are answered: without TLS they speak nothing else.
fn protocols(config: &GrpcConfig) -> auto::Builder<CallExecutor> {
    let limit = (config.send_timeout_s > 0).then(|| Duration::from_secs(config.send_timeout_s));
    let builder = auto::Builder::new(CallExecutor { limit });
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
        .max_header_list_size(config.max_header_bytes)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(MAX_ERROR_RESETS)
        .keep_alive_interval((config.keepalive_s > 0).then(|| Duration::from_secs(config.keepalive_s)))
        .keep_alive_timeout(Duration::from_secs(config.keepalive_timeout_s));
    builder
}

/// What every connection is served under.
#[derive(Clone)]
pub(super) struct Terms {
    builder: auto::Builder<CallExecutor>,
    tls: Option<Tls>,
    /// Longest silence.
    idle: Option<Duration>,
    age: Option<Duration>,
    grace: Duration,
}

impl Terms {
    pub(super) fn new(config: &GrpcConfig, tls: Option<Tls>) -> Self {
        let limit = |seconds: u64| (seconds > 0).then(|| Duration::from_secs(seconds));
        Self {
            builder: protocols(config),
            tls,
            idle: limit(config.idle_timeout_s),
            age: limit(config.max_connection_age_s),
            grace: Duration::from_secs(config.max_connection_age_grace_s),
        }
    }
}

/// Resolves when what a limit starts does, or never without one.
async fn within<F: Future<Output = ()>>(limit: Option<Duration>, start: impl FnOnce(Duration) -> F) {
    match limit {
        Some(limit) => start(limit).await,
        None => std::future::pending().await,
    }
}

/// An age, a tenth more or less. Fresh hashers have random keys, which is random enough here.
fn jittered(age: Duration) -> Duration {
    let draw = u32::try_from(RandomState::new().hash_one(0u8) % 1001).unwrap_or_default();
    age.mul_f64(0.9 + 0.2 * f64::from(draw) / 1000.0)
}

/// Serves one connection until it ends, is told to go, or falls silent.
pub(super) async fn connection(
    terms: Terms,
    stream: TcpStream,
    app: Router,
    draining: watch::Receiver<bool>,
    _slot: OwnedSemaphorePermit,
) {
    let activity = Activity::new();
    let stream = Watched::new(stream, activity.clone());
    let mut open = record::connection_opened();
    let serving = async {
        match &terms.tls {
            None => serve(&terms, stream, app, draining).await,
            Some(tls) => match tls.accept(stream).await {
                Ok(stream) => serve(&terms, stream, app, draining).await,
                Err(error) => {
                    debug!(%error, "handshake failed");
                    "handshake"
                }
            },
        }
    };
    open.reason = tokio::select! {
        reason = serving => reason,
        () = within(terms.idle, |limit| activity.ceased(limit)) => {
            debug!("connection dropped: no byte came or went for the idle time");
            "idle"
        }
    };
}

/// Serves a connection, and says why it ended.
async fn serve<S>(terms: &Terms, stream: S, app: Router, mut draining: watch::Receiver<bool>) -> &'static str
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let arriving = OfConnection::default();
    let app = app.map_request(move |mut request: http::Request<Incoming>| {
        request.extensions_mut().insert(arriving.clone());
        request
    });
    let serving = terms.builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(app));
    tokio::pin!(serving);
    let (ended, reason) = tokio::select! {
        ended = serving.as_mut() => (ended, "peer"),
        () = turned_true(&mut draining) => {
            // GOAWAY: the client opens no further streams here, and the connection ends with its last call.
            serving.as_mut().graceful_shutdown();
            (serving.await, "drain")
        }
        () = within(terms.age.map(jittered), sleep) => {
            serving.as_mut().graceful_shutdown();
            match timeout(terms.grace, serving).await {
                Ok(ended) => (ended, "age"),
                Err(_elapsed) => {
                    debug!("connection dropped: its calls outlived its age and grace");
                    return "age";
                }
            }
        }
    };
    match ended {
        Ok(()) => reason,
        Err(error) => {
            debug!(%error, "connection ended early");
            "protocol"
        }
    }
}
