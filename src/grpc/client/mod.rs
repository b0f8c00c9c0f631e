//! The client side: what the command line uses to talk to a server, here or elsewhere.
//!
//! In: request messages. Out: whole feature tensors and segmentations, reassembled from bands and checked. Called by `commands`.

mod access;
mod assemble;
mod connection;
mod generic;
mod video;

pub use access::{Access, AccessError};
pub use assemble::{AssembleError, Features, Segmentation};
pub use connection::{Client, ClientError};
pub use generic::{Call, Ended, GenericError, Method, rfc3339};
pub use video::Video;
