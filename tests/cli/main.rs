//! The program as a user meets it: `import`, `extract`, `segment`, `view`, `models` and `serve` as processes.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod calibrate;
mod client_commands;
mod collector;
mod finding;
mod full_disk;
mod import;
mod load;
mod rolling;
mod segment;
mod serve;
mod shards;
mod support;
mod traces;
