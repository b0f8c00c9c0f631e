//! Windows and frames of both sides.

use clap::ValueEnum;
use densevit::grpc::GrpcConfig;
use tonic::transport::Endpoint;

const WIDE: Option<u32> = Some(8 << 20);

/// What is compared for answers: the client's windows and frames bound them.
pub const OF_ANSWERS: [Setting; 7] = [
    Setting { server: Server::Copied, client: Client::STOCK },
    Setting { server: Server::Stock, client: Client::STOCK },
    Setting { server: Server::Ours, client: Client::STOCK },
    Setting { server: Server::Ours, client: Client { window_bytes: WIDE, frame_bytes: None } },
    Setting { server: Server::Ours, client: Client { window_bytes: WIDE, frame_bytes: Some(64 << 10) } },
    Setting { server: Server::Ours, client: Client { window_bytes: WIDE, frame_bytes: Some(256 << 10) } },
    Setting { server: Server::Ours, client: Client { window_bytes: WIDE, frame_bytes: Some(1 << 20) } },
];

/// And for requests: the server's.
pub const OF_REQUESTS: [Setting; 5] = [
    Setting { server: Server::Stock, client: Client::STOCK },
    Setting { server: Server::Frames16K, client: Client::STOCK },
    Setting { server: Server::Frames64K, client: Client::STOCK },
    Setting { server: Server::Frames256K, client: Client::STOCK },
    Setting { server: Server::Frames1M, client: Client::STOCK },
];

/// Settings of both sides.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub server: Server,
    pub client: Client,
}

/// Settings of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Server {
    /// hyper's defaults, and messages encoded whole.
    Copied,
    /// hyper's defaults, and tensors sent as they lie in memory.
    Stock,
    /// The defaults of this server.
    Ours,
    /// These, and frames of so many bytes.
    #[value(name = "frames-16k")]
    Frames16K,
    #[value(name = "frames-64k")]
    Frames64K,
    #[value(name = "frames-256k")]
    Frames256K,
    #[value(name = "frames-1m")]
    Frames1M,
}

/// Settings of a client; `None` leaves tonic's default.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// Of a stream; that of the connection is four times as large.
    pub window_bytes: Option<u32>,
    pub frame_bytes: Option<u32>,
}

impl Server {
    /// As it is called on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Copied => "copied",
            Self::Stock => "stock",
            Self::Ours => "ours",
            Self::Frames16K => "frames-16k",
            Self::Frames64K => "frames-64k",
            Self::Frames256K => "frames-256k",
            Self::Frames1M => "frames-1m",
        }
    }

    /// As it is called in the table.
    pub fn title(self) -> &'static str {
        match self {
            Self::Copied => "hyper's defaults, encoder copies",
            Self::Stock => "hyper's defaults, no copy",
            Self::Ours => "ours",
            Self::Frames16K => "windows of 8 MiB, frames of 16 KiB",
            Self::Frames64K => "windows of 8 MiB, frames of 64 KiB",
            Self::Frames256K => "windows of 8 MiB, frames of 256 KiB",
            Self::Frames1M => "windows of 8 MiB, frames of 1024 KiB",
        }
    }

    pub fn is_copied(self) -> bool {
        self == Self::Copied
    }

    pub fn config(self) -> GrpcConfig {
        let ours = GrpcConfig { listen: ([127, 0, 0, 1], 0).into(), ..GrpcConfig::default() };
        match self {
            Self::Ours => ours,
            Self::Frames16K => GrpcConfig { max_frame_bytes: 16 << 10, ..ours },
            Self::Frames64K => GrpcConfig { max_frame_bytes: 64 << 10, ..ours },
            Self::Frames256K => GrpcConfig { max_frame_bytes: 256 << 10, ..ours },
            Self::Frames1M => GrpcConfig { max_frame_bytes: 1 << 20, ..ours },
            // hyper 1.12, src/proto/h2/server.rs.
            Self::Copied | Self::Stock => GrpcConfig {
                stream_window_bytes: 1 << 20,
                connection_window_bytes: 1 << 20,
                max_frame_bytes: 16 << 10,
                send_buffer_bytes: 400 << 10,
                ..ours
            },
        }
    }
}

impl Client {
    /// tonic's defaults: windows of 2 MiB and 5 MiB, frames of 16 KiB.
    pub const STOCK: Self = Self { window_bytes: None, frame_bytes: None };

    pub fn endpoint(self, address: &str) -> anyhow::Result<Endpoint> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
        Ok(endpoint
            .initial_stream_window_size(self.window_bytes)
            .initial_connection_window_size(self.window_bytes.map(|bytes| 4 * bytes))
            .max_frame_size(self.frame_bytes))
    }

    /// As it is called in the table.
    pub fn title(self) -> String {
        let windows = self.window_bytes.map(|bytes| format!("windows of {} MiB", bytes >> 20));
        let frames = self.frame_bytes.map(|bytes| format!("frames of {} KiB", bytes >> 10));
        let changed: Vec<String> = windows.into_iter().chain(frames).collect();
        if changed.is_empty() { "tonic's defaults".to_owned() } else { changed.join(", ") }
    }
}
