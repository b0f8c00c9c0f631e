//! Answers that were given before, and requests that ask for the same at the same time. In goes a [`Question`], out comes a value, or a
//! [`Seat`] among those who wait for it. Called by `engine`, which knows what questions and values are.
//!
//! # Design
//! **What makes a hit.** A question is a SHA-256 digest of 256 bits over everything that decides the answer, and beside it the options
//! themselves and the size of the image. Two questions are the same when all three are; the map compares them, not only their hashes. Each
//! field is written with a tag or a length ([`Fields`]), so that no two requests have one form. A wrong hit would need two images of one
//! size with one SHA-256 digest. A stored value carries the digest of its model and a checksum, which the engine compares before it answers.
//! (Triton's cache has a hash of 64 bits and compares nothing else.)
//!
//! **What is hashed.** The image as it came: encoded bytes cost less than pixels and cannot mean two things. Two files of one picture are two
//! questions. Options that were left out are not those that were spelled out, although the answer may be the same: a miss is never wrong.
//!
//! **What is kept.** The answer as it goes over the wire, in buffers of its own: a tensor that ONNX Runtime made may be a part of the output
//! of a whole batch, and holding it would hold more than is counted. That is one copy for each miss; a hit shares the buffers. Bytes are
//! counted exactly ([`Lru`]), and one answer takes at most a quarter of them.
//!
//! **Who runs.** The first of equal questions starts a run, a task of its own; the others wait for it ([`Seat`]). The task lives as long as
//! somebody waits: a caller that leaves, the first one included, leaves the rest their answer, and the last one ends the run. A run has the
//! tenant, the priority and the deadline of who began it, so only those may wait for it who lose nothing by that: callers of the same tenant
//! who are not more urgent ([`Terms`]). Rejected: a run that followers cannot inherit (a client that hangs up would cost the others their
//! time), and one for all tenants (a tenant that floods would have others wait for its turn).
//!
//! **What a caller can learn.** By its speed a hit tells that somebody has asked for this very image with these very options before. Where
//! tenants must not learn that of each other, `per_tenant` puts the tenant into the question.

mod key;
mod lru;
mod single_flight;

use serde::{Deserialize, Serialize};

pub use self::{
    key::{Fields, Question},
    lru::{Lru, Stored},
    single_flight::{Asked, Cache, Outcome, Seat, Terms},
};

/// Settings of the response cache.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CacheConfig {
    /// Memory of the answers that are kept, in bytes; an answer of more than a quarter is not. 0, the default: no cache, and equal requests
    /// do not share runs.
    pub max_bytes: usize,
    /// Whether tenants have answers of their own, so that none can tell by the time of an answer what others have asked. Default false.
    pub per_tenant: bool,
}
