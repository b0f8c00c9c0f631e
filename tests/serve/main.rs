//! The service from outside: a real server on a free port, a real tonic client, tiny models imported from committed weights.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod abuse;
mod bidirectional;
mod cache;
mod chunked;
mod discover;
mod errors;
mod faults;
mod frames;
mod kserve;
mod lifecycle;
mod matching;
mod options;
mod overload;
mod propagate;
mod security;
mod segment;
mod slow_readers;
mod support;
mod unary;
mod watch;
mod web;
