//! Requests that have begun and not ended to arrive: how many bytes they may hold, and for how long.
//!
//! # Design
//! Limits on requests in flight can only count what has arrived, because only then its size and its kind are known. Before, a message of the
//! largest size may stand unfinished on every stream of every connection. So the bytes of unfinished messages are counted here, as they come,
//! over all connections and on each; what would be too much is refused, and so is a message that takes too long. Messages are told apart by
//! the prefixes of gRPC, since a call of many may rightly be silent between two of them.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    body::{Body, HttpBody},
    extract::Request,
};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use crate::{
    engine::InferError,
    grpc::{GrpcConfig, status::status},
};

/// Before each message: one byte for compression, four for the length, big-endian (gRPC over HTTP/2, "Length-Prefixed-Message").
const PREFIX_BYTES: usize = 5;
/// Part of all bytes that one connection may hold, if that is enough for one message.
const PARTS: usize = 4;
/// When it is worth trying again: unfinished requests end within seconds, as a rule.
const RETRY: Duration = Duration::from_secs(1);

/// Bytes of unfinished messages on one connection.
#[derive(Clone, Debug, Default)]
pub(super) struct OfConnection(Arc<AtomicUsize>);

/// What may arrive at the same time, and what does.
#[derive(Debug)]
pub(super) struct Arriving {
    n_bytes: AtomicUsize,
    max_bytes: usize,
    max_of_connection: usize,
    timeout: Option<Duration>,
}

impl Arriving {
    pub(super) fn new(config: &GrpcConfig) -> Arc<Self> {
        let max_bytes = config.max_arriving_bytes.max(config.max_message_bytes);
        let timeout = (config.receive_timeout_s > 0).then(|| Duration::from_secs(config.receive_timeout_s));
        let max_of_connection = (max_bytes / PARTS).max(config.max_message_bytes);
        Arc::new(Self { n_bytes: AtomicUsize::new(0), max_bytes, max_of_connection, timeout })
    }

    /// A request whose body is counted.
    pub(super) fn watch(self: &Arc<Self>, request: Request) -> Request {
        let of_connection = request.extensions().get::<OfConnection>().cloned().unwrap_or_default();
        let arriving = Arc::clone(self);
        request.map(|inner| {
            let body = Counted { inner, arriving, of_connection, message: Unfinished::default(), n_held: 0, deadline: None };
            Body::new(body)
        })
    }
}

/// The message that has begun and not ended.
#[derive(Debug, Default)]
struct Unfinished {
    prefix: [u8; PREFIX_BYTES],
    n_prefix: usize,
    n_left: usize,
    n_seen: usize,
}

impl Unfinished {
    /// Goes on with what came. Says how much of a message stands unfinished now.
    fn add(&mut self, mut data: &[u8]) -> usize {
        while !data.is_empty() {
            if self.n_prefix < PREFIX_BYTES {
                let (own, rest) = data.split_at((PREFIX_BYTES - self.n_prefix).min(data.len()));
                self.prefix.iter_mut().skip(self.n_prefix).zip(own).for_each(|(to, from)| *to = *from);
                self.n_prefix += own.len();
                self.n_seen += own.len();
                data = rest;
                let [_compressed, length @ ..] = self.prefix;
                self.n_left = u32::from_be_bytes(length) as usize;
                if self.n_prefix < PREFIX_BYTES {
                    break;
                }
            }
            let (own, rest) = data.split_at(self.n_left.min(data.len()));
            self.n_left -= own.len();
            self.n_seen += own.len();
            data = rest;
            if self.n_left == 0 {
                *self = Self::default();
            }
        }
        self.n_seen
    }
}

/// A body whose unfinished bytes are counted.
struct Counted {
    inner: Body,
    arriving: Arc<Arriving>,
    of_connection: OfConnection,
    message: Unfinished,
    n_held: usize,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Counted {
    /// Counts what came.
    fn add(&mut self, data: &[u8]) -> Result<(), InferError> {
        let n_held = self.message.add(data);
        let ends = n_held == 0;
        if ends {
            self.deadline = None;
        } else if self.n_held == 0 {
            self.deadline = self.arriving.timeout.map(|timeout| Box::pin(sleep(timeout)));
        }
        self.hold(n_held)
    }

    fn hold(&mut self, n_bytes: usize) -> Result<(), InferError> {
        let (more, less) = (n_bytes.saturating_sub(self.n_held), self.n_held.saturating_sub(n_bytes));
        self.n_held = n_bytes;
        let held = |counter: &AtomicUsize| {
            counter.fetch_sub(less, Ordering::Relaxed);
            counter.fetch_add(more, Ordering::Relaxed) + more
        };
        let (in_all, of_connection) = (held(&self.arriving.n_bytes), held(&self.of_connection.0));
        let refuse = |what: &str, max: usize| {
            let message = format!("unfinished requests{what} hold too many bytes: the limit is {max} (grpc.max_arriving_bytes)");
            Err(InferError::Overloaded { message, retry_after: RETRY })
        };
        if more > 0 && of_connection > self.arriving.max_of_connection {
            return refuse(" of this connection", self.arriving.max_of_connection);
        }
        if more > 0 && in_all > self.arriving.max_bytes {
            return refuse("", self.arriving.max_bytes);
        }
        Ok(())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let _fewer_is_never_refused = self.hold(0);
    }
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        if this.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready()) {
            this.deadline = None;
            let error = InferError::DeadlineExceeded { stage: "while the request arrived (grpc.receive_timeout_s)" };
            return Poll::Ready(Some(Err(axum::Error::new(status(&error)))));
        }
        let frame = match ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            ended => return Poll::Ready(ended),
        };
        if let Some(data) = frame.data_ref() {
            if let Err(error) = this.add(data) {
                return Poll::Ready(Some(Err(axum::Error::new(status(&error)))));
            }
            // The timer of a message that has just begun must wake this task.
            if let Some(deadline) = &mut this.deadline {
                let _not_yet = deadline.as_mut().poll(cx);
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use futures_util::{StreamExt as _, stream};
    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;

    /// A message with its prefix.
    fn message(n_bytes: usize) -> Vec<u8> {
        [&[0][..], &u32::try_from(n_bytes).unwrap().to_be_bytes(), &vec![7; n_bytes]].concat()
    }

    #[test]
    fn messages_are_told_apart_however_they_are_cut() {
        let two = [message(10), message(0), message(3)].concat();
        for cut in 1..two.len() {
            let mut unfinished = Unfinished::default();
            let (mut last, mut largest) = (0, 0);
            for part in two.chunks(cut) {
                last = unfinished.add(part);
                largest = largest.max(last);
            }
            assert!(last == 0 && largest < 15, "cut {cut}: {last} {largest}");
        }
        assert_eq!(Unfinished::default().add(&two[..two.len() - 1]), PREFIX_BYTES + 2);
    }

    fn body(arriving: &Arc<Arriving>, of_connection: &OfConnection, parts: Vec<Vec<u8>>) -> Body {
        // Does not end: its client has more to say.
        let frames = stream::iter(parts).map(|part| Ok::<_, axum::Error>(Frame::data(Bytes::from(part))));
        let mut request = Request::new(Body::new(StreamBody::new(frames.chain(stream::pending()))));
        request.extensions_mut().insert(of_connection.clone());
        arriving.watch(request).into_body()
    }

    #[tokio::test(start_paused = true)]
    async fn unfinished_bytes_are_bounded_in_all_and_on_each_connection_and_given_back() {
        let config = GrpcConfig { max_arriving_bytes: 400, max_message_bytes: 90, ..GrpcConfig::default() };
        let arriving = Arriving::new(&config);
        let half = || vec![message(90)[..60].to_vec()];
        let (first, second) = (OfConnection::default(), OfConnection::default());
        let mut held = body(&arriving, &first, half());
        held.frame().await.unwrap().unwrap();
        let refused = body(&arriving, &first, half()).frame().await.unwrap().unwrap_err();
        assert!(format!("{refused:?}").contains("of this connection"), "{refused:?}");
        let mut other = body(&arriving, &second, half());
        other.frame().await.unwrap().unwrap();
        assert_eq!(arriving.n_bytes.load(Ordering::Relaxed), 120);
        drop((held, other));
        assert_eq!((arriving.n_bytes.load(Ordering::Relaxed), first.0.load(Ordering::Relaxed)), (0, 0));
        let mut whole = body(&arriving, &first, vec![message(90)]);
        whole.frame().await.unwrap().unwrap();
        assert_eq!(arriving.n_bytes.load(Ordering::Relaxed), 0, "what has arrived is counted by others");
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_does_not_end_is_refused_and_silence_between_messages_is_not() {
        let arriving = Arriving::new(&GrpcConfig { receive_timeout_s: 5, ..GrpcConfig::default() });
        let mut stuck = body(&arriving, &OfConnection::default(), vec![message(90)[..60].to_vec()]);
        stuck.frame().await.unwrap().unwrap();
        let begun = tokio::time::Instant::now();
        let refused = stuck.frame().await.unwrap().unwrap_err();
        assert!(format!("{refused:?}").contains("receive_timeout_s"), "{refused:?}");
        assert_eq!(begun.elapsed().as_secs(), 5);
        let mut silent = body(&arriving, &OfConnection::default(), vec![message(90)]);
        silent.frame().await.unwrap().unwrap();
        assert!(tokio::time::timeout(Duration::from_secs(60), silent.frame()).await.is_err());
    }
}
