//! Names that mean something in the headers and paths of calls, whoever reads them.

/// Metadata that says who sends a request. Documented, as the next, at the head of `dense_vision.proto`.
pub(super) const TENANT: &str = "densevit-tenant";
/// Metadata that says how urgent a request is among the sender's own.
pub(super) const PRIORITY: &str = "densevit-priority";
/// Paths of probes: they need no token and are not traced.
pub(super) const HEALTH: &str = "/grpc.health.v1.Health/";
