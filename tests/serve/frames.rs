//! A peer that speaks HTTP/2 in frames of its own (RFC 9113), as no client library would.

use std::{io, net::SocketAddr, time::Duration};

use prost::Message;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::timeout,
};

/// Types of frames (section 6).
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const CONTINUATION: u8 = 9;
/// Flags.
pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
/// Error code of a peer that asks for too much (section 7).
pub const ENHANCE_YOUR_CALM: u32 = 11;
/// How long a server may take to say something.
const PATIENCE: Duration = Duration::from_secs(60);

/// A frame that came.
#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// Both halves of a connection, so that one can be used without the other.
pub struct Peer {
    pub reader: Reader,
    pub writer: Writer,
}

pub struct Reader(OwnedReadHalf);
pub struct Writer(OwnedWriteHalf);

/// A frame as it is sent (section 4.1).
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header that enters no table (RFC 7541, section 6.2.2), with a name and a value of any length.
pub fn header(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| {
        // An integer of seven bits and more (section 5.1).
        let mut length = Vec::new();
        match text.len() {
            short @ ..127 => length.push(u8::try_from(short).unwrap()),
            long => {
                length.push(127);
                let mut rest = long - 127;
                while rest >= 128 {
                    length.push(u8::try_from(rest % 128 + 128).unwrap());
                    rest /= 128;
                }
                length.push(u8::try_from(rest).unwrap());
            }
        }
        [length, text.as_bytes().to_vec()].concat()
    };
    [vec![0], text(name), text(value)].concat()
}

/// Headers of a call of `Extract`.
pub fn call() -> Vec<u8> {
    [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/densevit.v1.DenseVision/Extract"),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ]
    .into_iter()
    .flat_map(|(name, value)| header(name, value))
    .collect()
}

/// A message as gRPC sends it.
pub fn grpc(message: &impl Message) -> Vec<u8> {
    let message = message.encode_to_vec();
    [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), &message].concat()
}

impl Peer {
    /// Connects, with the settings `(id, value)`.
    pub async fn connect(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let (reader, writer) = stream.into_split();
        let settings: Vec<u8> =
            settings.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
        let mut peer = Self { reader: Reader(reader), writer: Writer(writer) };
        peer.writer.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        peer.writer.send(&frame(SETTINGS, 0, 0, &settings)).await.unwrap();
        // The server's own come first; its limits hold once they are acknowledged.
        assert_eq!(peer.reader.next().await.unwrap().kind, SETTINGS);
        peer.writer.send(&frame(SETTINGS, ACK, 0, &[])).await.unwrap();
        peer
    }
}

impl Writer {
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes).await
    }
}

impl Reader {
    /// The next frame, or nothing when the connection has ended.
    pub async fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        timeout(PATIENCE, self.0.read_exact(&mut head)).await.expect("the server says something").ok()?;
        let [l0, l1, l2, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, l0, l1, l2]) as usize];
        self.0.read_exact(&mut payload).await.ok()?;
        Some(Frame { kind, flags, stream: u32::from_be_bytes(stream), payload })
    }

    /// Waits for a frame.
    pub async fn find(&mut self, is_wanted: impl Fn(&Frame) -> bool) -> Option<Frame> {
        while let Some(frame) = self.next().await {
            if is_wanted(&frame) {
                return Some(frame);
            }
        }
        None
    }

    /// Waits until the server says that it ends the connection, and why.
    pub async fn farewell(&mut self) -> u32 {
        let frame = self.find(|frame| frame.kind == GOAWAY).await.expect("the connection ends with a reason");
        u32::from_be_bytes(frame.payload[4..8].try_into().unwrap())
    }
}
