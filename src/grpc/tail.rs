//! Tensors behind messages: the last fields of an answer go to the connection as they lie in memory.
//!
//! # Design
//! The encoder of a message can only copy into its own buffer, which for a map of 5 MB means fresh pages and one pass more than needed. So
//! a handler leaves its largest fields out of the message and hangs them to it as a [`Tail`]; the outermost layer ([`append`]) corrects the
//! message's length and sends the fields' keys, lengths and the tensors' own buffers after the rest. A reader cannot tell the difference:
//! fields of a protobuf message may come in any order, and these have the highest numbers anyhow. Parts of one value need not even be
//! put together. An encoder of our own was rejected, because it too is given a buffer to copy into.
//!
//! A field inside an inner message is sent together with the whole inner message ([`Tail::within`]), whose length counts it. That readers
//! merge two halves of an inner message is in protobuf's specification, but not in all of its implementations.
//!
//! Messages of a stream take their tails from a queue, in their order. The encoder collects messages until they fill its buffer, which
//! without the tensors takes hundreds; [`behind_each`] lets it send each one that has a tail before the next is made, so that no more of an
//! answer exists at once than its reader takes.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use axum::{
    body::{Body, HttpBody},
    response::Response,
};
use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::Stream;
use hyper::body::Frame;
use prost::Message;
use tonic::Status;

/// Before each message: one byte for compression, four for the length, big-endian (gRPC over HTTP/2, "Length-Prefixed-Message").
pub(super) const PREFIX_BYTES: usize = 5;
/// Wire type of strings, bytes and messages (protobuf encoding, "Message structure").
const LENGTH_DELIMITED: u32 = 2;
/// Longest varint of 64 bits.
const VARINT_BYTES: usize = 10;

/// A boxed stream of answers.
pub type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Last fields of a message, to be sent after the rest of it.
#[derive(Debug, Default)]
pub struct Tail {
    chunks: VecDeque<Bytes>,
    n_bytes: usize,
}

/// A message, and what follows it.
#[derive(Debug)]
pub struct Tailed<T> {
    message: T,
    tail: Option<Tail>,
}

/// Tails of the messages of one response, in their order.
#[derive(Clone, Debug, Default)]
struct Tails(Arc<Mutex<VecDeque<Option<Tail>>>>);

impl Tail {
    /// Adds a `bytes` field, whose value is given in parts.
    pub fn push(&mut self, field: u32, parts: impl IntoIterator<Item = Bytes>) {
        let parts: Vec<Bytes> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        let n_bytes = parts.iter().map(Bytes::len).sum::<usize>();
        let mut head = BytesMut::with_capacity(2 * VARINT_BYTES);
        put_head(&mut head, field, n_bytes);
        self.n_bytes += head.len() + n_bytes;
        self.chunks.push_back(head.freeze());
        self.chunks.extend(parts);
    }

    /// Adds the fields of another.
    pub fn join(&mut self, other: Self) {
        self.n_bytes += other.n_bytes;
        self.chunks.extend(other.chunks);
    }

    /// Makes them the last fields of `message`, which is the value of `field`.
    #[must_use]
    pub fn within(mut self, field: u32, message: &impl Message) -> Self {
        let encoded = message.encode_to_vec();
        let mut head = BytesMut::with_capacity(2 * VARINT_BYTES + encoded.len());
        put_head(&mut head, field, encoded.len() + self.n_bytes);
        head.put_slice(&encoded);
        self.n_bytes += head.len();
        self.chunks.push_front(head.freeze());
        self
    }

    /// Hangs them to a message.
    pub fn after<T>(self, message: T) -> Tailed<T> {
        Tailed { message, tail: Some(self) }
    }
}

impl<T> From<T> for Tailed<T> {
    fn from(message: T) -> Self {
        Self { message, tail: None }
    }
}

impl<T> Tailed<T> {
    /// Puts the message into another, as the value of a field there: `outer` makes that message, with the value or without it.
    pub fn inside<U>(self, field: u32, outer: impl FnOnce(Option<T>) -> U) -> Tailed<U>
    where
        T: Message,
    {
        match self.tail {
            None => outer(Some(self.message)).into(),
            Some(tail) => tail.within(field, &self.message).after(outer(None)),
        }
    }

    /// Makes a field of it that can go behind another message.
    pub fn at(self, field: u32) -> Tail
    where
        T: Message,
    {
        self.tail.unwrap_or_default().within(field, &self.message)
    }

    /// The answer of a call.
    pub fn respond(self) -> tonic::Response<T> {
        let tails = Tails::default();
        tails.push(self.tail);
        response(self.message, tails)
    }
}

impl Tails {
    fn push(&self, tail: Option<Tail>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(tail);
    }

    fn next(&self) -> Option<Tail> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front().flatten()
    }
}

fn response<T>(message: T, tails: Tails) -> tonic::Response<T> {
    let mut response = tonic::Response::new(message);
    response.extensions_mut().insert(tails);
    response
}

/// The answer of a call whose messages have tails.
pub fn behind_each<T: 'static>(
    messages: impl Stream<Item = Result<Tailed<T>, Status>> + Send + 'static,
) -> tonic::Response<Answers<T>> {
    let tails = Tails::default();
    let messages = OneByOne { messages: Box::pin(messages), tails: tails.clone(), has_sent: false };
    response(Box::pin(messages), tails)
}

/// Sends what handlers have hung to the messages of a response, if anything.
pub fn append(mut response: Response) -> Response {
    match response.extensions_mut().remove::<Tails>() {
        None => response,
        Some(tails) => response.map(|inner| Body::new(WithTails { inner, tails, left: 0, tail: None, ready: VecDeque::new() })),
    }
}

/// Messages on their way to the encoder, which has to send what it has between one with a tail and the next.
struct OneByOne<S> {
    messages: Pin<Box<S>>,
    tails: Tails,
    /// Whether the last one had a tail.
    has_sent: bool,
}

impl<T, S: Stream<Item = Result<Tailed<T>, Status>>> Stream for OneByOne<S> {
    type Item = Result<T, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if std::mem::take(&mut this.has_sent) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(ready!(this.messages.as_mut().poll_next(cx)).map(|next| {
            next.map(|Tailed { message, tail }| {
                this.has_sent = tail.is_some();
                this.tails.push(tail);
                message
            })
        }))
    }
}

/// A body of messages, with more of each behind it.
struct WithTails {
    inner: Body,
    tails: Tails,
    /// Bytes of the message of now that the inner body has still to give.
    left: usize,
    /// What follows them.
    tail: Option<Tail>,
    ready: VecDeque<Bytes>,
}

impl WithTails {
    /// Takes in a frame of the inner body, which may hold several messages, or a part of one. Every prefix is whole: the encoder gives no
    /// less than a message at once.
    fn take(&mut self, mut data: Bytes) -> io::Result<()> {
        loop {
            let passed = data.split_to(self.left.min(data.len()));
            self.left -= passed.len();
            self.ready.extend(Some(passed).filter(|passed| !passed.is_empty()));
            if self.left > 0 {
                return Ok(());
            }
            self.ready.extend(self.tail.take().into_iter().flat_map(|tail| tail.chunks));
            if data.is_empty() {
                return Ok(());
            }
            self.begin(&mut data)?;
        }
    }

    /// Reads the prefix of a message; where something follows it, its length is corrected.
    fn begin(&mut self, data: &mut Bytes) -> io::Result<()> {
        let broken = || io::Error::other("a message of an answer begins with no whole prefix, or is too long");
        let [compressed, length @ ..] = *data.first_chunk::<PREFIX_BYTES>().ok_or_else(broken)?;
        let n_bytes = u32::from_be_bytes(length) as usize;
        self.tail = self.tails.next();
        let Some(tail) = &self.tail else {
            self.left = PREFIX_BYTES + n_bytes;
            return Ok(());
        };
        let corrected = n_bytes.checked_add(tail.n_bytes).and_then(|sum| u32::try_from(sum).ok()).ok_or_else(broken)?;
        let own = n_bytes.min(data.len() - PREFIX_BYTES);
        self.left = n_bytes - own;
        let mut frame = BytesMut::with_capacity(PREFIX_BYTES + own);
        frame.put_u8(compressed);
        frame.put_u32(corrected);
        frame.put_slice(&data.split_to(PREFIX_BYTES + own)[PREFIX_BYTES..]);
        self.ready.push_back(frame.freeze());
        Ok(())
    }
}

impl HttpBody for WithTails {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        loop {
            if let Some(chunk) = this.ready.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(chunk))));
            }
            let frame = match ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                ended => return Poll::Ready(ended),
            };
            match frame.into_data() {
                Ok(data) => {
                    if let Err(error) = this.take(data) {
                        return Poll::Ready(Some(Err(axum::Error::new(error))));
                    }
                }
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
    }
}

/// Key and length of a field.
fn put_head(buffer: &mut BytesMut, field: u32, n_bytes: usize) {
    put_varint(buffer, u64::from(field << 3 | LENGTH_DELIMITED));
    put_varint(buffer, n_bytes as u64);
}

/// Seven bits a byte, lowest first (protobuf encoding, "Base 128 Varints").
fn put_varint(buffer: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        buffer.put_u8((value & 0x7F) as u8 | 0x80);
        value >>= 7;
    }
    #[expect(clippy::cast_possible_truncation, reason = "below 128")]
    buffer.put_u8(value as u8);
}

#[cfg(test)]
mod tests;
