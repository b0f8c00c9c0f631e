//! A connection that knows when its last byte came or went, and that does not end before its peer has read everything.
//!
//! # Design
//! HTTP/2 pings find a peer that has vanished, but only once both sides speak HTTP/2: a peer that connects and says nothing, or half of a
//! greeting, would hold its place for ever. Bytes are the one sign of life that all stages share; a live peer answers pings.
//!
//! Closing a socket in which bytes of the peer lie unread (there are always some: it acknowledges what it receives) resets the connection, and the
//! system throws away what it had not sent yet. So after the last byte this side is closed for writing only, and what still comes is
//! read and dropped, until the peer closes too, has been waited for long enough, or sends more than acknowledgements take: a flood is reset.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

/// How long a peer may take to read the rest and close its side.
const LINGER: Duration = Duration::from_secs(2);

/// Bytes of the peer that are read meanwhile: window updates for gigabytes.
const LINGER_BYTES: usize = 1 << 20;

/// When the last byte came or went.
#[derive(Clone, Debug)]
pub(super) struct Activity {
    began: Instant,
    /// Milliseconds after `began`.
    last: Arc<AtomicU64>,
}

impl Activity {
    /// Of a connection that begins now.
    pub(super) fn new() -> Self {
        Self { began: Instant::now(), last: Arc::new(AtomicU64::new(0)) }
    }

    fn seen(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    /// Resolves when nothing has come or gone for so long.
    pub(super) async fn ceased(&self, limit: Duration) {
        loop {
            let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
            let idle = self.began.elapsed().saturating_sub(last);
            match limit.checked_sub(idle) {
                None | Some(Duration::ZERO) => return,
                Some(left) => sleep(left).await,
            }
        }
    }
}

/// A stream of bytes that is watched.
#[derive(Debug)]
pub(super) struct Watched<S> {
    inner: S,
    activity: Activity,
    /// Runs since this side was closed.
    linger: Option<Pin<Box<Sleep>>>,
    /// Bytes that came since.
    n_dropped: usize,
}

impl<S> Watched<S> {
    /// Notes in `activity` what happens on `inner`.
    pub(super) fn new(inner: S, activity: Activity) -> Self {
        Self { inner, activity, linger: None, n_dropped: 0 }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.activity.seen();
        }
        polled
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.note(polled)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.note(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
            ready!(Pin::new(&mut self.inner).poll_shutdown(cx))?;
        }
        let mut dropped = [0; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut dropped);
            match Pin::new(&mut self.inner).poll_read(cx, &mut buffer) {
                // A peer that is gone has read all that it will.
                Poll::Ready(Err(_)) => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(())) => self.n_dropped += buffer.filled().len(),
                Poll::Pending => break,
            }
            if self.n_dropped > LINGER_BYTES {
                return Poll::Ready(Ok(()));
            }
        }
        self.linger.get_or_insert_with(|| Box::pin(sleep(LINGER))).as_mut().poll(cx).map(Ok)
    }
}

impl<S> Watched<S> {
    fn note(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if matches!(polled, Poll::Ready(Ok(n)) if n > 0) {
            self.activity.seen();
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, duplex},
        net::{TcpListener, TcpStream},
        time::timeout,
    };

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_byte_either_way_is_a_sign_of_life_and_silence_ends_it() {
        let (mut peer, own) = duplex(64);
        let activity = Activity::new();
        let mut own = Watched::new(own, activity.clone());
        let limit = Duration::from_secs(10);
        for _ in 0..3 {
            assert!(timeout(Duration::from_secs(7), activity.ceased(limit)).await.is_err());
            peer.write_all(b"x").await.unwrap();
            own.read_exact(&mut [0]).await.unwrap();
            assert!(timeout(Duration::from_secs(7), activity.ceased(limit)).await.is_err());
            own.write_all(b"y").await.unwrap();
        }
        let before = Instant::now();
        activity.ceased(limit).await;
        assert_eq!(before.elapsed(), limit);
    }

    #[tokio::test]
    async fn a_peer_that_reads_late_gets_everything_although_its_own_bytes_were_not_read() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (own, _address) = listener.accept().await.unwrap();
        let closing = tokio::spawn(async move {
            let mut own = Watched::new(own, Activity::new());
            // More than the buffers between the two hold.
            own.write_all(&vec![7; 16 << 20]).await.unwrap();
            own.shutdown().await.unwrap();
        });
        peer.write_all(&[1; 1000]).await.unwrap();
        let mut received = Vec::new();
        let mut part = vec![0; 1 << 20];
        loop {
            let n_bytes = peer.read(&mut part).await.unwrap();
            if n_bytes == 0 {
                break;
            }
            received.extend_from_slice(&part[..n_bytes]);
            // As a client does that grants its sender room.
            let _closed = peer.write_all(&[1; 13]).await;
            sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(received.len(), 16 << 20);
        drop(peer);
        closing.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_goes_on_sending_is_not_listened_to() {
        let (mut peer, own) = duplex(LINGER_BYTES);
        let mut own = Watched::new(own, Activity::new());
        let before = Instant::now();
        let flood = async { while peer.write_all(&[1; 4096]).await.is_ok() {} };
        let close = async move { own.shutdown().await };
        let (closed, ()) = tokio::join!(close, flood);
        closed.unwrap();
        assert!(before.elapsed() < LINGER);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_never_closes_is_not_waited_for_for_ever() {
        let (mut peer, own) = duplex(64);
        let mut own = Watched::new(own, Activity::new());
        let before = Instant::now();
        own.shutdown().await.unwrap();
        assert_eq!(before.elapsed(), LINGER);
        assert_eq!(peer.read(&mut [0]).await.unwrap(), 0, "it was told at once");
    }
}
